"""Video made of stills: a slow pan and zoom, perhaps with a cut to another picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

Box = tuple[float, float, float]


@dataclass(frozen=True)
class CameraPath:
    """Two boxes (x, y, side), as shares of a picture's shorter side, between which the camera moves."""

    start: Box
    end: Box

    @classmethod
    def random(cls, shape: tuple[int, ...], rng: np.random.Generator, closest: float = 0.6) -> CameraPath:
        """A path over a picture of `shape` (H, W, …) whose view is never smaller than `closest` of its shorter side."""
        h, w = shape[:2]
        short = min(h, w)

        def box() -> Box:
            side = rng.uniform(closest, 1.0)
            return rng.uniform(0, w / short - side), rng.uniform(0, h / short - side), side

        return cls(box(), box())

    def frames(self, image: np.ndarray, times: np.ndarray, size: int) -> np.ndarray:
        """Frames at `times` in [0, 1] of uint8 [H, W, 3]: uint8 [F, size, size, 3]."""
        out = np.empty((len(times), size, size, 3), np.uint8)
        short = min(image.shape[:2])
        for i, t in enumerate(times):
            x, y, side = ((1 - t) * a * short + t * b * short for a, b in zip(self.start, self.end, strict=True))
            crop = np.ascontiguousarray(image[int(y) : int(y + side), int(x) : int(x + side)])
            shrinks = len(crop) > size
            out[i] = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return out


def clip_of(frames: np.ndarray, path: CameraPath, times: np.ndarray, size: int) -> np.ndarray:
    """A photo (one frame) filmed along `path`, or a video's own frames nearest to `times`: uint8 [F, size, size, 3]."""
    if len(frames) == 1:
        return path.frames(frames[0], times, size)
    chosen = frames[np.minimum((times * len(frames)).astype(int), len(frames) - 1)]  # again, where there are too few
    return np.stack([cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in chosen])
