"""`TokenStore`: what apps see of the layer tokens of the videos that were encoded.

A feature pack is such tokens of many videos as one file: a server encodes, ships about 1 KiB a video, and the device
encodes nothing. `token_file` says what the file holds and how it is checked; its ``format`` is "linkedout-pack".
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from linkedout_edge.errors import PackError, VideoNotFoundError
from linkedout_edge.inputs import check_list
from linkedout_edge.lifetime import OneProcess
from linkedout_edge.options import file_path, new_file
from linkedout_edge.store import token_file
from linkedout_edge.store.rows import Positions
from linkedout_edge.store.tokens import Tokens

PACK = token_file.Kind("linkedout-pack", "the pack", "a file that export_pack wrote")
PACK_EXAMPLE = "videos.safetensors"
"""A good name for such a file."""
MAX_PACK_BYTES = 2**30


class Selection:
    """Ids that were looked up once, for ranking many times; made by `TokenStore.select`.

    Attributes:
        ids: What is ranked, in the given order, each once.
        missing: Ids that were not in the store.
    """

    def __init__(self, tokens: Tokens, ids: list[str], rows: Positions, missing: tuple[str, ...] = ()) -> None:
        self._tokens = tokens
        self._mark = tokens.rows.mark(rows)
        self.ids = ids
        self.missing = missing

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"<Selection of {len(self.ids)} videos>"

    def _is_current(self) -> bool:
        return self._mark.is_current()

    def _rows(self) -> Positions:
        """Row of each id, int32 ``[C]``; -1 for those that left the store since. Hold the lock."""
        if not self._mark.is_current():
            self._mark = self._tokens.rows.mark(self._tokens.find(self.ids))
        return self._mark.rows


@dataclass(frozen=True)
class StoreStats:
    """How full a store is.

    Attributes:
        videos: Videos stored; `max_videos` at most.
        max_videos: Beyond it the least recently used one leaves; pinned ones stay.
        pinned: Videos that the history holds on to.
        payload_bytes: Bytes of tokens and scales of what is stored.
        capacity_bytes: Bytes of address space that are reserved for them; memory is taken only for what is stored.
        evicted: Videos that had to leave so far.
        unsaved: Videos that are only in memory, though there is a `data_dir`: it could not be written to.
        disk_bytes: Size of the database and its write-ahead log; 0 without one.
        quick: Videos of which only a quick look was taken so far.
    """

    videos: int
    max_videos: int
    pinned: int
    payload_bytes: int
    capacity_bytes: int
    evicted: int
    unsaved: int = 0
    disk_bytes: int = 0
    quick: int = 0


class TokenStore(OneProcess):
    """Layer tokens by id: ``rec.store``. Usable from several threads; iterating gives ids in the order they came in.

    After the recommender was closed, every call raises `ClosedError`.
    """

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self._tokens = tokens

    def __contains__(self, id: object) -> bool:
        self._tokens.check_open()
        return id in self._tokens

    def __len__(self) -> int:
        self._tokens.check_open()
        return len(self._tokens)

    def __iter__(self) -> Iterator[str]:
        self._tokens.check_open()
        return iter(self._tokens.ids())

    def select(self, ids: Iterable[str] | None = None) -> Selection:
        """Look up ids once; `Recommender.rank` takes the result as candidates.

        Args:
            ids: Stored ids, else everything stored. Unknown ones are in ``.missing`` and fail when ranked.

        Raises:
            ArgumentTypeError: `ids` is no list.
        """
        self._tokens.check_open()
        self._tokens.refresh()
        with self._tokens.lock:
            wanted = self._tokens.ids() if ids is None else list(dict.fromkeys(check_list(ids, "ids")))
            rows = self._tokens.find(wanted)
            if not rows.size or rows.min() >= 0:
                return Selection(self._tokens, wanted, rows)
            here = [i for i, row in zip(wanted, rows.tolist(), strict=True) if row >= 0]
            missing = tuple(str(i) for i, row in zip(wanted, rows.tolist(), strict=True) if row < 0)
            return Selection(self._tokens, here, rows[rows >= 0], missing)

    def remove(self, ids: str | Iterable[str]) -> int:
        """Remove one id or several, pinned or not, and overwrite their tokens. Unknown ids are no error.

        With a database, they leave it in all token spaces, and its write-ahead log is emptied.

        Returns:
            How many were there.

        Raises:
            StorageError: The database cannot be written; nothing was removed.
        """
        wanted = list(dict.fromkeys([ids] if isinstance(ids, str) else ids))
        self._tokens.check_open()
        return self._tokens.remove(wanted)

    def stats(self) -> StoreStats:
        """How full the store is."""
        tokens = self._tokens
        tokens.check_open()
        tokens.refresh()
        disk = tokens.disk_bytes
        with tokens.lock:
            layers, m, d = tokens.rows.shape
            row = layers * m * (d + 4)
            return StoreStats(
                videos=len(tokens),
                max_videos=tokens.max_videos,
                pinned=tokens.count_pinned(),
                payload_bytes=len(tokens) * row,
                capacity_bytes=tokens.rows.capacity * row,
                evicted=tokens.evicted,
                unsaved=tokens.unsaved,
                disk_bytes=disk,
                quick=len(tokens.quick()),
            )

    def export_pack(self, path: str | os.PathLike[str], ids: Iterable[str] | None = None) -> int:
        """Write layer tokens, ids, titles and fingerprints into one safetensors file, for other devices.

        Args:
            path: The file; replaced as a whole, or not at all.
            ids: What to write, else everything stored.

        Returns:
            How many videos it holds.

        Raises:
            VideoNotFoundError: An id is not in the store.
            StorageError: The file cannot be written, or is a folder.
            ArgumentTypeError: `path` is no path, or `ids` no list.
        """
        self._tokens.check_open()
        self._tokens.refresh()
        file = new_file(path, PACK_EXAMPLE)
        wanted = self._tokens.ids() if ids is None else list(dict.fromkeys(check_list(ids, "ids")))
        if missing := [i for i in wanted if i not in self._tokens]:
            raise VideoNotFoundError(
                f"{len(missing)} of the ids are not in the store, the first is {missing[0]!r}: encode them first, or "
                "leave them out"
            )
        videos = token_file.read_videos(self._tokens, wanted)
        token_file.write(file, PACK, self._tokens.token_space, videos)
        return len(videos.ids)

    def import_pack(self, path: str | os.PathLike[str], *, max_bytes: int = MAX_PACK_BYTES) -> tuple[str, ...]:
        """Take over the videos of a pack; what is stored under their ids is replaced. All of it is checked before.

        Args:
            path: A file that `export_pack` wrote, here or elsewhere.
            max_bytes: A larger one is refused.

        Returns:
            Their ids.

        Raises:
            TokenSpaceError: It was made by another model.
            PackError: It is no pack, damaged, too large, or of other shapes.
            StorageError: The database cannot be written.
            ArgumentTypeError: `path` is no path.
        """
        store = self._tokens
        store.check_open()
        file = file_path(path)
        pack, _ = token_file.read(file, PACK, token_space=store.token_space, shape=store.shape, max_bytes=max_bytes)
        if len(pack.ids) > store.max_videos:
            raise PackError(f"the pack holds {len(pack.ids)} videos, and the store at most {store.max_videos}")
        store.check_writable()
        with store.batch():
            for i, known_as, tokens, scales in zip(pack.ids, pack.fingerprints, pack.tokens, pack.scales, strict=True):
                store.put(i, tokens, scales, known_as)
        return tuple(pack.ids)
