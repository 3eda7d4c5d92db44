"""Events and candidates' tokens → scores: the user and scorer graphs, fed with few fixed shapes.

Odd shapes make inference libraries plan and allocate anew, for ever; so inputs are padded to a few sizes and masked,
and many candidates are scored in chunks.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.backends.base import Arrays, Session
from linkedout_edge.errors import BackendError
from linkedout_edge.features import event_features as features_of
from linkedout_edge.inputs import Event

MAX_EVENTS = 2048
"""Of a longer history the latest count: the user graph's attention grows with the square."""
MIN_EVENTS_SHAPE = 8
MIN_CANDIDATES_SHAPE = 16
MAX_CANDIDATES_SHAPE = 1024
"""Candidates that the scorer graph sees at a time. The graph copies what it reads (to turn and to pack it): 768 KiB of
the default shape stay in a CPU's second-level cache, eight times as much does not and takes 1.5 times as long."""

Floats = NDArray[np.float32]


def padded(count: int, smallest: int) -> int:
    """The next of smallest · (1, 2, 3, 4, 6, 8, 12, 16, 24 ...) that holds `count`."""
    size = smallest
    while size < count:
        if 3 * size // 2 >= count and size > smallest:
            return 3 * size // 2
        size *= 2
    return size


def event_features(events: Sequence[Event], now: datetime | None = None) -> Floats:
    """`EVENT_FEATURES` of events, oldest first: float32 ``[N, E]``.

    Args:
        events: Oldest first; the last has position 0.
        now: Present time, aware. An event of the future (the clock was set back) has age 0.
    """
    now = now or datetime.now(timezone.utc)
    ages = [math.nan if e.at is None else (now - e.at).total_seconds() / 3600 for e in events]
    said = [0 if e.liked is None else (1 if e.liked else -1) for e in events]
    return features_of(np.array([e.watched for e in events]), ages_hours=np.array(ages), liked=np.array(said))


class User(NamedTuple):
    """What the user graph makes of a history of N events."""

    query: Floats  # [1, 2, L, M·D]
    bias: Floats  # [1, L]
    weights: Floats  # [N, L]


def this_minute() -> datetime:
    """The present minute: ages are told to the user graph no finer, so that within a minute it need not run again."""
    return datetime.now(timezone.utc).replace(second=0, microsecond=0)


class UserCache:
    """What the user graph made of the latest histories, so that it runs only when something changed.

    The key is everything that the graph is told: tokens, scales and event features (ages among them, see
    `this_minute`). So nothing has to be invalidated when a video is encoded again or leaves the store.

    Args:
        session: The user graph.
    """

    KEPT = 4
    """Histories: an app that alternates between a few (profiles, rows of a page) does not pay each time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._users: OrderedDict[tuple[bytes, bytes, bytes], User] = OrderedDict()

    def encode(self, tokens: NDArray[np.int8], scales: Floats, events: Floats) -> User:
        """As `encode_user`; the arrays that come back are shared, so they are not writable."""
        key = (tokens.tobytes(), scales.tobytes(), events.tobytes())
        with self._lock:
            known = self._users.get(key)
            if known is not None:
                self._users.move_to_end(key)
                return known
        user = encode_user(self._session, tokens, scales, events)
        for array in user:
            array.flags.writeable = False
        with self._lock:
            self._users[key] = user
            while len(self._users) > self.KEPT:
                self._users.popitem(last=False)
        return user

    def clear(self) -> None:
        """Forget all: what was watched must not outlive the recommender or the history."""
        with self._lock:
            self._users.clear()


def encode_user(session: Session, tokens: NDArray[np.int8], scales: Floats, events: Floats) -> User:
    """Run the user graph.

    Args:
        session: The user graph.
        tokens: int8 ``[N, L, M, D]``, N ≥ 1.
        scales: float32 ``[N, L, M]``.
        events: float32 ``[N, E]``.
    """
    count = len(events)
    size = padded(count, MIN_EVENTS_SHAPE)
    out = session.run(
        {
            "tokens": _pad(tokens, size)[None],
            "scales": _pad(scales, size)[None],
            "events": _pad(events, size)[None],
            "mask": (np.arange(size) < count)[None],
        }
    )
    return User(out["query"], out["bias"], out["event_weights"][0, :count].copy())


Chunk = Callable[[slice], "tuple[NDArray[np.int8], Floats]"]
"""Slice of the candidates → their tokens int8 ``[c, L, M, D]`` and scales float32 ``[c, L, M]``."""


def score(session: Session, user: User, total: int, chunk: Chunk) -> tuple[Floats, Floats]:
    """Run the scorer graph over any number of candidates, a cache-sized part at a time.

    Args:
        session: The scorer graph.
        user: From `encode_user`.
        total: C.
        chunk: Gives a part of them; may give views.

    Returns:
        Scores float32 ``[C]`` and contributions float32 ``[C, L]``.

    Raises:
        BackendError: The graph gave a score that is no number.
    """
    scores, contributions = np.empty(total, np.float32), np.empty((total, user.bias.shape[1]), np.float32)
    for start in range(0, total, MAX_CANDIDATES_SHAPE):
        part = slice(start, min(total, start + MAX_CANDIDATES_SHAPE))
        count = part.stop - start
        size = min(MAX_CANDIDATES_SHAPE, padded(count, MIN_CANDIDATES_SHAPE))
        tokens, scales = chunk(part)
        out: Arrays = session.run(
            {
                "query": user.query,
                "bias": user.bias,
                "tokens": _pad(tokens, size),
                "scales": _pad(scales, size),
                "mask": np.arange(size) < count,
            }
        )
        scores[part], contributions[part] = out["score"][:count], out["contributions"][:count]
    if not np.isfinite(scores).all():
        raise BackendError("the scorer gave a score that is no number: check the bundle with another backend")
    return scores, contributions


def _pad(array: NDArray, size: int) -> NDArray:  # type: ignore[type-arg]
    """Zeros after the rows of `array`, up to `size` rows."""
    if len(array) == size:
        return array
    out = np.zeros((size, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out
