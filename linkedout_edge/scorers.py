"""A user and candidates' tokens → scores.

Two ways to compute what docs/architecture.md writes as a formula. `GraphScorer` runs the bundle's scorer graph,
wherever that runs. `HostScorer` does the same arithmetic with NumPy, for CPUs: a ranking of a thousand videos is so
little work that an inference library's own costs (a graph of forty operators, turning the tokens, waking threads) are
most of it.
`choose` takes the second only where it agrees with the graph, so the graph remains the truth.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.backends.base import Session
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import BackendError
from linkedout_edge.lifetime import submit
from linkedout_edge.scoring import Keep, User, pad, padded

logger = logging.getLogger("linkedout_edge")

MIN_CANDIDATES_SHAPE = 16
MAX_CANDIDATES_SHAPE = 1024
"""Candidates that are scored at a time: their tokens, 768 KiB of the default shape, stay in a CPU's second-level cache
while they are turned, packed or widened; eight times as much does not and takes 1.5 times as long."""

Floats: TypeAlias = NDArray[np.float32]
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


class Scorer(Protocol):
    """Scores any number of candidates. Safe to use from several threads."""

    @property
    def device(self) -> str:
        """What really computes."""

    def score(
        self, user: User, total: int, chunk: Chunk, known_by: Candidates | None = None, *, split: bool = True
    ) -> tuple[Floats, Floats | None]:
        """Score `total` candidates that `chunk` gives part by part.

        Args:
            user: From the user graph.
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

    def forget(self) -> None:
        """Drop what is remembered of candidates."""

    def close(self) -> None:
        """Let threads go."""


def choose(session: Session, config: ModelConfig, threads: int = 1) -> Scorer:
    """The quickest way to compute what a scorer graph computes where it runs."""
    graph = GraphScorer(session)
    if not session.device.startswith("CPU"):
        return graph
    host = HostScorer(config, threads)
    if not _agree(graph, host, config):
        logger.info("the bundle's scorer graph is not the usual one: it is run as it is")
        return graph
    return host


class GraphScorer:
    """Runs the scorer graph, a cache-sized part at a time, in few fixed shapes.

    Args:
        session: The scorer graph.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def device(self) -> str:
        """What runs the graph."""
        return self._session.device

    def score(
        self, user: User, total: int, chunk: Chunk, known_by: Candidates | None = None, *, split: bool = True
    ) -> tuple[Floats, Floats | None]:
        """See `Scorer.score`."""
        scores, contributions = _results(total, user.bias.shape[1] if split else None)
        for part in _parts(total):
            count = part.stop - part.start
            size = min(MAX_CANDIDATES_SHAPE, padded(count, MIN_CANDIDATES_SHAPE))
            tokens, scales = chunk(part)
            out = self._session.run(
                {
                    "query": user.query,
                    "bias": user.bias,
                    "tokens": pad(tokens, size),
                    "scales": pad(scales, size),
                    "mask": np.arange(size) < count,
                }
            )
            scores[part] = out["score"][:count]
            if contributions is not None:
                contributions[part] = out["contributions"][:count]
        return _numbers(scores), contributions

    def forget(self) -> None:
        """See `Scorer.forget`."""

    def close(self) -> None:
        """See `Scorer.close`."""


class _Digits(NamedTuple):
    """A user's query in whole numbers; see `HostScorer`."""

    values: Floats  # [L·M, 4, D]: u and q in the first digit, then in the second
    scales: Floats  # [L, M, 4, 1]: units of the digits
    bias: Floats  # [L, 1]


@dataclass(eq=False)
class _List:
    """Candidates that were scored more than once, widened; scores and contributions by user, as long as one is kept."""

    stamps: NDArray[np.int64]
    tokens: Floats  # [L·M, D, C]
    scales: Floats  # [L, M, 1, C]
    scored: weakref.WeakKeyDictionary[User, tuple[Floats, Floats]] = field(default_factory=weakref.WeakKeyDictionary)


