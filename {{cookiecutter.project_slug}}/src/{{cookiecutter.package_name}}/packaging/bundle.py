"""The bundle: one folder with all that serving needs, whose files are checked against its manifest
before use.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..modeling import kinds
from ..settings import Kind, Strict
from ..types import Answers, Inputs, Rule

MANIFEST, CARD, MODEL = "manifest.json", "bundle.json", "model.onnx"
REFERENCE, EXAMPLES = "reference.npz", "examples.json"
CURRENT = "current.json"  # in live/: names the champion's folder


class Tensor(Strict):
    dtype: str
    shape: list[int]


class Card(Strict):
    """What the model is, takes and answers: the content of bundle.json.

    `label_scale` is the standard deviation of the training labels, 1 for classes.
    """

    name: str
    kind: Kind
    task: str
    predicts: str = ""
    unit: str = ""
    labels: list[str]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    features: dict[str, Any]
    decision: Rule
    label_scale: float
    candidate: str
    owner: str
    code: str
    data: str
    dependencies: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle; its identity is the SHA-256 of its manifest."""

    folder: Path
    identity: str
    card: Card

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Reads and verifies a bundle. Raises ValueError that names the file which is missing or
        was changed.
        """
        manifest = folder / MANIFEST
        if not manifest.is_file():
            raise ValueError(f"no bundle in {folder}: run `make pipeline` first")
        content = manifest.read_bytes()
        for name, entry in json.loads(content)["files"].items():
            path = folder / name
            if not path.is_file() or _sha256(path) != entry["sha256"]:
                raise ValueError(
                    f"{path} is missing or differs from its manifest: "
                    "fetch or build the bundle again"
                )
        card = Card.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
        return cls(folder, hashlib.sha256(content).hexdigest(), card)

    @cached_property
    def session(self) -> Any:
        """The ONNX Runtime session: one thread, since under load requests run side by side."""
        # Else ONNX Runtime reports its use to its maker.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path, providers = self.folder / MODEL, ["CPUExecutionProvider"]
        return onnxruntime.InferenceSession(path, options, providers=providers)

    def infer(self, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        """Raw outputs by name, "raw" [n, k] as `kinds` explains and for networks "embedding"
        [n, e].
        """
        names = list(self.card.outputs)
        return dict(zip(names, self.session.run(names, inputs), strict=True))

    def decide(self, raw: NDArray[np.floating]) -> Answers:
        """Answers for raw outputs [n, k] by the rule that was fitted with the model."""
        answers: Answers = self.kind.decide(raw, self.card.decision)
        return answers

    @property
    def kind(self) -> kinds.Kind:
        """The functions of the model's kind."""
        return kinds.of(self.card.kind)

    @cached_property
    def reference(self) -> dict[str, NDArray[Any]]:
        """Held-out outputs and signals that requests are compared with."""
        with np.load(self.folder / REFERENCE, allow_pickle=False) as arrays:
            return dict(arrays)

    @property
    def examples(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / EXAMPLES).read_text(encoding="utf-8")))


def load_live(live: Path) -> tuple[str, Bundle]:
    """Version and bundle that live/current.json names as the champion. Raises ValueError where
    there is none, or it is not the one promised.
    """
    current = live / CURRENT
    if not current.is_file():
        raise ValueError(f"no model in {live}: run `make pipeline` first")
    try:
        entry = json.loads(current.read_text(encoding="utf-8"))["champion"]
        version, folder, identity = entry["version"], live / entry["path"], entry["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{current} is damaged: run the verb `pull` again") from error
    bundle = Bundle.load(folder)
    if bundle.identity != identity:
        raise ValueError(
            f"{folder} is not the bundle that {current} names: run the verb `pull` again"
        )
    return version, bundle


def seal(folder: Path) -> str:
    """Writes the manifest of all files in the folder and returns the bundle's identity."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    entries = {
        p.relative_to(folder).as_posix(): {"sha256": _sha256(p), "bytes": p.stat().st_size}
        for p in files
    }
    content = json.dumps({"format": 1, "files": entries}, indent=2) + "\n"
    (folder / MANIFEST).write_text(content, encoding="utf-8")
    return hashlib.sha256(content.encode()).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
