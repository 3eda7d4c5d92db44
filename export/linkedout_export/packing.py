"""Weights stored in few bits and unpacked by plain ONNX operators.

ONNX Runtime and OpenVINO evaluate operators on constants when they load a graph, so what is written here costs bytes in
the file and a few milliseconds at loading, nothing when the graph runs. Only operators of opset 13 are used (``Cast,
Mul, Floor, Sub, Concat, Reshape``), all in float32, which is exact for numbers of eight bits: ONNX's own 4-bit types
need opset 21, and what reads them differs by library and version.

Exception: a table that is looked up (`pack_tables`) stays packed in memory; the rows that were found are unpacked.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

BLOCK = 32
"""Weights that share a scale."""
MIN_WEIGHTS = 4096
"""Smaller tensors stay as they are: there is nothing to gain."""
INT8_LIMIT = 64
"""Largest magnitude of a convolution's int8 weight: two products of uint8 by 7 bits fit 16 bits (see quantization)."""


def initializers(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Constants of the graph by name."""
    return {i.name: i for i in model.graph.initializer}


def pack_nibbles(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Integers in [-8, 7], [..., 2·n] → uint8 [..., n]: the first half of the last axis in the low four bits.

    Raises:
        ValueError: the last axis is odd, or a value does not fit.
    """
    if values.shape[-1] % 2 or values.min(initial=0) < -8 or values.max(initial=0) > 7:
        raise ValueError(f"cannot pack {values.shape} values from {values.min()} to {values.max()} into nibbles")
    low, high = np.split((values.astype(np.int16) + 8).astype(np.uint8), 2, -1)
    return np.bitwise_or(low, high << 4, dtype=np.uint8)


def unpack_nibbles(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """What `pack_nibbles` packed; the same arithmetic as the graph's."""
    high = packed >> 4
    return (np.concatenate([packed - (high << 4), high], -1).astype(np.int16) - 8).astype(np.int8)


class _Builder:
    """Collects nodes and constants whose names start with one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        full = f"{self.prefix}/{name}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), full))
        return full

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        output = output or f"{self.prefix}/{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{output}/node", **attributes))
        return output

    def upcast(self, whole: str) -> str:
        """Uint8 → float32, by way of int32.

        OpenVINO takes a product of a cast uint8 constant for a compressed weight and leaves it unfolded; the integer
        convolution behind it then ran in float32, at half the speed.
        """
        return self.op("Cast", self.op("Cast", whole, to=TensorProto.INT32), to=TensorProto.FLOAT)

    def unpacked(self, packed: str) -> str:
        """Uint8 [..., n] → float32 [..., 2·n] in [-8, 7]."""
        byte = self.upcast(packed)
        high = self.op("Floor", self.op("Mul", byte, self.constant("sixteenth", np.float32(1 / 16))))
        low = self.op("Sub", byte, self.op("Mul", high, self.constant("sixteen", np.float32(16))))
        return self.op("Sub", self.op("Concat", low, high, axis=-1), self.constant("eight", np.float32(8)))


def _insert(model: onnx.ModelProto, builder: _Builder, before: int) -> None:
    model.graph.initializer.extend(builder.constants)
    for offset, node in enumerate(builder.nodes):
        model.graph.node.insert(before + offset, node)


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {i for n in model.graph.node for i in n.input} | {o.name for o in model.graph.output}
    for index in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[index].name not in used:
            del model.graph.initializer[index]


def fold_lookups(model: onnx.ModelProto) -> None:
    """Evaluate look-ups of constant ids in a constant table: the baked-in prompt's embeddings."""
    constants = initializers(model)
    for node in list(model.graph.node):
        if node.op_type == "Gather" and all(i in constants for i in node.input):
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            table, ids = (numpy_helper.to_array(constants[i]) for i in node.input)
            model.graph.initializer.append(numpy_helper.from_array(np.take(table, ids, axis), node.output[0]))
            model.graph.node.remove(node)
    _drop_unused(model)


def nearest_4_bit(blocks: NDArray[np.floating]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Symmetric 4-bit values int8 [..., n] in [-8, 7] and scales float16 [..., 1] of blocks [..., n].

    Of a few scales around the largest magnitude, the one with the least squared error is taken for each block.
    """
    peak = np.abs(blocks).max(-1, keepdims=True).clip(1e-6)
    best_error, best_scale = np.full(peak.shape, np.inf), peak / 7
    for steps in (6.5, 7.0, 7.5, 8.0, 8.75):
        for sign in (1.0, -1.0):  # the range has one more step on the negative side
            scale = (sign * peak / steps).astype(np.float16).astype(np.float64)
            error = ((np.round(blocks / scale).clip(-8, 7) * scale - blocks) ** 2).sum(-1, keepdims=True)
            best_scale = np.where(error < best_error, scale, best_scale)
            best_error = np.minimum(error, best_error)
    return np.round(blocks / best_scale).clip(-8, 7).astype(np.int8), best_scale.astype(np.float16)


def block_multiples(blocks: NDArray[np.floating]) -> tuple[NDArray[np.int8], NDArray[np.uint8]]:
    """Blocks [..., n] in units of an int8 step → values [..., n] in [-8, 7] and whole multiples uint8 [..., 1].

    ``values * multiples`` is an int8 weight of at most `INT8_LIMIT`: one float scale for the channel, as integer
    convolutions want it, and still a step for each block.
    """
    best_error: NDArray[np.floating] = np.full((*blocks.shape[:-1], 1), np.inf)
    values = np.zeros(blocks.shape, np.int8)
    multiples = np.ones(best_error.shape, np.uint8)
    for multiple in range(1, INT8_LIMIT // 7 + 1):
        limit = INT8_LIMIT // multiple
        rounded = np.round(blocks / multiple).clip(-min(8, limit), min(7, limit))
        error = ((rounded * multiple - blocks) ** 2).sum(-1, keepdims=True)
        better = error < best_error
        values = np.where(better, rounded, values).astype(np.int8)
        multiples = np.where(better, multiple, multiples).astype(np.uint8)
        best_error = np.minimum(error, best_error)
    return values, multiples


def pack_convolutions(model: onnx.ModelProto, original: dict[str, NDArray[np.floating]]) -> int:
    """Store the int8 weights of quantized convolutions in 4 bits, in place.

    Args:
        model: a QDQ graph with int8 weights.
        original: float weights by the name of the convolution; rounding starts from these, not from int8.

    Returns:
        How many convolutions were packed.
    """
    constants = initializers(model)
    producer = {o: n for n in model.graph.node for o in n.output}
    packed = 0
    for node in [n for n in model.graph.node if n.op_type == "Conv"]:
        dequantize = producer.get(node.input[1])
        weight = original.get(node.name)
        if dequantize is None or weight is None or weight.size < MIN_WEIGHTS or weight[0].size % BLOCK:
            continue
        scales = numpy_helper.to_array(constants[dequantize.input[1]]).reshape(-1, 1)
        values, multiples = block_multiples((weight.reshape(len(weight), -1) / scales).reshape(-1, BLOCK))
        name = dequantize.input[0]
        b = _Builder(f"{name}/packed")
        steps = b.op(
            "Mul",
            b.unpacked(b.constant("nibbles", pack_nibbles(values))),
            b.upcast(b.constant("multiples", multiples)),
        )
        whole = b.op("Reshape", steps, b.constant("shape", np.array(weight.shape, np.int64)))
        dequantize.input[0] = b.op("Cast", whole, to=TensorProto.INT8)
        _insert(model, b, list(model.graph.node).index(dequantize))
        packed += 1
    _drop_unused(model)
    return packed


def pack_tables(model: onnx.ModelProto) -> int:
    """Store large float tables that rows are looked up in (`Gather`, axis 0) in 4-bit blocks, in place.

    Returns:
        How many look-ups were changed.
    """
    constants = initializers(model)
    packed = 0
    for node in [n for n in model.graph.node if n.op_type == "Gather"]:
        tensor = constants.get(node.input[0])
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or axis != 0 or len(tensor.dims) != 2:
            continue
        table = numpy_helper.to_array(tensor)
        if table.size < MIN_WEIGHTS or table.shape[1] % BLOCK:
            continue
        values, scales = nearest_4_bit(table.reshape(len(table), -1, BLOCK))
        b = _Builder(f"{tensor.name}/packed")
        # [ids..., W/BLOCK, BLOCK/2]: the rows keep their blocks, so that each meets its scale.
        rows = b.unpacked(b.op("Gather", b.constant("nibbles", pack_nibbles(values)), node.input[1], axis=0))
        scale = b.op("Cast", b.op("Gather", b.constant("scales", scales), node.input[1], axis=0), to=TensorProto.FLOAT)
        shape = np.array([0, 0, -1], np.int64)  # ids are [B, T]
        b.op("Reshape", b.op("Mul", rows, scale), b.constant("shape", shape), output=node.output[0])
        index = list(model.graph.node).index(node)
        model.graph.node.remove(node)
        _insert(model, b, index)
        packed += 1
    _drop_unused(model)
    return packed


def _replace_constants(
    model: onnx.ModelProto, choose: Callable[[str, NDArray[np.floating]], _Builder | None]
) -> list[str]:
    """Put nodes in the place of float32 constants, at the front of the graph; names of those replaced."""
    replaced = []
    nodes: list[NodeProto] = []
    for tensor in list(model.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        builder = choose(tensor.name, numpy_helper.to_array(tensor))
        if builder is not None:
            model.graph.initializer.remove(tensor)
            model.graph.initializer.extend(builder.constants)
            nodes += builder.nodes
            replaced.append(tensor.name)
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    return replaced


def halve_constants(model: onnx.ModelProto, min_size: int = 128) -> list[str]:
    """Store float32 constants (biases, norms, positions, scales) as float16 where that keeps them, in place.

    The training master holds float16, so most lose nothing at all.

    Returns:
        Names of the constants that were changed.
    """
    # The scales and zero points of QDQ nodes must be plain constants: libraries match that pattern before they fold.
    fixed = {i for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear") for i in n.input}

    def choose(name: str, value: NDArray[np.floating]) -> _Builder | None:
        if value.size < min_size or name in fixed:
            return None
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if not np.allclose(half.astype(np.float32), value, rtol=1e-3, atol=1e-6):
            return None  # too large or too small for float16
        b = _Builder(f"{name}/half")
        b.op("Cast", b.constant("value", half), to=TensorProto.FLOAT, output=name)
        return b

    return _replace_constants(model, choose)
