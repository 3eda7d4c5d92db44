"""The encoder graph → what one target wants: dimensions fixed, TensorRT's rules kept, OpenVINO IR."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from linkedout_edge._telemetry import import_openvino
from linkedout_edge.errors import BackendError
from linkedout_export.packing import BLOCK


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that can be changed."""
    new = onnx.ModelProto()
    new.CopyFrom(model)
    return new


def with_fixed_size(encoder: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph for one video, as the runtime's own static graphs are, and every shape inside it inferred.

    Raises:
        BackendError: a dimension stays open.
    """
    from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_dim_param_fixed

    new = copied(encoder)
    make_dim_param_fixed(new.graph, "B", 1)
    fix_output_shapes(new)
    new.graph.ClearField("value_info")
    for value in [*new.graph.input, *new.graph.output]:
        if any(not d.dim_value for d in value.type.tensor_type.shape.dim):
            raise BackendError(f"{value.name} has an open dimension besides B")
    return new


def for_tensorrt(encoder: onnx.ModelProto) -> onnx.ModelProto:
    """The encoder graph within TensorRT's rules on 8-bit tensors.

    uint8 is allowed at the network's input alone, so it is cast before anything else; int8 comes about by quantizing
    alone, so the tokens' last cast becomes a QuantizeLinear of scale 1, which gives the same numbers.
    """
    new = copied(encoder)
    nodes = list(new.graph.node)
    (frames,) = (i.name for i in new.graph.input if i.type.tensor_type.elem_type == TensorProto.UINT8)
    for node in nodes:
        for index, name in enumerate(node.input):
            if name == frames:
                node.input[index] = "frames_float"
    nodes.insert(0, helper.make_node("Cast", [frames], ["frames_float"], to=TensorProto.FLOAT, name="frames_float"))
    found = False
    for node in nodes:
        if node.op_type == "Cast" and any(a.name == "to" and a.i == TensorProto.INT8 for a in node.attribute):
            node.op_type = "QuantizeLinear"
            node.ClearField("attribute")
            node.input.extend(["token_step", "token_zero"])
            found = True
    if not found:
        raise BackendError("the encoder graph has no cast to int8 at its end: was it exported by this version?")
    new.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(1), "token_step"), numpy_helper.from_array(np.int8(0), "token_zero")]
    )
    del new.graph.node[:]
    new.graph.node.extend(nodes)
    new.graph.ClearField("value_info")  # types of what was uint8 are others now
    onnx.checker.check_model(new)
    return new


def to_openvino(encoder: onnx.ModelProto, precision: str, *, static: bool) -> Any:
    """An `openvino.Model` of the ONNX graph.

    Args:
        encoder: float32 for "int4", "fp16" and "fp32", QDQ for "int8".
        precision: in 4 bit, weights are compressed by NNCF in symmetric blocks, all layers included.
        static: for one video.
    """
    openvino = import_openvino()
    network = openvino.Core().read_model(encoder.SerializeToString(), b"")
    if precision == "int4":
        nncf = import_nncf()
        network = nncf.compress_weights(
            network,
            mode=nncf.CompressWeightsMode.INT4_SYM,
            group_size=BLOCK,
            ratio=1.0,
            all_layers=True,
            backup_mode=nncf.BackupMode.INT8_SYM,  # convolutions; NPUs take no zero points
            # A weight narrower than a block is not worth packing.
            advanced_parameters=nncf.AdvancedCompressionParameters(
                group_size_fallback_mode=nncf.GroupSizeFallbackMode.IGNORE
            ),
        )
    if static:
        shapes = {port.get_any_name(): port.get_partial_shape() for port in network.inputs}
        for shape in shapes.values():
            shape[0] = 1
        network.reshape(shapes)
    return network


def import_nncf() -> Any:
    """NNCF, without the usage events that it would send through OpenVINO's sender, and without its tables."""
    sender = "openvino_telemetry"
    before = sys.modules.get(sender)
    sys.modules[sender] = None  # type: ignore[assignment]  # to import it raises ImportError, which NNCF expects
    try:
        import nncf
    finally:
        del sys.modules[sender]
        if before is not None:
            sys.modules[sender] = before
    nncf.set_log_level(logging.WARNING)
    return nncf


def openvino_files(network: Any, precision: str) -> dict[str, bytes]:
    """The two files of an `openvino.Model`; in "fp16" and "int4", what is float is stored in 16 bits."""
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.xml"
        openvino.save_model(network, path, compress_to_fp16=precision in ("fp16", "int4"))
        return {p.name: p.read_bytes() for p in (path, path.with_suffix(".bin"))}


def openvino_runner(xml: bytes, weights: bytes) -> Any:
    """An encoder in OpenVINO IR on the CPU: feeds → tokens and scales."""
    openvino = import_openvino()
    core = openvino.Core()
    network = core.read_model(xml, weights)
    request = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()

    def run(feed: dict[str, np.ndarray]) -> Sequence[np.ndarray]:
        request.infer(feed)
        return [np.array(request.get_tensor(name).data) for name in ("tokens", "scales")]

    return run
