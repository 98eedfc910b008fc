"""torch.compile: the network as fused machine code, for the time of compiling it."""

import os

import torch

from ..modeling.module import Module
from ..settings import Settings
from ..training.fit import build_module
from .recipe import Variants


def recipe(variants: Variants) -> None:
    """The time to compile is part of the training; another process compiles again, unless PyTorch's
    cache has the same network.
    """
    # An empty cache, for the cost of the first time.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(variants.folder / "cache")
    check_compiler("cuda" if variants.settings.trainer.accelerator == "gpu" else "cpu")
    variants.train("plain", variants.settings)
    variants.train("compiled", variants.settings, compiled_module)


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
