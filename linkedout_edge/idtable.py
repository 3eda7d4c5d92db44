"""Ids ↔ row numbers in little memory.

A ``dict[str, int]`` of 100,000 ids takes 70 bytes an id beside the string: 38 of the table, 32 of the number's object.
That is a twelfth of the bytes of their tokens. Rows are numbered without gaps, so a hash table of row numbers is
enough beside the list of ids: 10 bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FIRST_SLOTS = 128
_EMPTY = -1


class IdTable:
    """Ids by row, and the row of an id: open addressing, linear probing, at most half full.

    Changes are not guarded: hold a lock while reading, too.

    Attributes:
        names: Ids by row; not to be changed by others.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._resize(_FIRST_SLOTS)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.row(id) >= 0

    def row(self, id: str) -> int:
        """Row of an id; -1 if it is unknown."""
        return self._slots[self._slot(id)]

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Row of each id, int64 ``[C]``; -1 where unknown."""
        slots, names, mask = self._slots, self.names, len(self._slots) - 1
        rows = []
        for id in ids:  # as in `_slot`, without a call for each
            at = hash(id) & mask
            while (row := slots[at]) != _EMPTY and names[row] != id:
                at = (at + 1) & mask
            rows.append(row)
        return np.array(rows, np.int64)

    def append(self, id: str) -> int:
        """Give an unknown id the next row.

        Raises:
            ValueError: It has a row.
        """
        row = len(self.names)
        if 2 * (row + 1) > len(self._slots):
            self._resize(2 * len(self._slots))
        slot = self._slot(id)
        if self._slots[slot] != _EMPTY:
            raise ValueError(f"{id!r} has a row already")
        self.names.append(id)
        self._slots[slot] = row
        return row

    def remove(self, id: str) -> int:
        """Let a known id go; the last row's id moves to its row, which is returned."""
        slots, names, mask = self._slots, self.names, len(self._slots) - 1
        gap = at = self._slot(id)
        row, moved = slots[gap], names[-1]
        # Who stands behind the gap only because it was taken moves up (Knuth, 6.4, algorithm R).
        while slots[at := (at + 1) & mask] != _EMPTY:
            home = hash(names[slots[at]]) & mask
            if (at - home) & mask >= (at - gap) & mask:
                slots[gap] = slots[at]
                gap = at
        slots[gap] = _EMPTY
        if moved != id:
            slots[self._slot(moved)] = row
            names[row] = moved
        names.pop()
        return row

    def reserve(self, count: int) -> None:
        """Make room for so many ids at once."""
        size = len(self._slots)
        while size < 2 * count:
            size *= 2
        if size > len(self._slots):
            self._resize(size)

    def _slot(self, id: str) -> int:
        """Where an id's row stands, or would."""
        slots, names, mask = self._slots, self.names, len(self._slots) - 1
        at = hash(id) & mask
        while (row := slots[at]) != _EMPTY and names[row] != id:
            at = (at + 1) & mask
        return at

    def _resize(self, size: int) -> None:
        slots = array("i", [_EMPTY]) * size
        mask = size - 1
        for row, name in enumerate(self.names):
            at = hash(name) & mask
            while slots[at] != _EMPTY:
                at = (at + 1) & mask
            slots[at] = row
        self._slots = slots
