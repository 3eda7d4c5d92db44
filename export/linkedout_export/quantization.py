"""Post-training quantization of the encoder graph, with ONNX Runtime's own quantizers.

int8: static QDQ. Convolutions (but the first, see `linkedout_export.sensitivity`) and matrix products with a weight get
per-channel int8 weights and int8 activations calibrated on real clips; attention's own products, norms and softmax stay
in float. Weights use 7 bits (`reduce_range`): the sums of two products then fit the 16-bit step that x86 CPUs without
VNNI take, so that the same graph gives the same answer there.

int4: weights of matrix products in symmetric blocks of 32 (MatMulNBits), on top of float; convolutions as in int8 with
their weights in 4 bits in the file; the embedding table in 4 bits; see `linkedout_export.packing`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from linkedout_edge.errors import ArgumentError, unknown
from linkedout_export.packing import (
    BLOCK,
    INT8_LIMIT,
    fold_lookups,
    halve_constants,
    initializers,
    pack_convolutions,
    pack_tables,
)

Feeds = dict[str, np.ndarray]
MIN_CALIBRATION = 8
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
"""How ranges of activations are found; `linkedout_export.sensitivity.choose_method` measures which is best."""


class FeedReader(CalibrationDataReader):
    """Feeds in the way that ONNX Runtime's calibrators ask for them, once through."""

    def __init__(self, feeds: Iterable[Feeds]) -> None:
        self._feeds: Iterator[Feeds] = iter(feeds)

    def get_next(self) -> Feeds | None:
        """The next feed, None after the last."""
        return next(self._feeds, None)


def weighted_nodes(model: onnx.ModelProto, kinds: tuple[str, ...]) -> list[str]:
    """Names of the nodes of the given kinds whose second operand is a weight."""
    weights = {i.name for i in model.graph.initializer}
    return [n.name for n in model.graph.node if n.op_type in kinds and n.input[1] in weights]


def embedding_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the look-ups in a large weight table."""
    large = {i.name for i in model.graph.initializer if len(i.dims) == 2 and np.prod(i.dims) > 50_000}
    return [n.name for n in model.graph.node if n.op_type == "Gather" and n.input[0] in large]


def fused_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the tower's ReLUs and residual additions, which run inside an integer convolution's step.

    Left out, each would add a rounding of its own, and roundings are where inference libraries differ.
    """
    weights = {i.name for i in model.graph.initializer}
    producer = {output: node for node in model.graph.node for output in node.output}
    names = []
    for node in model.graph.node:
        if node.op_type == "Relu" and (before := producer.get(node.input[0])) is not None:
            residual = before.op_type == "Add" and not weights.intersection(before.input)
            if residual or before.op_type == "Conv":
                names += [node.name, before.name] if residual else [node.name]
    return names