class HostScorer:
    """The scorer graph's arithmetic in NumPy.

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
    SHARED_FROM = 8 * MAX_CANDIDATES_SHAPE

    WIDENED = 256
    """Videos at a time: 768 KiB of float32 of the default shape."""
    KEPT, KEPT_UP_TO = 2, 2 * MAX_CANDIDATES_SHAPE
    """Lists that stay widened, and the candidates of the longest one: 6 MiB each of the default shape."""

    def __init__(self, config: ModelConfig, threads: int = 1) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "linkedout-score") if threads > 1 else None  # starts none yet
        self._shape = (config.layers, config.tokens_per_layer, config.token_width)
        self._largest = float(2**24 // (128 * config.token_width))  # largest digit: D products of it fit into 24 bits
        self._digits: weakref.WeakKeyDictionary[User, _Digits] = weakref.WeakKeyDictionary()
        self._buffers = threading.local()
        self._lists: deque[_List] = deque(maxlen=self.KEPT)
        self._once: deque[NDArray[np.int64]] = deque(maxlen=self.KEPT)  # stamps of lists that came once
        self._lock = threading.Lock()

    def score(
        self, user: User, total: int, chunk: Chunk, known_by: Candidates | None = None, *, split: bool = True
    ) -> tuple[Floats, Floats | None]:
        """See `Scorer.score`."""
        digits = self._digits.get(user)
        if digits is None:
            digits = self._digits[user] = self._in_digits(user)
        known = self._known(known_by, chunk) if known_by is not None and 0 < total <= self.KEPT_UP_TO else None
        if known is not None:
            return self._score_again(user, digits, known)
        scores, contributions = _results(total, self._shape[0] if split else None)

        def work(parts: list[slice]) -> None:
            for part in parts:
                tokens, scales = chunk(part)
                into = None if contributions is None else contributions[part]
                self._score(digits, tokens, scales, scores[part], into)

        parts, pool = _parts(total), self._pool
        if pool is None or total < self.SHARED_FROM:
            work(parts)
        else:
            others = [submit(pool, work, parts[n :: self._threads]) for n in range(1, self._threads)]
            work(parts[:: self._threads])
            for other in others:
                other.result()
        return _numbers(scores), contributions

    def forget(self) -> None:
        """See `Scorer.forget`."""
        with self._lock:
            self._lists.clear()
            self._once.clear()

    def close(self) -> None:
        """See `Scorer.close`."""
        self.forget()
        if self._pool is not None:
            self._pool.shutdown()

    def _score_again(self, user: User, digits: _Digits, known: _List) -> tuple[Floats, Floats]:
        """Scores and contributions of a widened list: those of the last time, if nothing was watched since."""
        scored = known.scored.get(user)
        if scored is not None:
            return scored
        layers, m, _ = self._shape
        total = len(known.stamps)
        scores, contributions = np.empty(total, np.float32), np.empty((total, layers), np.float32)
        products = np.matmul(digits.values, known.tokens).reshape(layers, m, 4, total)
        self._fuse(digits, products, known.scales, scores, contributions)
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
        known = _List(stamps, wide, np.ascontiguousarray(scales.transpose(1, 2, 0))[:, :, None])
        candidates.keep(lambda: self._keep(known))
        return known

    def _keep(self, known: _List) -> None:
        with self._lock:
            self._lists.appendleft(known)

    def _in_digits(self, user: User) -> _Digits:
        layers, m, d = self._shape
        query = user.query.astype(np.float64).reshape(2, layers * m, d).transpose(1, 0, 2)  # [LM, 2, D]
        unit = np.maximum(np.abs(query).max(-1, keepdims=True), 1e-12) / self._largest
        first = np.rint(query / unit)
        second = np.rint((query / unit - first) * (2 * self._largest))  # half a unit at most was left
        values = np.concatenate([first, second], 1).astype(np.float32)
        scales = np.concatenate([unit, unit / (2 * self._largest)], 1).astype(np.float32)
        return _Digits(values, scales.reshape(layers, m, 4, 1), user.bias.reshape(layers, 1))

    def _score(
        self, digits: _Digits, tokens: NDArray[np.int8], scales: Floats, scores: Floats, contributions: Floats | None
    ) -> None:
        """Score up to `MAX_CANDIDATES_SHAPE` candidates into `scores` and `contributions`."""
        layers, m, d = self._shape
        count = len(tokens)
        wide, products = self._memory()
        flat = products.reshape(layers * m, 4, -1)
        for start in range(0, count, self.WIDENED):
            stop = min(count, start + self.WIDENED)
            values = wide[: stop - start]
            np.copyto(values, tokens[start:stop].reshape(-1, layers * m, d))
            np.matmul(digits.values, values.transpose(1, 2, 0), out=flat[:, :, start:stop])  # [LM, 4, c]
        self._fuse(digits, products[..., :count], scales.transpose(1, 2, 0)[:, :, None], scores, contributions)

    def _fuse(
        self, digits: _Digits, products: Floats, scales: Floats, scores: Floats, contributions: Floats | None
    ) -> None:
        """Products ``[L, M, 4, C]``, which are overwritten, and scales ``[L, M, 1, C]`` → scores and contributions."""
        products *= digits.scales
        first = products[:, :, :2]  # [L, M, 2, C]
        first += products[:, :, 2:]
        first *= scales
        by_layer = first[:, 0]  # [L, 2, C]
        for token in range(1, self._shape[1]):
            by_layer += first[:, token]
        gates = by_layer[:, 1]  # [L, C]
        gates += digits.bias
        gates -= gates.max(0)
        np.exp(gates, out=gates)
        gates /= _sum(gates)
        gates *= by_layer[:, 0]
        scores[:] = _sum(gates)
        if contributions is not None:
            contributions[:] = gates.T

    def _memory(self) -> tuple[Floats, Floats]:
        """This thread's buffers: float32 ``[WIDENED, L·M, D]`` and ``[L, M, 4, MAX_CANDIDATES_SHAPE]``."""
        found: tuple[Floats, Floats] | None = getattr(self._buffers, "arrays", None)
        if found is None:
            layers, m, d = self._shape
            found = self._buffers.arrays = (
                np.empty((self.WIDENED, layers * m, d), np.float32),
                np.empty((layers, m, 4, MAX_CANDIDATES_SHAPE), np.float32),
            )
        return found


