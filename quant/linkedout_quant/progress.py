"""Progress on the standard error, so that what a command prints can be read by programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from linkedout_edge.cli.output import note, progress

T = TypeVar("T")


def track(steps: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Show a bar, or lines in a pipe, while going through `steps`; `total` where they have no length of their own."""
    if total is None:
        assert isinstance(steps, Sized)
        total = len(steps)
    with progress(description, total, patience=0.0, keep=True) as advance:
        for done, step in enumerate(steps, 1):
            yield step
            advance(done, total)


def stage(what: str) -> None:
    """Say what begins now and takes a while, where there is nothing to count."""
    note(what)
