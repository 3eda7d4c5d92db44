"""Photo shards: many small photos in one ``.npz`` file that travels well.

A shard holds three arrays: ``data`` (uint8, encoded photos one behind the other, such as WebP), ``ends`` (integers,
where each ends) and ``group`` (strings, the collection that each is of). A photo in it has a path like a file in a
folder: ``shard_00.npz/shard_00-00012.webp``.
"""

from __future__ import annotations

import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from linkedout_edge.errors import ArgumentError, LinkedOutError

SUFFIX = ".npz"
PATTERN = "shard_*.npz"
"""What a folder's shards are called; other ``.npz`` files in it are none of ours."""
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, TypeError)


class DamagedShardError(LinkedOutError, ValueError):
    """A shard cannot be read, or is none; the message names it."""


def shard_of(path: Path) -> Path | None:
    """The shard that a photo lies in, or that a path names; None: it is a file of its own."""
    return path if path.suffix == SUFFIX else path.parent if path.parent.suffix == SUFFIX else None


def list_shard(shard: Path) -> list[tuple[Path, str]]:
    """Path and group of each photo in a shard, without reading the photos.

    Raises:
        DamagedShardError: it cannot be read, or is no shard.
    """
    groups = _read(shard, "group")
    ends = _ends(shard)
    if groups.shape != ends.shape or groups.dtype.kind != "U":
        raise DamagedShardError(f"{shard} is no photo shard: {len(ends)} photos, {groups.shape} {groups.dtype} groups")
    return [(shard / f"{shard.stem}-{i:05d}.webp", str(group)) for i, group in enumerate(groups)]


def load_photo(path: Path) -> np.ndarray:
    """One photo of a shard, by a path of `list_shard`: uint8 [H, W, 3] RGB.

    Raises:
        DamagedShardError: the shard cannot be read, or `path` is the shard itself, which could not be listed.
        ArgumentError: this photo of it is not a readable image.
    """
    if path.suffix == SUFFIX:
        list_shard(path)  # says what is wrong with it
        raise DamagedShardError(f"{path} could not be read when the training began: start again")
    data, ends = _opened(path.parent)
    i = int(path.stem.rpartition("-")[2])
    encoded = data[ends[i - 1] if i else 0 : ends[i]]
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None
    if image is None:
        raise ArgumentError(f"{path} is not a readable image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@lru_cache(maxsize=2)  # photos come shard by shard
def _opened(shard: Path) -> tuple[np.ndarray, np.ndarray]:
    data, ends = _read(shard, "data"), _ends(shard)
    if data.dtype != np.uint8 or data.ndim != 1 or (len(ends) and ends[-1] > len(data)):
        raise DamagedShardError(f"{shard} is damaged: {data.shape} {data.dtype} of data, photos end at {ends[-1:]}")
    return data, ends


def _ends(shard: Path) -> np.ndarray:
    ends = _read(shard, "ends")
    if ends.ndim != 1 or ends.dtype.kind not in "iu" or (np.diff(ends.astype(np.int64), prepend=0) < 0).any():
        raise DamagedShardError(f"{shard} is damaged: where its photos end is not told by growing numbers")
    return ends


def _read(shard: Path, name: str) -> np.ndarray:
    try:
        with shard.open("rb") as f, np.load(f, allow_pickle=False) as arrays:
            return arrays[name]
    except _UNREADABLE as e:
        raise DamagedShardError(f"{shard} is damaged or no photo shard ({e}): copy it again, or leave it out") from e
