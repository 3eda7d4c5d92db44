"""Limits for one video, and their checks."""

from __future__ import annotations

import time
from dataclasses import dataclass

from linkedout_edge.errors import ArgumentError, VideoTooLargeError

__all__ = ["DEFAULT_LIMITS", "Deadline", "Limits", "check_pixels", "check_request", "check_seconds"]


@dataclass(frozen=True)
class Limits:
    """What one video may cost. A video beyond a limit is refused with `VideoTooLargeError`."""

    max_bytes: int = 4 << 30
    """Size of the file. 4 GiB: FAT32's limit, and an hour of 4K from a phone."""
    max_pixels: int = 8192 * 4320
    """Width × height of one frame. A little over 8K; its RGB frame takes 106 MB."""
    max_seconds: float = 4 * 3600.0
    """Length of the video."""
    max_decode_seconds: float = 20.0
    """Wall-clock time for one file. It is looked at between frames, so one frame may run over it."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_seconds", "max_decode_seconds"):
            if not getattr(self, name) > 0:
                raise ArgumentError(f"Limits.{name} is {getattr(self, name)!r}: expected a number above 0")


DEFAULT_LIMITS = Limits()


class Deadline:
    """Wall-clock limit on one file; every loop over packets or frames asks it."""

    def __init__(self, limits: Limits, name: str) -> None:
        self._seconds = limits.max_decode_seconds
        self._name = name
        self._end = time.monotonic() + self._seconds

    def check(self) -> None:
        """Raise `VideoTooLargeError` once time is up."""
        if time.monotonic() > self._end:
            raise VideoTooLargeError(
                f"decoding {self._name!r} took longer than {self._seconds:g} s (Limits.max_decode_seconds)"
            )


def check_pixels(width: int, height: int, limits: Limits, name: str) -> None:
    """Raise `VideoTooLargeError` where a frame has more than `limits.max_pixels` pixels."""
    if width * height > limits.max_pixels:
        raise VideoTooLargeError(
            f"{name!r} has frames of {width} × {height} pixels, over the limit of "
            f"{limits.max_pixels:,} (Limits.max_pixels)"
        )


def check_seconds(seconds: float, limits: Limits, name: str) -> None:
    """Raise `VideoTooLargeError` where a video is longer than `limits.max_seconds`."""
    if seconds > limits.max_seconds:
        raise VideoTooLargeError(
            f"{name!r} is {seconds:,.0f} s long, over the limit of {limits.max_seconds:,.0f} s (Limits.max_seconds)"
        )


def check_request(count: int, size: int) -> None:
    """Raise `ArgumentError` where `count` or `size` is below 1."""
    for what, value in (("count", count), ("size", size)):
        if value < 1:
            raise ArgumentError(f"{what} is {value!r}: expected at least 1")
