"""The scorer graph, written operator by operator: it has no weights, and it must stay one integer matrix product.

The query becomes a block-diagonal int8 matrix, so that ``MatMulInteger`` reads the stored bytes as they are: rows are
the L·M·D token dimensions, columns the L·M inner products with u and with q. One int8 number per entry would cost
about 0.5 % of a score, too much for scores that are to agree to 1e-3 and for explanations that are to add up; so each
entry is split into a coarse int8 and a fine int8 part (254 times finer), which doubles the narrow side of the product
only.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from linkedout_edge.config import ModelConfig

OPSET = 18
IR_VERSION = 10
FINE = 254.0
LOWEST = np.finfo(np.float32).min


def scorer_graph(config: ModelConfig) -> onnx.ModelProto:
    """The scorer of docs/architecture.md for one model's shapes; C is dynamic."""
    layers, m, d = config.layers, config.tokens_per_layer, config.token_width
    lm = layers * m
    constants: dict[str, np.ndarray] = {
        "shape_query": np.array([2, lm, d], np.int64),
        "tiny": np.float32(1e-12),
        "top": np.float32(127.0),
        "fine": np.float32(FINE),
        "last": np.array([-1], np.int64),
        "shape_column": np.array([4, lm, 1, d], np.int64),
        "eye": np.eye(lm, dtype=np.float32).reshape(1, lm, lm, 1),
        "shape_matrix": np.array([4 * lm, lm * d], np.int64),
        "shape_rows": np.array([-1, lm * d], np.int64),
        "shape_columns": np.array([-1, 4, lm], np.int64),
        "shape_flat": np.array([-1, 4 * lm], np.int64),
        "shape_part_scale": np.array([4 * lm, 1], np.int64),
        "membership": np.tile(np.kron(np.eye(2 * layers, dtype=np.float32), np.ones((m, 1), np.float32)), (2, 1)),
        "shape_scales": np.array([-1, 1, lm], np.int64),
        "shape_layers": np.array([-1, 2, layers], np.int64),
        "layer_axis": np.array([1], np.int64),
        "unit_fine": np.array([1.0, 1.0 / FINE], np.float32).reshape(2, 1, 1),
        "pick_u": np.int64(0),
        "pick_q": np.int64(1),
        "lowest": np.float32(LOWEST),
    }
    n = helper.make_node
    nodes = [
        # The query in two int8 parts with one scale for each (u or q, layer, token).
        n("Reshape", ["query", "shape_query"], ["q"]),
        n("Abs", ["q"], ["q_abs"]),
        n("ReduceMax", ["q_abs", "last"], ["q_peak"], keepdims=1),
        n("Max", ["q_peak", "tiny"], ["q_peak_safe"]),
        n("Div", ["q_peak_safe", "top"], ["q_scale"]),
        n("Div", ["q", "q_scale"], ["q_units"]),
        n("Round", ["q_units"], ["q_coarse"]),
        n("Sub", ["q_units", "q_coarse"], ["q_rest"]),
        n("Mul", ["q_rest", "fine"], ["q_rest_units"]),
        n("Round", ["q_rest_units"], ["q_fine"]),
        # Block-diagonal matrix [4·LM columns, LM·D rows], transposed at the end.
        n("Concat", ["q_coarse", "q_fine"], ["q_parts"], axis=0),  # [4, LM, D]: coarse u, coarse q, fine u, fine q
        n("Reshape", ["q_parts", "shape_column"], ["q_by_column"]),  # [4, LM, 1, D]
        n("Mul", ["q_by_column", "eye"], ["q_diagonal"]),  # [4, LM, LM, D]
        n("Reshape", ["q_diagonal", "shape_matrix"], ["q_matrix_t"]),
        n("Transpose", ["q_matrix_t"], ["q_matrix"], perm=[1, 0]),
        n("Cast", ["q_matrix"], ["q_int8"], to=TensorProto.INT8),
        # All inner products of all candidates at once, over the stored bytes.
        n("Reshape", ["tokens", "shape_rows"], ["rows"]),
        n("MatMulInteger", ["rows", "q_int8"], ["products_int"]),  # [C, 4·LM]
        n("Cast", ["products_int"], ["products_raw"], to=TensorProto.FLOAT),
        # Token scales, then one small product that applies the query's scales and sums parts and tokens of a layer.
        n("Reshape", ["products_raw", "shape_columns"], ["products_columns"]),  # [C, 4, LM]
        n("Reshape", ["scales", "shape_scales"], ["scales_flat"]),  # [C, 1, LM]
        n("Mul", ["products_columns", "scales_flat"], ["products_scaled"]),
        n("Reshape", ["products_scaled", "shape_flat"], ["products"]),
        n("Squeeze", ["q_scale", "last"], ["q_scale_flat"]),  # [2, LM]
        n("Mul", ["unit_fine", "q_scale_flat"], ["part_scale"]),  # [2, 2, LM]
        n("Reshape", ["part_scale", "shape_part_scale"], ["part_column"]),  # [4·LM, 1]
        n("Mul", ["part_column", "membership"], ["sum_matrix"]),  # [4·LM, 2·L]
        n("MatMul", ["products", "sum_matrix"], ["by_layer_flat"]),
        n("Reshape", ["by_layer_flat", "shape_layers"], ["by_layer"]),  # [C, 2, L]
        # Mixture of experts over the layers.
        n("Gather", ["by_layer", "pick_u"], ["s"], axis=1),
        n("Gather", ["by_layer", "pick_q"], ["gate_raw"], axis=1),
        n("Add", ["gate_raw", "bias"], ["gate_logits"]),
        n("Softmax", ["gate_logits"], ["gates"], axis=-1),
        n("Mul", ["gates", "s"], ["contributions"]),
        n("ReduceSum", ["contributions", "layer_axis"], ["score_all"], keepdims=0),
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
