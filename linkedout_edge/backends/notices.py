"""Notices of a backend about devices: each is logged once and kept for ``rec.info()``."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

PACKAGE = __name__.partition(".")[0]

logger = logging.getLogger("linkedout_edge.backends")


class Notices(list[str]):
    """Texts for people. They name devices and libraries; never paths, ids or titles."""

    def say(self, message: str, level: int = logging.INFO) -> None:
        """Log and keep a message, unless it was said before."""
        if message not in self:
            self.append(message)
            logger.log(level, "%s", message)


def callers_level() -> int:
    """The ``stacklevel`` with which a warning shows the line that called this package, not one of ours."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
        frame, level = frame.f_back, level + 1
    return level


@contextmanager
def announced(device: str, *, slow: bool, cached: bool) -> Iterator[None]:
    """Say before and after that the graph is compiled for a device other than the CPU, so that no wait is unexplained.

    Args:
        device: For what.
        slow: It may take minutes.
        cached: Whether the result is kept, so that the next start is quick.
    """
    how_long = "this may take minutes" if slow else "this may take a while"
    again = "the result is kept in cache_dir" if cached else "with cache_dir the next start would be quicker"
    logger.info("preparing the encoder graph for %s; %s, %s", device, how_long, again)
    start = time.perf_counter()
    yield
    logger.info("the encoder graph is ready on %s after %.1f s", device, time.perf_counter() - start)
