"""Calls for asyncio: in a thread, which stops soon after the awaiting task was cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Stop(threading.Event):
    """An event that can wake a thread which waits for something else."""

    def __init__(self) -> None:
        super().__init__()
        self._wakes: list[Callable[[], None]] = []

    def set(self) -> None:
        """Set the event, and call what `waking` named."""
        super().set()
        for wake in tuple(self._wakes):
            wake()

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have `wake` called if the event is set meanwhile; whoever sets it may be any thread."""
        self._wakes.append(wake)
        try:
            yield
        finally:
            self._wakes.remove(wake)


STOP: ContextVar[Stop | None] = ContextVar("linkedout_edge.stop", default=None)
"""Set once nobody waits for the present call any more; None outside of `in_thread`. Long work looks at it."""


def in_thread(call: Callable[P, R], doc: str) -> Callable[P, Coroutine[Any, Any, R]]:
    """The same call as a coroutine function, with a docstring of its own."""

    @wraps(call)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> R:
        import asyncio  # 30 ms that only asyncio apps pay

        stop, context = Stop(), copy_context()
        context.run(STOP.set, stop)
        work = partial(context.run, call, *args, **kwargs)
        try:
            return await asyncio.get_running_loop().run_in_executor(None, work)
        finally:
            stop.set()

    awaited.__name__, awaited.__doc__ = f"a{call.__name__}", doc
    awaited.__qualname__ = ".".join([*call.__qualname__.split(".")[:-1], awaited.__name__])
    return awaited
