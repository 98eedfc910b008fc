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
from .recipe import Inputs, Raw, Variants, latency

PRODUCTS = ["Conv", "Gemm", "MatMul"]  # where the time goes; the rest stays in 32 bits


def recipe(variants: Variants, rows: int = 256) -> None:
    """The network of artifacts/model as the bundle would hold it, and with at most `rows` rows to
    calibrate by.
    """
    network = candidates.load(variants.settings)["network"]
    inputs = load(variants.settings, "calibration").inputs
    calibration = {name: values[:rows] for name, values in inputs.items()}
    files = {name: variants.folder / f"{name}.onnx" for name in ("float32", "int8")}
    export(network, calibration, files["float32"])
    quantize(files["float32"], files["int8"], calibration)
    for name, file in files.items():
        outputs = session(file)
        costs = {"KiB": file.stat().st_size / 1024}
        costs |= latency(outputs, variants.examples("test").inputs)
        variants.add(name, outputs, costs, file=file)


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
