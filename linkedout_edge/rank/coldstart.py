"""The order while nothing is known to be liked: nothing was watched yet, or everything was skipped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.rank.prior import standardized
from linkedout_edge.rank.taste import Floats, Singles, Taste

WINDOW = 256
"""At most this many candidates are rearranged, because comparing them takes quadratic time."""
PLACES = 20
"""This many places are rearranged; the rest of the window follows by score."""
REPRESENTS = 0.5
"""How much it counts how many videos one stands for, in deviations of the score."""
LEVEL = 1e-5
"""Candidates as close as this are level, and the first of them goes first: their order is not left to rounding, which
differs by language and CPU."""


def arrange_unknown(user: Taste, values: Singles, scores: Floats) -> NDArray[np.int64]:
    """Best first: far from what was skipped, each standing for many videos that none before it stands for.

    Greedy facility location (Nemhauser, Wolsey and Fisher, 1978): a place goes to the video that adds most to how well
    all are represented. What was skipped represents its like already: nothing more of it is needed.

    Args:
        user: Nothing of it attracts; its events are all skips or dislikes.
        values: float32 [W, L, M·D], tokens.
        scores: float64 [W].

    Returns:
        The order, int64 [W].
    """
    rows = _directions(user, user.centered(values))
    alike = np.square(np.maximum(rows @ rows.T, 0.0))
    covered = np.zeros(len(rows), np.float32)
    if len(user):
        covered = np.square(np.maximum(_directions(user, user.seen) @ rows.T, 0.0)).max(0)
    free, chosen = np.ones(len(rows), bool), list[int]()
    away = standardized(np.asarray(scores, np.float64))
    for _ in range(min(PLACES, len(rows))):
        gain = np.maximum(alike - covered, 0.0).sum(1, dtype=np.float64)
        if gain.std() <= LEVEL * max(1.0, gain.max()):  # level, too: standardized, rounding alone would decide
            gain[:] = 0.0
        worth = np.where(free, away + REPRESENTS * standardized(gain), -np.inf)
        best = int(np.argmax(worth >= worth.max() - LEVEL))
        chosen.append(best)
        free[best] = False
        covered = np.maximum(covered, alike[best])
    rest = np.flatnonzero(free)
    return np.concatenate([np.array(chosen, np.int64), rest[np.argsort(-scores[rest], kind="stable")]])


def _directions(user: Taste, centered: Singles) -> Singles:
    """Unit vectors [K, L·M·D] of centred tokens [K, L, M·D]."""
    rows = user.rows(centered)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))
