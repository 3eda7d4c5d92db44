"""Photos with labels, each filmed as a short clip: a slow pan and zoom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from linkedout_edge.decode.base import slot_centers
from linkedout_edge.errors import ArgumentError
from linkedout_quant.evaluation.imagenet_kinds import IMAGENET_KINDS, kind_of_class
from linkedout_quant.evaluation.tastes import Kinds
from linkedout_quant.media import STILLS, load_still, read_index

KIND_COLUMNS = ("kind", "label")
CLASS_COLUMN = "imagenet_index"
SIDE = 256


@dataclass(frozen=True)
class Photos:
    """Files, and what they show."""

    paths: tuple[Path, ...]
    kinds: Kinds


def find_photos(folder: Path, index: str | None = None) -> Photos:
    """Photos of a folder.

    Args:
        folder: Where they are. Without `index`, each of its sub-folders is a kind: ``folder/dog/*.jpg``.
        index: Name of a CSV file in it. Column ``image`` names the files, as `linkedout_quant.media.find_media` finds
            them. Where there is a column ``imagenet_index``, the twelve kinds of `imagenet_kinds` count; else ``kind``,
            else ``label``. A row of no kind takes no part.

    Raises:
        ArgumentError: There are none, or the index lacks a column or names files that do not exist.
    """
    if index is not None:
        return _indexed(folder / index)
    found = {
        path: kind.name
        for kind in sorted(p for p in folder.iterdir() if p.is_dir())
        for path in sorted(p for p in kind.rglob("*") if p.suffix.lower() in STILLS)
    }
    if not found:
        raise ArgumentError(
            f"{folder} has no sub-folders with photos: sort them by kind ({folder / 'dog'}/*.jpg), or name an --index"
        )
    return Photos(tuple(found), Kinds.of(list(found.values())))


def _indexed(index: Path) -> Photos:
    if not index.is_file():
        raise ArgumentError(f"there is no index {index}")
    rows = list(read_index(index, lambda row: bool(_kind(row, index))))
    if not rows:
        raise ArgumentError(f"{index} says of no photo what kind of thing it shows")
    found = {path: _kind(row, index) for path, row in rows}
    names = tuple(IMAGENET_KINDS) if CLASS_COLUMN in rows[0][1] else None
    return Photos(tuple(found), Kinds.of(list(found.values()), names))


def _kind(row: dict[str, str], index: Path) -> str:
    """What a row's photo shows; "" where that is none of the kinds."""
    if CLASS_COLUMN in row:
        try:
            return kind_of_class(int(row[CLASS_COLUMN])) or ""
        except ValueError:
            raise ArgumentError(
                f"{index}: {CLASS_COLUMN} must be a number from 0 to 999, not {row[CLASS_COLUMN]!r}"
            ) from None
    column = next((c for c in KIND_COLUMNS if c in row), None)
    if column is None:
        raise ArgumentError(
            f"{index} needs a column {CLASS_COLUMN}, {' or '.join(KIND_COLUMNS)}, and has {', '.join(map(str, row))}"
        )
    return (row[column] or "").strip()


def film(paths: Sequence[Path], seed: int, frames: int) -> Iterator[np.ndarray | ArgumentError]:
    """Each photo as a clip, uint8 [frames, SIDE, SIDE, 3] RGB, or what is wrong with its file."""
    moves = np.random.default_rng(seed).random((len(paths), 2, 3))
    times = np.array(slot_centers(frames, 1.0))
    for path, move in zip(paths, moves, strict=True):
        try:
            yield pan_and_zoom(load_still(path), move, times)
        except ArgumentError as e:  # noqa: PERF203 - one bad file must not end the rest
            yield e


def pan_and_zoom(image: np.ndarray, move: np.ndarray, times: np.ndarray) -> np.ndarray:
    """A camera that goes slowly from one square of a photo to another.

    Args:
        image: uint8 [H, W, 3].
        move: float [2, 3] in [0, 1): of the first and the last square how large it is (from three quarters of the
            shorter side to all of it), and where it lies, across and down.
        times: float [F] in [0, 1].

    Returns:
        uint8 [F, SIDE, SIDE, 3].
    """
    height, width = image.shape[:2]
    side = min(height, width) * (0.75 + 0.25 * move[:, 0])
    squares = np.stack([(width - side) * move[:, 1], (height - side) * move[:, 2], side], 1)
    out = []
    for t in times:
        x, y, s = (1 - t) * squares[0] + t * squares[1]
        crop = image[int(y) : max(int(y + s), int(y) + 1), int(x) : max(int(x + s), int(x) + 1)]
        out.append(cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    return np.stack(out)
