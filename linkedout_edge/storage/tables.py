"""The two tables with data about the user: videos of one token space, and events."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.inputs import Event
from linkedout_edge.storage.damage import EVENT_TABLE, VIDEO_TABLE
from linkedout_edge.storage.database import Database
from linkedout_edge.storage.encryption import DamagedRecordError
from linkedout_edge.storage.records import StoredEvent, VideoRecord, pack_event, pack_video, unpack_event, unpack_video

logger = logging.getLogger("linkedout_edge")

_FETCHED = 1024  # rows at a time: bounds memory, and how long other threads wait


class StoredVideo(NamedTuple):
    """One row: its number, when it was last used, tokens and scales as bytes, and the rest of the record."""

    n: int
    used: int
    payload: bytes
    record: VideoRecord


class VideoTable:
    """Rows of one token space. Rows of others are never read, only counted and removed.

    Args:
        database: Open.
        token_space: Name of the token space.
        payload: Bytes of a video's tokens and scales.
    """

    def __init__(self, database: Database, token_space: str, payload: int) -> None:
        self._db = database
        self._name = token_space
        self._payload = payload
        self._associated_data = VIDEO_TABLE + token_space.encode()
        self._space = 0
        with database.reading() as con:
            self._find_space(con)

    def load(self) -> Iterator[StoredVideo]:
        """All rows, in the order in which they were added. Damaged ones are skipped, with a warning."""
        last, damaged = 0, 0
        while True:
            with self._db.reading() as con:
                rows = (
                    con.execute(
                        # "+space": along the table, not by the index with a sort for each part.
                        "SELECT n, key, used, record FROM videos WHERE n > ? AND +space = ? ORDER BY n LIMIT ?",
                        (last, self._space, _FETCHED),
                    ).fetchall()
                    if self._space
                    else []
                )
            for row in rows:
                video = self._unpack(row)
                if video is None:
                    damaged += 1
                else:
                    yield video
            if len(rows) < _FETCHED:
                break
            last = rows[-1][0]
        if damaged:
            logger.warning("%d stored videos are damaged and were skipped: they are encoded again when needed", damaged)

    def count(self) -> int:
        """The number of rows that `load` will return, or a few more."""
        with self._db.reading() as con:
            if not self._space:
                return 0
            return int(con.execute("SELECT count(*) FROM videos WHERE space = ?", (self._space,)).fetchone()[0])

    def position(self) -> int:
        """Number of the latest change."""
        with self._db.reading() as con:
            return _last_change(con) if _has(con) else 0

    def changes(self, con: sqlite3.Connection, since: int) -> tuple[int, list[int]] | None:
        """The current position, and rows that changed after `since`; None if the list does not go back that far."""
        if not self._space:
            self._find_space(con)
        rows = con.execute("SELECT seq, video FROM changes WHERE seq > ? ORDER BY seq", (since,)).fetchall()
        now = rows[-1][0] if rows else _last_change(con)
        if now < since or (rows and rows[0][0] != since + 1) or (not rows and now != since):
            return None
        return now, list(dict.fromkeys(n for _, n in rows))

    def last_change(self, con: sqlite3.Connection) -> int:
        """As `position`, inside a transaction."""
        return _last_change(con)

    def fetch(self, con: sqlite3.Connection, n: int) -> StoredVideo | None:
        """One row; None if it is gone, damaged, or of another space."""
        row = con.execute(
            "SELECT n, key, used, record FROM videos WHERE n = ? AND space = ?", (n, self._space)
        ).fetchone()
        return None if row is None else self._unpack(row)

    def record(self, id: str) -> VideoRecord | None:
        """The record of an id."""
        with self._db.reading() as con:
            row = con.execute(
                "SELECT n, key, used, record FROM videos WHERE space = ? AND key = ?",
                (self._space, self._db.codec.key_of(id)),
            ).fetchone()
        video = None if row is None else self._unpack(row)
        return None if video is None else video.record

    def write(
        self,
        con: sqlite3.Connection,
        id: str,
        tokens: NDArray[np.int8],
        scales: NDArray[np.float32],
        record: VideoRecord,
        used: int,
    ) -> int:
        """Add or replace. Returns the row's number."""
        if not self._find_space(con):  # looked up each time: an earlier transaction may have been rolled back
            con.execute("INSERT INTO spaces (name) VALUES (?)", (self._name,))
            self._find_space(con)
        key = self._db.codec.key_of(id)
        encrypted = self._db.codec.encrypt(pack_video(tokens, scales, record), self._associated_data + key)
        row = con.execute("SELECT n FROM videos WHERE space = ? AND key = ?", (self._space, key)).fetchone()
        if row is not None:
            con.execute("UPDATE videos SET record = ?, used = ? WHERE n = ?", (encrypted, used, row[0]))
            return int(row[0])
        added = con.execute(
            "INSERT INTO videos (space, key, used, record) VALUES (?, ?, ?, ?)", (self._space, key, used, encrypted)
        )
        return int(added.lastrowid or 0)

    def evict(self, con: sqlite3.Connection, numbers: Iterable[int]) -> list[int]:
        """Remove rows, except those in the history of any process. Returns the numbers of the rows that stay."""
        stay = []
        for n in numbers:
            gone = con.execute("DELETE FROM videos WHERE n = ? AND key NOT IN (SELECT key FROM events)", (n,))
            if not gone.rowcount:
                stay.append(n)
        return stay

    def remove(self, con: sqlite3.Connection, ids: Iterable[str]) -> None:
        """Remove ids, in all token spaces."""
        keys = [(self._db.codec.key_of(i),) for i in ids]
        con.executemany("DELETE FROM videos WHERE space IN (SELECT n FROM spaces) AND key = ?", keys)

    def trim_other_spaces(self, con: sqlite3.Connection, allowed: int) -> None:
        """Remove rows of other models, the least recently used first, until `allowed` are left."""
        where = "space != ? AND key NOT IN (SELECT key FROM events)"
        count = con.execute("SELECT count(*) FROM videos WHERE space != ?", (self._space,)).fetchone()[0]
        if count > allowed:
            con.execute(
                f"DELETE FROM videos WHERE n IN (SELECT n FROM videos WHERE {where} ORDER BY used, n LIMIT ?)",
                (self._space, count - allowed),
            )

    def note_used(self, con: sqlite3.Connection, used: Sequence[tuple[int, int]]) -> None:
        """Store when rows were last used: ``(used, n)`` each."""
        con.executemany("UPDATE videos SET used = ? WHERE n = ? AND used < ?1", used)

    def _find_space(self, con: sqlite3.Connection) -> int:
        row = con.execute("SELECT n FROM spaces WHERE name = ?", (self._name,)).fetchone() if _has(con) else None
        self._space = 0 if row is None else row[0]
        return self._space

    def _unpack(self, row: tuple[int, bytes, int, bytes]) -> StoredVideo | None:
        n, key, used, encrypted = row
        try:
            data = self._db.codec.decrypt(encrypted, self._associated_data + key)
            payload, record = unpack_video(data, self._payload)
        except DamagedRecordError:
            return None
        return StoredVideo(n, used, payload, record)


