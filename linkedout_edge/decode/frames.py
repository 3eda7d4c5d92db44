"""Choice of frames, and resizing to a square.

Frames are chosen at the centers of `count` equal time intervals ("slots"), and each is resized to a square with
OpenCV's INTER_AREA, which gives the same bytes on every CPU. Nothing is cropped: a subject at the edge of a portrait
video counts as much as one in the middle, and the model is trained on squashed frames.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from linkedout_edge.decode.limits import DEFAULT_LIMITS, Limits, check_request
from linkedout_edge.errors import InvalidFramesError

__all__ = ["Frames", "Picker", "Reservoir", "on_screen", "prepare", "prepare_frames", "slot_centers", "spread"]

Frames = NDArray[np.uint8]
"""uint8 [F, H, W, 3] RGB, or one frame [H, W, 3]."""


def slot_centers(count: int, seconds: float) -> list[float]:
    """Centers of `count` equal intervals of a video of `seconds`, from its start."""
    return [(i + 0.5) * seconds / count for i in range(count)]


def spread(frames: int, count: int) -> NDArray[np.int64]:
    """Indices of at most `count` well-spread frames out of `frames`: those on screen at the slot centers.

    Returns:
        int64 [min(frames, count)], rising, all different.
    """
    if frames <= count:
        return np.arange(frames)
    return (2 * np.arange(count) + 1) * frames // (2 * count)


def prepare(frame: Frames, size: int) -> Frames:
    """Resize one frame to a square.

    Args:
        frame: uint8 [H, W, 3].
        size: side of the square.

    Returns:
        uint8 [size, size, 3].
    """
    # A side smaller than `size` is enlarged, where INTER_AREA is OpenCV's bilinear with exact integer weights.
    return np.asarray(cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def prepare_frames(frames: Any, count: int, size: int, limits: Limits = DEFAULT_LIMITS) -> Frames:
    """The same choice and resizing for frames that the app decoded itself.

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
        raise InvalidFramesError(f"frames have shape {list(frames.shape)}, which contains no pixels: {expected}")
    if frames.shape[1] * frames.shape[2] > limits.max_pixels:
        raise InvalidFramesError(
            f"frames have {frames.shape[2]} × {frames.shape[1]} pixels, over the limit of {limits.max_pixels:,} "
            f"(Limits.max_pixels): make them smaller"
        )
    chosen = spread(len(frames), count)
    return np.stack([prepare(np.ascontiguousarray(frames[i]), size) for i in chosen])


ROUNDING = 1e-3
"""Seconds by which times of the same frame may differ, as containers round them."""


def on_screen(targets: Iterable[float], times: Sequence[float]) -> list[float]:
    """Of frames that begin at `times`, rising, the times of those on screen at the targets; each once."""
    found = (bisect_right(times, target + ROUNDING) - 1 for target in targets)
    return sorted({times[max(0, i)] for i in found})


class Picker:
    """Walks through a list of times, next to frames that come in order of time."""

    def __init__(self, targets: Iterable[float]) -> None:
        self._targets = sorted(targets)
        self._next = 0

    @property
    def target(self) -> float:
        """The next target; infinite when all were met."""
        return self._targets[self._next] if self._next < len(self._targets) else math.inf

    def passed(self, seconds: float) -> bool:
        """Whether targets lie before a frame that begins at `seconds`: the frame before it was on screen at them."""
        return self._walk(seconds - ROUNDING)

    def reached(self, seconds: float) -> bool:
        """Whether targets lie at or before `seconds`."""
        return self._walk(seconds + ROUNDING)

    def _walk(self, seconds: float) -> bool:
        before = self._next
        while self.target < seconds:
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
