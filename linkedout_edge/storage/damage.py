"""Damaged databases: detecting damage, setting the file aside, and recovering intact records."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from linkedout_edge.storage.encryption import Codec, DamagedRecordError
from linkedout_edge.storage.records import unpack_event

EVENT_TABLE, VIDEO_TABLE = b"event", b"video"


class DamagedError(Exception):
    """The database is damaged. Handled inside the package."""


def means_damage(e: Exception) -> bool:
    """Whether the file itself is damaged, as opposed to a problem of the disk, a lock or the caller."""
    if not isinstance(e, sqlite3.DatabaseError):
        return isinstance(e, UnicodeDecodeError)  # a name that SQLite quotes is not text any more
    said = str(e).lower()
    return "malformed" in said or "not a database" in said or "no such table" in said or "no such column" in said


def reason(e: Exception) -> str:
    """What SQLite said, without anything that it quotes from the file."""
    said = str(e).partition("(")[0].strip()
    return "its schema is no text" if isinstance(e, UnicodeDecodeError) else said


def check_events(con: sqlite3.Connection, codec: Codec) -> None:
    """Read all events.

    Raises:
        DamagedError: One is not what was written.
    """
    for n, key, record in con.execute("SELECT n, key, record FROM events").fetchall():
        try:
            unpack_event(n, codec.decrypt(record, EVENT_TABLE + key))
        except DamagedRecordError:  # noqa: PERF203
            raise DamagedError("an event was changed or damaged") from None


def read_meta(path: Path) -> dict[str, bytes]:
    """The readable rows of the table `meta`."""
    with contextlib.suppress(sqlite3.Error, OSError, UnicodeDecodeError):
        con = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        with contextlib.closing(con):
            con.execute("PRAGMA writable_schema=ON")
            return dict(con.execute("SELECT name, value FROM meta").fetchall())
    return {}


def set_aside(path: Path) -> Path:
    """Rename a database and its log; the new path."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    log = path.with_name(path.name + "-wal")
    if log.exists():
        log.rename(aside.with_name(aside.name + "-wal"))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    return aside


def set_aside_files(path: Path) -> list[Path]:
    """All files that were set aside, with their logs."""
    return sorted(path.parent.glob(f"{path.name}.damaged-*"))


def salvage(aside: Path, into: sqlite3.Connection, codec: Codec) -> tuple[int, int]:
    """Copy intact records. Returns the number of videos and events."""
    names: dict[int, str] = {}
    videos, events = [], []
    with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
        source = sqlite3.connect(aside.as_uri(), uri=True)
        with contextlib.closing(source):
            source.execute("PRAGMA writable_schema=ON")  # a damaged index does not keep us from the tables
            names = dict(_rows(source, "spaces", "n, name"))
            for _, space, key, used, record in _rows(source, "videos", "n, space, key, used, record"):
                associated_data = VIDEO_TABLE + str(names.get(space)).encode()
                if space in names and _is_whole(codec, key, record, associated_data):
                    videos.append((space, key, used, record))
            for n, key, record in _rows(source, "events", "n, key, record"):
                if _is_whole(codec, key, record, EVENT_TABLE):
                    events.append((n, key, record))
    into.execute("BEGIN IMMEDIATE")
    try:
        into.executemany("INSERT OR IGNORE INTO spaces VALUES (?, ?)", names.items())
        into.executemany("INSERT OR IGNORE INTO videos (space, key, used, record) VALUES (?, ?, ?, ?)", videos)
        into.executemany("INSERT OR IGNORE INTO events VALUES (?, ?, ?)", sorted(events))
        into.execute("COMMIT")
    except BaseException:
        if into.in_transaction:
            into.execute("ROLLBACK")
        raise
    return len(videos), len(events)


def _rows(con: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple]:  # type: ignore[type-arg]
    """Rows from the front up to the damage, then from the back."""
    seen: set[int] = set()
    for order in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
            for row in con.execute(f"SELECT {columns} FROM {table} NOT INDEXED ORDER BY n {order}"):
                if row[0] in seen:
                    continue
                seen.add(row[0])
                yield row


def _is_whole(codec: Codec, key: object, record: object, associated_data: bytes) -> bool:
    if not isinstance(key, bytes) or not isinstance(record, bytes):
        return False
    try:
        codec.decrypt(record, associated_data + key)
    except DamagedRecordError:
        return False
    return True


def statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: `executescript` would commit between them."""
    statement = ""
    for line in script.strip().splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
