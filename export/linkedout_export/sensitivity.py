"""Choosing by measuring: the calibration method, the first convolutions that stay in float, the nodes that int8 hurts.

The measure is the cosine between a clip's layer tokens and those of the float32 graph, on clips that the calibration
did not see: it is what ranking is made of, and it takes seconds where the exam takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from linkedout_quant.progress import stage
from numpy.typing import NDArray

from linkedout_export.quantization import METHODS, Feeds, prepared_graph, quantize_int8, weighted_nodes

Tokens = NDArray[np.float32]
CHOOSING = 32
WORTH = 3e-4
"""Token cosine that leaving one more of the first convolutions in float must gain."""


@dataclass(frozen=True)
class Int8Choice:
    """How an encoder is quantized best, found by `choose_int8`.

    Attributes:
        method: of calibration.
        keep: convolutions that stay in float, in int4 graphs too: their convolutions are int8.
        cosine: token cosine with the float graph on the clips that were held out, with `CHOOSING` clips to calibrate.
    """

    method: str
    keep: tuple[str, ...]
    cosine: float


def tokens_of(run: Callable[[Feeds], Sequence[np.ndarray]], feeds: Sequence[Feeds]) -> Tokens:
    """Dequantized layer tokens float32 [clips, L, M·D]. `run` gives tokens and scales."""
    values = [tokens * scales[..., None] for tokens, scales in map(run, feeds)]
    return np.concatenate([v.reshape(*v.shape[:2], -1) for v in values])


def onnx_runner(model: onnx.ModelProto) -> Callable[[Feeds], Sequence[np.ndarray]]:
    """An encoder graph in ONNX Runtime, as `tokens_of` wants it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda feed: session.run(["tokens", "scales"], feed)


def cosine(a: Tokens, b: Tokens) -> float:
    """Mean cosine of clips' tokens [clips, L, M·D], all layers of a clip in one vector."""
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    return float(np.mean((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)).clip(1e-12)))


def token_agreement(want: Tokens, encoder: onnx.ModelProto, held_out: list[Feeds]) -> dict[str, float]:
    """Token cosine of a quantized graph on clips that calibration did not see; `want` are the float graph's tokens."""
    return {"token_cosine": round(cosine(want, tokens_of(onnx_runner(encoder), held_out)), 6)}


def _int8_cosine(
    encoder: onnx.ModelProto,
    calibration: list[Feeds],
    held_out: list[Feeds],
    want: Tokens,
    method: str,
    keep: Sequence[str] = (),
) -> float:
    """Token cosine of int8 on clips that were held out; `want` are the float graph's tokens of them."""
    stage(f"measuring int8, ranges by {method}" + (f", {len(keep)} nodes in float" if keep else ""))
    model = quantize_int8(encoder, calibration, method=method, keep=keep)
    return cosine(want, tokens_of(onnx_runner(model), held_out))


def choose_method(encoder: onnx.ModelProto, calibration: list[Feeds], held_out: list[Feeds]) -> dict[str, float]:
    """Token cosine of int8 with each calibration method; the first key is the best method.

    The first `CHOOSING` clips calibrate: histograms of all activations cost memory and time, and the order of the
    methods shows early.
    """
    want = tokens_of(onnx_runner(encoder), held_out)
    found = {m: _int8_cosine(encoder, calibration[:CHOOSING], held_out, want, m) for m in METHODS}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def choose_int8(
    encoder: onnx.ModelProto, calibration: list[Feeds], held_out: list[Feeds], method: str = "auto"
) -> Int8Choice:
    """Choose the calibration method, and how many of the first convolutions stay in float.

    Pixels differ by less than features do, and a first convolution has few weights for them: rounding hurts there most.
    From the input on, convolutions stay in float as long as each gains `WORTH`. They have the fewest channels, so that
    costs little time.

    Args:
        encoder: the float32 graph.
        calibration: as for `quantize_int8`.
        held_out: other clips.
        method: of calibration, or "auto" for the best of all.
    """
    want = tokens_of(onnx_runner(encoder), held_out)
    convolutions = weighted_nodes(prepared_graph(encoder), ("Conv",))

    def measure(keep: list[str]) -> float:
        return _int8_cosine(encoder, calibration[:CHOOSING], held_out, want, method, keep)

    if method == "auto":
        method, best = next(iter(choose_method(encoder, calibration, held_out).items()))
    else:
        best = measure([])
    kept = 0
    while kept < len(convolutions) and (found := measure(convolutions[: kept + 1])) >= best + WORTH:
        kept, best = kept + 1, found
    return Int8Choice(method, tuple(convolutions[:kept]), best)


def sensitive_nodes(
    encoder: onnx.ModelProto, calibration: list[Feeds], held_out: list[Feeds], *, group: int = 4, method: str = "minmax"
) -> list[tuple[float, list[str]]]:
    """What each group of neighboring nodes costs: int8 is built once with each group left in float.

    Args:
        encoder: the float32 graph.
        calibration: as for `quantize_int8`.
        held_out: other clips.
        group: nodes a group, in the order of the graph.
        method: calibration method.

    Returns:
        Token cosine gained by leaving the group in float, and the group's nodes; largest gain first.
    """
    want = tokens_of(onnx_runner(encoder), held_out)

    def measure(keep: list[str]) -> float:
        return _int8_cosine(encoder, calibration, held_out, want, method, keep)

    nodes = weighted_nodes(prepared_graph(encoder), ("Conv", "MatMul", "Gemm"))
    whole = measure([])
    groups = [nodes[i : i + group] for i in range(0, len(nodes), group)]
    return sorted(((measure(keep) - whole, keep) for keep in groups), reverse=True)
