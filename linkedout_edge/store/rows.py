"""Layer tokens in contiguous arrays, to which rows are only appended.

A row never changes while it lives. Other tokens of the same id get a new row; the old row, like that of a removed id,
is overwritten with zeros and stays behind as a tombstone. Once more than a tenth are tombstones, the living rows move
together, in place.

So reading needs no lock: a `Snapshot` is read where it lies, and says afterwards whether all of its rows still live.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.store.average import RunningSum
from linkedout_edge.store.index import RowIndex

Positions = NDArray[np.int32]

_COLUMNS = ("tokens", "scales", "used", "number", "content", "file")
_RESERVED = 2**17  # rows for which addresses are reserved at once
_LEAST = 64  # rows, and tombstones that are always put up with
_MOVED = 1024  # rows at a time
PART = 32768  # rows at a time, for `in_parts`


@dataclass(frozen=True)
class Mark:
    """Rows that were looked up, without their tokens: a caller may keep it for as long as it likes.

    Attributes:
        source: Whose rows they are.
        rows: int32 ``[C]``; -1 stands for an id that was not there.
        alive: bool ``[V]``: the source's rows that have not been removed, replaced or moved since.
        revision: The source's when they were looked up.
    """

    source: Rows
    rows: Positions
    alive: NDArray[np.bool_]
    revision: int

    def is_current(self) -> bool:
        """Whether all of them still hold what they held. Ask with the lock held, or after reading without it."""
        if self.revision == self.source.revision:
            return True
        return all(part.min() >= 0 and self.alive[part].all() for part in in_parts(self.rows))


@dataclass(frozen=True)
class Snapshot:
    """Rows to be read where they lie, without a lock.

    Attributes:
        tokens: int8 ``[V, L, M, D]``, of all rows.
        scales: float32 ``[V, L, M]``, of all rows.
        mark: Which of them are meant; all of them live when the snapshot is made.
    """

    tokens: NDArray[np.int8]
    scales: NDArray[np.float32]
    mark: Mark

    def __len__(self) -> int:
        return len(self.mark.rows)

    def take(self, where: slice | NDArray[np.int64]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Copies of some tokens int8 ``[C, L, M, D]`` and scales float32 ``[C, L, M]``, by position in `mark.rows`."""
        at = self.mark.rows[where].astype(np.int64)  # with what NumPy indexes quickest
        return self.tokens[at], self.scales[at]


def in_parts(rows: Positions) -> Iterator[NDArray[np.int64]]:
    """The same rows, a few at a time, as NumPy wants them for indexing: all of them at once would take more memory."""
    return (rows[start : start + PART].astype(np.int64) for start in range(0, len(rows), PART))


