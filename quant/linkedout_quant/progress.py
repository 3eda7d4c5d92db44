"""Progress on the standard error, so that what a command prints can be read by programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track as _track

T = TypeVar("T")

console = Console(stderr=True)


def track(steps: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Show a bar while going through `steps`; `total` where they have no length of their own."""
    return _track(steps, description=description, console=console, total=total)
