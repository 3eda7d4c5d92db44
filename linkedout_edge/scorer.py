"""A user and candidates' tokens → scores, with NumPy, over the bytes as they are stored.

``score = Σ_l ⟨query[l], t[l]⟩ − offset[l]`` is so little work that an inference library's own costs (operators, turned
tensors, woken threads) would be most of it.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import BackendError
from linkedout_edge.lifetime import submit
from linkedout_edge.taste import Taste

CHUNK = 1024
"""Candidates that are scored at a time: their tokens, 768 KiB of the default shape, stay in a CPU's second-level cache
while they are widened; eight times as much does not and takes 1.5 times as long."""

Floats: TypeAlias = NDArray[np.float32]
Keep: TypeAlias = Callable[[Callable[[], None]], None]
"""Does what remembers something, unless that was forgotten meanwhile."""
Chunk: TypeAlias = Callable[[slice], "tuple[NDArray[np.int8], Floats]"]
"""Slice of the candidates → their tokens int8 ``[c, L, M, D]`` and scales float32 ``[c, L, M]``; may give views."""


class Candidates(NamedTuple):
    """How candidates are known again.

    Attributes:
        stamps: Gives int64 ``[C]`` that come again only with the same tokens.
        keep: Does what remembers their tokens, unless these are not any more what was read.
    """

    stamps: Callable[[], NDArray[np.int64]]
    keep: Keep


class _SplitQuery(NamedTuple):
    """A user's query in whole numbers; see `Scorer`."""

    digits: Floats  # [L·M, 2, D]: the first digit, then the second
    scales: Floats  # [L, M, 2, 1]: units of the digits
    offset: Floats  # [L, 1]


@dataclass(eq=False)
class _List:
    """Candidates that were scored more than once, widened; scores and contributions by user, as long as one is kept."""

    stamps: NDArray[np.int64]
    tokens: Floats  # [L·M, D, C]
    scales: Floats  # [L, M, C]
    scored: weakref.WeakKeyDictionary[Taste, tuple[Floats, Floats]] = field(default_factory=weakref.WeakKeyDictionary)


