"""Polygons, and the pen that draws them: every shape of the micro-video world is one, in coordinates free of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from linkedout_edge.microworld.palette import Color

_FIXED_BITS = 4  # OpenCV's fixed-point fractions of a pixel, so that motion is smooth
_FIXED = 1 << _FIXED_BITS


def ellipse(
    x: float, y: float, rx: float, ry: float, *, turn: float = 0.0, arc: tuple[float, float] = (0.0, 360.0), n: int = 24
) -> np.ndarray:
    """Polygon float32 [n, 2]; `turn` and `arc` in degrees, clockwise from the right as y points down."""
    whole = arc[1] - arc[0] >= 360
    angle = np.radians(np.linspace(*arc, n, endpoint=not whole))
    dx, dy = rx * np.cos(angle), ry * np.sin(angle)
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return np.stack([x + c * dx - s * dy, y + s * dx + c * dy], 1).astype(np.float32)


def ring(
    x: float, y: float, outer: float, inner: float, *, arc: tuple[float, float] = (0.0, 360.0), squash: float = 1.0
) -> np.ndarray:
    """Part of a ring as a polygon float32 [n, 2]."""
    out = ellipse(x, y, outer, outer * squash, arc=arc, n=20)
    return np.concatenate([out, ellipse(x, y, inner, inner * squash, arc=arc, n=20)[::-1]])


def box(x0: float, y0: float, x1: float, y1: float, *, corner: float = 0.0) -> np.ndarray:
    """Rectangle, with rounded corners of the given radius."""
    if not corner:
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float32)
    at = (
        (x1 - corner, y1 - corner, 0),
        (x0 + corner, y1 - corner, 90),
        (x0 + corner, y0 + corner, 180),
        (x1 - corner, y0 + corner, 270),
    )
    return np.concatenate([ellipse(x, y, corner, corner, arc=(a, a + 90), n=5) for x, y, a in at])


def poly(*points: tuple[float, float]) -> np.ndarray:
    """Polygon float32 [n, 2]."""
    return np.array(points, np.float32)


@dataclass
class Pen:
    """Draws on `canvas` uint8 [S, S, 3] RGB; a point p of the drawing lies at pixel ``p · scale + offset``."""

    canvas: np.ndarray
    scale: float
    offset: float = 0.0

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        # A pixel's center is at the half, OpenCV's at the whole: without it 128 and 256 pixels would differ.
        pixels = points * np.float32(self.scale) + np.float32(self.offset - 0.5)
        return np.rint(pixels * _FIXED).astype(np.int32)

    def fill(self, points: np.ndarray, color: Color) -> None:
        """Fill a polygon [n, 2]."""
        cv2.fillPoly(self.canvas, [self._fixed(points)], color, cv2.LINE_AA, _FIXED_BITS)

    def stroke(self, points: np.ndarray, color: Color, width: float, *, closed: bool = False) -> None:
        """Draw a line through points [n, 2]; the width is in the drawing's own units."""
        pixels = max(1, round(width * self.scale))
        cv2.polylines(self.canvas, [self._fixed(points)], closed, color, pixels, cv2.LINE_AA, _FIXED_BITS)

    def band(self, y0: float, y1: float, top: Color, bottom: Color | None = None) -> None:
        """Fill the canvas's whole width between two heights, shaded from top to bottom."""
        size = self.canvas.shape[0]
        a, b = (min(max(round(y * self.scale + self.offset), 0), size) for y in (y0, y1))
        if b <= a:
            return
        if bottom is None:
            self.canvas[a:b] = np.rint(top).astype(np.uint8)
            return
        mix = np.linspace(0, 1, b - a, dtype=np.float32)[:, None]
        rows = np.asarray(top, np.float32) * (1 - mix) + np.asarray(bottom, np.float32) * mix
        self.canvas[a:b] = np.rint(rows).astype(np.uint8)[:, None]
