"""The row of each stored id, in the order in which ids came: `RowIndex`.

The extension's (`_row_index.c`) takes 14 bytes a video where there are 100,000, and 19 once one was replaced; a
dictionary and its numbers take 70, and the tokens 816. Where no compiler was, `DictIndex` does the same.

Writers hold the store's lock. Who looks up without it sees an id as it is before or after a writer's change, never in
between, as with a dictionary; the extension answers a whole list at once, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from linkedout_edge import extension


class DictIndex:
    """Id → row, on a dictionary. An id is a `str`; one of a subclass counts as the text that it holds."""

    def __init__(self, expected: int = 0) -> None:
        """Empty; of so many ids as are `expected`, the extension reserves addresses at once."""
        self._rows: dict[str | None, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, id: object) -> bool:
        return _plain(id) in self._rows

    def __getitem__(self, id: str) -> int:
        """The id's row.

        Raises:
            KeyError: There is none.
        """
        return self._rows[_plain(id)]

    def __setitem__(self, id: str, row: int) -> None:
        """Note an id's row; an id that was known keeps its place in the order.

        Raises:
            TypeError: It is no `str`.
            ValueError: The row does not fit into an int32, or is below 0.
        """
        if not 0 <= row < 2**31:
            raise ValueError("a row is a number from 0 to 2**31 - 1")
        if not isinstance(id, str):
            raise TypeError("an id is a str")
        self._rows[_plain(id)] = row

    def __delitem__(self, id: str) -> None:
        del self._rows[_plain(id)]

    def get(self, id: object) -> int:
        """The id's row; -1 where unknown."""
        return self._rows.get(_plain(id), -1)

    def ids(self) -> list[str]:
        """All ids, in the order in which they came."""
        return list(self._rows)  # type: ignore[arg-type]  # None is only looked up

    def find(self, ids: list[str], rows: NDArray[np.int32]) -> None:
        """Write the row of each id into an array, contiguous, int32 ``[C]``; -1 where unknown."""
        known: Iterable[str | None] = ids if {*map(type, ids)} <= {str} else map(_plain, ids)
        rows[:] = np.fromiter(map(self._rows.get, known, repeat(-1)), np.int32, len(ids))

    def update(self, ids: list[str], rows: NDArray[np.int32]) -> None:
        """Note the row of each id, contiguous, int32 ``[C]``. Raises as ``index[id] = row`` does, part of it done."""
        for id, row in zip(ids, rows.tolist(), strict=True):
            self[id] = row


def _plain(id: object) -> str | None:
    if type(id) is str:
        return id
    return str.__str__(id) if isinstance(id, str) else None  # equal texts, whatever a subclass makes of equality


RowIndex: type[DictIndex] = extension.kernel.RowIndex if extension.kernel else DictIndex
