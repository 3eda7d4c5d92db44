"""What rankings computed from what is stored, for the next ranking; gone as soon as something is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

KEPT = 4


class Latest(Generic[T]):
    """The entries that were used last. Needs no lock: at worst, two threads at once lose an entry."""

    def __init__(self) -> None:
        self._entries: tuple[T, ...] = ()

    def find(self, is_it: Callable[[T], bool]) -> T | None:
        """The first that `is_it`; it counts as used."""
        entries = self._entries
        for entry in entries:
            if is_it(entry):
                if entry is not entries[0]:
                    self._entries = (entry, *(e for e in entries if e is not entry))
                return entry
        return None

    def add(self, entry: T, stays: Callable[[T], bool]) -> None:
        """Remember an entry, and of the former ones those that may stay."""
        self._entries = (entry, *(e for e in self._entries if stays(e)))[:KEPT]


class Derived:
    """Histories that were fitted, lists that were looked up, and the latest ranking.

    A store replaces it by an empty one when something is forgotten. A ranking that began before keeps the old one,
    so what it adds is lost with it.

    Attributes:
        histories: `EncodedHistory` objects.
        lists: Each a list as it was given, and the `Selection` that it stands for.
        ranking: All that decided on it, and what it became; None before the first one.
    """

    def __init__(self) -> None:
        self.histories: Latest[Any] = Latest()
        self.lists: Latest[tuple[list[str], Any]] = Latest()
        self.ranking: tuple[tuple[Any, ...], Any] | None = None
