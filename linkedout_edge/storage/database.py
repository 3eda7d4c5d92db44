"""The database of a `data_dir`: opening, transactions, and problems of the disk.

SQLite in WAL mode is the single source of truth. A transaction that has returned is on disk (``synchronous=FULL``). One
connection serves all threads of a process, under one lock; several processes share the file. Deleted content is
overwritten (``secure_delete``), and `purge` empties the write-ahead log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from linkedout_edge.errors import (
    ArgumentError,
    ClosedError,
    ForkedError,
    StorageBusyError,
    StorageDamagedError,
    StorageError,
    StorageFullError,
    StorageReadOnlyError,
    StorageVersionError,
)
from linkedout_edge.lifetime import OneProcess, check_running
from linkedout_edge.storage import damage
from linkedout_edge.storage.encryption import Codec, Plain, codec_for, new_secrets

logger = logging.getLogger("linkedout_edge")

FILE_NAME = "linkedout.sqlite3"
FORMAT = 1
_APPLICATION = 0x4C4F4544  # "LOED"
_BUSY_SECONDS = 15.0
_KEPT_CHANGES = 20_000

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE spaces (n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE videos (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    space INTEGER NOT NULL,
    key BLOB NOT NULL,
    used INTEGER NOT NULL DEFAULT 0,
    record BLOB NOT NULL,
    UNIQUE (space, key)
);
CREATE TABLE events (n INTEGER PRIMARY KEY, key BLOB NOT NULL, record BLOB NOT NULL);
CREATE INDEX events_by_key ON events (key);
CREATE TABLE changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, video INTEGER NOT NULL);
CREATE TRIGGER video_added AFTER INSERT ON videos BEGIN INSERT INTO changes (video) VALUES (new.n); END;
CREATE TRIGGER video_changed AFTER UPDATE OF record ON videos BEGIN INSERT INTO changes (video) VALUES (new.n); END;
CREATE TRIGGER video_removed AFTER DELETE ON videos BEGIN INSERT INTO changes (video) VALUES (old.n); END;
"""
"""`key` is a hash of the id; `changes` tells other processes which rows of `videos` to read again."""


