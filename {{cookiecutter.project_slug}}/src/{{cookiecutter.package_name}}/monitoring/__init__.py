"""Stage 7: drift, alarms and the routine that retrains."""
