"""Augmented crops with the teacher's view of the very same crop, cached on disk in shards.

Shards are independent and seeded by their number: an interrupted generation continues where it stopped, and a
second student costs the teacher nothing. Arrays are memory-mapped, so a cache may be larger than memory.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from linkedout_edge.threads import available_cpus
from linkedout_quant.progress import track
from linkedout_quant.teachers.base import ALIKE, Teacher
from linkedout_quant.training.augment import training_crop

VERSION = 2  # of the augmentations; another one is another cache
TEACHER_SIDE = 224
LOOK_BATCH = 16

_images: list[np.ndarray] = []
_teacher: Teacher | None = None


def cache_key(teacher: Teacher, images: Sequence[np.ndarray], shard: int, size: int) -> str:
    """Names the cache of one teacher, set of images and shape."""
    digest = hashlib.sha256(repr((VERSION, teacher.fingerprint, shard, size, len(images))).encode())
    for image in images:
        digest.update(repr(image.shape).encode() + image[:: max(1, len(image) // 8)].tobytes())
    return digest.hexdigest()[:16]


def _prepare(teacher: Teacher, images: list[np.ndarray]) -> None:
    global _teacher, _images
    _teacher, _images = teacher, images


def _prepare_worker(teacher: Teacher, images: list[np.ndarray]) -> None:
    """One thread a process: BLAS threads of two processes on two CPUs made a crop cost more than twice as much."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    _prepare(teacher, images)


def _write_shard(number: int, count: int, folder: Path, size: int) -> None:
    assert _teacher is not None
    rng = np.random.default_rng([VERSION, number])
    crops, sources = np.empty((count, size, size, 3), np.uint8), np.empty((count, 2), np.int32)
    rows: dict[str, list[np.ndarray]] = {}
    for start in range(0, count, LOOK_BATCH):
        views = [training_crop(_images, rng, TEACHER_SIDE) for _ in range(min(LOOK_BATCH, count - start))]
        for i, (view, source) in enumerate(views):
            crops[start + i] = cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA)
            sources[start + i] = source
        seen = _teacher.extract_features([view[None] for view, _ in views])
        for name, value in (
            *((f"layer{i}", x) for i, x in enumerate(seen.layers)),
            ("pooled", seen.pooled),
            ("language", seen.language),
        ):
            rows.setdefault(name, []).append(value.astype(np.float16))
    partial = folder / f"{number:04d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    np.save(partial / "crops.npy", crops)
    np.save(partial / "sources.npy", sources)
    for name, parts in rows.items():
        np.save(partial / f"{name}.npy", np.concatenate(parts))
    partial.rename(folder / f"{number:04d}")  # a shard exists whole or not at all


def write_shards(
    teacher: Teacher, images: list[np.ndarray], folder: Path, shards: int, count: int, size: int, workers: int
) -> None:
    """Write the shards 0 … `shards` − 1 that do not exist yet.

    Args:
        teacher: looks at the crops.
        images: uint8 [H, W, 3] RGB each.
        folder: the cache.
        shards: how many.
        count: crops a shard.
        size: side of the student's crops.
        workers: processes; more than one needs a teacher that can be copied to them (a model on the CPU).
    """
    missing = [n for n in range(shards) if not (folder / f"{n:04d}").exists()]
    if workers <= 1 or len(missing) <= 1:
        _prepare(teacher, images)
        for number in track(missing, "teacher looks at crops"):
            _write_shard(number, count, folder, size)
        return
    # Forked, so that photos and teacher are shared and not sent; the interpreter of the teacher has no threads yet.
    context = multiprocessing.get_context("fork")
    # OpenCV's own threads are ended before: a copied process would wait for ever for those that it does not have.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=_prepare_worker, initargs=(teacher, images)
        ) as pool:
            jobs = [pool.submit(_write_shard, number, count, folder, size) for number in missing]
            for job in track(as_completed(jobs), "teacher looks at crops", total=len(jobs)):
                job.result()
    finally:
        cv2.setNumThreads(threads)


def default_workers(teacher: Teacher) -> int:
    """Processes for a teacher: one a CPU where it says that it runs in one thread, else one."""
    return available_cpus() if getattr(teacher, "single_threaded", False) else 1


@dataclass(frozen=True)
class CropBatch:
    """Crops and what the teacher said of them, standardized."""

    crops: Tensor  # uint8 [B, H, W, 3]
    layers: tuple[Tensor, ...]  # float32 [B, K, W] each
    pooled: Tensor  # float32 [B, P]
    language: Tensor  # float32 [B, Q]
    sources: np.ndarray  # int32 [B, 2], places of the photos that a crop is made of; −1: none

    def to(self, device: torch.device) -> CropBatch:
        """The same on another device."""
        return CropBatch(
            self.crops.to(device),
            tuple(x.to(device) for x in self.layers),
            self.pooled.to(device),
            self.language.to(device),
            self.sources,
        )


