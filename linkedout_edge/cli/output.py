"""Output of the commands: consoles, progress, and text that is safe to show."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, Protocol

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from linkedout_edge.cli.terminal import no_color

_LEVELS = "▁▂▃▄▅▆▇█"
_PIPE_WIDTH = 4000
_LINE_EVERY = 10.0
"""Seconds between two lines about the same stage."""


def console() -> Console:
    """Where results go. Lines that go into a file or pipe are not broken."""
    out = _console(sys.stdout)
    return out if out.is_terminal else _console(sys.stdout, width=_PIPE_WIDTH)


def _console(file: IO[str], width: int | None = None) -> Console:
    # With NO_COLOR rich leaves colours out, but not bold and dim.
    return Console(file=file, highlight=False, width=width, color_system=None if no_color() else "auto")


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


class Report(Protocol):
    """Says how far a stage of long work is."""

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        """`done` of `total` steps of the stage `what` are done; `detail` is shown behind it."""


def say(value: Any, *lines: str, as_json: bool) -> None:
    """A command's result: a JSON document, or lines for people."""
    if as_json:
        print_json(value)
    else:
        for line in lines:
            console().print(plain(line))


@contextmanager
def stages(*, patience: float = 0.0, keep: bool = False, quiet: bool = False) -> Iterator[Report]:
    """Show on stderr how far long work is.

    Where someone watches, a bar; else, in a pipe or log, a line when a stage begins and one every ten seconds.

    Args:
        patience: Seconds that a stage may last before its first line: short work needs none.
        keep: Leave the finished bar on the screen.
        quiet: Show nothing.
    """
    err = _console(sys.stderr)
    if quiet:
        yield _silent
    elif not (err.is_terminal and sys.stderr.isatty()) or err.is_dumb_terminal:  # FORCE_COLOR makes no terminal
        yield _Lines(patience)
    else:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(TextColumn("{task.description}", markup=False), *columns, console=err, transient=not keep) as bar:
            yield _Bar(bar)


@contextmanager
def progress(
    label: str, total: int, *, patience: float = 2.0, keep: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """`stages` of work that is one stage; called as ``(done, total)``."""
    with stages(patience=patience, keep=keep) as report:
        report(label, 0, total)
        yield partial(report, label)


def _silent(what: str, done: int, total: int, detail: str = "") -> None:
    pass


class _Bar:
    """One bar, which begins again with each stage."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._task = bar, bar.add_task("", total=None)
        self._what = ""

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        if what != self._what:
            self._what = what
            self._bar.reset(self._task)
        self._bar.update(self._task, description=printable(what + detail), completed=done, total=total)


class _Lines:
    """Plain lines in place of a bar."""

    def __init__(self, patience: float) -> None:
        self._patience, self._start = patience, time.monotonic()
        self._what, self._began, self._due = "", 0.0, 0.0

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._began, self._due = what, now, now + self._patience
        if now >= self._due:
            self._due = now + _LINE_EVERY
            counted = f": {done} of {total}" if total > 1 else ""
            if 0 < done < total and now > self._began:
                counted += f", about {roughly((now - self._began) / done * (total - done))} left"
            note(f"[{now - self._start:4.0f} s] {what}{counted}{detail}")


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


def count(number: int, noun: str) -> str:
    """``1 pack`` or ``3 packs``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def roughly(seconds: float) -> str:
    """``40 s``, ``7 min`` or ``3.5 h``."""
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def size(count: int) -> str:
    """Bytes as ``11.2 MB``."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