def _results(total: int, layers: int | None) -> tuple[Floats, Floats | None]:
    """Where scores float32 ``[C]`` and, with `layers`, contributions float32 ``[C, L]`` are to go."""
    return np.empty(total, np.float32), None if layers is None else np.empty((total, layers), np.float32)


def _parts(total: int) -> list[slice]:
    step = MAX_CANDIDATES_SHAPE
    return [slice(start, min(total, start + step)) for start in range(0, total, step)]


def _sum(rows: Floats) -> Floats:
    """Sum over the first axis, in order: NumPy's own order depends on the shape."""
    total = rows[0].copy()
    for row in rows[1:]:
        total += row
    return total


def _numbers(scores: Floats) -> Floats:
    if not np.isfinite(scores).all():
        raise BackendError("the scorer gave a score that is no number: check the bundle with another backend")
    return scores


def _agree(one: Scorer, other: Scorer, config: ModelConfig) -> bool:
    """Whether two scorers give the same for made-up numbers of the usual size."""
    layers, m, d = config.layers, config.tokens_per_layer, config.token_width
    rng = np.random.default_rng(0)
    query = rng.standard_normal((1, 2, layers, m * d), np.float32) / np.float32(m * d)
    user = User(query, rng.standard_normal((1, layers), np.float32), np.zeros((1, layers), np.float32))
    tokens = rng.integers(-127, 128, (MIN_CANDIDATES_SHAPE, layers, m, d), np.int8)
    scales = rng.random((MIN_CANDIDATES_SHAPE, layers, m), np.float32) / np.float32(32)
    results = [s.score(user, len(tokens), lambda part: (tokens[part], scales[part])) for s in (one, other)]
    return all(a is not None and b is not None and np.allclose(a, b, atol=1e-4) for a, b in zip(*results, strict=True))
