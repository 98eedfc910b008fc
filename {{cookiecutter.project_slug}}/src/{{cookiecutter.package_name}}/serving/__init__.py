"""Stage 6: the packaged model behind HTTP, without the training stack."""
