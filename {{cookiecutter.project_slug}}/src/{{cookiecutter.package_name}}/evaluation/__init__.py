"""Stage 2b: the seven quality methods, their report and the gate."""
