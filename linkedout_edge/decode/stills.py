"""Photos: a PNG or JPEG is a video of one frame. OpenCV's own readers decode it, upright by its EXIF data."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from linkedout_edge.decode.files import MediaFile
from linkedout_edge.decode.frames import Frames, prepare
from linkedout_edge.decode.limits import Limits, check_pixels
from linkedout_edge.decode.quiet import quiet
from linkedout_edge.errors import VideoUnreadableError

__all__ = ["decode_still"]

_NOT_A_FRAME = {0xC4, 0xC8, 0xCC}
"""JPEG markers that lie among those of frame headers and are none."""


def decode_still(file: MediaFile, size: int, limits: Limits) -> Frames:
    """The one frame of a picture.

    Args:
        file: of a kind in `files.STILLS`.
        size: side of the square frame.
        limits: of which `max_pixels` is checked, before memory is taken for the picture.

    Returns:
        uint8 [1, size, size, 3] RGB, upright.

    Raises:
        VideoUnreadableError: cut off, damaged, or of a kind that OpenCV does not read.
        VideoTooLargeError: over `limits.max_pixels`.
    """
    try:
        data = Path(file.path).read_bytes()
    except OSError as error:
        raise VideoUnreadableError(f"cannot read {file.name!r}: {error.strerror or error}") from None
    if file.kind == "png":
        data = _what_makes_the_picture(data)
    dimensions = (_png_size if file.kind == "png" else _jpeg_size)(data)
    if dimensions is None or 0 in dimensions:
        raise VideoUnreadableError(f"{file.name!r} is a {file.kind.upper()} without a size: cut off or damaged")
    check_pixels(*dimensions, limits, file.name)
    try:
        with quiet:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise VideoUnreadableError(f"{file.name!r} cannot be decoded: {error}") from error
    if image is None:
        raise VideoUnreadableError(
            f"{file.name!r} is a {file.kind.upper()} that cannot be decoded: cut off, damaged or of a rare kind"
        )
    return np.ascontiguousarray(prepare(np.asarray(image, np.uint8), size)[None, :, :, ::-1])


def _what_makes_the_picture(png: bytes) -> bytes:
    """A PNG without what does not show: libpng tells the app's stderr whatever it finds odd about color profiles."""
    parts, at = [png[:8]], 8
    while at + 8 <= len(png):
        length = struct.unpack_from(">I", png, at)[0]
        kind = png[at + 4 : at + 8]
        if kind[:1].isupper() or kind in (b"tRNS", b"eXIf"):  # a capital: no decoder may leave it out
            parts.append(png[at : at + 12 + length])
        at += 12 + length
    return b"".join(parts)


def _png_size(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of the first frame header; segments before it are skipped by their lengths."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # padding, and markers without a segment
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_A_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + max(2, struct.unpack_from(">H", data, at + 2)[0])
    return None
