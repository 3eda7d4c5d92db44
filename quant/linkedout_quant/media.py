"""What there is to learn from: videos and photos of folders, photo shards and index files, with their captions."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from linkedout_edge.decode import DEFAULT_LIMITS, get_decoder
from linkedout_edge.errors import ArgumentError, LinkedOutError
from linkedout_quant.progress import track
from linkedout_quant.shards import PATTERN, SUFFIX, DamagedShardError, list_shard, load_photo, shard_of

log = logging.getLogger(__name__)

STILLS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
VIDEOS = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v"}
FILE_COLUMNS, TEXT_COLUMNS = ("video", "image", "path", "file"), ("caption", "title", "label")
HELD_BACK = 10  # one item in so many


@dataclass(frozen=True)
class Media:
    """A video or a photo."""

    path: Path
    captions: tuple[str, ...] = ()
    collection: str = ""
    """Crops are cut and cached for each collection by itself: another one costs the teacher nothing of the first."""

    @property
    def still(self) -> bool:
        """Whether it is a photo, from which augmentation makes video."""
        return self.path.suffix.lower() in STILLS

    @property
    def held_back(self) -> bool:
        """Whether the encoder may not learn from it, so that gates learn how far it can be trusted on the unseen.

        An @ in the name tells pictures of one item apart. They never are: what they show is learned from the others.
        """
        if "@" in self.path.name:
            return False
        digest = hashlib.blake2b(self.path.name.encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") % HELD_BACK == 0


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used, and why."""

    path: Path
    reason: str


def find_media(sources: Iterable[Path], *, split: str | None = None, collection: str = "") -> list[Media]:
    """Media of folders, photo shards and index files, each once, in a fixed order.

    Args:
        sources: folders, searched with their subfolders, photo shards (`linkedout_quant.shards`) and CSV files. A shard
            that is damaged is one item, which `load_frames` skips by name. An index has a column ``video``, ``image``,
            ``path`` or ``file`` (relative to the index, or the name of a file somewhere below its folder), and may have
            ``caption``, ``title`` or ``label`` (several rows of one file are several captions) and ``split``.
        split: take only the rows of an index that have this value in ``split``; rows without one are taken.
        collection: what they are counted to; photos of a shard are counted to their group.

    Raises:
        ArgumentError: a source is missing, an index lacks its columns or names files that do not exist, or nothing is
            found.
    """
    found: dict[Path, list[str]] = {}
    groups: dict[Path, str] = {}
    for source in sources:
        if source.is_dir():
            for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in STILLS | VIDEOS):
                found.setdefault(path, [])
            for shard in sorted(source.rglob(PATTERN)):
                groups.update(_in_shard(shard))
        elif source.is_file() and source.suffix == SUFFIX:
            groups.update(_in_shard(source))
        elif source.is_file() and source.suffix.lower() == ".csv":
            for path, text in _captions(source, split):
                found.setdefault(path, []).extend([text] if text else [])
        else:
            raise ArgumentError(
                f"{source} is neither a folder nor a .csv index nor a .npz shard: give a folder of videos, or an index"
            )
    if not found and not groups:
        raise ArgumentError(
            "no videos or photos found: expected files that end in " + ", ".join(sorted(VIDEOS | STILLS))
        )
    files = [Media(path, tuple(dict.fromkeys(texts)), collection) for path, texts in found.items()]
    return files + [Media(path, (), group or collection) for path, group in groups.items()]


def _in_shard(shard: Path) -> dict[Path, str]:
    """Path and group of each photo in a shard; of a damaged one, the shard itself."""
    try:
        return dict(list_shard(shard))
    except DamagedShardError:
        return {shard: ""}


def new_media(found: Iterable[Media], known: Iterable[Media]) -> list[Media]:
    """What was found and is not known yet, by file."""
    files = {m.path.resolve() for m in known}
    return [m for m in found if m.path.resolve() not in files]


def read_index(
    index: Path, take: Callable[[dict[str, str]], bool] = lambda row: True
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Rows of a CSV index, each with the file that it names.

    Args:
        index: The CSV file.
        take: Whether a row is wanted. The files of others need not be there.

    Raises:
        ArgumentError: no column of `FILE_COLUMNS`, or a wanted file that is nowhere below the index's folder.
    """
    by_name: dict[str, Path] | None = None
    with index.open(newline="", encoding="utf-8") as f:
        reader = csv.DictReader(f)
        columns = reader.fieldnames or ()
        file_column = next((c for c in FILE_COLUMNS if c in columns), None)
        if file_column is None:
            raise ArgumentError(
                f"{index} has the columns {', '.join(columns) or '(none)'}: "
                f"one of {', '.join(FILE_COLUMNS)} must name the files"
            )
        for row in reader:
            if not take(row):
                continue
            path = index.parent / row[file_column]
            if not path.exists():
                if by_name is None:
                    by_name = {p.name: p for p in index.parent.rglob("*") if p.is_file()}
                if Path(row[file_column]).name not in by_name:
                    raise ArgumentError(
                        f"{index}, line {reader.line_num}: there is no {row[file_column]} below {index.parent}: "
                        "correct the index, or put the file there"
                    )
                path = by_name[Path(row[file_column]).name]
            yield path, row


def _captions(index: Path, split: str | None) -> Iterator[tuple[Path, str]]:
    def take(row: dict[str, str]) -> bool:
        return split is None or row.get("split") in (None, "", split)

    for path, row in read_index(index, take):
        yield path, (next((row[c] for c in TEXT_COLUMNS if c in row), None) or "").strip()


def load_still(path: Path) -> np.ndarray:
    """One photo as uint8 [H, W, 3] RGB.

    Raises:
        ArgumentError: the file is no photo that OpenCV reads.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ArgumentError(f"{path} is not a readable image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def load_frames(media: Sequence[Media], frames: int, size: int) -> tuple[list[Media], list[np.ndarray], list[Skipped]]:
    """Decode all media: photos whole, videos as well-spread frames.

    Args:
        media: what to read.
        frames: F, frames a video.
        size: side of a video's frames, which are squashed to squares as on the device.

    Returns:
        The usable media, for each of them uint8 [F or 1, H, W, 3] RGB, and the files that were skipped.

    Raises:
        ArgumentError: none is usable.
    """
    good: list[Media] = []
    arrays: list[np.ndarray] = []
    skipped: list[Skipped] = []
    decode = get_decoder()
    damaged: set[Path] = set()
    for item in track(media, "reading photos and videos"):
        shard = shard_of(item.path)
        if shard in damaged:
            continue
        try:
            if shard is not None:
                arrays.append(load_photo(item.path)[None])
            else:
                arrays.append(
                    load_still(item.path)[None] if item.still else decode(item.path, frames, size, DEFAULT_LIMITS)
                )
            good.append(item)
        except DamagedShardError as e:  # told once, and not for each of its thousands of photos
            assert shard is not None
            damaged.add(shard)
            skipped.append(Skipped(shard, str(e)))
            log.warning("skipped: %s", e)
        except (LinkedOutError, OSError) as e:
            skipped.append(Skipped(item.path, str(e)))
            log.warning("skipped: %s", e)
    if not good:
        raise ArgumentError(f"none of the {len(skipped)} files can be read; the first: {skipped[0].reason}")
    return good, arrays, skipped
