"""Keeps OpenCV, and the FFmpeg inside it, from printing to the app's stderr."""

from __future__ import annotations

import contextlib
import functools
import os
import threading

import cv2

__all__ = ["quiet", "quiet_ffmpeg"]

_logging = getattr(cv2.utils, "logging", cv2)  # the functions moved there with OpenCV 4.13
_SILENT = 0


class _Quiet(contextlib.AbstractContextManager[None]):
    """Silences OpenCV while any thread decodes, and puts the app's own log level back after the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._level = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._level = _logging.getLogLevel()
                _logging.setLogLevel(_SILENT)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _logging.setLogLevel(self._level)


quiet = _Quiet()

_FFMPEG_LEVEL = "OPENCV_FFMPEG_LOGLEVEL"


@functools.cache
def quiet_ffmpeg() -> None:
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
