"""What a ranking must beat: scores of candidates from simpler ideas.

Each function takes one row of features per pool clip and one user's indices, and returns float [C].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def color_histogram(clip: np.ndarray, bins: int = 16) -> np.ndarray:
    """How often each level of red, green and blue is in a clip, uint8 [F, H, W, 3]: float64 [3·bins]."""
    return np.concatenate([np.histogram(clip[..., i], bins, (0, 256), density=True)[0] for i in range(3)])


def color_histograms(clips: list[np.ndarray], bins: int = 16) -> np.ndarray:
    """One color histogram a clip, centered and normalized.

    Args:
        clips: uint8 [F, H, W, 3] each.

    Returns:
        float64 [clips, 3·bins].
    """
    return unit_rows(np.array([color_histogram(c, bins) for c in clips]))


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows with the mean row removed and length 1: what cosine baselines compare."""
    x = features.astype(np.float64) - features.mean(0)
    return x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-12)


def mean_cosine(units: np.ndarray, history: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Cosine to the mean of the history."""
    return units[candidates] @ units[history].mean(0)


def latest_cosine(units: np.ndarray, history: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Recency: cosine to the latest watched video alone."""
    return units[candidates] @ units[history[-1]]


def popularity(histories: Iterable[Sequence[int] | np.ndarray], clips: int) -> np.ndarray:
    """How often each clip was watched by anybody: int64 [clips]."""
    return np.bincount(np.concatenate([np.asarray(h, np.int64) for h in histories]), minlength=clips)
