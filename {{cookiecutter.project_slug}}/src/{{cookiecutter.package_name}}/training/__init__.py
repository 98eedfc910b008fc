"""Stage 3: fitting the candidates."""
