"""Events → what scoring needs of them: the user graph, fed with few fixed shapes. Scoring itself is in `scorers`.

Odd shapes make inference libraries plan and allocate anew, for ever; so inputs are padded to a few sizes and masked.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.backends.base import Session
from linkedout_edge.features import event_features as features_of
from linkedout_edge.inputs import Event

MAX_EVENTS = 2048
"""Of a longer history the latest count: the user graph's attention grows with the square."""
MIN_EVENTS_SHAPE = 8

Floats = NDArray[np.float32]
Keep: TypeAlias = Callable[[Callable[[], None]], None]
"""Does what remembers something, unless that was forgotten meanwhile."""


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


@dataclass(frozen=True, eq=False)
class User:
    """What the user graph makes of a history of N events; its arrays are shared, so do not write to them.

    Attributes:
        query: float32 ``[1, 2, L, M·D]``.
        bias: float32 ``[1, L]``.
        weights: float32 ``[N, L]``.
    """

    query: Floats
    bias: Floats
    weights: Floats


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

    def encode(
        self, tokens: NDArray[np.int8], scales: Floats, events: Floats, keep: Keep = lambda then: then()
    ) -> User:
        """As `encode_user`, which runs only if it has to. `keep` decides whether the result is remembered."""
        key = (tokens.tobytes(), scales.tobytes(), events.tobytes())
        with self._lock:
            known = self._users.get(key)
            if known is not None:
                self._users.move_to_end(key)
                return known
        user = encode_user(self._session, tokens, scales, events)
        for array in (user.query, user.bias, user.weights):
            array.flags.writeable = False
        keep(lambda: self._keep(key, user))
        return user

    def _keep(self, key: tuple[bytes, bytes, bytes], user: User) -> None:
        with self._lock:
            self._users[key] = user
            while len(self._users) > self.KEPT:
                self._users.popitem(last=False)

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
            "tokens": pad(tokens, size)[None],
            "scales": pad(scales, size)[None],
            "events": pad(events, size)[None],
            "mask": (np.arange(size) < count)[None],
        }
    )
    return User(out["query"], out["bias"], out["event_weights"][0, :count].copy())


def pad(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Zeros after the rows of `array`, up to `size` rows."""
    if len(array) == size:
        return array
    out = np.zeros((size, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out
