"""The eight ways to rotate and mirror a picture so that it is upright.

Phones do not turn the pixels they record: they write down how the picture is to be shown, as a 3 × 3 matrix (MP4), as
angles (Matroska), or in a message inside the video stream (H.264, HEVC).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from linkedout_edge.decode.frames import Frames

__all__ = ["UPRIGHT", "Orientation"]


class Orientation(NamedTuple):
    """What makes a picture upright, in this order: rows become columns, left becomes right, top becomes bottom."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def from_matrix(cls, a: float, b: float, c: float, d: float) -> Orientation:
        """Of a matrix that takes the point (x, y) to (a·x + c·y, b·x + d·y), x to the right and y down.

        Angles between the right ones become the nearest right one. A matrix of zeros leaves the picture as it is.
        """
        if not any((a, b, c, d)) or not all(map(math.isfinite, (a, b, c, d))):
            return UPRIGHT
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    @classmethod
    def turned(cls, degrees: float, *, mirror_x: bool = False, mirror_y: bool = False) -> Orientation:
        """Mirrored first, then turned counterclockwise by `degrees`."""
        sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        x, y = (-1 if mirror_x else 1), (-1 if mirror_y else 1)
        return cls.from_matrix(x * cos, -x * sin, y * sin, y * cos)

    def apply(self, image: Frames) -> Frames:
        """The picture upright.

        Args:
            image: uint8 [H, W, 3].

        Returns:
            uint8 [H, W, 3], or [W, H, 3] where rows become columns; contiguous.
        """
        if self.transpose:
            image = image.swapaxes(0, 1)
        return np.ascontiguousarray(image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1])


UPRIGHT = Orientation()
