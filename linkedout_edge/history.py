"""The rolling history of watched videos, latest last; in memory, and in the database of a `data_dir`.

Its videos stay pinned in the store, so that a history outlives the files. Tokens that were encoded only for an event
are removed with the event; those that `Recommender.encode` or a ranking stored stay.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from linkedout_edge import history_file
from linkedout_edge.errors import ArgumentError, ArgumentTypeError, ClosedError
from linkedout_edge.inputs import Event, EventLike, Video, as_video
from linkedout_edge.lifetime import OneProcess
from linkedout_edge.storage.records import StoredEvent
from linkedout_edge.store import Tokens

if TYPE_CHECKING:
    import sqlite3

    from linkedout_edge.storage import Database

MAX_EVENTS = 256
MAX_AGE = timedelta(days=365)
SURE_AFTER = timedelta(days=7)
"""A time counts as reached this long after something was watched then; a wrong clock is usually corrected sooner."""


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _key(event: Event) -> Hashable:
    """Two events with the same key are the same event."""
    return event.id, event.watched, event.liked, event.at


class History(OneProcess):
    """Events in the order in which they were added, whatever their times. Usable from several threads.

    Args:
        store: Where the videos' tokens are pinned.
        encode: Puts a video into the store, or raises a `VideoError`.
        max_events: Beyond it, the events that were added first are removed.
        max_age: Events whose `at` is older do not count. They are removed when a newer event that is itself a week old
            confirms their age, so that a clock that jumps years ahead and back removes nothing. None keeps them.
        clock: Present time, aware.
        database: The store's; None keeps the history in memory only.
    """

    def __init__(
        self,
        store: Tokens,
        encode: Callable[[Video], None],
        max_events: int = MAX_EVENTS,
        max_age: timedelta | None = MAX_AGE,
        clock: Callable[[], datetime] = _now,
        database: Database | None = None,
    ) -> None:
        super().__init__()
        if max_events < 1:
            raise ArgumentError(f"max_events must be at least 1, not {max_events}")
        self._store = store
        self._encode = encode
        self._max_events = max_events
        self._max_age = max_age
        self._clock = clock
        self._entries: list[StoredEvent] = []
        self._lock = threading.RLock()
        self._closed = False
        self._incognito = 0
        self._db = database
        self._data_version, self._generation = -1, 0 if database is None else database.generation
        if database is not None:
            from linkedout_edge.storage.tables import EventTable

            self._table = EventTable(database)
            self._sync()

    def add(self, video: EventLike, **event_fields: Any) -> Event:
        """Record that a video was watched. When this returns, it is encoded and stored, with a `data_dir` on disk.

        Args:
            video: A str, path or `Video`, or a complete `Event`.
            **event_fields: `watched`, `liked`, `at` of the `Event`; `at` is now, if left out. Not with an `Event`.

        Returns:
            The event as stored: without frames, which are not needed any more. Not stored in incognito mode, nor if
            it is older than a year.

        Raises:
            VideoError: The video cannot be used (see its subclasses); the history is unchanged.
            StorageError: It cannot be written; the history is unchanged.
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
        kept = given if given.frames is None else Video(id=given.id, title=given.title)
        event = Event(kept, event.watched, event.liked, event.at)
        if self._incognito:
            return event
        self._store.check_writable()
        with self._store.pinned([given.id]):  # it must not be evicted between encoding and storing
            auto_encoded = given.id not in self._store or self._was_auto_encoded(given.id)
            self._encode(given)
            self._change(lambda e: False, [(event, auto_encoded)])
        return event

    def forget(self, id: str | None = None, *, since: datetime | timedelta | None = None) -> int:
        """Remove the events of one video, or all since a moment, from memory and disk.

        Args:
            id: Id of the video.
            since: An aware datetime, or how long ago (``timedelta(hours=1)`` is the last hour). Events of unknown age
                count by when they were added. Events of the future (the clock was set back) count as later.

        Returns:
            How many events were removed.

        Raises:
            ArgumentError: Not exactly one of the two, or a naive datetime.
            ArgumentTypeError: One has the wrong type.
            StorageError: It cannot be written; nothing was removed.
        """
        self._check_open()
        if (id is None) == (since is None):
            raise ArgumentError(
                "forget takes either an id or since=..., exactly one of them; clear() forgets everything"
            )
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
        return self._drop(lambda e: (e.event.at or e.added_at) >= moment)

    def clear(self) -> int:
        """Forget everything. Returns the number of events."""
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

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write all events, and the tokens of their videos, into one file: a backup, or for another device or binding.

        The file is not encrypted, whatever `key` the recommender was loaded with; its owner alone may read it.
        docs/formats.md describes it.

        Args:
            path: The file; replaced as a whole, or not at all.

        Returns:
            How many events it holds.

        Raises:
            StorageError: It cannot be written, or is a folder.
            ArgumentTypeError: `path` is no path.
        """
        return history_file.save(self._store, list(self), path)

    def load(self, path: str | os.PathLike[str], *, max_bytes: int = history_file.MAX_BYTES) -> int:
        """Add the events of a file that `save` or another binding wrote, after the existing ones.

        Existing events are not added again, so loading twice does no harm. Videos that the store knows keep their
        tokens.

        Args:
            path: The file.
            max_bytes: A larger file is refused unread.

        Returns:
            How many events were added. In incognito mode, none.

        Raises:
            TokenSpaceError: It was saved with another model.
            PackError: There is no such file, or it is damaged; the history is unchanged.
            ArgumentTypeError: `path` is no path.
            StorageError: It cannot be written; the history is unchanged.
        """
        self._check_open()
        saved = history_file.read_history(
            path, token_space=self._store.token_space, shape=self._store.shape, max_bytes=max_bytes
        )
        if self._incognito:
            return 0
        self._store.check_writable()
        here = Counter(map(_key, self))
        added = []
        for event in saved.events:
            if here[_key(event)]:
                here[_key(event)] -= 1
            else:
                added.append(event)
        wanted = {e.id for e in added}
        with self._store.pinned(wanted):
            new = {i for i in wanted if i not in self._store}
            with self._store.batch():
                for n, i in enumerate(saved.videos.ids):
                    if i in new:
                        self._store.put(i, saved.videos.tokens[n], saved.videos.scales[n], saved.videos.fingerprints[n])
            self._change(lambda e: False, [(e, e.id in new or self._was_auto_encoded(e.id)) for e in added])
        return len(added)

    @contextmanager
    def incognito(self) -> Iterator[None]:
        """Nothing that happens inside is recorded.

        `add` keeps nothing, and what is encoded stays in memory until the end; a stored video that is encoded again
        then has its former tokens back. Holds for all threads.
        """
        self._check_open()
        with self._lock:
            self._incognito += 1
        try:
            with self._store.private():
                yield
        finally:
            with self._lock:
                self._incognito -= 1

    @property
    def is_incognito(self) -> bool:
        """Whether recording is off at present."""
        return self._incognito > 0

    def __iter__(self) -> Iterator[Event]:
        """Events, oldest first."""
        self._check_open()
        with self._lock:
            self._sync()
            if self._expired(self._entries) and not self._is_read_only():
                self._change(lambda e: False)
            return iter([e.event for e in self._young(self._entries)])

    def __len__(self) -> int:
        self._check_open()
        with self._lock:
            self._sync()
            return len(self._young(self._entries))

    def close(self) -> None:
        """Release the memory."""
        if self._forked:
            return
        with self._lock:
            self._closed = True
            self._entries.clear()

    def _check_open(self) -> None:
        self._check_process()
        if self._closed:
            raise ClosedError("the history was closed with its recommender: load a new one")

    def _is_read_only(self) -> bool:
        return self._db is not None and self._db.read_only is not None

    def _young(self, entries: list[StoredEvent]) -> list[StoredEvent]:
        """The events that are not too old."""
        if self._max_age is None:
            return entries
        oldest = self._clock() - self._max_age
        return [e for e in entries if e.event.at is None or e.event.at >= oldest]

    def _expired(self, entries: list[StoredEvent]) -> set[int]:
        """`id()` of the events that are certainly too old; see `max_age`."""
        if self._max_age is None:
            return set()
        now = reached = self._clock()
        for e in reversed(entries):  # an event that was added later proves that the time then was not later
            reached = min(reached, e.added_at)
            if reached <= now - SURE_AFTER:
                oldest = reached - self._max_age
                return {id(e) for e in entries if e.event.at is not None and e.event.at < oldest}
        return set()

    def _was_auto_encoded(self, id: str) -> bool:
        """Whether the tokens were encoded only for an event."""
        with self._lock:
            return any(e.auto_encoded and e.event.id == id for e in self._entries)

    def _sync(self) -> None:
        """Read what other processes wrote."""
        if self._db is None or self._closed or self._db.changed_since(self._data_version) is None:
            return
        if self._db.generation != self._generation:  # rebuilt: memory has more, and is written with the next change
            return
        with self._db.reading() as con:
            self._data_version = self._db.data_version()
            entries = self._table.load(con)
        gone = {e.row for e in self._entries} - {e.row for e in entries}
        self._set_entries(entries)
        if gone:
            self._store.forget_derived()

    def _drop(self, gone: Callable[[StoredEvent], bool]) -> int:
        count = self._change(gone)
        self._store.forget_derived()
        if self._db is not None:
            self._db.purge()
        return count

    def _change(self, gone: Callable[[StoredEvent], bool], added: Sequence[tuple[Event, bool]] = ()) -> int:
        """Add events, each with whether it was encoded only for the history; remove what is to go or out of bounds.

        Returns:
            How many were to go.
        """
        with self._lock:
            self._check_open()
            keep = [e.id for e, _ in added]
            with self._store.writing(keep) as write:
                entries = self._entries
                if write.con is not None:
                    assert self._db is not None
                    self._data_version = self._db.data_version()
                    entries = self._table.load(write.con)
                    if self._db.generation != self._generation:
                        entries = self._merge(write.con, entries)
                to_go = {id(e) for e in entries if gone(e)}
                now = self._clock()
                for event, auto_encoded in added:
                    row = 0 if write.con is None else self._table.add(write.con, event, now, auto_encoded)
                    entries = [*entries, StoredEvent(row, event, now, auto_encoded)]
                to_go_too = self._expired(entries)
                left = [e for e in entries if id(e) not in to_go | to_go_too][-self._max_events :]
                stay = {id(e) for e in left}
                leaving = [e for e in entries if id(e) not in stay]
                if write.con is not None:
                    self._table.remove(write.con, [e.row for e in leaving])
                still = {e.event.id for e in left}
                write.removed += {e.event.id for e in leaving if e.auto_encoded and e.event.id not in still}
            self._set_entries(left)
            if self._db is not None:
                self._generation = self._db.generation
            return len(to_go)

    def _merge(self, con: sqlite3.Connection, salvaged: list[StoredEvent]) -> list[StoredEvent]:
        """Merge memory into a rebuilt database: write what it may have lost, in the old order."""
        here = {(e.event.id, e.event.at, e.added_at) for e in self._entries}
        others = [e for e in salvaged if (e.event.id, e.event.at, e.added_at) not in here]
        self._table.remove(con, [e.row for e in salvaged])
        return [
            e._replace(row=self._table.add(con, e.event, e.added_at, e.auto_encoded)) for e in [*self._entries, *others]
        ]

    def _set_entries(self, entries: list[StoredEvent]) -> None:
        """Replace the events, and pin their videos instead of those of the old events."""
        before, after = (Counter(e.event.id for e in part) for part in (self._entries, entries))
        self._store.pin((after - before).elements())
        self._store.unpin((before - after).elements())
        self._entries = entries
