"""Inputs of the encoder graph: to measure a device with, and to compare two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.config import ModelConfig


def example_feeds(config: ModelConfig, videos: int = 1, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Random inputs of the encoder graph: videos without titles, nothing else masked.

    Args:
        config: The model's shapes.
        videos: B.
        seed: Of the random numbers.
    """
    c = config
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (videos, c.frames, 4, 4, 3), dtype=np.uint8)  # areas of color: noise is no picture
    side = -(-c.frame_size // 4)
    return {
        "frames": coarse.repeat(side, 2).repeat(side, 3)[:, :, : c.frame_size, : c.frame_size],
        "frame_mask": np.ones((videos, c.frames), bool),
        "title_ids": np.zeros((videos, c.title_tokens), np.int32),
        "title_mask": np.zeros((videos, c.title_tokens), bool),
    }


def distance(a: dict[str, NDArray[Any]], b: dict[str, NDArray[Any]]) -> float:
    """How far two answers of the graph lie apart, relative to the second: ‖a − b‖ / ‖b‖ of the dequantized tokens.

    Tokens count with their scales, as they are used: an int8 value on the edge may fall to either side.
    """
    found, wanted = (out["tokens"] * out["scales"].astype(np.float64)[..., None] for out in (a, b))
    gap = float(np.linalg.norm(found - wanted) / (np.linalg.norm(wanted) or 1.0))
    return gap if np.isfinite(gap) else np.inf
