"""A network of ResNet-18's size on made-up 32x32 images, on a GPU: `make bench-gpu`. Exit code 2
where there is none.

Both sides train in bf16-mixed, compiled, channels-last, on batches that are gathered on the CPU
into pinned memory. Ours does all that it does in `make pipeline` beside it. The share of the peak
is of the card's published dense bf16 rate or, where we do not know the card, of what a large matrix
product reaches.
"""

import os
import tempfile
import time
from argparse import SUPPRESS, Namespace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import medians, module, parser, report
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from train import EPOCHS, Work, into, ours, tensors

ROUNDS, BATCH, LABELS = 3, 512, 10
# Dense bf16 operations per second, from the makers' data sheets; the first name that the card's
# name holds counts.
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
} | {
    "A10G": 70e12,
    "A10": 125e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


class Block(nn.Module):
    """He et al. 2015, arXiv:1512.03385, figure 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.norm = (
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.second, self.norm2 = (
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        shortcut = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*(shortcut if stride > 1 or inputs != outputs else []))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.second(F.relu(self.norm(self.first(x))))) + self.shortcut(x))


class ResNet18(nn.Module):
    """With a first layer for small images: 11.2 million weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        widths = [64, 64, 128, 256, 512]
        pairs = [(a, b, 1 + (a != b)) for a, b in pairwise(widths)]
        self.blocks = nn.Sequential(*(x for a, b, s in pairs for x in (Block(a, b, s), Block(b, b, 1))))
        self.head = nn.Linear(512, LABELS)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        image = (image.float() / 255).contiguous(memory_format=torch.channels_last)
        embedding = self.blocks(self.stem(image)).mean((2, 3))
        return self.head(embedding), embedding


def build(settings: Any) -> Any:
    network = ResNet18().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.compile(disable=settings.trainer.accelerator != "gpu")
    return module("modeling.module").Module(settings, network)


def work_of(settings: Any, given: Namespace) -> Work:
    rng = np.random.default_rng(settings.seed)

    def random(n: int) -> Any:
        inputs = {"image": rng.integers(0, 256, (n, 3, 32, 32), np.uint8)}
        return module("data.datamodule").Examples(inputs, rng.integers(0, LABELS, n), None)

    trainer = {"accelerator": given.device, "precision": "bf16-mixed", "deterministic": False}
    changes = {
        "data": settings.data.model_copy(update={"kind": "multiclass", "labels": [str(i) for i in range(LABELS)]}),
        "training": settings.training.model_copy(update={"batch_size": min(BATCH, given.rows // 4)}),
        "trainer": settings.trainer.model_copy(update=trainer),
        "loss": {"_target_": "torch.nn.CrossEntropyLoss"},
        "augmentation": None,
    }
    return Work(settings.model_copy(update=changes), build, random(given.rows), random(given.rows // 8))


def by_hand(work: Work, device: torch.device) -> float:
    """Seconds per epoch, of training alone."""
    network = work.build(work.settings).network.to(device)
    optimizer = instantiate(work.settings.optimizer)(params=network.parameters())
    images, label, times = (
        tensors(work.train.inputs)["image"],
        torch.from_numpy(work.train.label),
        [],
    )

    def moved(x: Tensor) -> Tensor:
        return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x

    for _ in range(EPOCHS):
        settle(device)
        times.append(time.perf_counter())
        for rows in torch.split(torch.randperm(len(label)), work.settings.training.batch_size):
            image, truth = moved(images[rows]), moved(label[rows])
            with torch.autocast(device.type, torch.bfloat16):
                loss = F.cross_entropy(network(image)[0], truth)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    settle(device)
    return (time.perf_counter() - times[1]) / (EPOCHS - 1)


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def operations() -> float:
    """Multiplications and additions that one image costs in training."""
    network, images = ResNet18(), torch.zeros(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        network(images)[0].sum().backward()
    return float(counter.get_total_flops()) / len(images)


def peak(device: torch.device, name: str) -> float:
    """Operations per second: published, else of a matrix product."""
    for known, rate in PEAKS.items():
        if known in name:
            return rate
    n, repeats = (8192, 20) if device.type == "cuda" else (512, 3)
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    for turn in range(2):
        settle(device)
        begin = time.perf_counter()
        for _ in range(repeats if turn else 1):
            a @ a
        settle(device)
    return 2 * n**3 * repeats / (time.perf_counter() - begin)


def measure(settings: Any, given: Namespace) -> dict[str, float]:
    if given.device == "gpu" and not torch.cuda.is_available():
        raise ValueError("no GPU that PyTorch can use was found: nothing was measured")
    device = torch.device("cuda" if given.device == "gpu" else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    tracking, rounds = module("tracking"), []
    with tempfile.TemporaryDirectory() as folder:
        work = into(Path(folder), work_of(settings, given))
        with tracking.start(work.settings, "bench") as run:
            for _ in range(ROUNDS):
                hand, whole = by_hand(work, device), ours(work, run, "gpu")[0]
                rounds.append(
                    {
                        "by hand": given.rows / hand,
                        "trainer=gpu": given.rows / whole,
                        "share": hand / whole,
                    }
                )
    found, share = medians(rounds), operations() / peak(device, name)
    print(f"{name}, batches of {work.settings.training.batch_size}, bf16-mixed, compiled, channels-last")
    return {
        "by hand, images per second": found["by hand"],
        "by hand, share of the peak": found["by hand"] * share,
        "trainer=gpu, images per second": found["trainer=gpu"],
        "trainer=gpu, share of the peak": found["trainer=gpu"] * share,
        "trainer=gpu, speed to by hand": found["share"],
    }


if __name__ == "__main__":
    made = parser(__doc__)
    made.add_argument("--device", choices=["gpu", "cpu"], default="gpu", help=SUPPRESS)  # cpu: whether this runs
    made.add_argument("--rows", type=int, default=51_200, help="images of an epoch")
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")  # compiled once, not in every round
    report("gpu", measure, made)
