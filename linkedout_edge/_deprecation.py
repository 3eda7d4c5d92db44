"""How public names go: they work for a while longer, and say what to use instead. docs/stability.md has the rules."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from linkedout_edge.errors import ArgumentTypeError

P = ParamSpec("P")
R = TypeVar("R")


def deprecated(old: str, new: str, removed_in: str, *, stacklevel: int = 2) -> None:
    """Warn the caller of a public function that it goes.

    Args:
        old: What was used, such as ``Recommender.refine``.
        new: What to use instead.
        removed_in: The version without it.
        stacklevel: Frames between this call and the line to be shown; 2 is the caller of who calls this.
    """
    message = f"{old} is deprecated and will be removed in {removed_in}: use {new}"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel + 1)


def renamed_argument(old: str, new: str, removed_in: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function whose keyword `old` is now called `new`: both are taken, the old one with a warning.

    Raises:
        ArgumentTypeError: When it is called with both.
    """

    def decorate(call: Callable[P, R]) -> Callable[P, R]:
        @wraps(call)
        def renamed(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                if new in kwargs:
                    raise ArgumentTypeError(f"{old} is the old name of {new}: give {new} alone")
                deprecated(f"{call.__qualname__}({old}=…)", f"{new}=…", removed_in)
                kwargs[new] = kwargs.pop(old)
            return call(*args, **kwargs)

        return renamed

    return decorate
