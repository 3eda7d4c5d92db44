"""Weights in few bits: what the graph unpacks is what was packed, and the files are really small."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the workstation half is not installed")
pytest.importorskip("torch", reason="the workstation half is not installed")

from linkedout_export import packing  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def run(model, feeds):
    import onnxruntime as ort

    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)


def model_of(nodes, inputs, outputs, constants):
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in constants.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def test_nibbles_come_back():
    values = np.random.default_rng(0).integers(-8, 8, (5, 6), dtype=np.int8)
    packed = packing.pack_nibbles(values)
    assert packed.nbytes == values.size // 2
    np.testing.assert_array_equal(packing.unpack_nibbles(packed), values)
    for bad in (np.array([[8, 0]]), np.array([[0, -9]]), np.array([[1, 2, 3]])):
        with pytest.raises(ValueError, match="nibbles"):
            packing.pack_nibbles(bad)


def test_four_bits_are_better_than_the_largest_magnitude_alone():
    blocks = np.random.default_rng(1).normal(size=(200, 32))
    values, scales = packing.nearest_4_bit(blocks)
    assert values.min() >= -8
    assert values.max() <= 7
    plain = np.abs(blocks).max(-1, keepdims=True) / 7
    error = np.square(values * scales.astype(np.float64) - blocks).mean()
    assert error < np.square(np.round(blocks / plain) * plain - blocks).mean()


def test_multiples_never_leave_the_safe_range_of_int8():
    blocks = np.random.default_rng(2).normal(size=(300, 32)) * np.geomspace(0.1, 64, 300)[:, None]
    blocks = blocks.clip(-64, 64)
    values, multiples = packing.block_multiples(blocks)
    whole = values.astype(int) * multiples
    assert np.abs(whole).max() <= packing.INT8_LIMIT
    # A small block keeps a fine step of its own: that is what the multiples are for.
    assert np.abs(whole - blocks)[0].max() <= 0.5 + 1e-6


def test_a_packed_table_gives_its_rows():
    table = np.random.default_rng(3).normal(size=(128, 64)).astype(np.float32)
    model = model_of(
        [helper.make_node("Gather", ["table", "ids"], ["rows"])],
        [value("ids", TensorProto.INT32, ["B", 3])],
        [value("rows", TensorProto.FLOAT, ["B", 3, 64])],
        {"table": table},
    )
    before = model.ByteSize()
    assert packing.pack_tables(model) == 1
    onnx.checker.check_model(model)
    assert model.ByteSize() < 0.2 * before
    ids = np.array([[0, 127, 5], [5, 5, 9]], np.int32)
    (rows,) = run(model, {"ids": ids})
    values, scales = packing.nearest_4_bit(table.reshape(128, 2, 32))
    np.testing.assert_allclose(rows, (values * scales.astype(np.float32)).reshape(128, 64)[ids], rtol=1e-6)


def test_halving_leaves_what_float16_cannot_hold():
    model = model_of(
        [helper.make_node("Add", ["x", "fine"], ["y"]), helper.make_node("Mul", ["y", "huge"], ["z"])],
        [value("x", TensorProto.FLOAT, [256])],
        [value("z", TensorProto.FLOAT, [256])],
        {"fine": np.linspace(-2, 2, 256, dtype=np.float32), "huge": np.full(256, 1e6, np.float32)},
    )
    assert packing.halve_constants(model) == ["fine"]
    (z,) = run(model, {"x": np.zeros(256, np.float32)})
    np.testing.assert_allclose(z, np.linspace(-2, 2, 256) * 1e6, rtol=2e-3, atol=1e3)
