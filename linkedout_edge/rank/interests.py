"""Several interests in one history: finding them, and sharing the first places of a list among them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.rank.taste import Floats, Singles, Taste

MAX_EVENTS = 64
"""Interests are searched for among this many of the latest attracting events."""
LEAST_EVENTS = 2
"""An interest needs so many events: one alone may be chance."""
SPLIT_FROM = 0.15
"""Two interests are separate if the mean cosine of events is higher by this within them than across."""
SHARE = 0.2
"""What an interest adds to a score is divided by 1 + SHARE / 2 · (places it got / its share of the events)."""
PLACES, WINDOW = 10, 40
"""The first PLACES are shared, among the best WINDOW."""
_ROUNDS = 4

Events = NDArray[np.int64]


def find_interests(user: Taste) -> tuple[Events, ...]:
    """Which events belong together: places int64 of the events of each interest, one or two.

    The larger comes first, and of two that are equally large the one with the latest event. The two least alike events
    that attract begin an interest each, and every other joins the one that it is more alike to on average (k-means with
    cosines, k = 2). Where that tells nothing apart, all that attract are one interest.
    """
    kept = np.flatnonzero((user.weights > 0).any(1))[-MAX_EVENTS:]
    if len(kept) < 2 * LEAST_EVENTS:
        return (kept,) if len(kept) else ()
    alike = _cosines(user, kept)
    first, second = divmod(int(alike.argmin()), len(kept))
    side, whole = alike[first] >= alike[second], alike.sum(1)
    for _ in range(_ROUNDS):
        count = np.count_nonzero(side)
        if count in (0, len(kept)):
            return (kept,)
        with_first = alike @ side
        before, side = side, with_first / count >= (whole - with_first) / (len(kept) - count)
        if (side == before).all():
            break
    count = np.count_nonzero(side)
    if min(count, len(kept) - count) < LEAST_EVENTS:
        return (kept,)
    across = float(side @ alike @ ~side)
    pairs = count * (count - 1) + (len(kept) - count) * (len(kept) - count - 1)
    within = (float(whole.sum()) - float(alike.trace()) - 2.0 * across) / pairs
    if within - across / (count * (len(kept) - count)) < SPLIT_FROM:
        return (kept,)
    return tuple(sorted((kept[side], kept[~side]), key=lambda events: (len(events), events[-1]), reverse=True))


def _cosines(user: Taste, events: Events) -> Floats:
    products = user.kernel.take(events, 0).take(events, 1)
    length = np.sqrt(np.maximum(products.diagonal(), 1e-12))
    return np.asarray(products / (length[:, None] * length))  # symmetric to the last bit: rounding picks no order


def take_turns(user: Taste, groups: tuple[Events, ...], values: Singles, scores: Floats) -> NDArray[np.int64]:
    """Let interests share the first places of a list.

    Proportional approval voting: what an interest adds to a score counts less the more places it got, so that the list
    is mixed as the history is (compare Steck, "Calibrated recommendations", RecSys 2018).

    Args:
        user: Whose interests they are.
        groups: From `find_interests`, two or more.
        values: float32 [W, L, M·D], tokens of the list's head, best first.
        scores: float64 [W], their scores.

    Returns:
        The new order of the W, int64 [W].
    """
    centered = user.centered(values)
    adds = np.stack(
        [np.einsum("lf,wlf->w", np.einsum("nl,nlf->lf", user.weights[g], user.seen[g]), centered) for g in groups]
    )  # [G, W]
    served_by = np.maximum(adds, 0.0)
    served_by /= np.maximum(served_by.sum(0), 1e-12)
    share = np.array([len(g) for g in groups]) / sum(len(g) for g in groups)
    served, free, chosen = np.zeros(len(groups)), np.ones(len(scores), bool), list[int]()
    while len(chosen) < min(PLACES, len(scores)):
        kept = 1.0 / (1.0 + SHARE * served / (len(groups) * share))
        total = scores - ((1.0 - kept)[:, None] * adds).sum(0)
        best = int(np.argmax(np.where(free, total, -np.inf)))
        served, free[best] = served + served_by[:, best], False
        chosen.append(best)
    return np.concatenate([np.array(chosen, np.int64), np.flatnonzero(free)])
