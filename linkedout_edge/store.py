"""Layer tokens by id: in memory, and in the database of a `data_dir` where there is one.

Tokens lie in contiguous arrays without holes (removing moves the last row into the gap), so that ranking everything
reads memory in one sweep. An id belongs to one content; which one is kept as a `Fingerprint`. With a database, the
arrays mirror its rows of one token space: what is put is written there, and what other processes write is followed.

Locks are taken in this order: history, database, `TokenStore.lock`. Who holds the last must not call what writes.
Reading for long needs no lock: a `View` reads the arrays where they lie and tells afterwards whether they changed.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import re
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.average import RunningSum
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import (
    ArgumentError,
    ClosedError,
    StorageError,
    VideoNotFoundError,
    VideoUnreadableError,
)
from linkedout_edge.idtable import IdTable
from linkedout_edge.inputs import Video, check_list
from linkedout_edge.lifetime import OneProcess

if TYPE_CHECKING:
    from linkedout_edge.storage import Database
    from linkedout_edge.storage.records import VideoRecord
    from linkedout_edge.storage.tables import StoredVideo

T = TypeVar("T")
logger = logging.getLogger("linkedout_edge")

MAX_VIDEOS = 100_000
MAX_PACK_BYTES = 2**30
_FIRST_CAPACITY = 64  # where memory cannot be reserved at once
_RESERVED = 2**17  # rows
_SAMPLE = 64 * 1024
_BATCH = 64  # videos a transaction, and
_BATCH_SECONDS = 2.0  # the most that a killed process has encoded in vain
_KNOWN = 4096  # fingerprints that stay in memory beside a database
_NOTED_USES = 4096  # rows whose last use is written down when closing
_EXACT = 4096  # rows of which a view knows the stamp of each


QUICK = "quick:"


class Fingerprint(NamedTuple):
    """What the tokens of an id were made from.

    Attributes:
        content: Hash of the frames, or of a file's size, first and last 64 KiB and middle 64 KiB. Where the tokens are
            of a quick look, ``quick:`` stands before it, in databases and packs, too.
        title: The title that the model read, or None.
        size: Bytes of the file; None for frames.
        mtime_ns: Its modification time: with an equal size and time the file is not read again.
    """

    content: str
    title: str | None = None
    size: int | None = None
    mtime_ns: int | None = None

    @property
    def is_quick(self) -> bool:
        """Whether the tokens are of a quick look."""
        return self.content.startswith(QUICK)

    @property
    def digest(self) -> str:
        """The hash alone."""
        return self.content.removeprefix(QUICK)

    def as_quick(self) -> Fingerprint:
        """The same content, looked at quickly."""
        return self._replace(content=QUICK + self.digest)


def fingerprint(video: Video) -> Fingerprint:
    """Fingerprint of a video's content as it is now.

    Raises:
        VideoNotFoundError: The file does not exist, or the video is only an id.
        VideoUnreadableError: It cannot be read, or is no file.
    """
    if video.frames is not None:
        return Fingerprint(video.content, video.title)
    if video.path is None:
        raise VideoNotFoundError("the id is not in the store: encode the video first, or pass its path or frames")
    path = Path(video.path)
    try:
        if not path.is_file():  # follows links; false for a fifo, which would block
            if not path.exists():
                raise VideoNotFoundError("there is no such file, and no video of that id in the store")
            raise VideoUnreadableError(
                "it is not a regular file" if not path.is_dir() else "it is a directory, not a video file"
            )
        with path.open("rb") as f:
            info = path.stat()
            content = content_hash(f, info.st_size)
    except (OSError, ValueError) as e:
        if isinstance(e, VideoNotFoundError | VideoUnreadableError):
            raise
        raise VideoUnreadableError(f"the file cannot be read: {getattr(e, 'strerror', None) or e}") from e
    return Fingerprint(content, video.title, info.st_size, info.st_mtime_ns)


def content_hash(file: IO[bytes], size: int) -> str:
    """Hash of a file's size, its first and last 64 KiB and 64 KiB of its middle, as 32 hex digits."""
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    for offset in sorted({0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)}):
        file.seek(offset)
        digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def file_is_unchanged(video: Video, known: Fingerprint) -> bool:
    """Whether size and time of the video's file are still the known ones; False if it cannot be looked at."""
    if video.path is None or known.size is None:
        return False
    try:
        info = Path(video.path).stat()
    except (OSError, ValueError):
        return False
    return (info.st_size, info.st_mtime_ns) == (known.size, known.mtime_ns)


class Rows(NamedTuple):
    """Stored rows: tokens int8 ``[C, L, M, D]``, scales float32 ``[C, L, M]``, stamps of writing int64 ``[C]``."""

    tokens: NDArray[np.int8]
    scales: NDArray[np.float32]
    stamps: NDArray[np.int64]

    def copies(self) -> Rows:
        """The same rows in arrays of their own."""
        if self.tokens.base is None:
            return self
        return Rows(self.tokens.copy(), self.scales.copy(), self.stamps.copy())


