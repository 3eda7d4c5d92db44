"""Which ONNX operators each target reads, as published, and the check against it.

The lists are data: what a library says it supports, not what it was seen to run. Names without a domain are ONNX's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from linkedout_edge.errors import BackendError

if TYPE_CHECKING:  # the lists are also what help is made from, where there is no onnx
    import onnx


@dataclass(frozen=True)
class OperatorSet:
    """What one reader of ONNX takes.

    Attributes:
        reader: its name, for messages.
        newest_opset: the newest version of ONNX's own operators.
        newest_ir: the newest version of the file format.
        operators: names, with ``domain:`` in front where the domain is not ONNX's own.
        quantized: whether QDQ must be symmetric: int8 without zero points.
        source: where the list was published.
    """

    reader: str
    newest_opset: int
    newest_ir: int
    operators: frozenset[str]
    quantized: str
    source: str


_COMMON = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu
    Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout
    Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool
    GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax
    Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    Loop LpNormalization MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not
    OneHot Or PRelu Pad Pow QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round Scan ScatterElements ScatterND Selu Shape Shrink
    Sigmoid Sign Sin Sinh Size Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu
    Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
"""In both lists below."""

_OPENVINO_ONLY = """
    AffineGrid Attention BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow CenterCropPad Col2Im
    Compress ConvInteger DFT DynamicQuantizeLinear Gelu HammingWindow HannWindow IsFinite MatMulInteger Mish QLinearConv
    QLinearMatMul RMSNormalization STFT Scatter Unique
"""

TENSORRT = OperatorSet(
    reader="TensorRT",
    newest_opset=19,
    newest_ir=10,
    operators=frozenset([*_COMMON.split(), "LpPool", "ParametricSoftplus", "ScaledTanh", "Softsign", "Scatter"]),
    quantized="symmetric",
    # As of TensorRT 9.2; JetPack 6 has TensorRT 8.6 to 10.3. 8.5 and before lack LayerNormalization.
    source="https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md",
)

OPENVINO = OperatorSet(
    reader="OpenVINO",
    newest_opset=23,
    newest_ir=11,
    operators=frozenset(
        [
            *_COMMON.split(),
            *_OPENVINO_ONLY.split(),
            *(f"com.microsoft:{name}" for name in ("MatMulNBits", "FusedMatMul", "FusedConv", "DequantizeLinear")),
        ]
    ),
    quantized="any",
    # Operators of other domains are listed there too; these are the ones that our quantizers can write.
    source="https://github.com/openvinotoolkit/openvino/blob/master/src/frontends/onnx/docs/supported_ops.md",
)

ONNXRUNTIME = OperatorSet(
    reader="ONNX Runtime 1.20",
    newest_opset=21,
    newest_ir=10,
    operators=OPENVINO.operators,  # ONNX Runtime reads every operator of its opsets: checked by loading it
    quantized="any",
    source="https://onnxruntime.ai/docs/reference/compatibility.html",
)


def names(model: onnx.ModelProto) -> set[str]:
    """Operators of a graph, with ``domain:`` in front where the domain is not ONNX's own."""
    return {f"{n.domain}:{n.op_type}" if n.domain not in ("", "ai.onnx") else n.op_type for n in model.graph.node}


def check_operators(model: onnx.ModelProto, target: OperatorSet) -> None:
    """Refuse a graph that the target's published list does not cover.

    Raises:
        BackendError: its opset or IR version is newer, an operator is not listed, or a quantizer has a zero point
            where the target wants none.
    """
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset > target.newest_opset or model.ir_version > target.newest_ir:
        raise BackendError(
            f"the encoder graph has opset {opset} and IR version {model.ir_version}; {target.reader} reads up to "
            f"{target.newest_opset} and {target.newest_ir}: export with an older opset"
        )
    unknown = sorted(names(model) - target.operators)
    if unknown:
        raise BackendError(
            f"{target.reader} does not list {', '.join(unknown)}, which the encoder graph uses (see {target.source})"
        )
    if target.quantized == "symmetric" and (shifted := shifted_quantizers(model)):
        raise BackendError(
            f"{target.reader} wants symmetric int8, but {len(shifted)} quantizers of the encoder graph have a zero "
            f"point or another type ({shifted[0]} …): quantize with symmetric=True"
        )


def shifted_quantizers(model: onnx.ModelProto) -> list[str]:
    """Names of QuantizeLinear and DequantizeLinear nodes that are not int8 with zero point 0."""
    from onnx import TensorProto, numpy_helper

    from linkedout_export.packing import initializers

    constants = initializers(model)
    found = []
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants.get(node.input[2]) if len(node.input) > 2 else None
            if zero is None or zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any():
                found.append(node.name)
    return found
