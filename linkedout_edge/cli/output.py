"""What the commands print with: consoles, progress, and text that is safe to show."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

_LEVELS = "▁▂▃▄▅▆▇█"
_PIPE_WIDTH = 120


def console() -> Console:
    """Where results go. Into a file or pipe, lines may be longer than rich's 80 columns."""
    out = Console(file=sys.stdout, highlight=False)
    return out if out.is_terminal else Console(file=sys.stdout, highlight=False, width=_PIPE_WIDTH)


def note(message: str) -> None:
    """One line for people, beside the result: on stderr."""
    click.echo(printable(message), err=True)


@contextmanager
def announcements() -> Iterator[None]:
    """Show what the backends say: that a graph is being compiled, that a device cannot be used, what runs instead."""

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(record.getMessage())

    logger, handler = logging.getLogger("linkedout_edge.backends"), Notes()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*cannot be used", RuntimeWarning)  # the same in the log
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def print_json(value: Any) -> None:
    """One JSON document on stdout; names that are no UTF-8 become escapes."""
    click.echo(json.dumps(value, indent=2))


@contextmanager
def progress(label: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where someone looks at it; called as ``(done, total)``."""
    err = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def printable(text: str) -> str:
    """`text` without control characters: a file's name must not steer the terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def plain(text: str, style: str = "") -> Text:
    """Text that is shown as it is: brackets are no markup."""
    return Text(printable(text), style=style, overflow="fold")


def layer_bars(layers: Sequence[float], scale: float) -> Text:
    """One bar per layer, as high as its contribution is large: green speaks for the video, red against it."""
    bars = Text(no_wrap=True)
    for value in layers:
        share = min(1.0, abs(value) / scale) if scale > 0 else 0.0
        style = "dim" if share < 1 / 16 else "green" if value > 0 else "red"
        bars.append(_LEVELS[round(share * (len(_LEVELS) - 1))], style=style)
    return bars


def short_names(ids: Sequence[str]) -> dict[str, str]:
    """Id → its last part, where no other id ends in the same."""
    last = {i: i.replace("\\", "/").rstrip("/").rpartition("/")[2] or i for i in ids}
    counts: dict[str, int] = {}
    for name in last.values():
        counts[name] = counts.get(name, 0) + 1
    return {i: name if counts[name] == 1 else i for i, name in last.items()}


def duration(seconds: float) -> str:
    """``12 ms`` or ``3.4 s``."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.1f} s"


def size(count: int) -> str:
    """Bytes as ``11.2 MB``."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
