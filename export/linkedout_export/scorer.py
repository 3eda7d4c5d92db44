"""The scorer graph, written operator by operator: it has no weights; integer products do the work.

What it costs is what it does with the stored bytes, so they are touched three times and no more: turned so that
candidates lie along the last axis (``Transpose``), packed and multiplied (``MatMulInteger``). Two choices are less
obvious:

- **The query is the left, unsigned operand.** Integer products of ``uint8 x int8`` are fast on every CPU we know of,
  ``int8 x int8`` is seven times slower in ONNX Runtime on x86-64. Tokens are signed, so they must be the right operand;
  the query gets a zero point.
- **Seven bits for the query.** CPUs without VNNI add pairs of products in 16 bits and saturate silently:
  128 · 127 · 2 < 32,768 cannot. One number of seven bits would cost about 1 % of a score, too much for scores that
  are to agree to 1e-3 and for explanations that are to add up; so each entry is written in three digits of base 128,
  which is as exact as float32. That makes six rows (u and q, three digits each) for each layer token, still far less
  work than reading the tokens. (Two digits were off by up to 5e-4 of a score's standard deviation, and no faster.)
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from linkedout_edge.config import ModelConfig

OPSET = 18
IR_VERSION = 10
HALF = 64.0
"""The query's largest entry in units of its first digit, and the zero point of the unsigned query."""
BASE = 128.0
"""Each digit's unit is so much finer: what rounding left, at most half a unit, fills the range of the next digit."""
DIGITS = 3
LOWEST = np.finfo(np.float32).min


