"""Post-training quantisation of the encoder graph, with ONNX Runtime's own quantisers.

int8: static QDQ. Convolutions and matrix products with a weight get per-channel int8 weights and int8 activations
calibrated on real clips; attention's own products, norms and softmax stay in float. Weights use 7 bits
(`reduce_range`): the sums of two products then fit the 16-bit step that x86 CPUs without VNNI take, so that the same
graph gives the same answer there.

int4: weights of matrix products in symmetric blocks of 32 (MatMulNBits), on top of float; convolutions as in int8 with
their weights in 4 bits in the file; the embedding table in 4 bits; see `linkedout_export.packing`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from linkedout_edge.errors import ArgumentError
from linkedout_export.packing import (
    BLOCK,
    fold_lookups,
    halve_constants,
    initializers,
    pack_convolutions,
    pack_matrices_int8,
    pack_tables,
)

Feeds = dict[str, np.ndarray]
MIN_CALIBRATION = 8


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Iterable[Feeds]) -> None:
        self._feeds: Iterator[Feeds] = iter(feeds)

    def get_next(self) -> Feeds | None:
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


def _prepared(encoder: onnx.ModelProto) -> onnx.ModelProto:
    """The float graph as the quantisers want it: batch norms folded, shapes inferred, the prompt looked up."""
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
) -> onnx.ModelProto:
    """Static QDQ int8 of the weighted nodes of the given operator kinds and, with `tables`, of the embedding table."""
    if len(calibration) < MIN_CALIBRATION:
        raise ArgumentError(
            f"{len(calibration)} calibration batches are too few: give at least {MIN_CALIBRATION}, better 64"
        )
    with tempfile.TemporaryDirectory() as folder:
        prepared, done = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        loaded = _prepared(encoder)
        onnx.save(loaded, prepared)
        quantize_static(
            prepared,
            done,
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=[*kinds, "Gather", "Add", "Relu"],
            nodes_to_quantize=weighted_nodes(loaded, kinds)
            + (embedding_nodes(loaded) if tables else [])
            + fused_nodes(loaded),
            extra_options={
                "ActivationSymmetric": False,
                "WeightSymmetric": True,
                "CalibMovingAverage": True,
                # Attention reads these in float. Quantised, they gain nothing, and OpenVINO then computes attention in
                # lower precision: tokens differed by 0.7 % from ONNX Runtime's.
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            },
        )
        return _cleaned(onnx.load(done))


def quantise_int8(encoder: onnx.ModelProto, calibration: list[Feeds], *, reduce_range: bool = True) -> onnx.ModelProto:
    """Static int8 of the encoder graph.

    Args:
        encoder: the float32 graph.
        calibration: feeds of the encoder graph, one clip or batch each; at least 8.
        reduce_range: 7-bit weights, which no CPU's int8 arithmetic can overflow.

    Raises:
        ArgumentError: too little calibration data.
    """
    return _static(encoder, calibration, ("Conv", "MatMul", "Gemm"), reduce_range=reduce_range)


def quantise_int4(encoder: onnx.ModelProto, calibration: list[Feeds], *, block: int = BLOCK) -> onnx.ModelProto:
    """Int4 weights of matrix products, convolutions and the embedding table; the rest that is float in float16.

    Matrix products are weight-only (MatMulNBits). Convolutions compute in int8 as in `quantise_int8`, from weights that
    are unpacked when the graph is loaded; the smallest ones stay 8 bit.

    Args:
        encoder: the float32 graph.
        calibration: as for `quantise_int8`.
        block: weights of a matrix product that share a scale.

    Raises:
        ArgumentError: too little calibration data.
    """
    from onnxruntime.quantization import matmul_nbits_quantizer

    logging.getLogger(matmul_nbits_quantizer.__name__).setLevel(logging.WARNING)  # it reports every node
    model = _static(encoder, calibration, ("Conv",), reduce_range=True, tables=False)
    pack_convolutions(model, _convolution_weights(_prepared(encoder)))
    quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(model, block_size=block, is_symmetric=True)
    quantizer.process()
    model = quantizer.model.model
    pack_tables(model)
    halve_constants(model)
    return _cleaned(model)


def quantise_user(user: onnx.ModelProto) -> onnx.ModelProto:
    """The user graph with its large matrices stored in int8; it computes in float32, being small and rarely run."""
    model = onnx.ModelProto()
    model.CopyFrom(user)
    pack_matrices_int8(model)
    return model


def _convolution_weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    constants = initializers(model)
    return {
        n.name: numpy_helper.to_array(constants[n.input[1]])
        for n in model.graph.node
        if n.op_type == "Conv" and n.input[1] in constants
    }


def _cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the quantiser's notes, value infos and doc strings, which only take room."""
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
