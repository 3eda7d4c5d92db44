"""Layer tokens by id, in memory.

Tokens lie in contiguous arrays without holes (removing moves the last row into the gap), so that ranking everything
reads memory in one sweep. An id belongs to one content; which one is kept as a `Fingerprint`.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError, ClosedError, VideoNotFoundError, VideoUnreadableError
from linkedout_edge.inputs import Video, check_list

MAX_VIDEOS = 100_000
_FIRST_CAPACITY = 64
_SAMPLE = 64 * 1024


class Fingerprint(NamedTuple):
    """What the tokens of an id were made from.

    Attributes:
        content: Hash of the frames, or of a file's size, first and last 64 KiB and middle 64 KiB.
        title: The title that the model read, or None.
        size: Bytes of the file; None for frames.
        mtime_ns: Its modification time: with an equal size and time the file is not read again.
    """

    content: str
    title: str | None = None
    size: int | None = None
    mtime_ns: int | None = None


def fingerprint(video: Video) -> Fingerprint:
    """Fingerprint of a video's content as it is now.

    Raises:
        VideoNotFoundError: The file does not exist, or the video is only an id.
        VideoUnreadableError: It cannot be read, or is no file.
    """
    if video.frames is not None:
        return Fingerprint(video.content, video.title)
    if video.path is None:
        raise VideoNotFoundError("the id is not in the store: encode the video first, or pass its path or frames")
    path = Path(video.path)
    try:
        if not path.is_file():  # follows links; false for a fifo, which would block
            if not path.exists():
                raise VideoNotFoundError("there is no such file, and no video of that id in the store")
            raise VideoUnreadableError(
                "it is not a regular file" if not path.is_dir() else "it is a directory, not a video file"
            )
        with path.open("rb") as f:
            info = path.stat()
            digest = hashlib.blake2b(str(info.st_size).encode(), digest_size=16)
            for offset in sorted({0, max(0, info.st_size // 2 - _SAMPLE // 2), max(0, info.st_size - _SAMPLE)}):
                f.seek(offset)
                digest.update(f.read(_SAMPLE))
    except (OSError, ValueError) as e:
        if isinstance(e, VideoNotFoundError | VideoUnreadableError):
            raise
        raise VideoUnreadableError(f"the file cannot be read: {getattr(e, 'strerror', None) or e}") from e
    return Fingerprint(digest.hexdigest(), video.title, info.st_size, info.st_mtime_ns)


def file_is_unchanged(video: Video, known: Fingerprint) -> bool:
    """Whether size and time of the video's file are still the known ones; False if it cannot be looked at."""
    if video.path is None or known.size is None:
        return False
    try:
        info = Path(video.path).stat()
    except (OSError, ValueError):
        return False
    return (info.st_size, info.st_mtime_ns) == (known.size, known.mtime_ns)


class Rows(NamedTuple):
    """Stored rows: tokens int8 ``[C, L, M, D]``, scales float32 ``[C, L, M]``, stamps of writing int64 ``[C]``."""

    tokens: NDArray[np.int8]
    scales: NDArray[np.float32]
    stamps: NDArray[np.int64]

    def copies(self) -> Rows:
        """The same rows in arrays of their own."""
        if self.tokens.base is None:
            return self
        return Rows(self.tokens.copy(), self.scales.copy(), self.stamps.copy())


class Selection:
    """Ids that were looked up once, for ranking many times; made by `TokenStore.select`.

    Attributes:
        ids: What is ranked, in the given order, each once.
        missing: Ids that were not in the store.
    """

    def __init__(
        self, store: TokenStore, ids: list[str], missing: tuple[str, ...], rows: NDArray[np.int64], version: int
    ) -> None:
        self._store = store
        self._rows = rows
        self._version = version
        self.ids = ids
        self.missing = missing

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"<Selection of {len(self.ids)} videos>"

    def belongs_to(self, store: TokenStore) -> bool:
        """Whether it was made by that store."""
        return self._store is store

    def rows(self) -> NDArray[np.int64]:
        """Row of each id, int64 [C]; -1 for those that left the store since."""
        if self._version != self._store.version:
            with self._store.lock:
                self._rows, self._version = self._store.rows(self.ids), self._store.version
        return self._rows


