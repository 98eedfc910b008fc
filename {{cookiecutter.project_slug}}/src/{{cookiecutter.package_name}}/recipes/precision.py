"""Mixed precision: matrix products in 16 bits, weights and sums in 32 (Micikevicius et al. 2018,
arXiv:1710.03740).
"""

import torch

from .variants import Workshop, changed


def recipe(shop: Workshop) -> None:
    """Pays on processors with 16-bit units; fp16, which scales the loss, needs a GPU."""
    on_gpu = shop.settings.trainer.accelerator != "cpu" and torch.cuda.is_available()
    for precision in ("32-true", "bf16-mixed", *(["16-mixed"] if on_gpu else [])):
        shop.train(precision, changed(shop.settings, "trainer", precision=precision))
