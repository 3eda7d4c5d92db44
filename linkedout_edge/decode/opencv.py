"""Decoding with OpenCV, whose wheels carry an LGPL FFmpeg.

`cv2.VideoCapture` cannot skip to key frames, so it decodes all frames on the way, twice as slow as PyAV at best.
`grab` decodes without converting; only chosen frames are converted.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from linkedout_edge.decode.base import (
    Deadline,
    Frames,
    Limits,
    Picker,
    Reservoir,
    check_file,
    check_pixels,
    check_request,
    check_seconds,
    prepare,
    slot_centres,
)
from linkedout_edge.errors import VideoError, VideoUnreadableError

SEEK_FRAMES = 2000
"""Longer videos are sought in, shorter ones decoded from start to end.

A seek decodes from a key frame, often 250 frames back, and OpenCV starts a little before that; with 8 seeks the two
ways cost the same at about this length.
"""


@dataclass(frozen=True)
class OpenCVDecoder:
    """A `Decoder` on `cv2.VideoCapture`."""

    name: str = field(default="opencv", init=False)

    def __call__(self, path: str | os.PathLike[str], count: int, size: int, limits: Limits) -> Frames:
        """See `Decoder.__call__`."""
        check_request(count, size)
        name = os.fspath(path)
        file = check_file(path, limits)
        if "%" in Path(file).name and Path(file).suffix.lower() in _PICTURES:
            # FFmpeg takes such a name for a pattern over numbered pictures and would read other files of the folder.
            raise VideoUnreadableError(f"{name!r}: OpenCV cannot open a picture with '%' in its name; rename it")
        try:
            file.encode()
        except UnicodeEncodeError:
            # Not caution: handed such a name, OpenCV 5.0 crashes the process.
            raise VideoUnreadableError(
                f"{name!r}: OpenCV cannot open a file whose name is not UTF-8; rename it or install PyAV"
            ) from None
        deadline = Deadline(limits, name)
        try:
            with _quiet:
                _quiet_ffmpeg()
                frames = _decode(file, count, size, limits, deadline)
        except VideoError:
            raise
        except Exception as error:  # whatever hostile bytes make a binding raise: it is this one video's fault
            raise VideoUnreadableError(f"{name!r} cannot be decoded: {error}") from error
        if not frames:
            raise VideoUnreadableError(
                f"{name!r} has no picture that OpenCV can decode: audio only, truncated or an unknown codec"
            )
        return np.stack(frames)


_PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".jp2", ".tif", ".tiff"}


def _decode(file: str, count: int, size: int, limits: Limits, deadline: Deadline) -> list[Frames]:
    with _opened(file) as capture:
        width, height = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        check_pixels(width, height, limits, file)
        fps, length = _stated(capture)
        seconds = length / fps
        check_seconds(seconds, limits, file)
        if not seconds:
            return _one_pass(capture, count, size, deadline)
        run = _Run(capture, size, 1 / fps, deadline)
        if length > SEEK_FRAMES:
            frames = run.seeking(slot_centres(count, seconds))
            if len(frames) == count:
                return frames
    with _opened(file) as capture:
        run = _Run(capture, size, 1 / fps, deadline)
        frames = run.sequential(slot_centres(count, seconds))
        if frames and len(frames) >= min(count, run.seen):
            return frames
    # The header promised more than there is: the file is cut off or damaged. Spread over what can be decoded.
    with _opened(file) as capture:
        return _one_pass(capture, count, size, deadline)


def stated_seconds(file: str) -> float:
    """Length of a file's video track as its container states it, 0.0 where OpenCV finds none; decodes nothing.

    Args:
        file: what `check_file` returned.
    """
    try:
        file.encode()
    except UnicodeEncodeError:  # see OpenCVDecoder
        return 0.0
    with _quiet:
        _quiet_ffmpeg()
        with _opened(file) as capture:
            fps, length = _stated(capture)
            return length / fps


def _stated(capture: cv2.VideoCapture) -> tuple[float, float]:
    """Frames a second, and how many frames there are, 0 if that is not known."""
    fps, length = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return (
        fps if math.isfinite(fps) and fps > 0 else 25.0,
        length if math.isfinite(length) and length > 0 else 0.0,
    )


@contextlib.contextmanager
def _opened(file: str) -> Iterator[cv2.VideoCapture]:
    # Only the FFmpeg backend: others read numbered pictures or open cameras and pipelines by name.
    capture = cv2.VideoCapture(file, cv2.CAP_FFMPEG)
    try:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        yield capture
    finally:
        capture.release()


class _Run:
    """One pass over an open file."""

    def __init__(self, capture: cv2.VideoCapture, size: int, frame_seconds: float, deadline: Deadline) -> None:
        self._capture = capture
        self._size = size
        self._frame_seconds = frame_seconds
        self._deadline = deadline
        self.seen = 0
        self.last = 0.0

    def _grab(self) -> bool:
        self._deadline.check()
        if not self._capture.grab():
            return False
        milliseconds = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        # Raw streams have no times.
        self.last = milliseconds / 1000 if milliseconds > 0 else self.seen * self._frame_seconds
        self.seen += 1
        return True

    def _retrieve(self, frames: list[Frames]) -> None:
        ok, image = self._capture.retrieve()
        if ok:
            frames.append(_rgb(image, self._size))

    def sequential(self, targets: list[float]) -> list[Frames]:
        """Decode everything up to the last target."""
        picker = Picker(targets, self._frame_seconds)
        frames: list[Frames] = []
        while picker.target < math.inf and self._grab():
            if picker.wants(self.last):
                self._retrieve(frames)
        return frames

    def seeking(self, targets: list[float]) -> list[Frames]:
        """Seek to each target. Gives up early, with fewer frames, where the file does not seek well."""
        frames: list[Frames] = []
        slot = targets[0] * 2
        for target in targets:
            self._deadline.check()
            # Half a frame early, as OpenCV rounds to the nearest frame and we want the one on screen.
            self._capture.set(cv2.CAP_PROP_POS_MSEC, max(0.0, target - self._frame_seconds / 2) * 1000)
            if not self._grab() or abs(self.last - target) > slot / 2:
                break
            self._retrieve(frames)
        return frames


def _one_pass(capture: cv2.VideoCapture, count: int, size: int, deadline: Deadline) -> list[Frames]:
    reservoir = Reservoir(count)
    while capture.grab():
        deadline.check()
        if reservoir.wants():
            ok, image = capture.retrieve()
            if ok:
                reservoir.add(_rgb(image, size))
    return reservoir.frames()


def _rgb(image: Frames, size: int) -> Frames:
    """uint8 [H, W, 3] BGR → uint8 [size, size, 3] RGB; squashed first, so that fewer bytes are reordered."""
    return np.ascontiguousarray(prepare(image, size)[:, :, ::-1])


class _Quiet(contextlib.AbstractContextManager[None]):
    """Silences OpenCV while any thread decodes, and puts the app's own log level back after the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._level = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._level = cv2.utils.logging.getLogLevel()
                cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                cv2.utils.logging.setLogLevel(self._level)


_quiet = _Quiet()


@functools.cache
def _quiet_ffmpeg() -> None:
    """Keep OpenCV's private FFmpeg from printing to the app's stderr.

    It reads its log level from the environment, once, when the first capture is opened; a level that the app has set
    there, or an earlier capture of the app's own, stands.
    """
    if _FFMPEG_LEVEL in os.environ:
        return
    os.environ[_FFMPEG_LEVEL] = "-8"  # AV_LOG_QUIET
    try:
        cv2.VideoCapture(os.devnull, cv2.CAP_FFMPEG).release()
    finally:
        del os.environ[_FFMPEG_LEVEL]


_FFMPEG_LEVEL = "OPENCV_FFMPEG_LOGLEVEL"
