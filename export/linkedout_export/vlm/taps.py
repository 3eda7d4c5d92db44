"""The hidden states of an exported language model, found by structure: where its residual stream runs.

Names of nodes differ from version to version and from family to family, and quantization changes what stands around
them. What all decoders have in common is the residual stream: their input, to which each block adds (twice: attention
and MLP), and which a last norm and the product with the vocabulary's weights turn into logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from linkedout_edge._telemetry import import_openvino
from linkedout_edge.errors import BundleError

if TYPE_CHECKING:
    import openvino

EMBEDS = "inputs_embeds"
_CASTS = ("Convert", "FakeQuantize", "FakeConvert")
"""Nodes that change how a value is stored, not the value."""
_CUTS = ("Slice", "StridedSlice", "Gather", "Squeeze", "Unsqueeze", "Reshape")
"""Nodes by which a model is made to compute the last position's logits alone."""


class GraphError(BundleError, ValueError):
    """An exported graph is not built as expected; the message says in what."""


def hidden_states(model: openvino.Model, blocks: int) -> list[Any]:
    """Outputs [B, S, W] of a language model's graph, as transformers counts its hidden states.

    Args:
        model: A decoder that reads `EMBEDS` and gives logits.
        blocks: How many it has.

    Returns:
        ``blocks + 1`` outputs: the input of the first block, and what each block puts out, of the last one after the
        last norm.

    Raises:
        GraphError: The graph is no such decoder.
    """
    found = [p for p in model.get_parameters() if EMBEDS in p.output(0).get_names()]
    if not found:
        raise GraphError(f"the language model's graph has no input {EMBEDS}: expected a decoder that reads embeddings")
    stream = [_scaled(found[0].output(0))]
    while (behind := _added(stream[-1])) is not None:
        stream.append(behind)
    added = len(stream) - 1
    if not added or added % blocks:
        raise GraphError(
            f"something is added to the language model's residual stream {added} times, and it has {blocks} blocks: "
            "expected the same number of times in each"
        )
    states = stream[:: added // blocks]
    return [*states[:-1], _before_logits(model, states[-1])]


def without_cache(model: openvino.Model) -> None:
    """Make a language model read all of its input in one pass: keys and values of earlier passes are left out.

    In place. They are variables of the graph ("stateful") or inputs; either way new ones are joined to them.

    Raises:
        GraphError: They are used in another way.
    """
    ops = import_openvino().opset13
    embeds = next(p for p in model.get_parameters() if EMBEDS in p.output(0).get_names())
    batch = ops.gather(ops.shape_of(embeds, output_type="i64"), np.array([0]), np.int64(0))
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue" or _is_past(node):
            _leave_out(node.output(0), batch, ops)


def _is_past(node: Any) -> bool:
    return node.get_type_name() == "Parameter" and any("past_key_values" in n for n in node.output(0).get_names())


def _leave_out(past: Any, batch: Any, ops: Any) -> None:
    """Cut what an empty [B, heads, 0, width] goes into off."""
    shape = past.get_partial_shape()
    for port in list(past.get_target_inputs()):
        node = port.get_node()
        kind = node.get_type_name()
        if kind == "Concat" and node.get_input_size() == 2:
            node.output(0).replace(node.input_value(1 - port.get_index()))
        elif kind == "Gather" and port.get_index() == 0:  # beams are put into order
            _leave_out(node.output(0), batch, ops)
        elif kind == "ShapeOf" and shape[1].is_static and shape[3].is_static:
            rest = ops.constant(np.array([shape[1].get_length(), 0, shape[3].get_length()]))
            known = ops.concat([batch, rest], 0)
            kept = node.output(0).get_element_type()
            node.output(0).replace(ops.convert(known, kept.get_type_name()).output(0))
        elif kind not in ("Assign", "Result"):
            raise GraphError(
                f"the language model's cache goes into {node.get_friendly_name()} ({kind}): expected it to be joined "
                "to new keys and values"
            )


def _consumers(output: Any) -> list[Any]:
    """Nodes that read an output, what is only stored otherwise skipped."""
    found = []
    for port in output.get_target_inputs():
        node = port.get_node()
        found += _consumers(node.output(0)) if node.get_type_name() in _CASTS else [node]
    return found


def _scaled(output: Any) -> Any:
    """The embeddings, after the number that some families (Gemma, Granite) multiply them by."""
    consumers = _consumers(output)
    if len(consumers) == 1 and consumers[0].get_type_name() == "Multiply":
        node = consumers[0]
        if any(_is_constant(node.input_value(i)) for i in range(2)):
            return node.output(0)
    return output


def _is_constant(output: Any) -> bool:
    node = output.get_node()
    while node.get_type_name() in _CASTS:
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def _added(output: Any) -> Any:
    """What the residual stream is after the next addition; None at its end."""
    for node in _consumers(output):
        if node.get_type_name() == "Add" and len(node.get_output_partial_shape(0)) == 3:
            sides = [node.input_value(i) for i in range(2)]
            other = [s for s in sides if _uncast(s) != output]
            if len(other) == 1 and _depends(other[0], output):
                return node.output(0)
    return None


def _uncast(output: Any) -> Any:
    while output.get_node().get_type_name() in _CASTS:
        output = output.get_node().input_value(0)
    return output


def _depends(output: Any, on: Any) -> bool:
    """Whether `output` is computed from `on`, which everything behind an addition comes through."""
    seen: set[str] = set()
    waiting = [output]
    while waiting:
        one = waiting.pop()
        if one == on:
            return True
        node = one.get_node()
        if node.get_name() not in seen:  # unique in a process
            seen.add(node.get_name())
            waiting += node.input_values()
    return False


def _before_logits(model: openvino.Model, last: Any) -> Any:
    """What the product with the vocabulary's weights reads: the last hidden state behind the last norm."""
    logits = [r for r in model.get_results() if "logits" in r.input_value(0).get_names()]
    output = logits[0].input_value(0) if logits else None
    while output is not None and output.get_node().get_type_name() != "MatMul":
        inputs = [i for i in output.get_node().input_values() if not _is_constant(i)]
        output = inputs[0] if inputs else None
    if output is None:
        raise GraphError("the language model's graph gives no logits: expected a decoder with its vocabulary's weights")
    sides = [i for i in output.get_node().input_values() if _depends(i, last)]
    if len(sides) != 1:
        raise GraphError("the language model's logits are not computed from its last block's output")
    state = sides[0]
    while state.get_node().get_type_name() in (*_CASTS, *_CUTS) and state != last:
        state = state.get_node().input_value(0)
    return state
