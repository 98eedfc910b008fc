"""Stage 1: from a source to validated, versioned splits."""
