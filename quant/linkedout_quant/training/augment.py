"""Random crops and mixtures of a few photos: far more views than there are photos.

From few images, strong augmentation and a teacher that sees the same view go far (Asano & Saeed 2023; Beyer et al.
2022). Everything here happens before the teacher looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


def random_crop(image: np.ndarray, rng: np.random.Generator, side: int) -> np.ndarray:
    """A random, perhaps mirrored, turned and recolored square of a photo: uint8 [side, side, 3]."""
    h, w = image.shape[:2]
    area = rng.uniform(0.12, 1.0) if rng.random() < 0.7 else 1.0
    aspect = np.exp(rng.uniform(-0.35, 0.35))
    cw = min(w, np.sqrt(area * h * w * aspect))
    ch = min(h, np.sqrt(area * h * w / aspect))
    x, y = rng.uniform(0, w - cw), rng.uniform(0, h - ch)
    scale = np.diag([side / cw, side / ch, 1.0]) @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1.0]])
    if rng.random() < 0.5:
        scale = np.array([[-1, 0, side], [0, 1, 0], [0, 0, 1.0]]) @ scale
    if rng.random() < 0.3:
        turn = np.eye(3)
        turn[:2] = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-25, 25), rng.uniform(1.0, 1.3))
        scale = turn @ scale
    out = cv2.warpAffine(
        image, scale[:2], (side, side), flags=cv2.INTER_AREA if cw > side else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )  # fmt: skip
    if rng.random() < 0.5:
        gain = rng.uniform(0.75, 1.3) * rng.uniform(0.9, 1.1, 3)
        out = np.clip((out - 128.0) * rng.uniform(0.75, 1.25) + 128, 0, 255) * gain
        out = np.clip(out, 0, 255).astype(np.uint8)
    if rng.random() < 0.05:
        out = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return out


def training_crop(
    images: Sequence[np.ndarray], rng: np.random.Generator, side: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """A crop of one photo or, four times in ten, of two: blended, cut into each other, or one pasted onto the other.

    Returns:
        uint8 [side, side, 3] and the places of both photos in `images`, the second −1 where there is but one.
    """
    first = int(rng.integers(len(images)))
    a = random_crop(images[first], rng, side)
    kind = rng.random()
    if kind > 0.4:
        return a, (first, -1)
    second = int(rng.integers(len(images)))
    b = random_crop(images[second], rng, side)
    return _mixed(a, b, kind / 0.4, rng), (first, second)


def _mixed(a: np.ndarray, b: np.ndarray, kind: float, rng: np.random.Generator) -> np.ndarray:
    """Two squares made one, in the way that `kind` in [0, 1] names."""
    side = len(a)
    if kind > 0.65:
        share = rng.uniform(0.3, 0.7)
        return cv2.addWeighted(a, share, b, 1 - share, 0)
    out = a.copy()
    if kind > 0.32:
        cut = int(rng.uniform(0.3, 0.7) * side)
        if rng.random() < 0.5:
            out[:, cut:] = b[:, cut:]
        else:
            out[cut:] = b[cut:]
        return out
    # A whole small picture inside a larger one: things at a scale that the photos themselves do not show.
    small = int(rng.uniform(0.35, 0.65) * side)
    x, y = rng.integers(0, side - small, 2)
    out[y : y + small, x : x + small] = cv2.resize(b, (small, small), interpolation=cv2.INTER_AREA)
    return out
