"""An LLM-sized encoder graph in 8 and 4 bit, by the libraries' own quantizers.

ONNX: the matrix products become dynamic int8 (weights per channel, activations scaled per pass), or 4-bit weights in
blocks of 32 (MatMulNBits); word embeddings are int8 in both. Static int8, which the small student uses, is not offered:
activations of LLMs have outliers that one scale per tensor flattens.

OpenVINO: NNCF's weight compression on the float graph, in 4 bit with AWQ and scale estimation.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import onnx
from linkedout_quant.teachers.checkpoint import require

from linkedout_edge._telemetry import import_openvino
from linkedout_edge.errors import ArgumentError, unknown
from linkedout_export.conversion import import_nncf
from linkedout_export.quantization import Feeds, _cleaned

if TYPE_CHECKING:
    import openvino

Method = Literal["hqq", "rtn", "gptq"]
METHODS: dict[str, str] = {
    "hqq": "half-quadratic fit of each block, with zero points; needs no data",
    "rtn": "rounding to the nearest, symmetric: for NPUs, which refuse zero points",
    "gptq": "errors of one column made up for by the next ones, from calibration data",
}
"""Ways to choose 4-bit values, and what they are for."""
BLOCK = 32


def onnx_int8(encoder: onnx.ModelProto) -> onnx.ModelProto:
    """Dynamic int8 of matrix products and word embeddings.

    Weights use 7 bits, as everywhere in this project: x86 CPUs without VNNI would overflow with eight.
    """
    return _dynamic(encoder, ["MatMul", "Gemm", "Gather"])


def onnx_int4(encoder: onnx.ModelProto, method: Method = "hqq", feeds: Sequence[Feeds] = ()) -> onnx.ModelProto:
    """4-bit weights of matrix products, int8 word embeddings.

    Args:
        encoder: The float32 graph.
        method: One of `METHODS`.
        feeds: Inputs of the encoder graph, for ``"gptq"`` alone.

    Raises:
        ArgumentError: An unknown method, or no data for one that needs it.
    """
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    if method not in METHODS:
        raise ArgumentError(unknown("4-bit method", method, METHODS))
    if method == "gptq" and not feeds:
        raise ArgumentError("gptq needs calibration data: give feeds, or take method='hqq', which needs none")
    config = None
    if method == "hqq":
        config = nbits.HQQWeightOnlyQuantConfig(block_size=BLOCK, bits=4)
    elif method == "gptq":
        config = nbits.GPTQWeightOnlyQuantConfig(calibration_data_reader=_Data(feeds), block_size=BLOCK)
    base = _dynamic(encoder, ["Gather"])
    with _quiet(nbits.__name__, "neural_compressor"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NumPy arrays that torch may not write to; it does not
        quantizer = nbits.MatMulNBitsQuantizer(base, block_size=BLOCK, is_symmetric=True, algo_config=config)
        quantizer.process()
    model = quantizer.model if isinstance(quantizer.model, onnx.ModelProto) else quantizer.model.model
    if not any(o.domain == "com.microsoft" for o in model.opset_import):  # gptq forgets it
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return _cleaned(model)


def openvino_compressed(encoder: onnx.ModelProto, bits: Literal[8, 4], feeds: Sequence[Feeds] = ()) -> openvino.Model:
    """The encoder as an OpenVINO model with compressed weights.

    Args:
        encoder: The float32 graph.
        bits: 8 (per channel, symmetric) or 4 (symmetric groups of 32; what NNCF holds for sensitive stays in 8).
        feeds: With them 4 bit uses AWQ and scale estimation.

    Raises:
        MissingDependencyError: OpenVINO or NNCF is not installed.
    """
    require("openvino", "nncf", purpose="OpenVINO weight compression")
    nncf, openvino = import_nncf(), import_openvino()
    with tempfile.TemporaryDirectory() as folder:  # from a file: a graph of a gigabyte is not copied as bytes once more
        onnx.save(encoder, Path(folder) / "encoder.onnx")
        model = openvino.Core().read_model(Path(folder) / "encoder.onnx")
        weights = {i.name for i in encoder.graph.initializer}
        # The compressors' few queries, as the first operand: too small for groups, and the last thing to save on.
        queries = [n.name for n in encoder.graph.node if n.op_type == "MatMul" and n.input[0] in weights]
        ignored = nncf.IgnoredScope(names=queries, validate=False)
        with _quiet("nncf"):
            if bits == 8:
                return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=ignored)
            data = nncf.Dataset(list(feeds)) if feeds else None
            return nncf.compress_weights(
                model,
                mode=nncf.CompressWeightsMode.INT4_SYM,
                group_size=BLOCK,
                ignored_scope=ignored,
                dataset=data,
                awq=True if data else None,
                scale_estimation=True if data else None,
            )


def as_openvino(encoder: onnx.ModelProto, precision: str, feeds: Sequence[Feeds] = ()) -> openvino.Model:
    """The encoder as an OpenVINO model in a precision of a bundle; as `openvino_compressed` in 8 and 4 bit."""
    if precision == "int8":
        return openvino_compressed(encoder, 8)
    if precision == "int4":
        return openvino_compressed(encoder, 4, feeds)
    return import_openvino().Core().read_model(encoder.SerializeToString(), b"")


def _dynamic(encoder: onnx.ModelProto, kinds: list[str]) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet("root"):
        raw, done = Path(folder) / "raw.onnx", Path(folder) / "done.onnx"
        onnx.save(encoder, raw)
        quantize_dynamic(
            raw,
            done,
            op_types_to_quantize=kinds,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"WeightSymmetric": True},
        )
        return _cleaned(onnx.load(done))


class _Data:
    """Feeds as the quantizer wants them: iterable, copied by it before use."""

    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._feeds = list(feeds)

    def __iter__(self) -> Iterator[Feeds]:
        return iter(self._feeds)


class _quiet:
    """Loggers that report every node, silenced for a while."""

    def __init__(self, *names: str) -> None:
        self._loggers = [logging.getLogger(None if n == "root" else n) for n in names]

    def __enter__(self) -> None:
        self._before = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *exc: object) -> None:
        for logger, level in zip(self._loggers, self._before, strict=True):
            logger.setLevel(level)
