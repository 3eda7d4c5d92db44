"""The decoder interface, for our decoders and for those of an app."""

from __future__ import annotations

import os
from typing import Protocol, runtime_checkable

from linkedout_edge.decode.frames import Frames, Picker, Reservoir, prepare, prepare_frames, slot_centers, spread
from linkedout_edge.decode.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "DEFAULT_LIMITS",
    "Decoder",
    "Frames",
    "Limits",
    "Picker",
    "QuickDecoder",
    "Reservoir",
    "prepare",
    "prepare_frames",
    "slot_centers",
    "spread",
]


@runtime_checkable
class Decoder(Protocol):
    """Turns a video file into a few well-spread frames. Any callable with a `name` will do."""

    @property
    def name(self) -> str:
        """Short name, for `info()` and messages."""

    def __call__(self, path: str | os.PathLike[str], count: int, size: int, limits: Limits) -> Frames:
        """Decode one file.

        Args:
            path: a regular file on this device.
            count: frames wanted, at least 1.
            size: side of the square frames.
            limits: what the file may cost.

        Returns:
            uint8 [F, size, size, 3] RGB in order of time, upright, 1 <= F <= count; fewer than count only where the
            file has fewer distinct frames.

        Raises:
            VideoError: the file is missing, unreadable or over a limit. Nothing else for any content of the file.
        """
        ...


@runtime_checkable
class QuickDecoder(Decoder, Protocol):
    """A decoder that can also take a quick look; without one, every look is full."""

    def quick(self, path: str | os.PathLike[str], count: int, size: int, limits: Limits) -> tuple[Frames, bool]:
        """As a call, many times faster, and often of fewer frames (at least one).

        Returns:
            The frames, and whether a full look would give the same.
        """
        ...
