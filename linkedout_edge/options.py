"""Checks of numeric and boolean arguments; every message says what is valid."""

from __future__ import annotations

import math
import operator

import numpy as np

from linkedout_edge.errors import ArgumentError, ArgumentTypeError


def positive(name: str, value: object) -> int:
    """A whole number from 1 on."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ArgumentTypeError(f"{name} must be a whole number, not {type(value).__name__}") from None
    if isinstance(value, bool):
        raise ArgumentTypeError(f"{name} must be a whole number, not {value}")
    if number < 1:
        raise ArgumentError(f"{name} must be at least 1, not {value}; leave it out for the default")
    return number


def fraction(name: str, value: object) -> float:
    """A number from 0 to 1."""
    number = _number(name, value, "a number from 0 to 1")
    if not 0 <= number <= 1:
        hint = "; divide percent by 100" if 1 < number <= 100 else ""
        raise ArgumentError(f"{name} must be from 0 to 1, not {value}{hint}")
    return number


def at_least_0(name: str, value: object, what: str) -> float:
    """A finite number from 0 on; `what` says of what, such as "milliseconds"."""
    number = _number(name, value, f"a number of {what}")
    if not (math.isfinite(number) and number >= 0):
        raise ArgumentError(
            f"{name} must be a finite number of {what}, 0 or more, not {value}; leave it out for no limit"
        )
    return number


def flag(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ArgumentTypeError(f"{name} must be True or False, not {type(value).__name__}")
    return bool(value)


def _number(name: str, value: object, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ArgumentTypeError(f"{name} must be {expected}, not {type(value).__name__}")
    return float(value)
