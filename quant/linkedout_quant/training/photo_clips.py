"""Short clips made of photos (a slow pan and zoom), each with what the teacher says of it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from linkedout_edge.decode.base import slot_centres
from linkedout_quant.teachers.mobilenet import SIDE, WIDTH, MobileNetTeacher
from linkedout_quant.training.photo_cache import load_rgb, training_photos

TEACHER_FRAMES = 3


@dataclass(frozen=True)
class PhotoClip:
    """Two boxes (x, y, side) in a photo between which the camera moves, perhaps mirrored."""

    photo: int
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    mirrored: bool

    @classmethod
    def random(cls, photo: int, image: np.ndarray, rng: np.random.Generator) -> PhotoClip:
        """A random camera path over `image` (uint8 [H, W, 3])."""
        h, w = image.shape[:2]
        boxes = []
        for _ in range(2):
            side = min(h, w) * rng.uniform(0.6, 1.0)
            boxes.append((rng.uniform(0, w - side), rng.uniform(0, h - side), side))
        return cls(photo, boxes[0], boxes[1], bool(rng.random() < 0.5))

    def frames(self, image: np.ndarray, times: np.ndarray, size: int) -> np.ndarray:
        """Frames at `times` in [0, 1]: uint8 [F, size, size, 3]."""
        out = np.empty((len(times), size, size, 3), np.uint8)
        for i, t in enumerate(times):
            x, y, side = ((1 - t) * a + t * b for a, b in zip(self.start, self.end, strict=True))
            crop = image[int(y) : int(y + side), int(x) : int(x + side)]
            if self.mirrored:
                crop = crop[:, ::-1]
            out[i] = cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=cv2.INTER_AREA)
        return out


class PhotoClips:
    """All training photos with `per_photo` clips each and the teacher's mean features of every clip.

    Args:
        data: the folder with ``images`` and ``teacher``.
        cache: where the teacher's features are kept.
        per_photo: clips a photo.
    """

    def __init__(self, data: Path, cache: Path, per_photo: int = 8) -> None:
        paths = training_photos(data)
        self.photos = [load_rgb(p) for p in paths]
        rng = np.random.default_rng(7)
        self.clips = [PhotoClip.random(i, image, rng) for i, image in enumerate(self.photos) for _ in range(per_photo)]
        self.captions = self._captions(data, paths)
        target = cache / f"photo_clips_{per_photo}.npy"
        if not target.exists():
            cache.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(".partial.npy")
            np.save(partial, self._teach(next((data / "teacher").glob("*.tflite"))))
            partial.replace(target)
        features = np.load(target).astype(np.float32)
        features -= features.mean(0)
        self.features = features / features.std(0).mean()

    @staticmethod
    def _captions(data: Path, paths: list[Path]) -> dict[int, list[str]]:
        place = {p.name: i for i, p in enumerate(paths)}
        captions: dict[int, list[str]] = {}
        with (data / "images" / "captions.csv").open() as f:
            for row in csv.DictReader(f):
                captions.setdefault(place[row["image"]], []).append(row["caption"])
        return captions

    def _teach(self, model: Path) -> np.ndarray:
        teacher = MobileNetTeacher(model)
        times = np.linspace(0, 1, TEACHER_FRAMES)
        features = np.empty((len(self.clips), WIDTH), np.float16)
        for i, clip in enumerate(self.clips):
            frames = clip.frames(self.photos[clip.photo], times, SIDE)
            features[i] = np.mean([teacher(f)[0] for f in frames], 0)
        return features

    def frames(self, index: int, count: int, size: int) -> np.ndarray:
        """`count` frames of a clip at the middles of equal spans of time, as the decoder takes them."""
        clip = self.clips[index]
        return clip.frames(self.photos[clip.photo], np.array(slot_centres(count, 1.0)), size)
