"""Objects that belong to one process: behavior after a fork and at exit.

A loaded model has threads of a native library, and an open database has locks that the system gives to one process.

- **Forked.** A child has the memory of both and neither the threads nor the locks. Using them there waits for ever, and
  so does freeing them. So in a child every call raises `ForkedError`, and what native libraries made is never freed.
- **Copied.** What cannot be shared cannot be pickled either; the error says what to do instead.
- **The end.** A thread that returns from a native library after the interpreter has gone is ended there and then, in
  the middle of C++ code, which aborts the process. So the exit waits for such calls and lets no new one in.

An app that never forks pays for none of this but a check of a flag.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import wraps
from types import CodeType, FrameType
from typing import Any, NoReturn, ParamSpec, TypeVar

from linkedout_edge.errors import ArgumentTypeError, ClosedError, ForkedError

P = ParamSpec("P")
R = TypeVar("R")

EXIT_SECONDS = 10.0
"""The most that the exit waits: for a video that is being decoded, a fraction of a second is usual."""

_LOCKS: dict[type, Callable[[], Any]] = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
    threading.Condition: threading.Condition,
}


class OneProcess:
    """Something that only the process that made it can use."""

    _forked = False

    def __init__(self) -> None:
        _alive.add(self)

    def _check_process(self) -> None:
        """Raise `ForkedError` in a forked child. Call it before any lock is taken."""
        if self._forked:
            raise ForkedError(
                "this process was forked from the one that loaded the recommender, and a model's threads stay behind "
                "there: load a recommender in each process, after the fork (docs/processes.md)"
            )

    def __reduce__(self) -> NoReturn:
        raise ArgumentTypeError(
            f"a {type(self).__name__} cannot be copied or pickled, because its model and its threads belong to this "
            "process: call Recommender.load(...) in the other process, such as in a Pool's initializer, and send it "
            "paths or ids (docs/processes.md)"
        )

    def _native(self) -> tuple[object, ...]:
        """Objects of native libraries, which a child must not free."""
        return ()

    def _left_behind(self) -> None:
        """Called in a forked child, where this belongs to the parent; must neither wait nor raise."""
        self._forked = True
        for thing in self._native():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))  # one reference that nobody gives back
        for name, lock in list(vars(self).items()):
            if new := _LOCKS.get(type(lock)):
                setattr(self, name, new())  # the old one may be held by a thread that is not here

    def _stop(self, until: float) -> None:
        """Called when the interpreter exits: end threads, at the latest when ``time.monotonic()`` reaches `until`."""

    def _busy(self) -> bool:
        """Whether another thread is where it must not be ended."""
        return False


_alive: weakref.WeakSet[OneProcess] = weakref.WeakSet()
_native_calls: set[CodeType] = set()
_exiting: int | None = None  # the thread in which the interpreter exits


def check_running() -> None:
    """Raise `ClosedError` when the interpreter exits, unless the thread that it exits in asks."""
    if _exiting is not None and _exiting != threading.get_ident():
        raise ClosedError("the interpreter is exiting: nothing more is started")


def native(call: Callable[P, R]) -> Callable[P, R]:
    """Decorates what calls a native library that runs beside the interpreter: its exit waits for such calls.

    Raises:
        ClosedError: When the interpreter exits.
    """

    def native_call(*args: P.args, **kwargs: P.kwargs) -> R:
        check_running()
        return call(*args, **kwargs)

    _native_calls.add(native_call.__code__)
    return wraps(call)(native_call)


def submit(pool: ThreadPoolExecutor, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
    """`pool.submit`, or, where no more threads are to be had, the same done at once in this one.

    Pools take nothing from the moment on when the main thread has ended, though other threads may have much to do yet.
    """
    try:
        return pool.submit(call, *args, **kwargs)
    except RuntimeError:
        done: Future[R] = Future()
        done.set_result(call(*args, **kwargs))
        return done


def _in_child() -> None:
    global _alive
    left_behind, _alive = list(_alive), weakref.WeakSet()
    for thing in left_behind:
        thing._left_behind()


def _at_exit() -> None:
    global _exiting
    until = time.monotonic() + EXIT_SECONDS
    things = list(_alive)
    for thing in things:
        with contextlib.suppress(KeyboardInterrupt):  # an impatient second Ctrl-C is what would crash
            thing._stop(until)
    _exiting = threading.get_ident()
    while time.monotonic() < until and (_others_are_inside() or any(thing._busy() for thing in things)):
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(0.005)


def _others_are_inside() -> bool:
    """Whether another thread is in a native call. Its stack tells, so that calls need not be counted."""
    for thread, top in sys._current_frames().items():
        frame: FrameType | None = None if thread == threading.get_ident() else top
        while frame is not None:
            if frame.f_code in _native_calls:
                return True
            frame = frame.f_back
    return False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
atexit.register(_at_exit)
