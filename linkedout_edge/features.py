"""Event features: what the user graph is told of an event besides its video. Shared by runtime and training."""

from __future__ import annotations

import numpy as np

from linkedout_edge.config import EVENT_FEATURES


def event_features(watched: np.ndarray, *, ages_hours: np.ndarray, liked: np.ndarray | None = None) -> np.ndarray:
    """Features of a history, oldest event first.

    Args:
        watched: float [N] in [0, 1].
        ages_hours: float [N]; NaN where unknown; a negative age (the clock was set back) counts as 0.
        liked: float [N]: 1 liked, -1 disliked, 0 nothing said. None: nothing said of any.

    Returns:
        float32 [N, E], columns as in `config.EVENT_FEATURES`.
    """
    n = len(watched)
    ages = np.asarray(ages_hours, np.float64)
    known = ~np.isnan(ages)
    said = np.zeros(n) if liked is None else np.asarray(liked, np.float64)
    columns = {
        "watched": np.asarray(watched, np.float64),
        "liked": said > 0,
        "disliked": said < 0,
        "age_known": known,
        "log_age": np.log1p(np.maximum(np.where(known, ages, 0.0), 0.0)) / 10,
        "log_position": np.log1p(np.arange(n - 1, -1, -1)) / 5,
    }
    return np.stack([np.asarray(columns[name], np.float32) for name in EVENT_FEATURES], -1)