class CropSource(Protocol):
    """Where batches of crops come from: a `CropCache`, or `linkedout_quant.training.live.LiveCrops`."""

    @property
    def alike(self) -> tuple[str, ...]:
        """Features whose cosines say which pictures are alike (`linkedout_quant.teachers.base.ALIKE`)."""
        ...

    @property
    def layers(self) -> int:
        """How many layers the teacher shows."""
        ...

    def width(self, name: str) -> int:
        """Last dimension of a feature."""
        ...

    def layer_shape(self, layer: int) -> tuple[int, int]:
        """Tokens and width of a layer."""
        ...

    def standardized(self, name: str, value: np.ndarray) -> np.ndarray:
        """A feature [..., W] as batches have it, float32."""
        ...

    def batch(self, seed: int, step: int, count: int, size: int | None = None, stride: int = 1) -> CropBatch:
        """The batch of a step, whatever came before; see `CropCache.batch`."""
        ...


class CropCache:
    """Random batches of all shards of one or several folders, the next one read while the current one trains.

    Features are standardized by the first shard: the mean row removed, one scale for all dimensions, so that the
    directions in which the teacher varies most keep their weight.

    Args:
        folders: as `write_shards` filled them. Places of photos count through: those of the second folder's photos
            begin where the first one's end.
        photos: how many photos each folder was cut from.
        alike: features whose cosines say which pictures are alike.
    """

    def __init__(self, folders: Sequence[Path], photos: Sequence[int], alike: tuple[str, ...] = ALIKE) -> None:
        self.alike = alike
        self.shards: list[dict[str, np.ndarray]] = []
        self._first_photo: list[int] = []  # of each shard
        for folder, end, count in zip(folders, np.cumsum(photos), photos, strict=True):
            paths = sorted(p for p in folder.glob("[0-9]*") if p.is_dir() and not p.name.endswith(".partial"))
            self.shards += [{f.stem: np.load(f, mmap_mode="r") for f in sorted(p.iterdir())} for p in paths]
            self._first_photo += [int(end) - count] * len(paths)
        self.layers = sum(name.startswith("layer") for name in self.shards[0])
        self.statistics: dict[str, tuple[np.ndarray, float]] = {}
        for name, first in self.shards[0].items():
            if name not in ("crops", "sources"):
                x = first[:1000].astype(np.float32)
                axes = tuple(range(x.ndim - 1))
                mean = x.mean(axes)
                self.statistics[name] = mean, float((x - mean).std() + 1e-6)
        self._pool = ThreadPoolExecutor(1)
        self._next: tuple[tuple[int, ...], Future[CropBatch]] | None = None

    def width(self, name: str) -> int:
        """Last dimension of a feature."""
        return int(self.shards[0][name].shape[-1])

    def layer_shape(self, layer: int) -> tuple[int, int]:
        """Tokens and width of a layer."""
        tokens, width = self.shards[0][f"layer{layer}"].shape[1:]
        return tokens, width

    def standardized(self, name: str, value: np.ndarray) -> np.ndarray:
        """A feature [..., W] as batches have it, float32."""
        mean, scale = self.statistics[name]
        return ((value.astype(np.float32) - mean) / scale).astype(np.float32)

    def batch(self, seed: int, step: int, count: int, size: int | None = None, stride: int = 1) -> CropBatch:
        """The batch of a step, whatever came before.

        Args:
            seed: with the step's number, all chance.
            step: its number.
            count: crops.
            size: side of the crops; None: as cached.
            stride: how far the next step is, for reading ahead.
        """
        wanted = (seed, step, count, size or 0)
        ready = self._next[1].result() if self._next and self._next[0] == wanted else None
        if ready is None:
            ready = self._make(*wanted)
        following = (seed, step + stride, count, size or 0)
        self._next = following, self._pool.submit(self._make, *following)
        return ready

    def _make(self, seed: int, step: int, count: int, size: int) -> CropBatch:
        rng = np.random.default_rng([seed, step])
        shard = rng.integers(len(self.shards), size=count)
        row = rng.integers([len(self.shards[s]["crops"]) for s in shard])
        mirrored = rng.random(count) < 0.5

        def stored(name: str) -> np.ndarray:
            return np.stack([self.shards[s][name][i] for s, i in zip(shard, row, strict=True)])

        def rows(name: str) -> np.ndarray:
            out = stored(name)
            if name == "crops":
                out[mirrored] = out[mirrored, :, ::-1]
                if size not in (0, out.shape[1]):
                    out = np.stack([cv2.resize(x, (size, size), interpolation=cv2.INTER_AREA) for x in out])
                return out
            out = self.standardized(name, out)
            side = round(out.shape[1] ** 0.5) if name.startswith("layer") else 0
            if side * side == out.shape[1]:  # a grid of cells is mirrored with its picture
                grid = out.reshape(count, side, side, -1)
                grid[mirrored] = grid[mirrored, :, ::-1]
            return out

        sources = stored("sources")
        first = np.array([self._first_photo[s] for s in shard], np.int32)[:, None]
        return CropBatch(
            torch.from_numpy(rows("crops")),
            tuple(torch.from_numpy(rows(f"layer{i}")) for i in range(self.layers)),
            torch.from_numpy(rows("pooled")),
            torch.from_numpy(rows("language")),
            np.where(sources < 0, sources, sources + first),
        )
