"""Encoding without a pause, to see whether a device slows down as it heats up."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Sequence

from linkedout_edge.bench.machine import celsius, megahertz
from linkedout_edge.bench.results import Sustained, Window
from linkedout_edge.bench.workers import Worker
from linkedout_edge.errors import ArgumentError

WINDOWS = 60
STEADY = 1.1
"""Up to this factor a device counts as steady."""

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """``90``, ``90s``, ``10m``, ``1.5h`` → seconds.

    Raises:
        ArgumentError: It is none of these, or less than a second.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if not found or found[2] not in _UNITS:
        raise ArgumentError(f"{text!r} is no duration: write 90s, 10m or 1h")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds < 1:
        raise ArgumentError(f"{text!r} is too short to say anything: at least 1s")
    return seconds


def sustain(worker: Worker, name: str, seconds: float, progress: Callable[[str, int, int], None]) -> Sustained:
    """Encode for that long, in windows.

    Args:
        worker: A configuration that is loaded and warm.
        name: What to call it.
        seconds: For how long.
        progress: Called as ``(what, done, total)``.
    """
    start = time.monotonic()
    windows: list[Window] = []
    length = seconds / WINDOWS
    count = 2
    while (now := time.monotonic() - start) < seconds or not windows:
        took: list[float] = []
        until = min(now + length, seconds)
        while not took or time.monotonic() - start < until:
            took += worker.ask("encode", count=count)["ms"]
            count = max(1, min(200, int(min(length, 1.0) * 1000 / statistics.median(took))))
        windows.append(Window(at_s=now, encode_ms=statistics.median(took), celsius=celsius(), megahertz=megahertz()))
        progress(f"sustained: {name}", round(min(now, seconds)), round(seconds))
    slowdown, verdict = judge(windows)
    return Sustained(
        configuration=name, seconds=time.monotonic() - start, windows=windows, slowdown=slowdown, verdict=verdict
    )


def judge(windows: Sequence[Window]) -> tuple[float, str]:
    """How much slower the last fifth is than the first, and what to make of it."""
    part = max(1, len(windows) // 5)
    first = statistics.median(w.encode_ms for w in windows[:part])
    slowdown = statistics.median(w.encode_ms for w in windows[-part:]) / first
    heat = [w.celsius for w in windows if w.celsius is not None]
    hot = f", {heat[0]:.0f} → {max(heat):.0f} °C" if heat else ", no temperature sensor here"
    if slowdown <= STEADY:
        return slowdown, f"steady: {slowdown:.2f} × the first fifth's time at the end{hot}"
    since = next(w.at_s for n, w in enumerate(windows) if w.encode_ms > STEADY * first and n >= part)
    return (
        slowdown,
        f"slows down: {slowdown:.2f} × the first fifth's time at the end, first seen after {since:.0f} s{hot}",
    )
