"""Candidates as ONNX files: a format that runs no code on load and needs no training stack."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from sklearn.pipeline import Pipeline

from ..modeling.baselines import flat
from ..modeling.candidates import MIN_PROBABILITY, Candidate, ClassicalCandidate, NetworkCandidate

Inputs = dict[str, NDArray[Any]]


def export(candidate: Candidate, example: Inputs, path: Path) -> None:
    """Writes the candidate to `path`: inputs by name, any number of rows; outputs raw and a
    network's embedding.
    """
    model = (
        _network(candidate, example)
        if isinstance(candidate, NetworkCandidate)
        else _classical(candidate, example)
    )
    _strip(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _network(candidate: NetworkCandidate, example: Inputs) -> onnx.ModelProto:
    import torch

    # The exporter warns of every torchvision operator that it can't register: this package needs
    # none.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    # Two rows: the exporter would take a batch of one for a constant.
    rows = {name: torch.from_numpy(values[:2].copy()) for name, values in example.items()}
    batch = torch.export.Dim("rows")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # raised inside torch's own exporter
        warnings.filterwarnings(
            "ignore", "# The axis name"
        )  # of the second input, which has as many rows
        program = torch.onnx.export(
            candidate.network,
            kwargs=rows,
            dynamo=True,
            verbose=False,
            input_names=list(rows),
            output_names=["raw", "embedding"],
            dynamic_shapes={name: {0: batch} for name in rows},
        )
    assert program is not None
    return program.model_proto


def _classical(candidate: ClassicalCandidate, example: Inputs) -> onnx.ModelProto:
    """skl2onnx takes one matrix, so the inputs are flattened and joined in front of it as `flat`
    does.

    Behind it, probabilities become logarithms as in `ClassicalCandidate.outputs`; values stay as
    they are.
    """
    from skl2onnx import to_onnx

    classifies = hasattr(candidate.model, "predict_proba")
    last = candidate.model[-1] if isinstance(candidate.model, Pipeline) else candidate.model
    options = {id(last): {"zipmap": False}} if classifies else None
    inner = to_onnx(candidate.model, flat(example)[:1], options=options)
    graph, names = inner.graph, sorted(example)
    matrix, found = graph.input[0].name, graph.output[-1].name
    front = [helper.make_node("Flatten", [name], [f"{name}_flat"]) for name in names]
    front.append(helper.make_node("Concat", [f"{name}_flat" for name in names], [matrix], axis=1))
    smallest = helper.make_tensor("smallest", TensorProto.FLOAT, [], [MIN_PROBABILITY])
    back = [
        helper.make_node("Clip", [found, "smallest"], ["clipped"]),
        helper.make_node("Log", ["clipped"], ["raw"]),
    ]
    if not classifies:
        back = [helper.make_node("Identity", [found], ["raw"])]
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", *example[n].shape[1:]])
        for n in names
    ]
    output = helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["rows", None])
    constants = [*graph.initializer, smallest] if classifies else graph.initializer
    whole = helper.make_graph(
        [*front, *graph.node, *back], "classical", inputs, [output], constants
    )
    return helper.make_model(whole, opset_imports=inner.opset_import, ir_version=inner.ir_version)


def _strip(graph: onnx.GraphProto) -> None:
    """Removes the exporter's notes: they hold paths of this machine, and equal models would differ
    in bytes.
    """
    for item in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.metadata_props[:]


def described(example: Inputs) -> dict[str, dict[str, Any]]:
    """Type and shape of each input, -1 for the number of rows."""
    return {
        name: {"dtype": str(values.dtype), "shape": [-1, *values.shape[1:]]}
        for name, values in example.items()
    }


def rows_of(inputs: Inputs, index: NDArray[np.int64]) -> Inputs:
    """The chosen rows of every input."""
    return {name: values[index] for name, values in inputs.items()}
