"""YCbCr planes, as decoders have them → a small RGB square.

Each plane is made small before colors are converted. That gives what converting the whole picture first does, but for
rounding, at a fifth of the time: most of a 1080p picture's pixels are never made RGB.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from linkedout_edge.decode.color import LUMA
from linkedout_edge.decode.frames import Frames

__all__ = ["prepare_planes"]


def prepare_planes(planes: list[NDArray[Any]], size: int, *, matrix: int, full_range: bool) -> Frames:
    """One frame as a small RGB square.

    Args:
        planes: Y, Cb and Cr, each [H, W], uint8, or uint16 with 10 bits; the last two may be smaller.
        size: side of the square.
        matrix: by its number in ITU-T H.273: 1 is BT.709, 6 is BT.601.
        full_range: whether values go from 0 to 255; otherwise from 16 to 235 (Y) and 240.

    Returns:
        uint8 [size, size, 3].
    """
    unit = np.float32(1 if planes[0].dtype == np.uint8 else 1 / 4)
    y, cb, cr = (_shrink(plane, size).astype(np.float32) * unit for plane in planes)
    cb -= 128
    cr -= 128
    if not full_range:
        y = (y - 16) * np.float32(255 / 219)
        cb *= np.float32(255 / 224)
        cr *= np.float32(255 / 224)
    red, blue = LUMA[matrix]
    r = y + np.float32(2 * (1 - red)) * cr
    b = y + np.float32(2 * (1 - blue)) * cb
    g = (y - np.float32(red) * r - np.float32(blue) * b) * np.float32(1 / (1 - red - blue))
    return np.asarray(np.rint(np.clip(np.stack([r, g, b], axis=-1), 0, 255)), np.uint8)


def _shrink(plane: NDArray[Any], size: int) -> NDArray[Any]:
    """To a square by areas. OpenCV is quick where two by two become one, and slow otherwise."""
    while min(plane.shape) >= 4 * size:
        height, width = plane.shape[0] // 2, plane.shape[1] // 2
        plane = cv2.resize(plane[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA))