class View:
    """Rows of a store as they are now, read in place and without its lock; made by `TokenStore.view`.

    Writers do not wait for readers, so what was read counts only if `unchanged` says so at the end. Every row carries a
    stamp that grows with each writing, and arrays that were replaced are not written any more.

    Attributes:
        tokens: int8 ``[V, L, M, D]``, all that is stored.
        scales: float32 ``[V, L, M]``.
        rows: int64 ``[C]``.
        newest: The latest stamp when the view was made: what was written since has a greater one.
    """

    def __init__(self, store: TokenStore, rows: NDArray[np.int64], arrays: Rows) -> None:
        self._store = store
        self._arrays = arrays
        self._first = _first_of_run(rows)
        self._version, self._rewrites = store.version, store.rewrites
        self._stamps = arrays.stamps[rows] if len(rows) <= _EXACT else None  # a copy; of more it would take memory
        self.tokens, self.scales = arrays.tokens, arrays.scales
        self.rows = rows
        self.newest = store.newest

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, where: slice | NDArray[np.int64]) -> Rows:
        """Some of the rows, by position: views where they lie side by side, else copies."""
        at = self._where(where)
        return Rows(self._arrays.tokens[at], self._arrays.scales[at], self._arrays.stamps[at])

    def unchanged(self) -> bool:
        """Whether all rows still hold what they held when the view was made.

        Of a long view it is False, too, where any other row left the store: rows may have changed places.
        """
        with self._store.lock:
            if self._store.rewrites == self._rewrites:
                return True
            now = self._arrays.stamps[self.rows]
            if self._stamps is not None:
                return bool((now == self._stamps).all())
            return self._store.version == self._version and bool((now <= self.newest).all())

    def _where(self, where: slice | NDArray[np.int64]) -> slice | NDArray[np.int64]:
        if self._first is None or not isinstance(where, slice):
            return self.rows[where]
        start, stop, _ = where.indices(len(self.rows))
        return slice(self._first + start, self._first + stop)


def _first_of_run(rows: NDArray[np.int64]) -> int | None:
    """The first row, if they lie side by side; else None."""
    if not rows.size:
        return 0
    if rows[-1] - rows[0] != len(rows) - 1 or not bool((np.diff(rows) == 1).all()):
        return None
    return int(rows[0])


class Selection:
    """Ids that were looked up once, for ranking many times; made by `TokenStore.select`.

    Attributes:
        ids: What is ranked, in the given order, each once.
        missing: Ids that were not in the store.
    """

    def __init__(
        self, store: TokenStore, ids: list[str], rows: NDArray[np.int64], missing: tuple[str, ...], version: int
    ) -> None:
        self._store = store
        self._rows = rows
        self._version = version
        self.ids = ids
        self.missing = missing

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"<Selection of {len(self.ids)} videos>"

    def belongs_to(self, store: TokenStore) -> bool:
        """Whether it was made by that store."""
        return self._store is store

    def holds(self) -> bool:
        """Whether nothing has left the store since ids were looked up."""
        return self._version == self._store.version

    def rows(self) -> NDArray[np.int64]:
        """Row of each id, int64 [C]; -1 for those that left the store since."""
        if self._version != self._store.version:
            with self._store.lock:
                self._rows, self._version = self._store.rows(self.ids), self._store.version
        return self._rows


def to_front(latest: deque[T], used: T) -> None:
    """Move what was used last to the front, if it is still there."""
    for n, entry in enumerate(latest):
        if entry is used:
            del latest[n]
            latest.appendleft(used)
            return


def _equal(ids: list[str], things: list[Any]) -> bool:
    """Mostly a comparison of addresses: nothing is looked at."""
    try:
        return ids == things
    except Exception:  # something that cannot be compared, such as an array, is no id
        return False


class ListCache:
    """Lists of ids that were looked up lately, found again by comparing them: a feed is ranked after each video of it.

    Args:
        store: Where they were looked up.
    """

    KEPT = 4

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._latest: deque[tuple[list[str], Selection]] = deque(maxlen=self.KEPT)

    def find(self, things: list[Any]) -> Selection | None:
        """What the same list was resolved to, if that still holds. What equals an id counts as that id."""
        with self._lock:
            latest = list(self._latest)
        for entry in latest:
            known, selection = entry
            if _equal(known, things):
                if not selection.holds():
                    return None
                with self._lock:
                    to_front(self._latest, entry)
                return selection
        return None

    def keep(self, ids: list[str], selection: Selection) -> None:
        """Remember a list; it must not be changed afterwards."""
        with self._lock:
            for entry in [e for e in self._latest if not e[1].holds() or e[0] == ids]:
                self._latest.remove(entry)
            self._latest.appendleft((ids, selection))

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._latest.clear()