@dataclass(frozen=True)
class StoreStats:
    """How full a store is.

    Attributes:
        videos: Videos stored; `max_videos` at most.
        max_videos: Beyond it the least recently used one leaves; pinned ones stay.
        pinned: Videos that the history holds on to.
        payload_bytes: Bytes of tokens and scales of what is stored.
        capacity_bytes: Bytes that are reserved for them.
        evicted: Videos that had to leave so far.
    """

    videos: int
    max_videos: int
    pinned: int
    payload_bytes: int
    capacity_bytes: int
    evicted: int


class TokenStore:
    """Layer tokens of one token space. Usable from several threads.

    Args:
        config: Gives L, M and D.
        max_videos: Bound; the least recently used leaves first, what is pinned stays.
    """

    def __init__(self, config: ModelConfig, max_videos: int = MAX_VIDEOS) -> None:
        if max_videos < 1:
            raise ArgumentError(f"max_videos must be at least 1, not {max_videos}")
        self.lock = threading.RLock()
        self.version = 0
        """Changes whenever a row may hold another video than before."""
        self._shape = (config.layers, config.tokens_per_layer, config.token_width)
        self._max = max_videos
        self._row: dict[str, int] = {}
        self._fingerprints: dict[str, Fingerprint] = {}
        self._pins: Counter[str] = Counter()
        self._stamps = itertools.count(1)
        self._evicted = 0
        self._closed = False
        self._allocate()

    def _allocate(self) -> None:
        self._ids: list[str] = []  # by row
        self._tokens = np.zeros((0, *self._shape), np.int8)
        self._scales = np.zeros((0, *self._shape[:2]), np.float32)
        self._stamp = np.zeros(0, np.int64)
        self._used = np.zeros(0, np.int64)
        self._clock = 0

    # What apps use.

    def __contains__(self, id: object) -> bool:
        return id in self._row

    def __len__(self) -> int:
        return len(self._row)

    def __iter__(self) -> Iterator[str]:
        """Ids, in the order in which they came."""
        with self.lock:
            return iter(list(self._row))

    def select(self, ids: Iterable[str] | None = None) -> Selection:
        """Look up ids once; `Recommender.rank` takes the result as candidates.

        Args:
            ids: Stored ids, else everything stored. Unknown ones are in ``.missing`` and fail when ranked.
        """
        with self.lock:
            self._check_open()
            wanted = list(self._row) if ids is None else list(dict.fromkeys(check_list(ids, "ids")))
            rows = self.rows(wanted)
            missing: tuple[str, ...] = ()
            if rows.size and rows.min() < 0:
                missing = tuple(str(i) for i, r in zip(wanted, rows, strict=True) if r < 0)
                wanted = [i for i, r in zip(wanted, rows, strict=True) if r >= 0]
                rows = rows[rows >= 0]
            return Selection(self, wanted, missing, rows, self.version)

    def remove(self, ids: str | Iterable[str]) -> int:
        """Remove one id or several, pinned or not, and overwrite their tokens. Unknown ids are no error.

        Returns:
            How many were there.
        """
        with self.lock:
            self._check_open()
            found = [i for i in dict.fromkeys([ids] if isinstance(ids, str) else ids) if i in self._row]
            for i in found:
                self._remove_row(i)
            return len(found)

    def stats(self) -> StoreStats:
        """How full the store is."""
        with self.lock:
            row = int(np.prod(self._shape)) + 4 * int(np.prod(self._shape[:2]))
            pinned = sum(1 for i in self._pins if i in self._row)
            return StoreStats(
                len(self._row), self._max, pinned, len(self._row) * row, len(self._stamp) * row, self._evicted
            )

    # What the recommender uses.

    def put(self, id: str, tokens: NDArray[np.int8], scales: NDArray[np.float32], known_as: Fingerprint) -> None:
        """Store tokens int8 ``[L, M, D]`` and scales float32 ``[L, M]`` under an id, replacing what was there."""
        with self.lock:
            self._check_open()
            row = self._row.get(id)
            if row is None:
                if len(self._row) >= self._max:
                    self._evict()
                row = len(self._ids)
                if row == len(self._stamp):
                    self._grow()
                self._ids.append(id)
                self._row[id] = row
            self._tokens[row], self._scales[row] = tokens, scales
            self._stamp[row] = next(self._stamps)
            self._used[row] = self._tick()
            self._fingerprints[id] = known_as

    def fingerprint(self, id: str) -> Fingerprint | None:
        """What the tokens of an id were made from; None for an unknown id."""
        return self._fingerprints.get(id)

    def set_fingerprint(self, id: str, known_as: Fingerprint) -> None:
        """Note a new fingerprint of a content that stayed the same (a file that was only touched)."""
        with self.lock:
            if id in self._row:
                self._fingerprints[id] = known_as

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Row of each id, int64 ``[C]``; -1 where unknown. Valid while the lock is held, or `version` stays."""
        get = self._row.get
        return np.fromiter((get(i, -1) for i in ids), np.int64, len(ids))

    def gather(self, rows: NDArray[np.int64]) -> Rows:
        """Copies of rows, or views where they lie side by side; hold the lock while a view is used."""
        if not rows.size:
            where: Any = slice(0, 0)
        elif rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all()):
            where = slice(int(rows[0]), int(rows[-1]) + 1)
        else:
            where = rows
        return Rows(self._tokens[where], self._scales[where], self._stamp[where])

    def touch(self, rows: NDArray[np.int64]) -> None:
        """Mark rows as used just now."""
        self._used[rows] = self._tick()

    def pin(self, id: str) -> None:
        """Keep an id from being evicted; as often as `unpin` will be called."""
        with self.lock:
            self._pins[id] += 1

    def unpin(self, id: str) -> None:
        """Undo one `pin`."""
        with self.lock:
            self._pins[id] -= 1
            if self._pins[id] <= 0:
                del self._pins[id]

    @contextmanager
    def pinned(self, ids: Iterable[str]) -> Iterator[None]:
        """Pin ids for a while."""
        held = list(ids)
        for i in held:
            self.pin(i)
        try:
            yield
        finally:
            for i in held:
                self.unpin(i)

    def close(self) -> None:
        """Release the memory."""
        with self.lock:
            self._closed = True
            self.version += 1
            self._row.clear()
            self._fingerprints.clear()
            self._pins.clear()
            self._allocate()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the store was closed with its recommender: load a new one")

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _grow(self) -> None:
        capacity = max(_FIRST_CAPACITY, 2 * len(self._stamp))
        for name in ("_tokens", "_scales", "_stamp", "_used"):
            old = getattr(self, name)
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def _evict(self) -> None:
        """Let the least recently used leave: a hundredth at a time, so that not every video costs a search."""
        free = np.array([i not in self._pins for i in self._ids], bool)
        candidates = np.flatnonzero(free)
        count = min(len(candidates), len(self._ids) - self._max + max(1, self._max // 100))
        if count < 1:
            return  # all are pinned: the history is bounded itself
        oldest = candidates[np.argpartition(self._used[candidates], count - 1)[:count]]
        for i in [self._ids[row] for row in oldest]:
            self._remove_row(i)
        self._evicted += count

    def _remove_row(self, id: str) -> None:
        row, last = self._row.pop(id), len(self._ids) - 1
        del self._fingerprints[id]
        if row != last:
            moved = self._ids[last]
            self._ids[row] = moved
            self._row[moved] = row
            for array in (self._tokens, self._scales, self._stamp, self._used):
                array[row] = array[last]
        self._ids.pop()
        for array in (self._tokens, self._scales, self._stamp, self._used):
            array[last] = 0  # removed means gone
        self.version += 1
