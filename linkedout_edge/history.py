"""The rolling history: what was watched, latest last, in memory.

Its videos stay pinned in the store, so that a history outlives the files it was made of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from linkedout_edge.errors import ArgumentError, ArgumentTypeError, ClosedError
from linkedout_edge.inputs import Event, EventLike, Video, as_video
from linkedout_edge.store import TokenStore

MAX_EVENTS = 256
MAX_AGE = timedelta(days=365)


@dataclass(frozen=True)
class _Entry:
    event: Event
    recorded: datetime


def _now() -> datetime:
    return datetime.now(timezone.utc)


class History:
    """Events in the order in which they were added.

    Args:
        store: Where the videos' tokens are pinned.
        encode: Puts a video into the store, or raises the `VideoError` that says why not.
        max_events: Beyond it the first added leave.
        max_age: Events whose `at` is older leave. None keeps them.
        clock: Present time, aware.
    """

    def __init__(
        self,
        store: TokenStore,
        encode: Callable[[Video], None],
        max_events: int = MAX_EVENTS,
        max_age: timedelta | None = MAX_AGE,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        if max_events < 1:
            raise ArgumentError(f"max_events must be at least 1, not {max_events}")
        self._store = store
        self._encode = encode
        self._max_events = max_events
        self._max_age = max_age
        self._clock = clock
        self._entries: list[_Entry] = []
        self._lock = threading.RLock()
        self._closed = False

    def add(self, video: EventLike, **event_fields: Any) -> Event:
        """Note that a video was watched; when this returns, the video is encoded and kept.

        Args:
            video: A str, path or `Video`, or a complete `Event`.
            **event_fields: `watched`, `liked`, `at` of the `Event`; `at` is now, if left out. Not with an `Event`.

        Returns:
            The event as kept: without frames, which are not needed any more.

        Raises:
            VideoError: The video cannot be used (see its subclasses); the history is unchanged.
            ArgumentError, ArgumentTypeError: As `Event` raises them, or fields together with an `Event`.
        """
        self._check_open()
        if isinstance(video, Event):
            if event_fields:
                raise ArgumentError(f"an Event is complete: set {', '.join(event_fields)} in the Event itself")
            event = video
        else:
            unknown_fields = sorted(set(event_fields) - {"watched", "liked", "at"})
            if unknown_fields:
                raise ArgumentTypeError(f"unknown event field {unknown_fields[0]!r}: expected watched, liked or at")
            event = Event(as_video(video), **{"at": self._clock(), **event_fields})
        given = event.video
        with self._store.pinned([given.id]):  # it must not be evicted between encoding and keeping
            self._encode(given)
            kept = given if given.frames is None else Video(id=given.id, title=given.title)
            event = Event(kept, event.watched, event.liked, event.at)
            with self._lock:
                self._check_open()
                self._store.pin(event.id)
                self._entries.append(_Entry(event, self._clock()))
                self._roll()
        return event

    def forget(self, id: str | None = None, *, since: datetime | timedelta | None = None) -> int:
        """Remove the events of one video, or all since a moment.

        Args:
            id: Id of the video.
            since: An aware datetime, or how long ago (``timedelta(hours=1)`` is the last hour). Events of unknown age
                count by when they were added.

        Returns:
            How many events were removed.

        Raises:
            ArgumentError: Not exactly one of the two, or a naive datetime.
            ArgumentTypeError: One has the wrong type.
        """
        self._check_open()
        if (id is None) == (since is None):
            raise ArgumentError("forget takes an id or since=...; clear() forgets everything")
        if id is not None:
            if not isinstance(id, str):
                raise ArgumentTypeError(f"id must be a str, not {type(id).__name__}")
            return self._drop(lambda e: e.event.id == id)
        if isinstance(since, timedelta):
            since = self._clock() - since
        if not isinstance(since, datetime):
            raise ArgumentTypeError(f"since must be a datetime or timedelta, not {type(since).__name__}")
        if since.utcoffset() is None:
            raise ArgumentError("since has no time zone: use datetime.now(timezone.utc), or since.astimezone()")
        moment = since
        return self._drop(lambda e: (e.event.at or e.recorded) >= moment)

    def clear(self) -> int:
        """Forget everything; returns how many events there were."""
        self._check_open()
        return self._drop(lambda e: True)

    def export(self) -> list[dict[str, Any]]:
        """All events as plain JSON values: id, title, watched, liked, at (ISO 8601 or None), oldest first."""
        return [
            {
                "id": e.id,
                "title": e.video.title,
                "watched": e.watched,
                "liked": e.liked,
                "at": e.at.isoformat() if e.at else None,
            }
            for e in self
        ]

    def __iter__(self) -> Iterator[Event]:
        """Events, oldest first."""
        self._check_open()
        with self._lock:
            self._roll()
            return iter([e.event for e in self._entries])

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def close(self) -> None:
        """Release the memory."""
        with self._lock:
            self._closed = True
            self._entries.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the history was closed with its recommender: load a new one")

    def _drop(self, gone: Callable[[_Entry], bool]) -> int:
        with self._lock:
            removed = [e for e in self._entries if gone(e)]
            self._entries = [e for e in self._entries if not gone(e)]
            for e in removed:
                self._store.unpin(e.event.id)
            return len(removed)

    def _roll(self) -> None:
        if self._max_age is not None:
            oldest = self._clock() - self._max_age
            self._drop(lambda e: e.event.at is not None and e.event.at < oldest)
        excess = self._entries[: max(0, len(self._entries) - self._max_events)]
        if excess:
            self._entries = self._entries[len(excess) :]
            for e in excess:
                self._store.unpin(e.event.id)
