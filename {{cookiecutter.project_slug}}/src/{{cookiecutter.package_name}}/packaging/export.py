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
from ..types import Inputs


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
        # The second input has as many rows.
        warnings.filterwarnings("ignore", "# The axis name")
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
    matrix, output = graph.input[0].name, graph.output[-1].name
    flattened = [f"{name}_flat" for name in names]
    nodes = [helper.make_node("Flatten", [n], [f]) for n, f in zip(names, flattened, strict=True)]
    nodes += [helper.make_node("Concat", flattened, [matrix], axis=1), *graph.node]
    constants = list(graph.initializer)
    if classifies:
        constants.append(helper.make_tensor("least", TensorProto.FLOAT, [], [MIN_PROBABILITY]))
        nodes.append(helper.make_node("Clip", [output, "least"], ["clipped"]))
        nodes.append(helper.make_node("Log", ["clipped"], ["raw"]))
    else:
        nodes.append(helper.make_node("Identity", [output], ["raw"]))
    inputs = [_rows(name, example[name].shape[1:]) for name in names]
    whole = helper.make_graph(nodes, "classical", inputs, [_rows("raw", [None])], constants)
    return helper.make_model(whole, opset_imports=inner.opset_import, ir_version=inner.ir_version)


def _rows(name: str, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", *shape])


def _strip(graph: onnx.GraphProto) -> None:
    """Removes the exporter's notes: they hold paths of this machine, and equal models would differ
    in bytes.
    """
    for item in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.metadata_props[:]


def rows_of(inputs: Inputs, index: NDArray[np.int64]) -> Inputs:
    """The chosen rows of every input."""
    return {name: values[index] for name, values in inputs.items()}