class Database(OneProcess):
    """An open database. Usable from several threads; not after a fork.

    Args:
        data_dir: Folder; made if it is not there, for its owner only.
        key: Encrypts records; None for none.

    Attributes:
        read_only: Why nothing can be written, or None.
        notices: What was repaired on opening; without paths, ids or titles.

    Raises:
        WrongKeyError: The key does not fit.
        MissingDependencyError: A key is given, and `cryptography` is not installed.
        StorageError: The folder or the database cannot be used (see its subclasses).
    """

    def __init__(self, data_dir: str | os.PathLike[str], key: str | bytes | None = None) -> None:
        self.lock = threading.RLock()
        self.folder = Path(os.path.abspath(os.path.expanduser(os.fsdecode(data_dir))))  # noqa: PTH100, PTH111  # links stay as they are
        self.path = self.folder / FILE_NAME
        self.read_only: StorageError | None = None
        self.notices: list[str] = []
        self.codec: Codec = Plain()
        self._closed = False
        self._key = key
        self._broken = False
        self.generation = 0
        """Changes when the database is set aside and rebuilt, because rows then have other numbers."""
        _make_folder(self.folder)
        self._open_or_rebuild()
        super().__init__()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything that is executed inside is written when this returns, or nothing is.

        Raises:
            StorageError: It cannot be written (see its subclasses).
        """
        self._check_process()
        with self.lock:
            self._check()
            if self.read_only is not None:
                raise type(self.read_only)(*self.read_only.args)
            now = self._file_number()
            if now != self._file:
                self._broken = now is not None
                fix = "close this recommender, and load again" if now is None else "try again"
                raise StorageDamagedError(f"the database was removed or replaced while it was in use: {fix}")
            con = self._con
            try:
                con.execute("BEGIN IMMEDIATE")
                try:
                    yield con
                    con.execute("COMMIT")
                except BaseException:
                    if con.in_transaction:
                        with contextlib.suppress(sqlite3.Error):
                            con.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, UnicodeDecodeError) as e:
                raise self._explained(e) from e

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For queries; fetch all of their rows inside."""
        self._check_process()
        with self.lock:
            self._check()
            try:
                yield self._con
            except (sqlite3.Error, UnicodeDecodeError) as e:
                raise self._explained(e) from e

    def changed_since(self, version: int) -> int | None:
        """A new number if another process has written since `version` was returned; else None.

        Does not wait: while this process writes itself, it is None.
        """
        if self._forked or not self.lock.acquire(blocking=False):
            return None
        try:
            if self._closed:
                return None
            check_running()
            now = self.data_version()
        except sqlite3.Error:
            return None  # whoever reads or writes next says what is wrong
        finally:
            self.lock.release()
        return now if now != version else None

    def data_version(self) -> int:
        """A number that changes when another process has written, or the database was rebuilt; hold the lock."""
        version: int = self._con.execute("PRAGMA data_version").fetchone()[0]
        return version + (self.generation << 32)

    def purge(self) -> bool:
        """Empty the write-ahead log, where older versions of pages lie, and remove set-aside databases.

        Called after something was forgotten. Returns False if the log could not be emptied because another process
        is reading; it is then emptied at the next checkpoint.
        """
        with self.reading() as con:
            done = not con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if not done:
            logger.warning("another process is reading: forgotten data is removed from the write-ahead log later")
        for file in damage.set_aside_files(self.path):
            with contextlib.suppress(OSError):
                file.unlink()
        return done

    def close(self) -> None:
        """Close it; twice is fine."""
        if self._forked:
            return
        with self.lock:
            if self._closed:
                return
            self._closed = True
            self._con.close()

    def _native(self) -> tuple[object, ...]:
        return (self._con,)

    def _left_behind(self) -> None:
        idle = self.lock.acquire(blocking=False)  # else a thread of the parent was using it
        super()._left_behind()
        if not self._closed and self._file is not None:
            _inherited.append((self._file, self._con if idle and not self._con.in_transaction else None))

    def _busy(self) -> bool:
        if self.lock.acquire(blocking=False):
            self.lock.release()
            return False
        return True

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("the database was closed with its recommender: load a new one")
        check_running()
        if self._broken and not self._con.in_transaction:
            self._con.close()
            self._open_or_rebuild()
            self._broken = False
            self.generation += 1

    def _open_or_rebuild(self) -> None:
        with _only_opener(self.folder):
            _let_go_of(self._file_number())
            try:
                self._open(self._key)
            except damage.DamagedError as e:
                self._rebuild(self._key, str(e))
        self._file = self._file_number()

    def _file_number(self) -> tuple[int, int] | None:
        try:
            info = self.path.stat()
        except OSError:
            return None
        return info.st_dev, info.st_ino

    def _open(self, key: str | bytes | None) -> None:
        """Open or create.

        Raises:
            damage.DamagedError: What is there is damaged; nothing stays open.
        """
        self._con = self._connect()
        try:
            self._prepare(key)
        except (sqlite3.Error, UnicodeDecodeError) as e:
            self._con.close()
            if damage.means_damage(e):
                raise damage.DamagedError(damage.reason(e)) from e
            raise self._explained(e) from e
        except BaseException:
            self._con.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        """For reading and writing if possible, else for reading only."""
        attempts = ("mode=rwc", "mode=ro", "mode=ro&immutable=1")
        problem: StorageError | None = None
        for parameters in attempts:
            con: sqlite3.Connection | None = None
            try:
                if parameters == "mode=rwc":
                    _create_for_owner(self.path)
                con = sqlite3.connect(
                    f"{self.path.as_uri()}?{parameters}",
                    uri=True,
                    timeout=_BUSY_SECONDS,
                    isolation_level=None,
                    check_same_thread=False,
                )
                con.execute("PRAGMA cell_size_check=ON")
                con.execute("PRAGMA trusted_schema=OFF")
                con.execute("PRAGMA temp_store=MEMORY")
                con.execute("SELECT count(*) FROM sqlite_master").fetchone()
                if parameters == "mode=rwc":
                    if con.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                        raise sqlite3.OperationalError("attempt to write a readonly database")
                    con.execute("PRAGMA synchronous=FULL")
                    con.execute("PRAGMA secure_delete=ON")
                    con.execute("PRAGMA journal_size_limit=4194304")
                    con.execute("BEGIN IMMEDIATE")  # says now whether it can be written
                    con.execute("ROLLBACK")
                self.read_only = problem
                return con
            except (sqlite3.Error, OSError, UnicodeDecodeError) as e:
                if con is not None:
                    con.close()
                if not isinstance(e, OSError) and damage.means_damage(e):
                    raise damage.DamagedError(damage.reason(e)) from e
                problem = problem or self._explained(e)
                if isinstance(problem, StorageBusyError) or (not self.path.exists() and parameters == attempts[0]):
                    break
        assert problem is not None
        if not self.path.exists() and self.folder.is_dir():  # nothing there to read, and no way to write: in memory
            self.read_only = problem
            return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        raise problem

    def _prepare(self, key: str | bytes | None) -> None:
        con = self._con
        application = con.execute("PRAGMA application_id").fetchone()[0]
        tables = con.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables and not application:
            self._create(key)
            return
        version = con.execute("PRAGMA user_version").fetchone()[0]
        if application != _APPLICATION:
            raise StorageVersionError(f"{self.path} is another program's database: use another folder")
        if version > FORMAT:
            raise StorageVersionError(
                f"{self.folder} was written in format {version}, and this version reads up to {FORMAT}: update "
                "linkedout-edge"
            )
        self.codec = codec_for(key, dict(con.execute("SELECT name, value FROM meta").fetchall()))
        found = con.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise damage.DamagedError("its pages are inconsistent")
        damage.check_events(con, self.codec)
        if self.read_only is None:
            con.execute("DELETE FROM changes WHERE seq <= (SELECT max(seq) FROM changes) - ?", (_KEPT_CHANGES,))

    def _create(self, key: str | bytes | None, meta: dict[str, bytes] | None = None) -> None:
        if meta is None:
            self.codec, meta = (Plain(), {}) if key is None else new_secrets(key)
        con = self._con
        con.execute("BEGIN IMMEDIATE")
        try:
            if con.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in damage.statements(_SCHEMA):
                    con.execute(statement)
                con.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
                con.execute(f"PRAGMA application_id={_APPLICATION}")
                con.execute(f"PRAGMA user_version={FORMAT}")
            con.execute("COMMIT")
        except BaseException:
            if con.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    con.execute("ROLLBACK")
            raise

    def _rebuild(self, key: str | bytes | None, why: str) -> None:
        """Set a damaged database aside, and copy its intact records into a new one."""
        meta = damage.read_meta(self.path)
        if meta or key is None:
            self.codec = codec_for(key, meta)  # a wrong key is an error before anything is moved
        try:
            aside = damage.set_aside(self.path)
        except OSError as e:
            raise StorageDamagedError(
                f"the database in {self.folder} is damaged ({why}) and cannot be set aside: {e.strerror}"
            ) from e
        self._con = self._connect()
        try:
            self._create(key, meta or None)
            videos, events = damage.salvage(aside, self._con, self.codec)
        except sqlite3.Error as e:
            self._con.close()
            raise self._explained(e) from e
        notice = (
            f"the database in data_dir was damaged ({why}): it was set aside as {aside.name}, and {videos} videos and "
            f"{events} events were copied into a new one"
        )  # logged, so it does not name the folder
        self.notices.append(notice)
        logger.warning("%s", notice)

    def _explained(self, e: Exception) -> StorageError:
        """Our error for SQLite's. By message, because Python 3.10 has no error codes."""
        said = str(e).lower()
        if damage.means_damage(e):
            self._broken = True
            return StorageDamagedError(
                f"the database in {self.folder} is damaged ({damage.reason(e)}): try again to set it aside and rebuild "
                "it"
            )
        if "full" in said or "no space" in said or ("disk i/o" in said and _is_full(self.folder)):
            return StorageFullError(
                f"there is no space left in {self.folder}: free some, or lower the store's max_videos; nothing that "
                "was acknowledged is lost"
            )
        if "readonly" in said or "read-only" in said or "permission" in said or "unable to open" in said:
            return StorageReadOnlyError(
                f"{self.folder} cannot be written to: make it writable for this user, or use another folder; ranking "
                "works with what is stored"
            )
        if "locked" in said or "busy" in said:
            return StorageBusyError(
                f"another process has held the database in {self.folder} for more than {_BUSY_SECONDS:.0f} s: try again"
            )
        return StorageError(f"the database in {self.folder} cannot be used: {e}")


