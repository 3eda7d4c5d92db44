"""Layer tokens by id, in memory: what is behind a `TokenStore`. `sync` adds the database.

Locks are taken in this order: encoding, history, database, `Tokens.lock`. Who holds the last must not call what writes.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError, ClosedError
from linkedout_edge.lifetime import OneProcess
from linkedout_edge.store.derived import Derived
from linkedout_edge.store.fingerprint import Fingerprint
from linkedout_edge.store.rows import Positions, Rows, in_parts

if TYPE_CHECKING:
    import sqlite3

MAX_VIDEOS = 100_000
LATEST = 2**32 - 1
"""The clock stands still there: videos used from then on, after four billion rankings, leave in any order."""
_PRIVATE = ("tokens", "scales", "used", "content", "file")  # columns that `Tokens.private` gives back
_DIGEST = re.compile("[0-9a-f]{32}")


@dataclass
class Write:
    """A transaction that is under way; see `Tokens.writing`.

    Attributes:
        con: None without a database.
        removed: Ids that leave the store with it.
    """

    con: sqlite3.Connection | None = None
    removed: list[str] = field(default_factory=list)


class _Former(NamedTuple):
    """What a stored id was before it was encoded again inside `Tokens.private`."""

    columns: dict[str, NDArray[Any]]
    fingerprint: Fingerprint | None
    is_quick: bool


class Tokens(OneProcess):
    """Layer tokens of one token space. Usable from several threads.

    Args:
        config: Gives L, M and D.
        max_videos: Bound; the least recently used leaves first, what is pinned stays.
        token_space: Tokens of another one are never read.

    Attributes:
        lock: Guards `rows` and all that is known of them. Held briefly (docs/architecture.md says when not).
        rows: Where they lie.
        derived: What was computed from them.
    """

    def __init__(self, config: ModelConfig, max_videos: int = MAX_VIDEOS, token_space: str = "") -> None:
        super().__init__()
        if max_videos < 1:
            raise ArgumentError(f"max_videos must be at least 1, not {max_videos}")
        self.lock = threading.RLock()
        self.max_videos = max_videos
        self.token_space = token_space
        self.rows = Rows((config.layers, config.tokens_per_layer, config.token_width), max_videos)
        self.derived = Derived()
        self.evicted = 0
        self._fingerprints: dict[str, Fingerprint] = {}  # those that do not fit into the rows
        self._quick: set[str] = set()  # ids of which only a quick look was taken
        self._pins: Counter[str] = Counter()
        self._private: set[str] = set()  # leave at the end of `private`
        self._former: dict[str, _Former] = {}  # come back at the end of `private`
        self._private_depth = 0
        self._clock = 0
        self._closed = False

    def __contains__(self, id: object) -> bool:
        return id in self.rows.index

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """L, M and D."""
        return self.rows.shape

    @property
    def revision(self) -> int:
        """Changes with every video that comes, changes or leaves."""
        return self.rows.revision

    def ids(self) -> list[str]:
        """All ids, in the order in which they came."""
        with self.lock:
            return self.rows.index.ids()

    def find(self, ids: Sequence[str]) -> Positions:
        """Row of each id, int32 ``[C]``; -1 where unknown. Valid while the lock is held."""
        return self.rows.find(ids)

    def read(self, ids: Sequence[str]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Copies of the tokens int8 ``[C, L, M, D]`` and scales float32 ``[C, L, M]`` of stored ids.

        Raises:
            KeyError: One is not stored.
        """
        with self.lock:
            rows = np.array([self.rows.index[i] for i in ids], np.int32)
            return self.rows.tokens[rows], self.rows.scales[rows]

    def touch(self, rows: Positions) -> None:
        """Mark rows as used just now; hold the lock."""
        if not self._private_depth:
            now = self._tick()
            for part in in_parts(rows):
                self.rows.used[part] = now

    def put(self, id: str, tokens: NDArray[np.int8], scales: NDArray[np.float32], known_as: Fingerprint) -> None:
        """Store tokens int8 ``[L, M, D]`` and scales float32 ``[L, M]`` under an id, replacing what was there.

        Outside a `batch`, it is on the disk when this returns.

        Raises:
            StorageError: It cannot be written. It is in memory all the same, and written as soon as that is possible.
        """
        with self.lock:
            self.check_open()
            is_new = id not in self.rows.index
            if is_new and len(self.rows) >= self.max_videos:
                self._evict()
            if self._private_depth and is_new:
                self._private.add(id)
            elif self._private_depth and id not in self._private and id not in self._former:
                self._former[id] = self._save(id)
            row = self._append(id, tokens, scales)
            self._know(id, known_as)
            if not self._private_depth:
                self._private.discard(id)
            elif id in self._former:
                self.rows.used[row] = self._former[id].columns["used"]

    def copy(self, source: str, target: str, known_as: Fingerprint) -> bool:
        """Store the tokens of one id under another, too; whether the first was there. Raises as `put` does."""
        with self.lock:
            if source not in self:
                return False
            (tokens,), (scales,) = self.read([source])
            if source in self._quick:
                known_as = known_as.as_quick()
        self.put(target, tokens, scales, known_as)
        return True

    def remove(self, ids: Sequence[str]) -> int:
        """Remove distinct ids for good; how many there were.

        Raises:
            StorageError: The database cannot be written; nothing was removed.
        """
        with self.writing() as write:
            found = sum(i in self for i in ids)
            write.removed += ids
        self.forget_derived()
        return found

    def forget_derived(self) -> None:
        """Drop what was computed from what is stored: some of it is to be forgotten."""
        self.derived = Derived()

    # Fingerprints.

    def fingerprint(self, id: str) -> Fingerprint | None:
        """What the tokens of an id were made from; None for an unknown id."""
        with self.lock:
            known, row = self._fingerprints.get(id), self.rows.index.get(id)
            if known is not None or row < 0:
                return known
            size, mtime_ns = self.rows.file[row].tolist()
            file = (size - 1, mtime_ns) if size else (None, None)
            return Fingerprint(self.rows.content[row].tobytes().hex(), None, *file)

    def set_fingerprint(self, id: str, known_as: Fingerprint) -> None:
        """Note a new fingerprint of a content that stayed the same (a file that was only touched).

        Inside `private` it is noted only of what does not stay.
        """
        with self.lock:
            if id in self.rows.index and not (self._private_depth and self._stays(id)):
                self._know(id, known_as)

    def quick(self) -> frozenset[str]:
        """Ids of which only a quick look was taken so far."""
        with self.lock:
            return frozenset(self._quick)

    def _know(self, id: str, known_as: Fingerprint) -> None:
        """Note what the tokens of a stored id were made from."""
        self._note_quick(id, known_as.is_quick)
        row = self.rows.index[id]
        if known_as.title is not None or not _DIGEST.fullmatch(known_as.content):
            self._fingerprints[id] = known_as
            return
        self._fingerprints.pop(id, None)
        self.rows.content[row] = np.frombuffer(bytes.fromhex(known_as.content), np.uint8)
        if known_as.size is not None:
            self.rows.file[row] = known_as.size + 1, known_as.mtime_ns or 0

    def _note_quick(self, id: str, is_quick: bool) -> None:
        if is_quick:
            self._quick.add(id)
        else:
            self._quick.discard(id)

    # What a database adds to.

    @property
    def unsaved(self) -> int:
        """Videos that are only in memory, and are meant not to be or to leave."""
        return len(self._private)

    @property
    def disk_bytes(self) -> int:
        """Size of the database and its write-ahead log."""
        return 0

    @contextmanager
    def batch(self, *, durable: bool = True) -> Iterator[None]:
        """Several `put`s in few transactions; they are on the disk when this ends.

        Args:
            durable: Raise if they cannot be written; else that is only logged, once, and they stay in memory.
        """
        yield

    def flush(self) -> None:
        """Write what was put.

        Raises:
            StorageError: It cannot be written; not inside ``batch(durable=False)``.
        """

    @contextmanager
    def writing(self, keep: Iterable[str] = ()) -> Iterator[Write]:
        """One transaction: what was put is written, then what is done inside, or nothing is.

        Args:
            keep: Stored ids that must be in the database afterwards, even if another process has evicted them.

        Raises:
            StorageError: The database cannot be written.
        """
        write = Write()
        yield write
        with self.lock:
            self._drop(write.removed)

    def refresh(self) -> None:
        """Follow what other processes wrote. Costs microseconds if they wrote nothing."""

    def check_writable(self) -> None:
        """Raise the `StorageError` that says why nothing can be written, if that is so."""

    # Who may stay.

    @contextmanager
    def private(self) -> Iterator[None]:
        """What is put inside stays in memory, and leaves the store at the end; uses are not noted.

        A stored id that is put again has its former tokens at the end.
        """
        with self.lock:
            self._private_depth += 1
        try:
            yield
        finally:
            with self.lock:
                self._private_depth -= 1
                if not self._private_depth:
                    self._drop(list(self._private))
                    self._restore()
                    self.forget_derived()

    def _stays(self, id: str) -> bool:
        """Whether what memory has of an id outlasts `private`."""
        return id not in self._private and id not in self._former

    def _save(self, id: str) -> _Former:
        row = self.rows.index[id]
        columns = {name: getattr(self.rows, name)[row].copy() for name in _PRIVATE}
        return _Former(columns, self._fingerprints.get(id), id in self._quick)

    def _restore(self) -> None:
        """Give ids back what they were before `private`."""
        for id, former in self._former.items():
            row = self._append(id, former.columns["tokens"], former.columns["scales"])
            for name, value in former.columns.items():
                getattr(self.rows, name)[row] = value
            self._fingerprints.pop(id, None)
            if former.fingerprint is not None:
                self._fingerprints[id] = former.fingerprint
            self._note_quick(id, former.is_quick)
        self._former.clear()

    def pin(self, ids: Iterable[str]) -> None:
        """Keep ids from being evicted; each as often as `unpin` will be called with it."""
        with self.lock:
            self._pins.update(ids)

    def unpin(self, ids: Iterable[str]) -> None:
        """Undo one `pin`."""
        with self.lock:
            self._pins -= Counter(ids)  # keeps what is above 0

    @contextmanager
    def pinned(self, ids: Iterable[str]) -> Iterator[None]:
        """Pin ids for a while."""
        held = list(ids)
        self.pin(held)
        try:
            yield
        finally:
            self.unpin(held)

    def count_pinned(self) -> int:
        """Stored ids that are pinned."""
        with self.lock:
            return sum(i in self.rows.index for i in self._pins)

    def _evict(self) -> None:
        """Let the least recently used leave: a hundredth at a time, so that not every video costs a search."""
        free = [i for i in self.rows.index.ids() if i not in self._pins]
        count = min(len(free), len(self.rows) - self.max_videos + max(1, self.max_videos // 100))
        if count < 1:
            return  # all are pinned: the history is bounded itself
        rows = self.rows.find(free)
        oldest = np.argpartition(self.rows.used[rows], count - 1)[:count]
        self._leave(rows[oldest])
        self._drop([free[n] for n in oldest])
        self.evicted += count

    def _leave(self, rows: Positions) -> None:
        """Called before rows are evicted."""

    def _drop(self, ids: Sequence[str]) -> None:
        """Let ids leave memory."""
        self.rows.remove(ids)
        for i in ids:
            self._fingerprints.pop(i, None)
            self._quick.discard(i)
            self._private.discard(i)
            self._former.pop(i, None)

    def _append(self, id: str, tokens: NDArray[np.int8], scales: NDArray[np.float32]) -> int:
        row = self.rows.append(id, tokens, scales)
        self.rows.used[row] = self._tick()
        return row

    def _tick(self) -> int:
        self._clock = min(self._clock + 1, LATEST)
        return self._clock

    # The end.

    def check_open(self) -> None:
        """Raise `ClosedError` after `close`, `ForkedError` in a forked child."""
        self._check_process()
        if self._closed:
            raise ClosedError("the store was closed with its recommender: load a new one")

    def close(self) -> None:
        """Release the memory; write down what was not yet written, if that is possible."""
        if self._forked:
            return
        with self.lock:
            self._closed = True
            self.rows.clear()
            self.forget_derived()
            for held in (self._fingerprints, self._quick, self._pins, self._private, self._former):
                held.clear()
