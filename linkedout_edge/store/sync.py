"""The database behind `Tokens`: rows are written a little later, and what other processes write is followed."""

from __future__ import annotations

import itertools
import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import StorageError
from linkedout_edge.storage import Database
from linkedout_edge.storage.encryption import id_bytes
from linkedout_edge.storage.records import VideoRecord, text
from linkedout_edge.storage.tables import StoredVideo, VideoTable
from linkedout_edge.store.fingerprint import QUICK, Fingerprint
from linkedout_edge.store.rows import Positions
from linkedout_edge.store.tokens import LATEST, Tokens, Write

logger = logging.getLogger("linkedout_edge")

_BATCH = 64  # videos a transaction, and
_BATCH_SECONDS = 2.0  # the most that a killed process has encoded in vain
_LOADED = 1024  # rows at a time; 4096 leave 18 MB of freed memory behind
_KNOWN = 4096  # fingerprints that stay in memory
_NOTED_USES = 4096  # rows whose last use is written down when closing


class _Tolerant(threading.local):
    """Batches of this thread that go on where nothing can be written: what another thread does must say so."""

    depth = 0


class StoredTokens(Tokens):
    """Tokens whose truth is a database: memory mirrors its rows of one token space.

    A row is pending from `put` until it is written; for ever, where nothing can be written.

    Args:
        config: Gives L, M and D.
        max_videos: Bound; the least recently used leaves first, what is pinned stays.
        token_space: Tokens of another one are never read.
        database: Open.
    """

    def __init__(self, config: ModelConfig, max_videos: int, token_space: str, database: Database) -> None:
        super().__init__(config, max_videos, token_space)
        self._db = database
        self._table = VideoTable(database, token_space, config.payload_bytes)
        self._pending: dict[str, None] = {}
        self._leaving: list[int] = []  # numbers of evicted rows, not yet removed from the database
        self._pending_since = 0.0
        self._batches = 0
        self._tolerant = _Tolerant()
        self._warned = False
        self._load()

    def put(self, id: str, tokens: NDArray[np.int8], scales: NDArray[np.float32], known_as: Fingerprint) -> None:
        """See `Tokens.put`."""
        with self.lock:
            super().put(id, tokens, scales, known_as)
            if self._private_depth:
                return
            if not self._pending:
                self._pending_since = time.monotonic()
            self._pending[id] = None
            if self._db.read_only is not None:
                if not self._tolerant.depth:
                    self.check_writable()
                self._warn(self._db.read_only)
                return
            wait = self._batches and len(self._pending) < _BATCH
            if wait and time.monotonic() - self._pending_since < _BATCH_SECONDS:
                return
        self.flush()

    def remove(self, ids: Sequence[str]) -> int:
        """See `Tokens.remove`. They leave the database in all token spaces, and its write-ahead log is emptied."""
        found = super().remove(ids)
        self._db.purge()
        return found

    def fingerprint(self, id: str) -> Fingerprint | None:
        """See `Tokens.fingerprint`."""
        known = self._fingerprints.get(id)
        if known is not None or id not in self:
            return known
        record = self._table.record(id)
        if record is None:  # another process has removed it
            return None
        with self.lock:
            return self._fingerprints.setdefault(id, _fingerprint(record)) if id in self else None

    def set_fingerprint(self, id: str, known_as: Fingerprint) -> None:
        """See `Tokens.set_fingerprint`. It goes with the next transaction: losing it costs a look at the file."""
        with self.lock:
            super().set_fingerprint(id, known_as)
            if id in self and not self._private_depth and self._db.read_only is None:
                self._pending[id] = None

    def _know(self, id: str, known_as: Fingerprint) -> None:
        self._note_quick(id, known_as.is_quick)
        self._fingerprints[id] = known_as

    @property
    def unsaved(self) -> int:
        """See `Tokens.unsaved`."""
        return len(self._pending) + len(self._private)

    @property
    def disk_bytes(self) -> int:
        """See `Tokens.disk_bytes`."""
        total = 0
        for name in (self._db.path.name, f"{self._db.path.name}-wal"):  # what was written last is only in the log
            with suppress(FileNotFoundError):  # another process that closes last removes the log
                total += self._db.path.with_name(name).stat().st_size
        return total

    @contextmanager
    def batch(self, *, durable: bool = True) -> Iterator[None]:
        """See `Tokens.batch`."""
        with self.lock:
            self._batches += 1
        self._tolerant.depth += not durable
        try:
            yield
        finally:
            with self.lock:
                self._batches -= 1
            try:
                self.flush()
            finally:
                self._tolerant.depth -= not durable

    def flush(self) -> None:
        """See `Tokens.flush`."""
        if self._db.read_only is not None or not (self._pending or self._leaving):
            return
        try:
            with self.writing():
                pass
        except StorageError as e:
            if not self._tolerant.depth:
                raise
            self._warn(e)

    def _warn(self, why: StorageError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("encoded videos stay in memory only: %s", why)

    @contextmanager
    def writing(self, keep: Iterable[str] = ()) -> Iterator[Write]:
        """See `Tokens.writing`."""
        write = Write()
        with self._db.lock:
            kept = {i: self.fingerprint(i) or Fingerprint("") for i in keep if i in self}
            with self.lock:
                for i, known_as in kept.items():
                    if i not in self._private:
                        self._fingerprints.setdefault(i, known_as)
                        self._pending[i] = None
            with self._db.transaction() as con:
                self._sync(con)
                with self.lock:
                    written = [i for i in self._pending if i in self.rows.index and i not in self._former]
                    known = [self._fingerprints.get(i, Fingerprint("")) for i in written]
                    rows = self.rows.mark(self.find(written))
                    numbers = [self._write(con, *each) for each in zip(written, rows.rows.tolist(), known, strict=True)]
                    settled = len(self._leaving)
                    # What was put again since it was evicted, here or by another process, has kept its number.
                    back_again = {*numbers, *self.rows.number.tolist()} if settled else set()
                    leaving = [n for n in self._leaving if n not in back_again]
                stay = self._table.evict(con, leaving) if leaving else []
                if numbers:
                    self._table.trim_other_spaces(con, max(0, self.max_videos - len(self)))
                write.con = con
                yield write
                if write.removed:
                    self._table.remove(con, write.removed)
                back = [self._table.fetch(con, n) for n in stay]
                position = self._table.last_change(con)
            self._position = position
            with self.lock:
                del self._leaving[:settled]
                unchanged = rows.alive[rows.rows].tolist()
                for i, n, known_as, same in zip(written, numbers, known, unchanged, strict=True):
                    row = self.rows.index.get(i)
                    if row < 0:
                        if i not in write.removed:  # evicted by another thread while it was being written
                            self._leaving.append(n)
                        continue
                    self.rows.number[row] = n
                    if same and self._fingerprints.get(i, known_as) is known_as:
                        self._pending.pop(i, None)
                self._drop(write.removed)
                for video in back:
                    if video is not None:
                        self._merge(video)
                if not self._pending:
                    self._warned = False
                if len(self._fingerprints) > _KNOWN:
                    held = (self._pending.keys() | self._private | self._former.keys()) & self._fingerprints.keys()
                    self._fingerprints = {i: self._fingerprints[i] for i in held}

    def _write(self, con: sqlite3.Connection, id: str, row: int, known_as: Fingerprint) -> int:
        content, title, size, mtime_ns = known_as
        record = VideoRecord(id_bytes(id), content, None if title is None else id_bytes(title), size, mtime_ns)
        return self._table.write(
            con, id, self.rows.tokens[row], self.rows.scales[row], record, int(self.rows.used[row])
        )

    def refresh(self) -> None:
        """See `Tokens.refresh`."""
        if self._closed or self._db.changed_since(self._data_version) is None:
            return
        with self._db.reading() as con:
            self._sync(con)

    def check_writable(self) -> None:
        """See `Tokens.check_writable`."""
        if self._db.read_only is not None:
            raise type(self._db.read_only)(*self._db.read_only.args)

    def close(self) -> None:
        """See `Tokens.close`."""
        if self._forked:
            return
        if not self._closed and self._db.read_only is None:
            with self.lock:
                self._restore()  # closed while `private`
            try:
                self._note_uses()
            except StorageError as e:
                logger.debug("uses were not noted: %s", e)
        super().close()
        self._pending.clear()

    def _leave(self, rows: Positions) -> None:
        self._leaving += [n for n in self.rows.number[rows].tolist() if n]

    def _drop(self, ids: Sequence[str]) -> None:
        super()._drop(ids)
        for i in ids:
            self._pending.pop(i, None)

    def _is_newer_here(self, id: str) -> bool:
        """Whether what is in memory will be written; not so where nothing can be written."""
        return id in self._pending and id in self.rows.index and self._db.read_only is None

    # What others wrote.

    def _load(self) -> None:
        """Read all rows. The position is read first, so that what is written meanwhile is followed."""
        self._position = self._data_version = -1  # if this fails, all is read again by the next call
        position = self._table.position()
        with self._db.reading():
            data_version, generation = self._db.data_version(), self._db.generation
        with self.lock:
            self.rows.reserve(self._table.count())  # at once: growing by doubling would hold everything twice
        videos = self._table.load()
        while chunk := list(itertools.islice(videos, _LOADED)):
            with self.lock:
                self._merge_many(chunk)
        self._noted_clock = self._clock
        self._position, self._data_version, self._generation = position, data_version, generation

    def _merge_many(self, videos: list[StoredVideo]) -> None:
        """Append rows, without a step per video where that can be avoided."""
        names = [_id(v) for v in videos]
        if len(set(names)) < len(names) or (self.rows.find(names) >= 0).any():
            for video in videos:  # another process removed one and put it again while all were read
                self._merge(video)
            return
        part = self.rows.append_many(names, *self._unpack(videos))
        self.rows.used[part] = [min(max(v.used, 0), LATEST) for v in videos]
        self.rows.number[part] = [v.n for v in videos]
        self._clock = max(self._clock, int(self.rows.used[part].max(initial=0)))
        self._quick.update(name for name, v in zip(names, videos, strict=True) if v.record.content.startswith(QUICK))

    def _merge(self, video: StoredVideo) -> None:
        """Take over one row that another process wrote, unless ours is newer."""
        identity = _id(video)
        if self._is_newer_here(identity):
            self.rows.number[self.rows.index[identity]] = video.n
            return
        (tokens,), (scales,) = self._unpack([video])
        row = self._append(identity, tokens, scales)  # may make new arrays
        self.rows.number[row] = video.n
        self._pending.pop(identity, None)
        self._private.discard(identity)
        self._former.pop(identity, None)
        self._know(identity, _fingerprint(video.record))

    def _unpack(self, videos: list[StoredVideo]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        count, (layers, m, d) = len(videos), self.rows.shape
        payload = np.frombuffer(b"".join(v.payload for v in videos), np.uint8).reshape(count, -1)
        scales = np.ascontiguousarray(payload[:, layers * m * d :]).view("<f4")
        return payload[:, : layers * m * d].view(np.int8).reshape(count, layers, m, d), scales.reshape(count, layers, m)

    def _sync(self, con: sqlite3.Connection) -> None:
        """Bring memory up to what is committed. The database's lock is held."""
        data_version = self._db.data_version()
        rebuilt = self._generation != self._db.generation
        found = None if rebuilt else self._table.changes(con, self._position)
        if found is None:
            self._reload(rebuilt=rebuilt)
            self.forget_derived()
            return
        position, changed = found
        if changed:
            self._follow_rows(con, changed)
        self._position, self._data_version = position, data_version  # last: a failure leaves it to the next call

    def _follow_rows(self, con: sqlite3.Connection, changed: list[int]) -> None:
        """Take over rows that others wrote or removed, by their numbers."""
        with self.lock:
            ids = self.ids()
            numbers = self.rows.number[self.find(ids)]
            by_number = {int(numbers[at]): ids[at] for at in np.flatnonzero(np.isin(numbers, changed))}
            for n in changed:
                video, name = self._table.fetch(con, n), by_number.get(n)
                if video is not None:
                    self._merge(video)
                elif name is not None and self._is_newer_here(name):
                    self.rows.number[self.rows.index[name]] = 0  # about to be written again
                elif name is not None:
                    self._drop([name])
                    self.forget_derived()

    def _reload(self, *, rebuilt: bool) -> None:
        """Read everything again: more has changed than is written down.

        If the database was `rebuilt`, what it may have lost is still here, and is written again.
        """
        with self.lock:
            self._restore()
            if rebuilt:
                self._leaving.clear()  # numbers of rows that are not there any more
                self._pending.update(dict.fromkeys(i for i in self.ids() if i not in self._private))
            ours = [i for i in self.ids() if i in self._pending or i in self._private]
            kept = list(zip(ours, *self.read(ours), strict=True))
            known = {i: self._fingerprints[i] for i in ours if i in self._fingerprints}
            self.rows.clear()
            self._fingerprints.clear()
            self._quick.clear()
            try:
                self._load()
            finally:  # what is nowhere else stays, even if the rest cannot be read
                for i, tokens, scales in kept:
                    self._append(i, tokens, scales)
                for i, known_as in known.items():
                    self._know(i, known_as)

    def _note_uses(self) -> None:
        """Write pending rows, and when rows were used last: of the latest only, the order among old ones stays."""
        with self.lock:
            used = self.rows.used
            rows = np.flatnonzero((used > self._noted_clock) & (self.rows.number > 0))
            if len(rows) > _NOTED_USES:
                rows = rows[np.argpartition(used[rows], len(rows) - _NOTED_USES)[-_NOTED_USES:]]
            noted = list(zip(used[rows].tolist(), self.rows.number[rows].tolist(), strict=True))
        if noted or self._pending or self._leaving:
            with self.writing() as write:
                if noted and write.con is not None:
                    self._table.note_used(write.con, noted)


def _id(video: StoredVideo) -> str:
    return video.record.id.decode("utf-8", "surrogatepass")


def _fingerprint(record: VideoRecord) -> Fingerprint:
    return Fingerprint(record.content, text(record.title), record.size, record.mtime_ns)
