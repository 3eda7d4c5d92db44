"""A user and candidates' tokens → scores, over the bytes as they are stored.

``score = Σ_l ⟨query[l], t[l]⟩ − offset[l]``. The query is written in whole numbers, so that every sum of products is
exact in any order; scales, offsets and layers then follow in float32, in one order. So a video's score depends neither
on its neighbours nor on what computes it: the extension (`_kernel.c`) with the instructions that this processor has,
or, where no compiler was, NumPy. Equal tokens get equal scores, and ties are ties on every machine.
"""

from __future__ import annotations

import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from linkedout_edge import extension
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import BackendError, BundleError
from linkedout_edge.lifetime import submit
from linkedout_edge.rank.taste import Singles, Taste

Digits: TypeAlias = NDArray[np.int16]
Tokens: TypeAlias = NDArray[np.int8]
Positions: TypeAlias = NDArray[np.int32] | NDArray[np.int64]

NUMPY = "NumPy"
PATHS: tuple[str, ...] = (*(extension.kernel.PATHS if extension.kernel else ()), NUMPY)
"""What can compute scores here, the best first: ``AVX512-VNNI``, ``AVX2``, ``NEON-dotprod``, ``NEON``, ``C``,
``NumPy``."""
FORCED = "LINKEDOUT_SCORER"
"""An environment variable that names one of `PATHS`, to find out whether it is to blame."""

LARGEST = 127 * 256 + 127
"""Largest digit: it fits into two int8, which is what some processors multiply."""
MOST = 2**24 - 1
"""Digits of a token may add up to so much: sums of products with int8 fit into int32."""
WIDEST = 1024
"""Widest token: NumPy's sums of products with half a digit are exact in float32."""

SHARED_FROM = 32768
"""Candidates that several threads share. Of fewer a second one saves nothing, and costs where the CPU is busy."""
IN_ORDER_FROM = 4096
"""Candidates, at least half of the store, from which on all that is stored is scored in its order."""
PART = 4096
"""Candidates that a thread takes at a time."""


class _WholeQuery(NamedTuple):
    """A user's query in whole numbers."""

    digits: Digits  # [L, M, D]
    units: Singles  # [L, M], what a digit is worth
    offsets: Singles  # [L]