class EventTable:
    """Events, oldest first.

    Args:
        database: Open.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def load(self, con: sqlite3.Connection) -> list[StoredEvent]:
        """All events; damaged ones are skipped, with a warning."""
        kept = []
        rows = con.execute("SELECT n, key, record FROM events ORDER BY n").fetchall() if _has(con) else []
        for n, key, encrypted in rows:
            try:
                kept.append(unpack_event(n, self._db.codec.decrypt(encrypted, EVENT_TABLE + key)))
            except DamagedRecordError:  # noqa: PERF203
                logger.warning("an event of the history is damaged: load again to repair the rest")
        return kept

    def add(self, con: sqlite3.Connection, event: Event, added_at: datetime, auto_encoded: bool) -> int:
        """Add one. Returns its row's number."""
        key = self._db.codec.key_of(event.id)
        encrypted = self._db.codec.encrypt(pack_event(event, added_at, auto_encoded), EVENT_TABLE + key)
        return int(con.execute("INSERT INTO events (key, record) VALUES (?, ?)", (key, encrypted)).lastrowid or 0)

    def remove(self, con: sqlite3.Connection, numbers: Iterable[int]) -> None:
        """Remove rows."""
        con.executemany("DELETE FROM events WHERE n = ?", [(n,) for n in numbers])


def _has(con: sqlite3.Connection) -> bool:
    """Whether there are tables. There are none if the folder is read-only and had no database."""
    return bool(con.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone())


def _last_change(con: sqlite3.Connection) -> int:
    row = con.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
    return int(row[0]) if row else 0