class Rows:
    """Rows by id. Its caller locks, but for what a `Snapshot` does.

    Args:
        shape: L, M and D.
        limit: Rows that are expected at most: addresses for them are reserved once. Memory is taken for what is stored.

    Attributes:
        index: Id → row, in the order in which ids came. For reading.
        revision: Changes with every row that comes, leaves or moves, and before any is overwritten.
        sum: Of all living rows.
        tokens, scales: int8 ``[V, L, M, D]`` and float32 ``[V, L, M]``.
        used: uint32 ``[V]``, when each was needed last.
        number: int64 ``[V]``, which row of the database it is; 0: of none.
        content, file: uint8 ``[V, 16]`` and int64 ``[V, 2]``: fingerprints, which as objects would take a third of the
            tokens' bytes.
    """

    def __init__(self, shape: tuple[int, int, int], limit: int) -> None:
        self.shape = shape
        self._reserved = min(limit, _RESERVED) * 9 // 8 + _LEAST + 1  # a tenth of all rows may be tombstones
        self.revision = 0
        self._alive = np.zeros(0, bool)
        self.clear()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def capacity(self) -> int:
        """V."""
        return len(self._alive)

    def find(self, ids: Sequence[str]) -> Positions:
        """Row of each id, int32 ``[C]``; -1 where unknown."""
        rows = np.empty(len(ids), np.int32)
        self.index.find(ids if isinstance(ids, list) else list(ids), rows)
        return rows

    def mark(self, rows: Positions) -> Mark:
        """Rows that `find` gave, to be recognized later. Hold the lock, as for `snapshot`."""
        return Mark(self, rows, self._alive, self.revision)

    def snapshot(self, rows: Positions) -> Snapshot:
        """Living rows, to be read without a lock."""
        return Snapshot(self.tokens, self.scales, self.mark(rows))

    def append(self, id: str, tokens: NDArray[np.int8], scales: NDArray[np.float32]) -> int:
        """Store tokens int8 ``[L, M, D]`` and scales float32 ``[L, M]``, in place of what the id had; its row."""
        old = self.index.get(id)
        row = self.append_many([id], tokens[None], scales[None]).start
        if old >= 0:
            self.number[row] = self.number[old]
            self._bury(old)
            self._tidy()
        return self.index[id]

    def append_many(self, ids: list[str], tokens: NDArray[np.int8], scales: NDArray[np.float32]) -> slice:
        """Store int8 ``[V, L, M, D]`` and float32 ``[V, L, M]`` under distinct ids that are not known; their rows.

        Of an id that is known, the old row is left to the caller; the id keeps its place in the order.
        """
        self.reserve(len(ids))
        part = slice(self._end, self._end + len(ids))
        self.tokens[part], self.scales[part] = tokens, scales
        self.sum.add(self.tokens[part], self.scales[part])
        self._alive[part] = True
        self._end += len(ids)
        self.revision += 1
        self.index.update(ids, np.arange(part.start, part.stop, dtype=np.int32))
        return part

    def remove(self, ids: Iterable[str]) -> None:
        """Let ids go, and overwrite what was stored."""
        for i in ids:
            if (row := self.index.get(i)) >= 0:
                del self.index[i]
                self._bury(row)
        self._tidy()

    def clear(self) -> None:
        """Let all go, and the memory."""
        self.revision += 1
        self._alive[:] = False
        self.index = RowIndex(self._reserved)
        self.sum = RunningSum(self.shape)
        self._end = self._dead = 0
        self._allocate(0)

    def reserve(self, more: int) -> None:
        """Make room for so many rows more.

        Raises:
            MemoryError: There is none.
        """
        least = self._end + more
        if least <= self.capacity:
            return
        before = {name: getattr(self, name) for name in _COLUMNS}
        previous, doubled = self._alive, max(_LEAST, 2 * self.capacity, least)
        for capacity in (self._reserved, doubled) if least <= self._reserved else (doubled,):
            try:
                self._allocate(capacity)
                break
            except MemoryError:  # not even room for addresses (a limit on them, no overcommitment)
                continue
        else:
            raise MemoryError(f"there is no memory for {least} stored videos: lower the store's max_videos")
        for name, column in before.items():
            getattr(self, name)[: self._end] = column[: self._end]
        self._alive[: self._end] = previous[: self._end]
        previous[:] = False

    def _allocate(self, count: int) -> None:
        """Make all arrays anew, or, without memory for one, none."""
        self.tokens, self.scales, self.used, self.number, self.content, self.file, self._alive = (
            np.zeros((count, *self.shape), np.int8),
            np.zeros((count, *self.shape[:2]), np.float32),
            np.zeros(count, np.uint32),
            np.zeros(count, np.int64),
            np.zeros((count, 16), np.uint8),
            np.zeros((count, 2), np.int64),
            np.zeros(count, bool),
        )

    def _bury(self, row: int) -> None:
        self.revision += 1  # first: who reads the zeros finds out
        self._alive[row] = False
        self.sum.remove(self.tokens[row : row + 1], self.scales[row : row + 1])
        for name in _COLUMNS:
            getattr(self, name)[row] = 0  # removed means gone
        self._dead += 1

    def _tidy(self) -> None:
        """Move the living rows together, if there are too many tombstones."""
        if self._dead <= max(_LEAST, self._end // 10):
            return
        living = np.flatnonzero(self._alive)
        new = np.zeros(self._end, np.int32)
        new[living] = np.arange(len(living))
        ids, index = self.index.ids(), RowIndex(self._reserved)
        index.update(ids, new[self.find(ids)])  # before anything moves: memory may run out here
        previous, self._alive = self._alive, np.zeros(self.capacity, bool)
        self.revision += 1  # first: who reads them finds out that they moved
        previous[:] = False
        for start in range(0, len(living), _MOVED):
            part = living[start : start + _MOVED]
            for name in _COLUMNS:
                column: NDArray[Any] = getattr(self, name)
                column[start : start + len(part)] = column[part]
        for name in _COLUMNS:
            getattr(self, name)[len(living) : self._end] = 0
        self._alive[: len(living)] = True
        self.index = index
        self._end, self._dead = len(living), 0
