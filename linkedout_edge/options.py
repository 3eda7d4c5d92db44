"""Checks of arguments; every message says what is valid."""

from __future__ import annotations

import math
import operator
import os
from pathlib import Path

import numpy as np

from linkedout_edge.errors import ArgumentError, ArgumentTypeError, StorageError


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


def file_path(path: object) -> Path:
    """A path of the file system."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise ArgumentTypeError(f"path must be a str or os.PathLike, not {type(path).__name__}")
    return Path(path)


def new_file(path: object, example: str) -> Path:
    """A file that can be made or replaced; `example` is a good name for it.

    Raises:
        StorageError: It is a folder, or lies in none.
    """
    file = file_path(path)
    if os.path.isdir(file):  # noqa: PTH112 (False, not an error, for what cannot be looked at)
        raise StorageError(f"{file} is a folder: name a file inside it, such as {file / example}")
    if not os.path.isdir(file.parent):  # noqa: PTH112
        raise StorageError(f"there is no folder {file.parent}: make it first, or name another file")
    return file


def _number(name: str, value: object, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ArgumentTypeError(f"{name} must be {expected}, not {type(value).__name__}")
    return float(value)
