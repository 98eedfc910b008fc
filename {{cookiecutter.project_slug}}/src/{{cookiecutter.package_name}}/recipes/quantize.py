"""Post-training quantization: weights and activations in 8 bits (Jacob et al. 2018,
arXiv:1712.05877).

Static, in ONNX Runtime: scales come from the calibration split, which the network has not seen.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..data.datamodule import load
from ..modeling import candidates
from ..packaging.export import export
from .variants import Inputs, Raw, Workshop, latency

PRODUCTS = ["Conv", "Gemm", "MatMul"]  # where the time goes; the rest stays in 32 bits


def recipe(shop: Workshop, rows: int = 256) -> None:
    """The network of artifacts/model as the bundle would hold it, and with at most `rows` rows to
    calibrate by.
    """
    network = candidates.load(shop.settings)["network"]
    calibration = {k: v[:rows] for k, v in load(shop.settings, "calibration").inputs.items()}
    whole, small = shop.folder / "float32.onnx", shop.folder / "int8.onnx"
    export(network, calibration, whole)
    quantize(whole, small, calibration)
    test, found = shop.examples["test"].inputs, []
    for name, path in (("float32", whole), ("int8", small)):
        with shop.variant(name) as run:
            outputs = session(path)
            shop.add(
                run, name, outputs, {"KiB": path.stat().st_size / 1024, **latency(outputs, test)}
            )
            run.artifacts([path], "model")
            found.append(outputs(test))
    apart, spread = np.abs(found[0] - found[1]).max(), found[0].std()
    shop.notes.append(
        f"largest difference of a raw output on test rows {apart:.3g}; their deviation is {spread:.3g}"
    )


def quantize(source: Path, target: Path, calibration: Inputs) -> None:
    """Writes an int8 model; products have a scale per output channel, and get it from the
    calibration rows.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([calibration])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)  # folds batch norm into the convolution before it
    quantize_static(
        prepared,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=PRODUCTS,
        per_channel=True,
    )


def session(path: Path) -> Raw:
    """Raw outputs of an ONNX file, on one thread as the server runs it."""
    os.environ.setdefault(
        "ORT_DISABLE_TELEMETRY", "1"
    )  # else ONNX Runtime reports its use to its maker
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: np.asarray(opened.run(["raw"], inputs)[0])
