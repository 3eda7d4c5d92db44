"""Words on screen, from strokes of our own: OpenCV's fonts differ from version to version."""

from __future__ import annotations

import numpy as np

from linkedout_edge.microworld.palette import Color
from linkedout_edge.microworld.shapes import Pen, box, ellipse, poly

# Letter → strokes in a box 0.7 wide and 1 high, y down.
_LETTERS: dict[str, list[np.ndarray]] = {
    "E": [poly((0.65, 0), (0.08, 0), (0.08, 1), (0.65, 1)), poly((0.08, 0.5), (0.55, 0.5))],
    "G": [
        np.concatenate(
            [
                ellipse(0.37, 0.5, 0.34, 0.5, arc=(45, 315), n=14)[::-1],
                ellipse(0.37, 0.5, 0.34, 0.5, arc=(0, 45), n=4)[::-1],
                poly((0.42, 0.52)),
            ]
        )
    ],
    "I": [poly((0.35, 0), (0.35, 1))],
    "L": [poly((0.1, 0), (0.1, 1), (0.65, 1))],
    "N": [poly((0.05, 1), (0.05, 0), (0.65, 1), (0.65, 0))],
    "O": [ellipse(0.35, 0.5, 0.34, 0.5, n=20, arc=(0, 359))],
    "S": [
        np.concatenate(
            [
                ellipse(0.35, 0.25, 0.28, 0.25, arc=(90, 330), n=10)[::-1],
                ellipse(0.35, 0.75, 0.3, 0.25, arc=(-90, 150), n=10),
            ]
        )
    ],
    "V": [poly((0, 0), (0.35, 1), (0.7, 0))],
    "W": [poly((-0.05, 0), (0.15, 1), (0.35, 0.25), (0.55, 1), (0.75, 0))],
    "Y": [poly((0, 0), (0.35, 0.5), (0.7, 0)), poly((0.35, 0.5), (0.35, 1))],
}
_ADVANCE = 1.0


def draw_word(pen: Pen, word: str, at: tuple[float, float], height: float, ink: Color, ground: Color) -> None:
    """Write a word in capitals on a rounded label, centered at a point."""
    width = height * (_ADVANCE * len(word) - 0.3)
    x0, y0 = at[0] - width / 2, at[1] - height / 2
    pad = 0.42 * height
    pen.fill(box(x0 - pad, y0 - pad, x0 + width + pad, y0 + height + pad, corner=0.7 * pad), ground)
    for i, letter in enumerate(word):
        for stroke in _LETTERS[letter]:
            points = stroke * np.float32(height) + np.array([x0 + i * _ADVANCE * height, y0], np.float32)
            pen.stroke(points, ink, 0.2 * height)