class Scorer:
    """Scores any number of candidates. Safe to use from several threads.

    Tokens are widened to float32 in parts that stay in the second-level cache, and multiplied there by BLAS. So that a
    video's score depends neither on its neighbours nor on the order in which a CPU's BLAS adds, the query is written in
    two digits of whole numbers, small enough that every sum of products is exact in float32. Together they are as exact
    as float32 itself. Equal tokens get equal scores, and ties are ties on every machine.

    A feed is ranked again after each video that is watched: the latest short lists stay widened, half of the work.
    Where nothing was watched either (another page, another prior), their scores are still those of the last time.

    Args:
        config: The model's shapes.
        threads: That many share a long list of candidates. A short one is done before a second thread has woken.
    """

    device = "NumPy"
    SHARED_FROM = 8 * CHUNK

    WIDENED = 256
    """Videos at a time: 768 KiB of float32 of the default shape."""
    KEPT, KEPT_UP_TO = 2, 2 * CHUNK
    """Lists that stay widened, and the candidates of the longest one: 6 MiB each of the default shape."""

    def __init__(self, config: ModelConfig, threads: int = 1) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "linkedout-score") if threads > 1 else None  # starts none yet
        self._shape = (config.layers, config.tokens_per_layer, config.token_width)
        self._largest = float(2**24 // (128 * config.token_width))  # largest digit: D products of it fit into 24 bits
        self._queries: weakref.WeakKeyDictionary[Taste, _SplitQuery] = weakref.WeakKeyDictionary()
        self._buffers = threading.local()
        self._lists: deque[_List] = deque(maxlen=self.KEPT)
        self._once: deque[NDArray[np.int64]] = deque(maxlen=self.KEPT)  # stamps of lists that came once
        self._lock = threading.Lock()

    def score(
        self, user: Taste, total: int, chunk: Chunk, known_by: Candidates | None = None, *, split: bool = True
    ) -> tuple[Floats, Floats | None]:
        """Score `total` candidates that `chunk` gives part by part.

        Args:
            user: What is liked.
            total: C.
            chunk: Gives tokens and scales.
            known_by: How the candidates are known again; None: not at all.
            split: Give contributions: six times the memory of scores.

        Returns:
            Scores float32 ``[C]`` and contributions float32 ``[C, L]``, None without `split`. They may be shared, so do
            not write to them.

        Raises:
            BackendError: A score is no number.
        """
        query = self._queries.get(user)
        if query is None:
            query = self._queries[user] = self._in_digits(user)
        known = self._known(known_by, chunk) if known_by is not None and 0 < total <= self.KEPT_UP_TO else None
        if known is not None:
            return self._score_again(user, query, known)
        scores = np.empty(total, np.float32)
        contributions = np.empty((total, self._shape[0]), np.float32) if split else None

        def work(parts: list[slice]) -> None:
            for part in parts:
                tokens, scales = chunk(part)
                into = None if contributions is None else contributions[part]
                self._score(query, tokens, scales, scores[part], into)

        parts, pool = [slice(start, min(total, start + CHUNK)) for start in range(0, total, CHUNK)], self._pool
        if pool is None or total < self.SHARED_FROM:
            work(parts)
        else:
            others = [submit(pool, work, parts[n :: self._threads]) for n in range(1, self._threads)]
            work(parts[:: self._threads])
            for other in others:
                other.result()
        return _numbers(scores), contributions

    def forget(self) -> None:
        """Drop what is remembered of candidates."""
        with self._lock:
            self._lists.clear()
            self._once.clear()

    def close(self) -> None:
        """Let threads go."""
        self.forget()
        if self._pool is not None:
            self._pool.shutdown()

    def _score_again(self, user: Taste, query: _SplitQuery, known: _List) -> tuple[Floats, Floats]:
        """Scores and contributions of a widened list: those of the last time, if nothing was watched since."""
        scored = known.scored.get(user)
        if scored is not None:
            return scored
        layers, m, _ = self._shape
        total = len(known.stamps)
        scores, contributions = np.empty(total, np.float32), np.empty((total, layers), np.float32)
        products = np.matmul(query.digits, known.tokens).reshape(layers, m, 2, total)
        self._sum(query, products, known.scales, scores, contributions)
        scores.flags.writeable = contributions.flags.writeable = False
        scored = known.scored[user] = _numbers(scores), contributions
        return scored

    def _known(self, candidates: Candidates, chunk: Chunk) -> _List | None:
        """A list that comes again, widened; None: it is new. Lists that come but once displace none that came twice."""
        stamps = candidates.stamps()
        with self._lock:
            for known in self._lists:
                if np.array_equal(known.stamps, stamps):
                    return known
            if not any(np.array_equal(once, stamps) for once in self._once):
                self._once.appendleft(stamps)
                return None
        layers, m, d = self._shape
        tokens, scales = chunk(slice(0, len(stamps)))
        wide = np.ascontiguousarray(tokens.reshape(-1, layers * m, d).transpose(1, 2, 0), np.float32)
        known = _List(stamps, wide, np.ascontiguousarray(scales.transpose(1, 2, 0)))
        candidates.keep(lambda: self._keep(known))
        return known

    def _keep(self, known: _List) -> None:
        with self._lock:
            self._lists.appendleft(known)

    def _in_digits(self, user: Taste) -> _SplitQuery:
        layers, m, d = self._shape
        query = user.query.reshape(layers * m, 1, d)
        unit = np.maximum(np.abs(query).max(-1, keepdims=True), 1e-12) / self._largest  # [L·M, 1, 1]
        first = np.rint(query / unit)
        second = np.rint((query / unit - first) * (2 * self._largest))  # half a unit at most was left
        digits = np.concatenate([first, second], 1).astype(np.float32)
        scales = np.concatenate([unit, unit / (2 * self._largest)], 1).astype(np.float32)
        return _SplitQuery(digits, scales.reshape(layers, m, 2, 1), user.offset.astype(np.float32)[:, None])

    def _score(
        self, query: _SplitQuery, tokens: NDArray[np.int8], scales: Floats, scores: Floats, contributions: Floats | None
    ) -> None:
        """Score up to `CHUNK` candidates into `scores` and `contributions`."""
        layers, m, d = self._shape
        count = len(tokens)
        wide, products = self._memory()
        flat = products.reshape(layers * m, 2, -1)
        for start in range(0, count, self.WIDENED):
            stop = min(count, start + self.WIDENED)
            values = wide[: stop - start]
            np.copyto(values, tokens[start:stop].reshape(-1, layers * m, d))
            np.matmul(query.digits, values.transpose(1, 2, 0), out=flat[:, :, start:stop])  # [L·M, 2, c]
        self._sum(query, products[..., :count], scales.transpose(1, 2, 0), scores, contributions)

    def _sum(
        self, query: _SplitQuery, products: Floats, scales: Floats, scores: Floats, contributions: Floats | None
    ) -> None:
        """Products ``[L, M, 2, C]``, which are overwritten, and scales ``[L, M, C]`` → scores and contributions.

        Added up in a fixed order: NumPy's own depends on the shape.
        """
        products *= query.scales
        similar = products[:, :, 0]  # [L, M, C]
        similar += products[:, :, 1]
        similar *= scales
        by_layer = similar[:, 0]  # [L, C]
        for token in range(1, self._shape[1]):
            by_layer += similar[:, token]
        by_layer -= query.offset
        scores[:] = by_layer[0]
        for layer in by_layer[1:]:
            scores += layer
        if contributions is not None:
            contributions[:] = by_layer.T

    def _memory(self) -> tuple[Floats, Floats]:
        """This thread's buffers: float32 ``[WIDENED, L·M, D]`` and ``[L, M, 2, CHUNK]``."""
        found: tuple[Floats, Floats] | None = getattr(self._buffers, "arrays", None)
        if found is None:
            layers, m, d = self._shape
            found = self._buffers.arrays = (
                np.empty((self.WIDENED, layers * m, d), np.float32),
                np.empty((layers, m, 2, CHUNK), np.float32),
            )
        return found


def _numbers(scores: Floats) -> Floats:
    if not np.isfinite(scores).all():
        raise BackendError("a score is no number: check the bundle with another backend, and encode the videos again")
    return scores
