"""HDR and wide-gamut video → the ordinary RGB that the model was trained on.

Phones record in HLG, films come in PQ; both with BT.2020 colors. Shown as they are, such frames look gray. They are
mapped after they are squashed: the same few thousand pixels for every decoder, so that all give the same picture.
Formulas: ITU-R BT.2100 (PQ, HLG), BT.2087 (colors), BT.2408 (203 cd/m² is what SDR calls white).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.decode.frames import Frames
from linkedout_edge.decode.headers import BT2020, Colors

__all__ = ["LUMA", "needs_mapping", "to_sdr"]

PQ, HLG = 16, 18
_WHITE = 203.0
_KNEE = 0.9
"""Brightness, of SDR's white, from which highlights are compressed."""


def needs_mapping(colors: Colors) -> bool:
    """Whether frames of these colors have to go through `to_sdr`."""
    return colors.transfer in (PQ, HLG) or BT2020 in (colors.primaries, colors.matrix) or colors.matrix == 10


def to_sdr(image: Frames, colors: Colors) -> Frames:
    """Map one frame.

    Args:
        image: uint8 [H, W, 3] RGB, made from YCbCr with the matrix of BT.601, whatever the stream states: all decoders
            have that one.
        colors: what the stream states.

    Returns:
        uint8 [H, W, 3] RGB, BT.709.
    """
    signal: NDArray[Any] = image.astype(np.float32) / 255
    if colors.matrix in LUMA:
        signal = signal @ (_from_ycc(*LUMA[colors.matrix]) @ np.linalg.inv(_from_ycc(0.299, 0.114))).T
    signal = np.clip(signal, 0, 1)
    if colors.transfer == PQ:
        light = _pq(signal) * (10_000 / _WHITE)
    elif colors.transfer == HLG:
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        brightness = scene @ np.array([0.2627, 0.6780, 0.0593])
        light = scene * np.maximum(brightness, 1e-6)[..., None] ** 0.2 * (1000 / _WHITE)
    else:
        light = signal**2.4
    if colors.primaries == BT2020:
        light = light @ _TO_BT709.T
    light = np.maximum(light, 0)
    if colors.transfer in (PQ, HLG):
        # All three by the factor of the largest, so that hues stay.
        most = np.maximum(light.max(-1, keepdims=True), 1e-6)
        over = np.maximum(most - _KNEE, 0)
        light = light * ((np.minimum(most, _KNEE) + over * (1 - _KNEE) / (over + 1 - _KNEE)) / most)
    return np.asarray(np.rint(np.clip(light, 0, 1) ** (1 / 2.4) * 255), np.uint8)


LUMA = {
    1: (0.2126, 0.0722),
    6: (0.299, 0.114),
    BT2020: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
"""Matrix, by its number in ITU-T H.273 → share of red and of blue in brightness."""

_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])


def _from_ycc(red: float, blue: float) -> NDArray[np.float64]:
    """YCbCr → RGB."""
    green = 1 - red - blue
    return np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
            [1, 2 * (1 - blue), 0],
        ]
    )


def _pq(signal: NDArray[Any]) -> NDArray[Any]:
    """Light, of 10,000 cd/m²."""
    root = signal ** (1 / 78.84375)
    return np.asarray((np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125))
