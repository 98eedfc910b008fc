"""Stage 5: one self-describing artefact, and the registry that approves it."""
