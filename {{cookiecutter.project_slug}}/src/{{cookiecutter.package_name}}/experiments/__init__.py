"""Stage 4: the record of every run."""
