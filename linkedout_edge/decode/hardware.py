"""Decoding in hardware with PyAV: which devices there are, whether one opens, and what is said where it does not."""

from __future__ import annotations

import functools
import logging
from typing import Any

from linkedout_edge import install
from linkedout_edge.errors import ArgumentError, MissingDependencyError, unknown

logger = logging.getLogger("linkedout_edge")

PYAV = 18
"""Before this version, frames that PyAV brought down from a device had lost their matrix, range and rotation
(PyAV-Org/PyAV#2231)."""

_CODECS = ("h264", "hevc", "vp9", "av1", "mpeg2video", "mjpeg")
"""A device is opened by way of a decoder that has it."""

_said: dict[str, None] = {}


def devices() -> list[str]:
    """Kinds of devices that PyAV was built with, such as ``cuda``; whether there is one here, `trouble` tells.

    Raises:
        MissingDependencyError: PyAV is not installed, or too old for this.
    """
    try:
        import av
        from av.codec.hwaccel import hwdevices_available
    except ImportError as error:
        raise MissingDependencyError(
            f"hardware decoding needs PyAV {PYAV} or newer: {install.library(f'av>={PYAV}')}"
        ) from error
    if int(av.__version__.partition(".")[0]) < PYAV:
        raise MissingDependencyError(
            f"hardware decoding needs PyAV {PYAV} or newer, and {av.__version__} is installed, which loses the colours "
            f"of such frames: {install.library(f'av>={PYAV}')}"
        )
    return list(hwdevices_available())


def check_device(name: str) -> None:
    """Raises:
    ArgumentError: PyAV was not built with such a device; names those that it was built with.
    MissingDependencyError: As `devices`.
    """
    known = devices()
    if name not in known:
        raise ArgumentError(f"{unknown('hardware', name, known)} PyAV was built with these alone.")


@functools.cache
def trouble(device: str) -> str | None:
    """Why a device decodes nothing here, None where it opens. Tried once in a process: it may take half a second."""
    import av
    from av.codec.hwaccel import HWAccel

    for codec in _CODECS:
        try:
            HWAccel(device).create(av.Codec(codec, "r"))
        except av.error.FFmpegError as error:
            return f"it cannot be opened: {getattr(error, 'strerror', None) or error}"
        except (NotImplementedError, ValueError):  # not in this codec; no such codec in this build
            continue
        return None
    return "the FFmpeg in PyAV decodes no codec with it"


def accelerator(device: str | None) -> Any:
    """What `av.open` takes as ``hwaccel``; None for decoding in software, said once where a device was asked for."""
    if device is None:
        return None
    reason = trouble(device)
    if reason is not None:
        say_once(f"{device} cannot be used for decoding ({reason}): decoding in software")
        return None
    from av.codec.hwaccel import HWAccel

    return HWAccel(device, allow_software_fallback=True)


def say_once(text: str) -> None:
    """Log a warning, unless this process has said so before. Texts name devices and codecs, never files."""
    if text not in _said:
        _said[text] = None
        logger.warning("%s", text)


def said() -> list[str]:
    """What `say_once` has said, for whoever reads another process's log."""
    return list(_said)
