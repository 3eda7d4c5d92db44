"""Steps that need the whole list: removing near-duplicates, and diversity.

Both compare videos by their stored layer tokens, so they cost no inference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.rank.taste import Singles
from linkedout_edge.results import best_first

Positions: TypeAlias = NDArray[np.int64]
Vectors: TypeAlias = Callable[[Positions], Singles]
"""Positions int64 ``[K]`` → float32 ``[K, L·M·D]``, each layer token of unit length."""

DUPLICATE_FROM = 0.9
"""Videos whose layer tokens have at least this cosine, on average over the tokens, count as the same.

Of 125 clips, nine in ten copies that were encoded again came above it and no two different ones (docs/ranking.md).
"""
COMPARED = 1024
"""A video is compared with at most this many better ones, so that the time grows linearly with the candidates."""
DIVERSIFIED = 200
"""Only this many of the best are reordered for diversity; videos behind them keep their places."""

_BLOCK = 256
_NOTHING_NEW = 1e-6


def unit_tokens(tokens: NDArray[np.int8]) -> Singles:
    """Int8 ``[K, L, M, D]`` → float32 ``[K, L·M·D]``, each layer token of length (L·M)^-½, so that a row has length 1.

    A token's scale drops out; every layer counts the same, whatever the size of its values. An all-zero token stays so.
    """
    values = tokens.reshape(len(tokens), -1, tokens.shape[-1]).astype(np.float32)
    length = np.sqrt(np.einsum("ktd,ktd->kt", values, values))
    values /= (np.maximum(length, 1e-9) * np.sqrt(values.shape[1]))[..., None]
    return values.reshape(len(tokens), -1)


def deduplicate(
    order: Positions, vectors: Vectors, limit: int | None = None, threshold: float = DUPLICATE_FROM
) -> Positions:
    """Keep the best of each group of near-identical videos.

    Args:
        order: int64 ``[K]``, best first.
        vectors: Gives their unit tokens.
        limit: Stop when this many are kept.
        threshold: From this cosine on, two videos count as the same.

    Returns:
        The positions that stay, in the same order.
    """
    kept: list[int] = []
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        mine = vectors(block)
        if start == 0:
            compared = mine[:0]
        is_new = (mine @ compared.T < threshold).all(1)
        among = mine @ mine.T >= threshold
        chosen: list[int] = []
        for n in np.flatnonzero(is_new):
            if not among[n, chosen].any():
                chosen.append(int(n))
        kept += block[chosen].tolist()
        if limit is not None and len(kept) >= limit:
            return np.array(kept[:limit], np.int64)
        if len(compared) < COMPARED:
            compared = np.concatenate([compared, mine[chosen]])[:COMPARED]
    return np.array(kept, np.int64)


def diversify(
    order: Positions, scores: Singles, vectors: Vectors, diversity: float, limit: int | None = None
) -> Positions:
    """Reorder the best `DIVERSIFIED` so that neighbours in the list differ.

    Greedy MAP inference of a determinantal point process (Chen, Zhang and Zhou, "Fast Greedy MAP Inference for
    Determinantal Point Process to Improve Recommendation Diversity", NeurIPS 2018): each place goes to the video that
    adds most to ``(1 - diversity) · Σ score + diversity · log det S``, S being the videos' similarities. Taken rather
    than MMR because the determinant sees what all that is chosen spans together, where MMR sees the nearest one only,
    and its incremental form costs the same, O(places · videos) a place.

    What all videos of the window have in common says nothing about variety, so cosines are taken after their mean is
    subtracted; and (1 + cosine) / 2 is the similarity, so that opposites count as different (to a determinant a vector
    and its negative are the same).

    Args:
        order: int64 ``[K]``, best first.
        scores: float32 ``[C]``, by position.
        vectors: Gives unit tokens.
        diversity: In (0, 1]; at 1, scores only choose the first video and decide between equals.
        limit: Places to fill; videos behind them stay in order of score.

    Returns:
        The same positions, reordered.
    """
    window = order[:DIVERSIFIED]
    count = len(window)
    if count < 2:
        return order
    places = count if limit is None else min(limit, count)
    similar = _similarities(vectors(window))
    quality = (1.0 - diversity) * scores[window].astype(np.float64)
    # Cholesky rows of what is chosen, and what each video would still add to the determinant.
    rows = np.zeros((places, count))
    left = np.diag(similar).copy()
    free = np.ones(count, bool)
    chosen: list[int] = []
    while len(chosen) < places:
        usable = free & (left > _NOTHING_NEW)
        if not usable.any():
            break
        gain = np.full(count, -np.inf)
        gain[usable] = quality[usable] + diversity * np.log(left[usable])
        best = int(np.argmax(gain))  # the first of equals: the better placed one
        row = (similar[best] - rows[: len(chosen), best] @ rows[: len(chosen)]) / np.sqrt(left[best])
        rows[len(chosen)] = row
        left = left - row**2
        free[best] = False
        chosen.append(best)
    rest = np.flatnonzero(free)
    return np.concatenate([window[chosen], window[rest], order[count:]])


def _similarities(vectors: Singles) -> NDArray[np.float64]:
    """(1 + cosine) / 2 after centring: float64 ``[K, K]``, positive semidefinite, ones on the diagonal."""
    centered = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    # Videos that do not differ from the mean (all are alike) have no direction: they keep a zero vector.
    centered = np.where(length > 1e-6, centered / np.maximum(length, 1e-12), 0.0)
    similar = 0.5 + 0.5 * (centered @ centered.T)
    np.fill_diagonal(similar, 1.0)
    return np.asarray(similar)


def rerank(
    scores: Singles, limit: int | None, vectors: Vectors, *, diversity: float = 0.0, fold_duplicates: bool = False
) -> Positions:
    """Order by score, remove near-duplicates, diversify, and cut to the limit.

    Args:
        scores: float32 ``[C]``.
        limit: Length of the list; None for all.
        vectors: Gives unit tokens of positions.
        diversity: See `diversify`; 0 leaves it out.
        fold_duplicates: See `deduplicate`.

    Returns:
        Positions int64 ``[K]``, K ≤ C.
    """
    if limit == 1 or not (diversity or fold_duplicates):  # neither changes who is first
        return best_first(scores, limit)
    needed = None if limit is None else max(limit, DIVERSIFIED) if diversity else limit
    order = best_first(scores, None if needed is None else 4 * needed)
    if fold_duplicates:
        kept = deduplicate(order, vectors, needed)
        if needed is not None and len(kept) < needed and len(order) < len(scores):
            kept = deduplicate(best_first(scores), vectors, needed)
        order = kept
    if diversity:
        order = diversify(order, scores, vectors, diversity, limit)
    return order[:limit]
