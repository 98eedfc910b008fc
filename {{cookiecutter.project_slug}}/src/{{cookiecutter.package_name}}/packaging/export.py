"""Candidates as ONNX files: a format that runs no code on load and needs no training stack."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ..modeling.baselines import flat
from ..modeling.candidates import Candidate, ClassicalCandidate, NetworkCandidate

Inputs = dict[str, NDArray[Any]]


def export(candidate: Candidate, example: Inputs, path: Path) -> None:
    """Writes the candidate to `path`: inputs by name, any number of rows; outputs logits and a network's embedding."""
    model = _network(candidate, example) if isinstance(candidate, NetworkCandidate) else _classical(candidate, example)
    _strip(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _network(candidate: NetworkCandidate, example: Inputs) -> onnx.ModelProto:
    import torch

    # The exporter warns of every torchvision operator that it can't register: this package needs none.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    # Two rows: the exporter would take a batch of one for a constant.
    rows = {name: torch.from_numpy(values[:2].copy()) for name, values in example.items()}
    batch = torch.export.Dim("rows")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # raised inside torch's own exporter
        program = torch.onnx.export(
            candidate.network,
            kwargs=rows,
            dynamo=True,
            verbose=False,
            input_names=list(rows),
            output_names=["logits", "embedding"],
            dynamic_shapes={name: {0: batch} for name in rows},
        )
    assert program is not None
    return program.model_proto


def _classical(candidate: ClassicalCandidate, example: Inputs) -> onnx.ModelProto:
    """skl2onnx takes one matrix, so the inputs are flattened and joined in front of it as `flat` does."""
    from skl2onnx import to_onnx

    inner = to_onnx(
        candidate.model, flat(example)[:1], options={id(candidate.model[-1]): {"zipmap": False, "raw_scores": True}}
    )
    graph, names = inner.graph, sorted(example)
    matrix, scores = graph.input[0].name, graph.output[1].name
    nodes = [helper.make_node("Flatten", [name], [f"{name}_flat"]) for name in names]
    nodes.append(helper.make_node("Concat", [f"{name}_flat" for name in names], [matrix], axis=1))
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", *example[n].shape[1:]]) for n in names]
    last = helper.make_node("Identity", [scores], ["logits"])
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", None])
    whole = helper.make_graph([*nodes, *graph.node, last], "classical", inputs, [output], graph.initializer)
    return helper.make_model(whole, opset_imports=inner.opset_import, ir_version=inner.ir_version)


def _strip(graph: onnx.GraphProto) -> None:
    """Removes the exporter's notes: they hold paths of this machine, and equal models would differ in bytes."""
    for item in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.metadata_props[:]


def described(example: Inputs) -> dict[str, dict[str, Any]]:
    """Type and shape of each input, -1 for the number of rows."""
    return {name: {"dtype": str(values.dtype), "shape": [-1, *values.shape[1:]]} for name, values in example.items()}


def rows_of(inputs: Inputs, index: NDArray[np.int64]) -> Inputs:
    """The chosen rows of every input."""
    return {name: values[index] for name, values in inputs.items()}