class Scorer:
    """Scores any number of candidates. Safe to use from several threads, and does not hold the interpreter meanwhile.

    Args:
        config: The model's shapes.
        threads: That many share a long list of candidates. A short one is done before a second thread has woken.

    Attributes:
        path: What computes, one of `PATHS`.
        device: The same for people.

    Raises:
        BundleError: Tokens are too wide.
        BackendError: `FORCED` names what is not here.
    """

    def __init__(self, config: ModelConfig, threads: int = 1) -> None:
        self._shape = (config.layers, config.tokens_per_layer, config.token_width)
        if config.token_width > WIDEST:
            raise BundleError(f"tokens of {config.token_width} entries: at most {WIDEST} can be scored")
        self.path = os.environ.get(FORCED) or PATHS[0]
        if self.path not in PATHS:
            raise BackendError(f"{FORCED}={self.path}: here are {', '.join(PATHS)}")
        self.device = NUMPY if self.path == NUMPY else f"{self.path} kernel"
        self._compute = score_with_numpy if self.path == NUMPY else partial(extension.kernel.score, self.path)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "linkedout-score") if threads > 1 else None  # starts none yet
        self._largest = min(LARGEST, MOST // config.token_width)
        self._queries: weakref.WeakKeyDictionary[Taste, _WholeQuery] = weakref.WeakKeyDictionary()

    def score(
        self, user: Taste, tokens: Tokens, scales: Singles, rows: Positions, *, split: bool = True
    ) -> tuple[Singles, Singles | None]:
        """Score candidates where they lie.

        Args:
            user: What is liked.
            tokens: int8 ``[V, L, M, D]``, contiguous: all that is stored. Others may write to it meanwhile; scores of
                what they write are worth nothing then.
            scales: float32 ``[V, L, M]``, contiguous.
            rows: int32 or int64 ``[C]``: which of them are candidates.
            split: Give contributions: six times the memory of scores.

        Returns:
            Scores float32 ``[C]`` and contributions float32 ``[C, L]``, None without `split`.

        Raises:
            TypeError: An array is of another type.
            ValueError: An array is of another shape, or not contiguous.
            IndexError: A row is not stored.
            BackendError: A score is no number.
        """
        if _jumps_through_most(rows, len(tokens)):
            every, every_split = self._score_all(user, tokens, scales, np.arange(len(tokens), dtype=np.int32), split)
            scores, layers = every[rows], None if every_split is None else every_split[rows]
        else:
            scores, layers = self._score_all(user, tokens, scales, rows, split)
        if not np.isfinite(scores).all():
            raise BackendError(
                "a score is no number: check the bundle with another backend, and encode the videos again"
            )
        return scores, layers

    def close(self) -> None:
        """Let threads go."""
        if self._pool is not None:
            self._pool.shutdown()

    def _score_all(
        self, user: Taste, tokens: Tokens, scales: Singles, rows: Positions, split: bool
    ) -> tuple[Singles, Singles | None]:
        """Score rows one after the other, a long list in several threads."""
        query = self._queries.get(user)
        if query is None:
            query = self._queries[user] = self._in_digits(user)
        total = len(rows)
        scores = np.empty(total, np.float32)
        layers = np.empty((total, self._shape[0]), np.float32) if split else None

        threads = self._threads if total >= SHARED_FROM else 1
        size = PART if threads > 1 else SHARED_FROM

        def work(thread: int) -> None:
            for start in range(thread * size, total, threads * size):
                part = slice(start, start + size)
                into = None if layers is None else layers[part]
                wide = rows[part].astype(np.int64, casting="safe", copy=False)  # of all at once it would take memory
                self._compute(*query, tokens, scales, wide, scores[part], into)

        others = [submit(self._pool, work, n) for n in range(1, threads)] if self._pool else []
        work(0)
        for other in others:
            other.result()
        return scores, layers

    def _in_digits(self, user: Taste) -> _WholeQuery:
        query = user.query.reshape(self._shape)
        units = np.maximum(np.abs(query).max(-1), 1e-12) / self._largest
        if not np.isfinite(units).all():
            raise BackendError("what is liked is no number: encode the videos of the history again")
        digits = np.rint(query / units[..., None]).astype(np.int16)
        return _WholeQuery(digits, units.astype(np.float32), user.offset.astype(np.float32))


def _jumps_through_most(rows: Positions, stored: int) -> bool:
    """Whether it is quicker to score all that is stored, in its order: memory is slow where it is read in another."""
    return (
        len(rows) >= IN_ORDER_FROM
        and 2 * len(rows) >= stored
        and rows.dtype.kind == "i"
        and not bool((rows[1:] > rows[:-1]).all())
        and bool(rows.min() >= 0 and rows.max() < stored)
    )


def score_with_numpy(
    digits: Digits,
    units: Singles,
    offsets: Singles,
    tokens: Tokens,
    scales: Singles,
    rows: NDArray[np.int64],
    scores: Singles,
    layers: Singles | None,
) -> None:
    """The kernel's twin: the same arguments, errors and bits.

    Widened to float32 in parts that stay in a CPU's second-level cache and that BLAS multiplies in one thread: waking
    others takes longer than the work.

    Args:
        digits: int16 ``[L, M, D]``; those of a token add up to `MOST` at most.
        units: float32 ``[L, M]``, what a digit is worth.
        offsets: float32 ``[L]``.
        tokens: int8 ``[V, L, M, D]``.
        scales: float32 ``[V, L, M]``.
        rows: int64 ``[C]``, which are scored.
        scores: float32 ``[C]``, written.
        layers: float32 ``[C, L]``, written; None: not wanted.

    Raises:
        TypeError: An array is of another type.
        ValueError: An array is of another shape, not contiguous, or digits are too large.
        IndexError: A row is out of bounds.
    """
    _check("digits", digits, np.int16, (None, None, None))
    _check("units", units, np.float32, digits.shape[:2])
    _check("offsets", offsets, np.float32, digits.shape[:1])
    _check("tokens", tokens, np.int8, (None, *digits.shape))
    _check("scales", scales, np.float32, (*tokens.shape[:1], *digits.shape[:2]))
    _check("rows", rows, np.int64, (None,))
    _check("scores", scores, np.float32, rows.shape)
    if layers is not None:
        _check("layers", layers, np.float32, (*rows.shape, *digits.shape[:1]))
    if not all(digits.shape):
        raise ValueError("digits: expected at least one layer, token and entry")
    sizes = np.abs(digits.astype(np.int64))
    if sizes.max() > LARGEST or sizes.sum(-1).max() > MOST or digits.shape[-1] > WIDEST:
        raise ValueError("digits: too large, sums would overflow")
    if rows.size and (rows.min() < 0 or rows.max() >= len(tokens)):
        raise IndexError(f"rows: some are not of the {len(tokens)} that are stored")
    (count, per_layer, width), total = digits.shape, len(rows)
    low = (digits.astype(np.int32) + 128) % 256 - 128  # digits are 256 · high + low
    halves = np.stack([(digits - low) // 256, low], 2).reshape(-1, 2, width).astype(np.float32)  # [L·M, 2, D]
    step = max(1, 16384 // width)
    wide = np.empty((min(step, total), count * per_layer, width), np.float32)
    for start in range(0, total, step):
        part = rows[start : start + step]
        values = wide[: len(part)]
        np.copyto(values, tokens[part].reshape(values.shape))
        both = np.matmul(halves, values.transpose(1, 2, 0))  # [L·M, 2, c], exact
        sums = both[:, 0].reshape(count, per_layer, -1)
        sums *= 256
        sums += both[:, 1].reshape(sums.shape)  # rounded here, once, as from int32
        sums += 0  # a whole number has no -0
        sums *= units[..., None]
        sums *= scales[part].transpose(1, 2, 0)
        by_layer = sums[:, 0]  # [L, c]; added up in a fixed order: NumPy's own depends on the shape
        for token in range(1, per_layer):
            by_layer += sums[:, token]
        by_layer -= offsets[:, None]
        score = scores[start : start + step]
        score[:] = by_layer[0]
        for more in by_layer[1:]:
            score += more
        if layers is not None:
            layers[start : start + step] = by_layer.T


def _check(name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int | None, ...]) -> None:
    """What the kernel checks of each array; None in a shape is any length."""
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype.__name__}")
    if len(array.shape) != len(shape) or any(b not in (None, a) for a, b in zip(array.shape, shape, strict=True)):
        raise ValueError(f"{name}: expected the shape {shape}, got {array.shape}")
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise ValueError(f"{name}: expected a contiguous array")
