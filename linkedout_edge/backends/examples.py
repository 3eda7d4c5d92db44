"""Inputs for each graph, of the sizes that are usual: to measure a device with, and to compare two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.config import EVENT_FEATURES, ModelConfig

USUAL = {"encoder": 1, "user": 64, "scorer": 1024}
"""Graph → videos, events or candidates in one call."""


def example_feeds(graph: str, config: ModelConfig, count: int | None = None, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Random inputs of a graph, nothing masked.

    Args:
        graph: ``encoder``, ``user`` or ``scorer``.
        config: The model's shapes.
        count: B, N or C; left out, the usual one.
        seed: Of the random numbers.
    """
    rng, c = np.random.default_rng(seed), config
    n = USUAL[graph] if count is None else count
    if graph == "encoder":
        coarse = rng.integers(0, 256, (n, c.frames, 4, 4, 3), dtype=np.uint8)  # areas of colour: noise is no picture
        side = -(-c.frame_size // 4)
        return {
            "frames": coarse.repeat(side, 2).repeat(side, 3)[:, :, : c.frame_size, : c.frame_size],
            "frame_mask": np.ones((n, c.frames), bool),
            "title_ids": np.zeros((n, c.title_tokens), np.int32),
            "title_mask": np.zeros((n, c.title_tokens), bool),
        }
    shape = (n, c.layers, c.tokens_per_layer, c.token_width)
    tokens = rng.integers(-127, 128, shape).astype(np.int8)
    scales = rng.uniform(0.005, 0.02, shape[:-1]).astype(np.float32)
    if graph == "user":
        events = rng.random((1, n, len(EVENT_FEATURES)), dtype=np.float32)
        return {"tokens": tokens[None], "scales": scales[None], "events": events, "mask": np.ones((1, n), bool)}
    width = c.tokens_per_layer * c.token_width
    return {
        "query": rng.normal(0, width**-0.5, (1, 2, c.layers, width)).astype(np.float32),
        "bias": rng.normal(size=(1, c.layers)).astype(np.float32),
        "tokens": tokens,
        "scales": scales,
        "mask": np.ones(n, bool),
    }


def distance(a: dict[str, NDArray[Any]], b: dict[str, NDArray[Any]]) -> float:
    """How far two answers of the same graph lie apart, relative to the second: ‖a − b‖ / ‖b‖, the worst output's.

    Layer tokens count with their scales, as they are used: an int8 value on the edge may fall to either side.
    """

    def values(out: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if "scales" in out:
            return {"tokens": out["tokens"] * out["scales"][..., None]}
        return out

    worst = 0.0
    for name, wanted in values(b).items():
        wanted, found = wanted.astype(np.float64), values(a)[name].astype(np.float64)
        gap = float(np.linalg.norm(found - wanted) / (np.linalg.norm(wanted) or 1.0))
        worst = max(worst, gap if np.isfinite(gap) else np.inf)
    return worst