_inherited: list[tuple[tuple[int, int], sqlite3.Connection | None]] = []
"""File and connection of databases that were open when this process was forked; None where one was in use just then."""


def _let_go_of(file: tuple[int, int] | None) -> None:
    """Close inherited connections to a file before it is opened.

    SQLite keeps one record of its locks on a file. The inherited one says that there are some; they are the parent's,
    so SQLite would take none here. When the parent closed the database, it would remove the log that this process still
    writes to.

    Raises:
        ForkedError: One cannot be closed.
    """
    for entry in [e for e in _inherited if e[0] == file]:
        if entry[1] is None:
            raise ForkedError(
                "data_dir was being read or written when this process was forked from the one that has it open: "
                "fork again, or load a recommender only after the fork (docs/processes.md)"
            )
        entry[1].close()
        _inherited.remove(entry)


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"data_dir {folder} is a file: choose a folder")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise StorageReadOnlyError(
            f"data_dir {folder} cannot be created: {e.strerror or e}; choose a folder that this user may write to"
        ) from e


def _create_for_owner(path: Path) -> None:
    """SQLite would let everybody read it whom the umask allows; its other files get the same mode."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _is_full(folder: Path) -> bool:
    try:
        info = os.statvfs(folder)
    except (OSError, AttributeError):
        return False
    return info.f_bavail * info.f_frsize < 256 * 1024


@contextmanager
def _only_opener(folder: Path) -> Iterator[None]:
    """Only one process at a time checks for damage and sets the database aside."""
    try:
        import fcntl

        held = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # Windows: a damaged file cannot be renamed there while another has it open
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