def prepared_graph(encoder: onnx.ModelProto) -> onnx.ModelProto:
    """The float graph as the quantizers want it: batch norms folded, shapes inferred, the prompt looked up."""
    with tempfile.TemporaryDirectory() as folder:
        raw, prepared = Path(folder) / "raw.onnx", Path(folder) / "prepared.onnx"
        onnx.save(encoder, raw)
        quant_pre_process(raw, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
    fold_lookups(model)
    return model


def _static(
    encoder: onnx.ModelProto,
    calibration: list[Feeds],
    kinds: tuple[str, ...],
    *,
    reduce_range: bool,
    tables: bool = True,
    symmetric: bool = False,
    method: str = "minmax",
    keep: Collection[str] = (),
) -> onnx.ModelProto:
    """Static QDQ int8 of the weighted nodes of the given operator kinds and, with `tables`, of the embedding table."""
    if method not in METHODS:
        raise ArgumentError(unknown("calibration method", method, METHODS))
    check_calibration(encoder, calibration)
    with tempfile.TemporaryDirectory() as folder:
        prepared, done = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        loaded = prepared_graph(encoder)
        onnx.save(loaded, prepared)
        # Two of the methods print what they do, and --json must be JSON.
        with contextlib.redirect_stdout(io.StringIO()):
            quantize_static(
                prepared,
                done,
                FeedReader(calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=METHODS[method],
                op_types_to_quantize=[*kinds, "Gather", "Add", "Relu"],
                nodes_to_exclude=list(keep),
                nodes_to_quantize=weighted_nodes(loaded, kinds)
                + (embedding_nodes(loaded) if tables else [])
                + fused_nodes(loaded),
                extra_options={
                    "ActivationSymmetric": symmetric,
                    "WeightSymmetric": True,
                    "QuantizeBias": not symmetric,  # TensorRT adds biases in float and knows no int32 DequantizeLinear
                    **({"CalibMovingAverage": True} if method == "minmax" else {}),
                    # Attention reads these in float. Quantized, they gain nothing, and OpenVINO then computes attention
                    # in lower precision: tokens differed by 0.7 % from ONNX Runtime's.
                    "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
                },
            )
        return _cleaned(onnx.load(done))


def quantize_int8(
    encoder: onnx.ModelProto,
    calibration: list[Feeds],
    *,
    reduce_range: bool = True,
    symmetric: bool = False,
    method: str = "minmax",
    keep: Collection[str] = (),
) -> onnx.ModelProto:
    """Static int8 of the encoder graph.

    Args:
        encoder: the float32 graph.
        calibration: feeds of the encoder graph, one clip or batch each; at least 8.
        reduce_range: 7-bit weights, which no CPU's int8 arithmetic can overflow.
        symmetric: what TensorRT wants: int8 activations without zero points, biases and the embedding table in float.
        method: how ranges are found: a key of `METHODS`.
        keep: names of nodes that stay in float (see `linkedout_export.sensitivity`).

    Raises:
        ArgumentError: too little calibration data, or of other shapes than the graph's.
    """
    kinds = ("Conv", "MatMul", "Gemm")
    return _static(
        encoder,
        calibration,
        kinds,
        reduce_range=reduce_range,
        tables=not symmetric,
        symmetric=symmetric,
        method=method,
        keep=keep,
    )


def quantize_int8_dynamic(encoder: onnx.ModelProto) -> onnx.ModelProto:
    """Int8 weights of matrix products, activations scaled at run time: needs no calibration. Convolutions stay float.

    The fallback where no clip may be seen, or where static ranges do not hold; it is larger and slower than
    `quantize_int8`.
    """
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        prepared, done = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        onnx.save(prepared_graph(encoder), prepared)
        quantize_dynamic(
            prepared, done, op_types_to_quantize=["MatMul"], per_channel=True, reduce_range=True,
            weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip
        model = onnx.load(done)
    pack_tables(model)
    return _cleaned(model)


def quantize_fp16(encoder: onnx.ModelProto) -> onnx.ModelProto:
    """Float16 weights and arithmetic; inputs, outputs, norms and the rounding to int8 tokens stay float32."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    # Sums over a layer norm's row, and scales of 1e-6 / 127, leave float16's range.
    float32 = [*DEFAULT_OP_BLOCK_LIST, "LayerNormalization", "Abs", "ReduceMax", "Clip", "Div", "Round"]
    model = convert_float_to_float16(
        prepared_graph(encoder), keep_io_types=True, op_block_list=float32, disable_shape_infer=False
    )
    return _cleaned(model)


def check_calibration(encoder: onnx.ModelProto, calibration: list[Feeds]) -> None:
    """Refuse calibration data that the encoder graph cannot be fed with.

    Raises:
        ArgumentError: too little, or inputs of another name, dtype or shape.
    """
    if len(calibration) < MIN_CALIBRATION:
        raise ArgumentError(
            f"{len(calibration)} calibration batches are too few: give at least {MIN_CALIBRATION}, better 64"
        )
    wanted = {
        i.name: (
            helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type),
            [d.dim_value or None for d in i.type.tensor_type.shape.dim],
        )
        for i in encoder.graph.input
    }
    for number, feeds in enumerate(calibration):
        if set(feeds) != set(wanted):
            raise ArgumentError(
                f"calibration batch {number} has {', '.join(sorted(feeds))}: expected {', '.join(wanted)}"
            )
        for name, (dtype, shape) in wanted.items():
            got = np.asarray(feeds[name])
            fits = len(got.shape) == len(shape) and all(w in (None, g) for w, g in zip(shape, got.shape, strict=True))
            if got.dtype != dtype or not fits:
                dims = ", ".join("any" if d is None else str(d) for d in shape)
                raise ArgumentError(
                    f"calibration batch {number}: {name} is {got.dtype} {list(got.shape)}, expected {dtype} [{dims}]"
                )


def quantize_int4(
    encoder: onnx.ModelProto,
    calibration: list[Feeds],
    *,
    block: int = BLOCK,
    method: str = "minmax",
    keep: Collection[str] = (),
) -> onnx.ModelProto:
    """Int4 weights of matrix products, convolutions and the embedding table; the rest that is float in float16.

    Matrix products are weight-only (MatMulNBits). Convolutions compute in int8 as in `quantize_int8`, from weights that
    are unpacked when the graph is loaded; the smallest ones stay 8 bit.

    Args:
        encoder: the float32 graph.
        calibration: as for `quantize_int8`.
        block: weights of a matrix product that share a scale.
        method, keep: as for `quantize_int8`.

    Raises:
        ArgumentError: too little calibration data.
    """
    from onnxruntime.quantization import matmul_nbits_quantizer

    logging.getLogger(matmul_nbits_quantizer.__name__).setLevel(logging.WARNING)  # it reports every node
    model = _static(encoder, calibration, ("Conv",), reduce_range=True, tables=False, method=method, keep=keep)
    pack_convolutions(model, _convolution_weights(prepared_graph(encoder)))
    quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(model, block_size=block, is_symmetric=True)
    quantizer.process()
    model = quantizer.model.model
    pack_tables(model)
    halve_constants(model)
    return _cleaned(model)


_WEIGHT_OPERAND = {"MatMulInteger": 1, "ConvInteger": 1, "QLinearConv": 3, "QLinearMatMul": 3}
"""Integer operators → which input is the weight."""


def full_range_weights(model: onnx.ModelProto) -> bool:
    """Whether an int8 weight of an integer product is beyond 7 bits: on x86 CPUs without VNNI, sums then overflow.

    Weights that are only stored in int8 and computed with in float do not count, and neither do those that are unpacked
    from four bits: `linkedout_export.packing` keeps them within 7.
    """
    constants = initializers(model)
    dequantized = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    names = [n.input[_WEIGHT_OPERAND[n.op_type]] for n in model.graph.node if n.op_type in _WEIGHT_OPERAND]
    names += [
        dequantized[n.input[1]]
        for n in model.graph.node
        if n.op_type in ("Conv", "MatMul", "Gemm") and n.input[0] in dequantized and n.input[1] in dequantized
    ]
    weights = (constants[n] for n in names if n in constants and constants[n].data_type == TensorProto.INT8)
    return any(np.abs(numpy_helper.to_array(w).astype(np.int16)).max(initial=0) > INT8_LIMIT for w in weights)


def _convolution_weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    constants = initializers(model)
    return {
        n.name: numpy_helper.to_array(constants[n.input[1]])
        for n in model.graph.node
        if n.op_type == "Conv" and n.input[1] in constants
    }


def _cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the quantizer's notes, value infos and doc strings, which only take room."""
    model.graph.ClearField("value_info")
    model.ClearField("metadata_props")
    for node in model.graph.node:
        node.doc_string = ""
        node.ClearField("metadata_props")
    used = {node.domain for node in model.graph.node}
    for index in reversed(range(len(model.opset_import))):
        if model.opset_import[index].domain not in used:
            del model.opset_import[index]
    model.producer_name, model.producer_version = "linkedout-edge", ""
    return model
