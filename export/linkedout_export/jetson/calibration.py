"""A calibration cache in TensorRT's own format, for int8 engines of graphs without QDQ nodes.

TensorRT reads such a cache in place of calibrating: a line that names its version and the kind of calibrator, then per
tensor the scale of its int8 values as the hexadecimal digits of a big-endian float32. A tensor that has no line stays
in float. So only what a convolution or a product with a weight reads and writes gets one: attention's masks, at the
lowest float, would make nonsense of everything that shares their scale.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator

from linkedout_edge.errors import ArgumentError
from linkedout_export.quantization import MIN_CALIBRATION, FeedReader, Feeds, fused_nodes, weighted_nodes

ALGORITHM = "EntropyCalibration2"
"""The calibrator that trtexec reads a cache for. It is not how our ranges are found."""


def tensor_scales(encoder: onnx.ModelProto, feeds: list[Feeds]) -> dict[str, float]:
    """Scales of the activations that int8 layers read and write: largest absolute value / 127.

    Args:
        encoder: a float graph, without QDQ nodes.
        feeds: inputs of the graph, of its own batch size, at least `MIN_CALIBRATION`.

    Raises:
        ArgumentError: too few clips, or a graph that is quantized already.
    """
    if len(feeds) < MIN_CALIBRATION:
        raise ArgumentError(f"{len(feeds)} calibration clips are too few: give at least {MIN_CALIBRATION}, better 64")
    if any(n.op_type == "QuantizeLinear" and "Linear" in n.name for n in encoder.graph.node):
        raise ArgumentError("this graph has QDQ nodes, which hold its scales: TensorRT takes no cache beside them")
    kinds = ("Conv", "MatMul", "Gemm")
    chosen = {*weighted_nodes(encoder, kinds), *fused_nodes(encoder)}
    weights = {i.name for i in encoder.graph.initializer}
    nodes = [n for n in encoder.graph.node if n.name in chosen]
    wanted = {t for n in nodes for t in (*n.input, *n.output) if t and t not in weights}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(encoder), path)  # tensors without a known type are passed over
        calibrator = create_calibrator(
            path,
            sorted({n.op_type for n in nodes}),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(FeedReader(feeds))
        ranges = calibrator.compute_data()
    scales = {}
    for name, found in ranges.items():
        largest = max(abs(float(np.min(found.range_value[0]))), abs(float(np.max(found.range_value[1]))))
        if name in wanted and np.isfinite(largest) and largest > 0:
            scales[name] = largest / 127
    return scales


def cache_text(scales: Mapping[str, float], tensorrt: str) -> str:
    """The cache's content.

    Args:
        scales: tensor → scale.
        tensorrt: version of TensorRT that is to read it, such as "10.3.0".

    Raises:
        ArgumentError: no such version, or a name that the format cannot hold.
    """
    parts = tensorrt.split(".")
    if len(parts) != 3 or not all(p.isdigit() for p in parts):
        raise ArgumentError(f"TensorRT's version is {tensorrt!r}: expected three numbers, such as '10.3.0'")
    major, minor, patch = map(int, parts)
    # From version 10 on each part has two digits: 10.3.0 is 100300, 8.6.2 is 8602.
    number = major * 10000 + minor * 100 + patch if major >= 10 else major * 1000 + minor * 100 + patch
    lines = [f"TRT-{number}-{ALGORITHM}"]
    for name, scale in scales.items():
        if ": " in name or "\n" in name:
            raise ArgumentError(f"the tensor {name!r} cannot be named in a calibration cache")
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
    return "\n".join(lines) + "\n"
