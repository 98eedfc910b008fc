"""What it takes to start: `make bench-start`, after `make pipeline`.

Time from `train` to its first optimizer step beside the time that `import torch, lightning` takes;
CPU time of each verb's `--help` beside that of `import hydra`; time of an up-to-date `make
pipeline` beside that of DVC's own no-op.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from typing import Any

from common import PACKAGE, ROOT, medians, module, parser, report

ROUNDS = 5
# Ends at the first step of any optimizer. Importing torch first changes nothing, since training
# imports it as well.
FIRST_STEP = f"""
import os, sys
from torch.optim.optimizer import register_optimizer_step_pre_hook
register_optimizer_step_pre_hook(lambda *_: os._exit(0))
import {PACKAGE}.__main__ as program
program.main(sys.argv[1:])
os._exit(1)  # no step came
"""


def seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds(command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_step(folder: str) -> dict[str, float]:
    apart = [f"tracking.uri=sqlite:///{folder}/mlflow.db"]
    imports = seconds([sys.executable, "-c", "import torch, lightning"])
    step = seconds([sys.executable, "-c", FIRST_STEP, "train", f"hydra.run.dir={folder}/{time.time()}", *apart])
    return {
        "import torch, lightning: seconds": imports,
        "train to the first step: seconds": step,
        "train to the first step, share of the import": step / imports,
    }


def nothing_new() -> dict[str, float]:
    make = ["make", "--silent", "pipeline"] if shutil.which("make") else [sys.executable, "-m", PACKAGE, "pipeline"]
    repro, pipeline = seconds([sys.executable, "-m", "dvc", "repro", "--quiet"]), seconds(make)
    return {
        "DVC's no-op: seconds": repro,
        "up-to-date pipeline: seconds": pipeline,
        "up-to-date pipeline, share of DVC's no-op": pipeline / repro,
    }


def bench(settings: Any, given: Namespace) -> dict[str, float]:
    if not (ROOT / "dvc.lock").is_file():
        raise ValueError("nothing is trained yet: run `make pipeline` first")
    with tempfile.TemporaryDirectory() as folder:
        figures = medians([nothing_new() for _ in range(ROUNDS)])
        figures |= medians([first_step(folder) for _ in range(ROUNDS)])
    hydra = min(cpu_seconds([sys.executable, "-c", "import hydra"]) for _ in range(ROUNDS))
    for verb in module("__main__").VERBS:
        used = min(cpu_seconds([sys.executable, "-m", PACKAGE, verb, "--help"]) for _ in range(3))
        figures[f"{verb} --help beyond Hydra's import: CPU seconds"] = used - hydra
    return figures


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # without bytecode, every start pays for compiling
    report("start", bench, parser(__doc__))
