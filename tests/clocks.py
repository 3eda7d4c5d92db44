"""Clocks for tests in which time passes as they say, however fast or busy the machine is."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def each_look_takes(seconds: float) -> Iterator[None]:
    """While this lasts, so many seconds pass between one look at the clock and the next. Real waits stay real."""
    start = time.monotonic()
    ticks = itertools.count(1)

    def later() -> float:
        return start + seconds * next(ticks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", later)
        patch.setattr(time, "perf_counter", later)
        yield