@dataclass(frozen=True)
class StoreStats:
    """How full a store is.

    Attributes:
        videos: Videos stored; `max_videos` at most.
        max_videos: Beyond it the least recently used one leaves; pinned ones stay.
        pinned: Videos that the history holds on to.
        payload_bytes: Bytes of tokens and scales of what is stored.
        capacity_bytes: Bytes of address space that are reserved for them; memory is taken only for what is stored.
        evicted: Videos that had to leave so far.
        unsaved: Videos that are only in memory, though there is a `data_dir`: it could not be written to.
        disk_bytes: Size of the database; 0 without one.
        quick: Videos of which only a quick look was taken so far.
    """

    videos: int
    max_videos: int
    pinned: int
    payload_bytes: int
    capacity_bytes: int
    evicted: int
    unsaved: int = 0
    disk_bytes: int = 0
    quick: int = 0


@dataclass
class Write:
    """A transaction that is under way; see `TokenStore.writing`.

    Attributes:
        con: None without a database.
        removed: Ids that leave the store with it.
    """

    con: sqlite3.Connection | None = None
    removed: list[str] = field(default_factory=list)


class TokenStore(OneProcess):
    """Layer tokens of one token space. Usable from several threads.

    Args:
        config: Gives L, M and D.
        max_videos: Bound; the least recently used leaves first, what is pinned stays.
        token_space: Tokens of another one are never read.
        database: Where the tokens are kept; None keeps them in memory only.
    """

    def __init__(
        self,
        config: ModelConfig,
        max_videos: int = MAX_VIDEOS,
        *,
        token_space: str = "",
        database: Database | None = None,
    ) -> None:
        super().__init__()
        if max_videos < 1:
            raise ArgumentError(f"max_videos must be at least 1, not {max_videos}")
        self.lock = threading.RLock()
        self.version = 0
        """Changes whenever a row may hold another video than before."""
        self.rewrites = 0
        """Changes whenever a row that held a video may hold anything else, be it another content of the same id."""
        self.forgotten: Callable[[], None] = lambda: None
        """Called after videos were removed on request, here or elsewhere: what was derived from them goes too."""
        self.token_space = token_space
        self._shape = (config.layers, config.tokens_per_layer, config.token_width)
        self._max = max_videos
        # With a database those that were needed lately; without one those that do not fit into `_content` and `_file`.
        self._fingerprints: dict[str, Fingerprint] = {}
        self._pins: Counter[str] = Counter()
        self.newest = 0
        """The latest stamp that a row was given; a row's stamp changes with its content and never comes back."""
        self._evicted = 0
        self._closed = False
        self._allocate()

        self._db = database
        self._pending: dict[str, None] = {}  # not yet written
        self._leaving: list[int] = []  # numbers of evicted rows, not yet removed from the database
        self._private: set[str] = set()  # only in memory, on purpose
        self._unsaved: set[str] = set()  # only in memory, because the folder cannot be written to
        self._private_depth = self._batches = self._tolerant = 0
        self._pending_since = 0.0
        self._warned = False
        self._position = self._data_version = self._generation = 0
        if database is not None:
            from linkedout_edge.storage.tables import VideoTable

            self._table = VideoTable(database, token_space, config.payload_bytes)
            self._load()

    def _allocate(self) -> None:
        self._ids = IdTable()
        self._quick: set[str] = set()
        self.sum = RunningSum(self._shape)
        self._tokens = np.zeros((0, *self._shape), np.int8)
        self._scales = np.zeros((0, *self._shape[:2]), np.float32)
        self._stamp = np.zeros(0, np.int64)
        self._used = np.zeros(0, np.int64)
        self._came = np.zeros(0, np.uint32)  # in which order ids came; an app would need years to use them up
        self._arrivals = 0
        self._number = np.zeros(0, np.int64)  # in the database; 0 if it is not there
        self._content = np.zeros((0, 16), np.uint8)  # fingerprints, without a database: an object each
        self._file = np.zeros((0, 2), np.int64)  # ... would take a third of the tokens' bytes
        self._clock = self._noted_clock = 0

    # What apps use.

    def __contains__(self, id: object) -> bool:
        self._check_process()
        with self.lock:
            return id in self._ids

    def __len__(self) -> int:
        self._check_process()
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        """Ids, in the order in which they came."""
        self._check_process()
        with self.lock:
            return iter(self._in_order()[0])

    def select(self, ids: Iterable[str] | None = None) -> Selection:
        """Look up ids once; `Recommender.rank` takes the result as candidates.

        Args:
            ids: Stored ids, else everything stored. Unknown ones are in ``.missing`` and fail when ranked.
        """
        self.check_open()
        self.refresh()
        with self.lock:
            if ids is None:
                return Selection(self, *self._in_order(), (), self.version)
            wanted = list(dict.fromkeys(check_list(ids, "ids")))
            rows = self.rows(wanted)
            missing: tuple[str, ...] = ()
            if rows.size and rows.min() < 0:
                missing = tuple(str(i) for i, r in zip(wanted, rows, strict=True) if r < 0)
                wanted = [i for i, r in zip(wanted, rows, strict=True) if r >= 0]
                rows = rows[rows >= 0]
            return Selection(self, wanted, rows, missing, self.version)

    def remove(self, ids: str | Iterable[str]) -> int:
        """Remove one id or several, pinned or not, and overwrite their tokens. Unknown ids are no error.

        With a database, they leave it in all token spaces, and its write-ahead log is emptied.

        Returns:
            How many were there.

        Raises:
            StorageError: The database cannot be written; nothing was removed.
        """
        wanted = list(dict.fromkeys([ids] if isinstance(ids, str) else ids))
        self.check_open()
        with self.writing() as write:
            found = sum(i in self for i in wanted)
            write.removed += wanted
        self.forgotten()
        if self._db is not None:
            self._db.scrub()
        return found

    def export_pack(self, path: str | os.PathLike[str], ids: Iterable[str] | None = None) -> int:
        """Write layer tokens, ids, titles and fingerprints into one safetensors file, for other devices.

        Args:
            path: The file; replaced as a whole, or not at all.
            ids: What to write, else everything stored.

        Returns:
            How many videos it holds.

        Raises:
            VideoNotFoundError: An id is not in the store.
            StorageError: The file cannot be written.
        """
        from linkedout_edge.packs import export_pack

        self.check_open()
        return export_pack(self, path, ids)

    def import_pack(self, path: str | os.PathLike[str], *, max_bytes: int = MAX_PACK_BYTES) -> tuple[str, ...]:
        """Take over the videos of a pack; what is stored under their ids is replaced. All of it is checked before.

        Args:
            path: A file that `export_pack` wrote, here or elsewhere.
            max_bytes: A larger one is refused.

        Returns:
            Their ids.

        Raises:
            TokenSpaceError: It was made by another model.
            PackError: It is no pack, damaged, too large, or of other shapes.
            StorageError: The database cannot be written.
        """
        from linkedout_edge.packs import import_pack

        self.check_open()
        return import_pack(self, path, max_bytes)

    def stats(self) -> StoreStats:
        """How full the store is."""
        self.check_open()
        self.refresh()
        disk = 0
        if self._db is not None and self._db.path.exists():
            disk = self._db.path.stat().st_size
        with self.lock:
            row = int(np.prod(self._shape)) + 4 * int(np.prod(self._shape[:2]))
            pinned = sum(1 for i in self._pins if i in self._ids)
            return StoreStats(
                len(self._ids),
                self._max,
                pinned,
                len(self._ids) * row,
                len(self._stamp) * row,
                self._evicted,
                len(self._pending) + len(self._private) + len(self._unsaved),
                disk,
                len(self._quick),
            )

    # What the recommender uses.

    @property
    def shape(self) -> tuple[int, int, int]:
        """L, M and D."""
        return self._shape

    @property
    def revision(self) -> tuple[int, int]:
        """Changes with every video that comes, changes or leaves."""
        return self.newest, self.version

    @property
    def max_videos(self) -> int:
        """The bound."""
        return self._max

    def put(self, id: str, tokens: NDArray[np.int8], scales: NDArray[np.float32], known_as: Fingerprint) -> None:
        """Store tokens int8 ``[L, M, D]`` and scales float32 ``[L, M]`` under an id, replacing what was there.

        Outside a `batch`, it is on the disk when this returns.

        Raises:
            StorageError: It cannot be written. It is in memory all the same, and written as soon as that is possible.
        """
        with self.lock:
            self.check_open()
            if id not in self._ids and len(self._ids) >= self._max:
                self._evict()
            self._know(self._set(id, tokens, scales), id, known_as)
            if self._private_depth:
                if id not in self._pending and not self._number[self._ids.row(id)]:
                    self._private.add(id)
                return
            self._private.discard(id)
            if self._db is None:
                return
            if self._db.read_only is not None:
                self._unsaved.add(id)
                if self._tolerant:
                    self._warn(self._db.read_only)
                    return
                self.check_writable()
            if not self._pending:
                self._pending_since = time.monotonic()
            self._pending[id] = None
            wait = self._batches and len(self._pending) < _BATCH
            if wait and time.monotonic() - self._pending_since < _BATCH_SECONDS:
                return
        self.flush()

    @contextmanager
    def batch(self, *, durable: bool = True) -> Iterator[None]:
        """Several `put`s in few transactions; they are on the disk when this ends.

        Args:
            durable: Raise if they cannot be written; else that is only logged, once, and they stay in memory.
        """
        with self.lock:
            self._batches += 1
            self._tolerant += not durable
        try:
            yield
        finally:
            with self.lock:
                self._batches -= 1
            try:
                self.flush()
            finally:
                with self.lock:
                    self._tolerant -= not durable

    def flush(self) -> None:
        """Write what was put.

        Raises:
            StorageError: It cannot be written; not inside ``batch(durable=False)``.
        """
        if self._db is None or not (self._pending or self._leaving):
            return
        try:
            with self.writing():
                pass
        except StorageError as e:
            if not self._tolerant:
                raise
            self._warn(e)

    def _warn(self, why: StorageError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("encoded videos stay in memory only: %s", why)

    @contextmanager
    def writing(self, keep: Iterable[str] = ()) -> Iterator[Write]:
        """One transaction: what was put is written, then what is done inside, or nothing is.

        Args:
            keep: Stored ids that must be in the database afterwards, even if another process has evicted them.

        Raises:
            StorageError: The database cannot be written.
        """
        write = Write()
        if self._db is None:
            yield write
            with self.lock:
                self._forget_rows(write.removed)
            return
        with self._db.lock:
            kept = {i: self.fingerprint(i) or Fingerprint("") for i in keep if i in self}
            with self.lock:
                for i, known_as in kept.items():
                    if i not in self._private:
                        self._fingerprints.setdefault(i, known_as)
                        self._pending[i] = None
            with self._db.transaction() as con:
                self._follow(con)
                with self.lock:
                    rows = [(i, r) for i in self._pending if (r := self._ids.row(i)) >= 0]
                    stamps = {i: int(self._stamp[r]) for i, r in rows}
                    numbers = {
                        i: self._table.write(
                            con, i, self._tokens[r], self._scales[r], self._record(i), int(self._used[r])
                        )
                        for i, r in rows
                    }
                    settled = len(self._leaving)
                    # What was put again since it was evicted, here or by another process, has kept its number.
                    back_again = {*numbers.values(), *self._number[: len(self._ids)].tolist()} if settled else set()
                    leaving = [n for n in self._leaving if n not in back_again]
                stay = self._table.evict(con, leaving) if leaving else []
                if numbers:
                    self._table.trim_other_spaces(con, max(0, self._max - len(self._ids)))
                write.con = con
                yield write
                if write.removed:
                    self._table.remove(con, write.removed)
                back = [self._table.fetch(con, n) for n in stay]
                position = self._table.last_change(con)
            self._position = position
            with self.lock:
                del self._leaving[:settled]
                for i, n in numbers.items():
                    row = self._ids.row(i)
                    if row >= 0:
                        self._number[row] = n
                        if self._stamp[row] == stamps[i]:
                            self._pending.pop(i, None)
                    elif i not in write.removed:  # evicted by another thread while it was being written
                        self._leaving.append(n)
                for i in [i for i in self._pending if i not in self._ids]:
                    del self._pending[i]
                self._forget_rows(write.removed)
                for video in back:
                    if video is not None:
                        self._take_over(video)
                if not self._pending:
                    self._warned = False
            self._trim_fingerprints()

    def refresh(self) -> None:
        """Follow what other processes wrote. Costs microseconds if they wrote nothing."""
        if self._db is None or self._closed or self._db.changed_since(self._data_version) is None:
            return
        with self._db.reading() as con:
            self._follow(con)

    def check_writable(self) -> None:
        """Raise the `StorageError` that says why nothing can be written, if that is so."""
        if self._db is not None and self._db.read_only is not None:
            raise type(self._db.read_only)(*self._db.read_only.args)

    @contextmanager
    def private(self) -> Iterator[None]:
        """What is put inside stays in memory, and leaves the store at the end; uses are not noted."""
        with self.lock:
            self._private_depth += 1
        try:
            yield
        finally:
            with self.lock:
                self._private_depth -= 1
                last = not self._private_depth
                if last:
                    self._forget_rows(list(self._private))
            if last:
                self.forgotten()

    def copy(self, source: str, target: str, known_as: Fingerprint) -> bool:
        """Store the tokens of one id under another, too; whether the first was there. Raises as `put` does."""
        with self.lock:
            row = self._ids.row(source)
            if row < 0:
                return False
            tokens, scales = self._tokens[row].copy(), self._scales[row].copy()
            if source in self._quick:
                known_as = known_as.as_quick()
        self.put(target, tokens, scales, known_as)
        return True

    def quick(self) -> frozenset[str]:
        """Ids of which only a quick look was taken so far."""
        with self.lock:
            return frozenset(self._quick)

    def fingerprint(self, id: str) -> Fingerprint | None:
        """What the tokens of an id were made from; None for an unknown id."""
        known = self._fingerprints.get(id)
        if known is not None:
            return known
        with self.lock:
            row = self._ids.row(id)
            if row < 0:
                return None
            if self._db is None:
                return self._packed(row)
        record = self._table.record(id)
        if record is None:  # another process has removed it
            return None
        known = _fingerprint_of(record)
        with self.lock:
            if id in self._ids:
                self._fingerprints.setdefault(id, known)
        return known

    def set_fingerprint(self, id: str, known_as: Fingerprint) -> None:
        """Note a new fingerprint of a content that stayed the same (a file that was only touched)."""
        with self.lock:
            row = self._ids.row(id)
            if row >= 0:
                self._know(row, id, known_as)
                if self._db is None or self._db.read_only is not None:
                    return
                if id not in self._private and not self._private_depth:
                    self._pending[id] = None  # goes with the next transaction: losing it costs a look at the file

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Row of each id, int64 ``[C]``; -1 where unknown. Valid while the lock is held, or `version` stays."""
        return self._ids.rows(ids)

    def view(self, rows: NDArray[np.int64]) -> View:
        """Rows to be read without the lock; hold it while they are looked up and this is called."""
        return View(self, rows, Rows(self._tokens, self._scales, self._stamp))

    def gather(self, rows: NDArray[np.int64]) -> Rows:
        """Copies of rows, or views where they lie side by side; hold the lock while a view is used."""
        first = _first_of_run(rows)
        where: Any = rows if first is None else slice(first, first + len(rows))
        return Rows(self._tokens[where], self._scales[where], self._stamp[where])

    def touch(self, rows: NDArray[np.int64]) -> None:
        """Mark rows as used just now."""
        if not self._private_depth:
            self._used[rows] = self._tick()

    def pin(self, id: str) -> None:
        """Keep an id from being evicted; as often as `unpin` will be called."""
        with self.lock:
            self._pins[id] += 1

    def unpin(self, id: str) -> None:
        """Undo one `pin`."""
        with self.lock:
            self._pins[id] -= 1
            if self._pins[id] <= 0:
                del self._pins[id]

    @contextmanager
    def pinned(self, ids: Iterable[str]) -> Iterator[None]:
        """Pin ids for a while."""
        held = list(ids)
        for i in held:
            self.pin(i)
        try:
            yield
        finally:
            for i in held:
                self.unpin(i)

    def close(self) -> None:
        """Release the memory; write down what was not yet written, if that is possible."""
        if self._forked:
            return
        if self._db is not None and not self._closed and self._db.read_only is None:
            try:
                self._note_uses()
            except StorageError as e:
                logger.debug("uses were not noted: %s", e)
        with self.lock:
            self._closed = True
            self.version += 1
            self.rewrites += 1
            self._fingerprints.clear()
            self._pins.clear()
            self._pending.clear()
            self._private.clear()
            self._unsaved.clear()
            self._allocate()

    def check_open(self) -> None:
        """Raise `ClosedError` after `close`, `ForkedError` in a forked child."""
        self._check_process()
        if self._closed:
            raise ClosedError("the store was closed with its recommender: load a new one")

    def _in_order(self) -> tuple[list[str], NDArray[np.int64]]:
        """All ids and their rows, as they came: removing moves the last row into the gap."""
        names, came = self._ids.names, self._came[: len(self._ids)]
        if (came[1:] > came[:-1]).all():
            return names.copy(), np.arange(len(names), dtype=np.int64)
        rows = np.argsort(came).astype(np.int64, copy=False)
        return [names[row] for row in rows.tolist()], rows

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _set(self, id: str, tokens: NDArray[np.int8], scales: NDArray[np.float32]) -> int:
        """Write a row of the arrays, a new one if need be; its place."""
        row = self._ids.row(id)
        if row < 0:
            if len(self._ids) == len(self._stamp):
                self._grow(len(self._ids) + 1)
            row = self._ids.append(id)
            self._arrivals += 1
            self._came[row] = self._arrivals
        else:
            self.rewrites += 1
            self.sum.remove(self._tokens[row : row + 1], self._scales[row : row + 1])
        self._tokens[row], self._scales[row] = tokens, scales
        self.sum.add(self._tokens[row : row + 1], self._scales[row : row + 1])
        self.newest += 1
        self._stamp[row] = self.newest
        self._used[row] = self._tick()
        return row

    def _know(self, row: int, id: str, known_as: Fingerprint) -> None:
        """Note what a row was made from."""
        self._note_quick(id, known_as)
        if self._db is None and known_as.title is None and _DIGEST.fullmatch(known_as.content):
            self._fingerprints.pop(id, None)
            self._content[row] = np.frombuffer(bytes.fromhex(known_as.content), np.uint8)
            if known_as.size is not None or self._file[row, 0]:
                self._file[row] = (0, 0) if known_as.size is None else (known_as.size + 1, known_as.mtime_ns or 0)
        else:
            self._fingerprints[id] = known_as

    def _note_quick(self, id: str, known_as: Fingerprint) -> None:
        if known_as.is_quick:
            self._quick.add(id)
        else:
            self._quick.discard(id)

    def _packed(self, row: int) -> Fingerprint:
        size, mtime_ns = self._file[row].tolist()
        file = (size - 1, mtime_ns) if size else (None, None)
        return Fingerprint(self._content[row].tobytes().hex(), None, *file)

    def _grow(self, least: int) -> None:
        """Make room for `least` rows, once for as many as are allowed: the system gives memory when it is written to.

        Growing step by step would hold everything twice at each step.
        """
        reserved, doubled = min(self._max, _RESERVED), max(_FIRST_CAPACITY, 2 * len(self._stamp), least)
        for capacity in (reserved, doubled) if least <= reserved else (doubled,):
            try:
                larger = {name: _zeros_after(getattr(self, name), capacity) for name in _ARRAYS}
            except MemoryError:  # not even room for addresses (a limit on them, no overcommitment)
                continue
            for name, array in larger.items():
                setattr(self, name, array)
            return
        raise MemoryError(f"there is no memory for {least} stored videos: lower the store's max_videos")

    def _evict(self) -> None:
        """Let the least recently used leave: a hundredth at a time, so that not every video costs a search."""
        free = np.array([i not in self._pins for i in self._ids.names], bool)
        candidates = np.flatnonzero(free)
        count = min(len(candidates), len(self._ids) - self._max + max(1, self._max // 100))
        if count < 1:
            return  # all are pinned: the history is bounded itself
        oldest = candidates[np.argpartition(self._used[candidates], count - 1)[:count]]
        self._leaving += [int(n) for n in self._number[oldest] if n]
        for i in [self._ids.names[row] for row in oldest]:
            self._remove_row(i)
            self._pending.pop(i, None)
        self._evicted += count

    def _forget_rows(self, ids: Iterable[str]) -> None:
        for i in ids:
            if i in self._ids:
                self._remove_row(i)
            self._pending.pop(i, None)
            self._private.discard(i)

    def _remove_row(self, id: str) -> None:
        row = self._ids.remove(id)
        self._quick.discard(id)
        last = len(self._ids)
        self.sum.remove(self._tokens[row : row + 1], self._scales[row : row + 1])
        self._fingerprints.pop(id, None)
        self._private.discard(id)
        self._unsaved.discard(id)
        if row != last:
            for name in _ARRAYS:
                array = getattr(self, name)
                array[row] = array[last]
        for name in _ARRAYS:
            getattr(self, name)[last] = 0  # removed means gone
        self.version += 1
        self.rewrites += 1

    # The database.

    def _load(self) -> None:
        """Fill the arrays; `_position` is read first, so that what is written meanwhile is followed."""
        assert self._db is not None
        self._position = self._table.position()
        with self._db.reading():
            self._data_version, self._generation = self._db.data_version(), self._db.generation
        with self.lock:
            count = self._table.count()
            self._grow(count)  # at once: growing by doubling would hold everything twice
            self._ids.reserve(count)
        videos = self._table.load()
        while chunk := list(itertools.islice(videos, 4096)):
            with self.lock:
                self._take_over_many(chunk)
        self._noted_clock = self._clock

    def _take_over_many(self, videos: list[StoredVideo]) -> None:
        """Append rows, without a step per video where that can be avoided."""
        names = [v.record.id.decode("utf-8", "surrogatepass") for v in videos]
        if len(set(names)) < len(names) or (self._ids.rows(names) >= 0).any():
            for video in videos:  # another process removed one and put it again while all were read
                self._take_over(video)
            return
        start, count = len(self._ids), len(videos)
        if start + count > len(self._stamp):
            self._grow(start + count)
        split = int(np.prod(self._shape))
        payload = np.frombuffer(b"".join(v.payload for v in videos), np.uint8).reshape(count, -1)
        part = slice(start, start + count)
        self._tokens[part] = payload[:, :split].view(np.int8).reshape(count, *self._shape)
        scales = np.ascontiguousarray(payload[:, split:]).view("<f4")
        self._scales[part] = scales.reshape(count, *self._shape[:2])
        self.sum.add(self._tokens[part], self._scales[part])
        self._used[part] = [v.used for v in videos]
        self._number[part] = [v.n for v in videos]
        self._stamp[part] = np.arange(self.newest + 1, self.newest + 1 + count)
        self.newest += count
        self._clock = max(self._clock, int(self._used[part].max(initial=0)))
        self._came[part] = np.arange(self._arrivals + 1, self._arrivals + 1 + count)
        self._arrivals += count
        for name, video in zip(names, videos, strict=True):
            self._ids.append(name)
            if video.record.content.startswith(QUICK):
                self._quick.add(name)

    def _follow(self, con: sqlite3.Connection) -> None:
        """Bring the arrays up to what is committed. The database's lock is held."""
        assert self._db is not None
        self._data_version = self._db.data_version()
        rebuilt = self._generation != self._db.generation
        found = None if rebuilt else self._table.changes(con, self._position)
        if found is None:
            if rebuilt:
                self._hold_on()
            self._reload()
            self.forgotten()
            return
        position, changed = found
        gone = False
        if changed:
            with self.lock:
                numbers = self._number[: len(self._ids)]
                order = np.argsort(numbers, kind="stable")
                at = np.searchsorted(numbers, changed, sorter=order)
                names = [
                    self._ids.names[order[a]] if a < len(order) and numbers[order[a]] == n else None
                    for a, n in zip(at, changed, strict=True)
                ]
                for n, name in zip(changed, names, strict=True):
                    video = self._table.fetch(con, n)
                    if video is not None:
                        self._take_over(video)
                    elif name is not None and name in self._pending:
                        self._number[self._ids.row(name)] = 0  # about to be written again
                    elif name is not None:
                        self._remove_row(name)
                        gone = True
        self._position = position
        if gone:
            self.forgotten()

    def _take_over(self, video: StoredVideo) -> None:
        """One row that another process wrote, unless ours is newer."""
        identity = video.record.id.decode("utf-8", "surrogatepass")
        if identity in self._pending and identity in self._ids:
            self._number[self._ids.row(identity)] = video.n
            return
        split = int(np.prod(self._shape))
        tokens = np.frombuffer(video.payload[:split], np.int8).reshape(self._shape)
        scales = np.frombuffer(video.payload[split:], "<f4").reshape(self._shape[:2])
        row = self._set(identity, tokens, scales)  # may make new arrays
        self._number[row] = video.n
        self._unsaved.discard(identity)
        self._private.discard(identity)
        self._fingerprints[identity] = _fingerprint_of(video.record)
        self._note_quick(identity, self._fingerprints[identity])

    def _reload(self) -> None:
        """Read everything again; more has changed than is written down."""
        with self.lock:
            kept = [
                (i, self._tokens[r].copy(), self._scales[r].copy(), self._fingerprints.get(i))
                for r, i in enumerate(self._ids.names)
                if i in self._pending or i in self._private or i in self._unsaved
            ]
            self._fingerprints.clear()
            clock = self._clock
            self._allocate()
            self._clock = clock
            self.version += 1
            self.rewrites += 1
            self._load()
            for i, tokens, scales, known_as in kept:
                self._set(i, tokens, scales)
                if known_as is not None:
                    self._fingerprints[i] = known_as
                    self._note_quick(i, known_as)

    def _hold_on(self) -> None:
        """After the database was rebuilt: what it may have lost is still here, and is written again."""
        with self.lock:
            self._leaving.clear()  # numbers of rows that are not there any more
            for i in self._ids.names:
                if i not in self._private and i not in self._unsaved:
                    self._pending[i] = None

    def _record(self, id: str) -> VideoRecord:
        from linkedout_edge.storage.encryption import id_bytes
        from linkedout_edge.storage.records import VideoRecord

        f = self._fingerprints.get(id) or Fingerprint("")
        return VideoRecord(id_bytes(id), f.content, None if f.title is None else id_bytes(f.title), f.size, f.mtime_ns)

    def _trim_fingerprints(self) -> None:
        if len(self._fingerprints) > _KNOWN:
            with self.lock:
                held = (self._pending.keys() | self._private | self._unsaved) & self._fingerprints.keys()
                self._fingerprints = {i: self._fingerprints[i] for i in held}

    def _note_uses(self) -> None:
        """Write pending rows, and when rows were used last: of the latest only, the order among old ones stays."""
        with self.lock:
            count = len(self._ids)
            used = self._used[:count]
            rows = np.flatnonzero((used > self._noted_clock) & (self._number[:count] > 0))
            if len(rows) > _NOTED_USES:
                rows = rows[np.argpartition(used[rows], len(rows) - _NOTED_USES)[-_NOTED_USES:]]
            noted = [(int(self._used[r]), int(self._number[r])) for r in rows]
        if noted or self._pending or self._leaving:
            with self.writing() as write:
                if noted and write.con is not None:
                    self._table.note_used(write.con, noted)


_ARRAYS = ("_tokens", "_scales", "_stamp", "_used", "_came", "_number", "_content", "_file")
_DIGEST = re.compile("[0-9a-f]{32}")


def _zeros_after(array: NDArray[Any], count: int) -> NDArray[Any]:
    """`array`, then zeros, `count` rows in all."""
    out = np.zeros((count, *array.shape[1:]), array.dtype)
    if len(array):
        out[: len(array)] = array
    return out


def _fingerprint_of(record: VideoRecord) -> Fingerprint:
    title = None if record.title is None else record.title.decode("utf-8", "surrogatepass")
    return Fingerprint(record.content, title, record.size, record.mtime_ns)