def scorer_graph(config: ModelConfig) -> onnx.ModelProto:
    """The scorer of docs/architecture.md for one model's shapes; C is dynamic."""
    layers, m, d = config.layers, config.tokens_per_layer, config.token_width
    lm = layers * m
    rows = 2 * DIGITS  # for each layer token: u and q in the first digit, then u and q in the second ...
    belongs = np.zeros((2 * layers, lm, rows), np.float32)  # to which of [u; q] x layer each row adds
    for token in range(lm):
        for row in range(rows):
            belongs[(row % 2) * layers + token // m, token, row] = 1.0
    constants: dict[str, np.ndarray] = {
        "shape_query": np.array([2, lm, d], np.int64),
        "tiny": np.float32(1e-12),
        "half": np.float32(HALF),
        "base": np.float32(BASE),
        "zero_point": np.uint8(HALF),
        "last": np.array([-1], np.int64),
        "shape_rows": np.array([-1, lm * d], np.int64),
        "shape_turned": np.array([lm, d, -1], np.int64),
        "shape_scales": np.array([-1, lm], np.int64),
        "shape_token": np.array([lm, 1, -1], np.int64),
        "shape_products": np.array([rows * lm, -1], np.int64),
        "shape_one": np.array([1, rows * lm], np.int64),
        "units": (BASE ** -np.arange(DIGITS)).astype(np.float32).reshape(1, DIGITS, 1),
        "shape_parts": np.array([lm, 1, 2], np.int64),
        "belongs": belongs.reshape(2 * layers, rows * lm),
        "shape_bias": np.array([layers, 1], np.int64),
        "halves": np.array([layers, layers], np.int64),
        "layer_axis": np.array([0], np.int64),
        "lowest": np.float32(LOWEST),
    }
    n = helper.make_node
    digits = [n("Round", ["units_0"], ["digit_0"])]
    for i in range(1, DIGITS):
        digits += [
            n("Sub", [f"units_{i - 1}", f"digit_{i - 1}"], [f"rest_{i}"]),
            n("Mul", [f"rest_{i}", "base"], [f"units_{i}"]),
            n("Round", [f"units_{i}"], [f"digit_{i}"]),
        ]
    nodes = [
        # The query in digits, with one scale for each (u or q, layer, token).
        n("Reshape", ["query", "shape_query"], ["q_flat"]),
        n("Transpose", ["q_flat"], ["q"], perm=[1, 0, 2]),  # [LM, 2, D]
        n("Abs", ["q"], ["q_abs"]),
        n("ReduceMax", ["q_abs", "last"], ["q_peak"], keepdims=1),
        n("Max", ["q_peak", "tiny"], ["q_peak_safe"]),
        n("Div", ["q_peak_safe", "half"], ["q_scale"]),  # [LM, 2, 1]
        n("Div", ["q", "q_scale"], ["units_0"]),
        *digits,
        n("Concat", [f"digit_{i}" for i in range(DIGITS)], ["q_digits"], axis=1),  # [LM, 2·digits, D]
        n("Add", ["q_digits", "half"], ["q_shifted"]),
        n("Cast", ["q_shifted"], ["q_uint8"], to=TensorProto.UINT8),
        # All inner products of all candidates, over the stored bytes.
        n("Reshape", ["tokens", "shape_rows"], ["rows"]),
        n("Transpose", ["rows"], ["columns"], perm=[1, 0]),
        n("Reshape", ["columns", "shape_turned"], ["tokens_turned"]),  # [LM, D, C]
        n("MatMulInteger", ["q_uint8", "tokens_turned", "zero_point"], ["products_int"]),  # [LM, 2·digits, C]
        n("Cast", ["products_int"], ["products_raw"], to=TensorProto.FLOAT),
        # Token scales, then one small product that applies the query's scales and sums digits and tokens of a layer.
        n("Reshape", ["scales", "shape_scales"], ["scales_flat"]),
        n("Transpose", ["scales_flat"], ["scales_turned"], perm=[1, 0]),
        n("Reshape", ["scales_turned", "shape_token"], ["scales_token"]),  # [LM, 1, C]
        n("Mul", ["products_raw", "scales_token"], ["products_scaled"]),
        n("Reshape", ["products_scaled", "shape_products"], ["products"]),  # [2·digits·LM, C]
        n("Reshape", ["q_scale", "shape_parts"], ["q_scale_row"]),  # [LM, 1, 2]
        n("Mul", ["units", "q_scale_row"], ["part_scale"]),  # [LM, digits, 2]
        n("Reshape", ["part_scale", "shape_one"], ["part_row"]),  # [1, 2·digits·LM]
        n("Mul", ["belongs", "part_row"], ["sum_matrix"]),  # [2·L, 2·digits·LM]
        n("MatMul", ["sum_matrix", "products"], ["by_layer"]),  # [2·L, C]
        # Mixture of experts over the layers.
        n("Split", ["by_layer", "halves"], ["s", "gate_raw"], axis=0),  # [L, C]
        n("Reshape", ["bias", "shape_bias"], ["bias_column"]),
        n("Add", ["gate_raw", "bias_column"], ["gate_logits"]),
        n("Softmax", ["gate_logits"], ["gates"], axis=0),
        n("Mul", ["gates", "s"], ["contributions_turned"]),
        n("Transpose", ["contributions_turned"], ["contributions"], perm=[1, 0]),
        n("ReduceSum", ["contributions_turned", "layer_axis"], ["score_all"], keepdims=0),
        n("Where", ["mask", "score_all", "lowest"], ["score"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "scorer",
        inputs=[
            value("query", TensorProto.FLOAT, [1, 2, layers, m * d]),
            value("bias", TensorProto.FLOAT, [1, layers]),
            value("tokens", TensorProto.INT8, ["C", layers, m, d]),
            value("scales", TensorProto.FLOAT, ["C", layers, m]),
            value("mask", TensorProto.BOOL, ["C"]),
        ],
        outputs=[
            value("score", TensorProto.FLOAT, ["C"]),
            value("contributions", TensorProto.FLOAT, ["C", layers]),
        ],
        initializer=[numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="linkedout-edge",
    )
    onnx.checker.check_model(model, full_check=True)
    return model
