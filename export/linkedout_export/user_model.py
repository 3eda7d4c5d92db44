"""What a bundle says of its tokens, so that users can be fitted to them: average video, sizes, scale of scores.

It is measured on the calibration clips, of any encoder: nothing here is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.bundle.manifest import UserModel
from linkedout_edge.errors import ArgumentError
from linkedout_edge.rank.taste import Space, fit, noise, wanted
from linkedout_export.quantization import MIN_CALIBRATION

Floats = NDArray[np.float64]
HISTORIES = 64
"""Simulated users by whom scores are scaled."""
EVENTS = 4
"""Clips that such a user watched to the end, and as many that were skipped; fewer where there are few clips."""
SKIPPED = 0.1
"""Fraction of a skipped clip that was watched."""


def fit_user_model(tokens: NDArray[np.floating], trust: Sequence[float] = ()) -> UserModel:
    """Measure a user model on clips.

    Args:
        tokens: [V, L, M·D], dequantized; V at least `MIN_CALIBRATION`, better a hundred.
        trust: [L], how far each layer is trusted before anything is known of a user; empty: all alike.

    Returns:
        `score_scale` gives the scores of simulated users a mean standard deviation of 1.

    Raises:
        ArgumentError: Too few clips.
    """
    if len(tokens) < MIN_CALIBRATION:
        raise ArgumentError(f"{len(tokens)} clips are too few: give at least {MIN_CALIBRATION}, better 100")
    values = tokens.astype(np.float64)
    space = Space.of(values, trust)
    deviation = np.mean(_deviations(values, space))
    return UserModel(
        mean=[_short(row) for row in space.mean],
        size=_short(space.size),
        layer_prior=list(trust),
        score_scale=_short([1 / max(float(deviation), 1e-6)])[0],
    )


def _deviations(values: Floats, space: Space) -> list[float]:
    """The scores' standard deviation for each of `HISTORIES` users, over the clips that they have not seen.

    A user has an anchor, watches what is most like it to the end, and skips as many others.
    """
    rng = np.random.default_rng(0)
    centered = ((values - space.mean) / np.sqrt(space.size)[:, None]).reshape(len(values), -1)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True).clip(1e-9)
    events = min(EVENTS, len(values) // 4)
    y = wanted(np.repeat([1.0, SKIPPED], events))
    found = []
    for anchor in rng.integers(len(values), size=HISTORIES):
        nearest = np.argsort(-(centered @ centered[anchor]), kind="stable")
        seen = np.concatenate([nearest[:events], rng.choice(nearest[events:], events, replace=False)])
        taste = fit(values[seen], y, noise(np.zeros(len(seen))), space)
        found.append(float(taste.score(np.delete(values, seen, 0)).std()))
    return found


def _short(numbers: NDArray[np.floating] | list[float]) -> list[float]:
    """Six digits: a manifest is read by people."""
    return [float(f"{x:.6g}") for x in numbers]
