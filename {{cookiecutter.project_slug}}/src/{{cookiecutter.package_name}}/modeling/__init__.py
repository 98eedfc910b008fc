"""Stage 2a: networks, losses, metrics and baselines."""
