"""Crops of real photos with the teacher's view of the very same crop, cached on disk in shards.

A *patient and consistent* teacher sees the crop that the student sees (Beyer et al. 2022), so every augmentation,
mixing two photos included, happens before the teacher looks. Shards are independent and seeded by their number: a
generation that was interrupted goes on where it stopped, and a training may start on the shards that exist.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from linkedout_quant.teachers.mobilenet import SIDE, WIDTH, MobileNetTeacher

SHARD = 2000
SPATIAL_GRID = 4
SPATIAL_WIDTH = 256


def training_photos(data: Path) -> list[Path]:
    """Photos that a reported model may learn from: all captioned ones and the objects of split ``train``."""
    images = data / "images"
    with (images / "objects.csv").open() as f:
        objects = [images / "objects" / row["image"] for row in csv.DictReader(f) if row["split"] == "train"]
    return sorted((images / "captioned").glob("*.jpg")) + objects


def load_rgb(path: Path) -> np.ndarray:
    """One photo as uint8 [H, W, 3] RGB."""
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def random_crop(image: np.ndarray, rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """A random, perhaps mirrored, turned and recoloured square of a photo: uint8 [side, side, 3]."""
    h, w = image.shape[:2]
    area = rng.uniform(0.2, 1.0) if rng.random() < 0.7 else 1.0
    aspect = np.exp(rng.uniform(-0.3, 0.3))
    cw = min(w, np.sqrt(area * h * w * aspect))
    ch = min(h, np.sqrt(area * h * w / aspect))
    x, y = rng.uniform(0, w - cw), rng.uniform(0, h - ch)
    scale = np.diag([side / cw, side / ch, 1.0]) @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1.0]])
    if rng.random() < 0.5:
        scale = np.array([[-1, 0, side], [0, 1, 0], [0, 0, 1.0]]) @ scale
    if rng.random() < 0.3:
        turn = np.eye(3)
        turn[:2] = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-20, 20), rng.uniform(1.0, 1.3))
        scale = turn @ scale
    shrinking = cw > side
    out = cv2.warpAffine(
        image, scale[:2], (side, side), flags=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )  # fmt: skip
    if rng.random() < 0.5:
        gain = rng.uniform(0.75, 1.3) * rng.uniform(0.9, 1.1, 3)
        out = np.clip((out - 128.0) * rng.uniform(0.75, 1.25) + 128, 0, 255) * gain
        out = np.clip(out, 0, 255).astype(np.uint8)
    return out


def training_crop(photos: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A crop of one photo or, three times in ten, of two photos blended or cut into each other."""
    a = random_crop(photos[rng.integers(len(photos))], rng)
    kind = rng.random()
    if kind > 0.3:
        return a
    b = random_crop(photos[rng.integers(len(photos))], rng)
    if kind > 0.15:
        share = rng.uniform(0.3, 0.7)
        return cv2.addWeighted(a, share, b, 1 - share, 0)
    cut = int(rng.uniform(0.3, 0.7) * SIDE)
    out = a.copy()
    if rng.random() < 0.5:
        out[:, cut:] = b[:, cut:]
    else:
        out[cut:] = b[cut:]
    return out


def _pool_matrix(source: int, target: int) -> np.ndarray:
    """float32 [target, source]: adaptive average pooling along one axis."""
    edges = np.linspace(0, source, target + 1)
    cells = np.arange(source)
    overlap = np.clip(np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells), 0, None)
    return (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)


def principal_axes(
    photos: list[np.ndarray], teacher: MobileNetTeacher, count: int = 1500
) -> tuple[np.ndarray, np.ndarray]:
    """Mean float32 [1280] and axes float32 [1280, 256] of the teacher's spatial features."""
    rng = np.random.default_rng(0)
    rows = [teacher(training_crop(photos, rng))[1].reshape(-1, WIDTH)[::7] for _ in range(count)]
    x = np.concatenate(rows)
    mean = x.mean(0)
    _, axes = np.linalg.eigh(np.cov((x - mean).T))
    return mean.astype(np.float32), axes[:, ::-1][:, :SPATIAL_WIDTH].astype(np.float32)


def write_shards(data: Path, out: Path, shards: range, size: int) -> None:
    """Write the named shards that do not exist yet.

    A shard ``NNN.npz`` holds crops uint8 [2000, size, size, 3], pooled float16 [2000, 1280] and spatial float16
    [2000, 16, 256] (the 7 × 7 map pooled to 4 × 4, on the principal axes of ``axes.npz``).
    """
    out.mkdir(parents=True, exist_ok=True)
    photos = [load_rgb(p) for p in training_photos(data)]
    teacher = MobileNetTeacher(next((data / "teacher").glob("*.tflite")))
    axes_file = out / "axes.npz"
    if not axes_file.exists():
        mean, axes = principal_axes(photos, teacher)
        np.savez(axes_file, mean=mean, axes=axes)
    loaded = np.load(axes_file)
    mean, axes = loaded["mean"], loaded["axes"]
    pool = _pool_matrix(7, SPATIAL_GRID)
    for number in shards:
        target = out / f"{number:03d}.npz"
        if target.exists():
            continue
        rng = np.random.default_rng([1, number])
        crops = np.empty((SHARD, size, size, 3), np.uint8)
        pooled = np.empty((SHARD, WIDTH), np.float16)
        spatial = np.empty((SHARD, SPATIAL_GRID**2, SPATIAL_WIDTH), np.float16)
        for i in range(SHARD):
            crop = training_crop(photos, rng)
            crops[i] = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
            pooled[i], grid = teacher(crop)
            cells = np.einsum("ay,bx,yxc->abc", pool, pool, grid).reshape(-1, WIDTH)
            spatial[i] = (cells - mean) @ axes
        partial = target.with_suffix(".partial.npz")
        np.savez(partial, crops=crops, pooled=pooled, spatial=spatial)
        partial.replace(target)  # a shard exists whole or not at all


def existing_shards(out: Path) -> Iterator[Path]:
    """The complete shards, in order."""
    yield from sorted(p for p in out.glob("[0-9][0-9][0-9].npz"))
