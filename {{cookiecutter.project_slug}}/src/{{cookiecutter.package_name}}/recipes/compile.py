"""torch.compile: the network as fused machine code, for the time of compiling it."""

import os

import torch

from ..modeling.module import Module
from ..settings import Settings
from ..training.fit import build_module
from .variants import Workshop


def recipe(shop: Workshop) -> None:
    """Compiling is counted apart; it is done again in every process, unless PyTorch's cache has the
    same network.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(
        shop.folder / "cache"
    )  # an empty one: the cost of the first time
    torch._dynamo.reset()
    check_compiler("cuda" if shop.settings.trainer.accelerator == "gpu" else "cpu")
    _, plain = shop.train("plain", shop.settings)
    _, compiled = shop.train("compiled", shop.settings, compiled_module)
    once, gain = compiled.seconds[0] - compiled.epoch, plain.epoch - compiled.epoch
    pays = f"pays after {once / gain:.0f} epochs" if gain > 0 else "never pays at this size"
    shop.notes.append(
        f"compiling took {once:.1f} s and saves {gain:.3f} s of an epoch's {plain.epoch:.3f} s: {pays}"
    )


def check_compiler(device: str) -> None:
    """Compiles one addition, which also loads the compiler itself. Raises ValueError where there is
    none.
    """
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2, device=device))
    except RuntimeError as error:  # PyTorch's own types, which it moves between versions
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"torch.compile needs a C++ compiler: install g++, or name one in CXX ({reason})"
        ) from None


def compiled_module(settings: Settings) -> Module:
    """The configured module, whose network is compiled in place: its weights keep their names."""
    module = build_module(settings)
    module.network.compile()
    return module
