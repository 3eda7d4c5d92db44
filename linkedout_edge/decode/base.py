"""What every decoder shares: the contract, the limits, which frames are chosen and how they are made square.

Frames are chosen at the centres of `count` equal time intervals ("slots"), and each is squashed to a square with
OpenCV's INTER_AREA, which gives the same bytes on every CPU. Nothing is cropped: a subject at the edge of a portrait
video counts as much as one in the middle, and the model is trained on squashed frames.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from linkedout_edge.decode.files import check_file
from linkedout_edge.errors import ArgumentError, InvalidFramesError, VideoTooLargeError

__all__ = [
    "DEFAULT_LIMITS",
    "Deadline",
    "Decoder",
    "Frames",
    "Limits",
    "Picker",
    "Reservoir",
    "check_file",
    "check_pixels",
    "prepare",
    "prepare_frames",
    "slot_centres",
    "spread",
]

Frames = NDArray[np.uint8]
"""uint8 [F, H, W, 3] RGB, or one frame [H, W, 3]."""


@dataclass(frozen=True)
class Limits:
    """What one video may cost. A video beyond a limit is refused with `VideoTooLargeError`."""

    max_bytes: int = 4 << 30
    """Size of the file. 4 GiB: FAT32's limit, and an hour of 4K from a phone."""
    max_pixels: int = 8192 * 4320
    """Width × height of one frame. A little over 8K; its RGB frame takes 106 MB."""
    max_seconds: float = 4 * 3600.0
    """Length of the video as its container states it."""
    max_decode_seconds: float = 20.0
    """Wall-clock time for one file. It is looked at between frames, so one frame may run over it."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_seconds", "max_decode_seconds"):
            if not getattr(self, name) > 0:
                raise ArgumentError(f"Limits.{name} is {getattr(self, name)!r}: expected a number above 0")


DEFAULT_LIMITS = Limits()


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


def slot_centres(count: int, seconds: float) -> list[float]:
    """Centres of `count` equal intervals of a video of `seconds`, from its start."""
    return [(i + 0.5) * seconds / count for i in range(count)]


def spread(frames: int, count: int) -> NDArray[np.int64]:
    """Indices of at most `count` well-spread frames out of `frames`: those on screen at the slot centres.

    Returns:
        int64 [min(frames, count)], rising, all different.
    """
    if frames <= count:
        return np.arange(frames)
    return (2 * np.arange(count) + 1) * frames // (2 * count)


def prepare(frame: Frames, size: int) -> Frames:
    """Squash one frame to a square.

    Args:
        frame: uint8 [H, W, 3].
        size: side of the square.

    Returns:
        uint8 [size, size, 3].
    """
    # A side smaller than `size` is enlarged, where INTER_AREA is OpenCV's bilinear with exact integer weights.
    return np.asarray(cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def prepare_frames(frames: Any, count: int, size: int, limits: Limits = DEFAULT_LIMITS) -> Frames:
    """The same choice and squashing for frames that the app decoded itself.

    Args:
        frames: uint8 [F, H, W, 3] RGB, F >= 1.
        count: frames wanted.
        size: side of the square frames.
        limits: of which `max_pixels` is checked.

    Returns:
        uint8 [min(F, count), size, size, 3].

    Raises:
        InvalidFramesError: wrong type, dtype, shape, or an empty dimension; or frames over `limits.max_pixels`.
    """
    check_request(count, size)
    expected = "expected a NumPy array uint8 [F, H, W, 3], RGB"
    if not isinstance(frames, np.ndarray):
        raise InvalidFramesError(f"frames are a {type(frames).__name__}: {expected}")
    if frames.dtype != np.uint8:
        raise InvalidFramesError(f"frames have dtype {frames.dtype}: {expected} with values 0 to 255")
    if frames.ndim != 4:
        hint = " (one frame? use frames[None])" if frames.ndim == 3 else ""
        raise InvalidFramesError(f"frames have shape {list(frames.shape)}: {expected}{hint}")
    if frames.shape[-1] != 3:
        raise InvalidFramesError(f"frames have {frames.shape[-1]} channels: {expected}")
    if 0 in frames.shape:
        raise InvalidFramesError(f"frames have shape {list(frames.shape)}, which holds no pixel: {expected}")
    if frames.shape[1] * frames.shape[2] > limits.max_pixels:
        raise InvalidFramesError(
            f"frames have {frames.shape[2]} × {frames.shape[1]} pixels, over the limit of {limits.max_pixels:,} "
            f"(Limits.max_pixels): make them smaller"
        )
    chosen = spread(len(frames), count)
    return np.stack([prepare(np.ascontiguousarray(frames[i]), size) for i in chosen])


class Picker:
    """Says of frames that come in order of time which ones to keep: the one on screen at each target.

    A frame is on screen from its time for `frame_seconds`. Where two targets fall on one frame it is kept once.
    """

    def __init__(self, targets: Iterable[float], frame_seconds: float) -> None:
        self._targets = sorted(targets)
        # A target may fall exactly between two frames; a hundredth of a frame makes rounding agree across decoders.
        self._lead = 0.99 * frame_seconds
        self._next = 0

    @property
    def target(self) -> float:
        """The next target; infinite when all were met."""
        return self._targets[self._next] if self._next < len(self._targets) else math.inf

    def wants(self, seconds: float) -> bool:
        """Whether to keep the frame at this time."""
        before = self._next
        while self.target < seconds + self._lead:
            self._next += 1
        return self._next > before


class Reservoir:
    """Well-spread frames of a stream whose length is unknown, in one pass and bounded memory.

    Keeps every frame until `4 * count` are held, then every second one of those and of what follows, and so on.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._stride = 1
        self._seen = 0
        self._kept: list[Frames] = []

    def wants(self) -> bool:
        """Whether to `add` the next frame; call once per frame."""
        wanted = self._seen % self._stride == 0
        self._seen += 1
        return wanted

    def add(self, frame: Frames) -> None:
        """Keep a prepared frame, uint8 [size, size, 3]."""
        self._kept.append(frame)
        if len(self._kept) >= 4 * self._count:
            self._kept = self._kept[::2]
            self._stride *= 2

    def frames(self) -> list[Frames]:
        """At most `count` of the kept frames."""
        return [self._kept[i] for i in spread(len(self._kept), self._count)]
