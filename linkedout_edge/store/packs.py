"""Feature packs: the layer tokens of many videos as one safetensors file.

A server encodes, ships about 1 KiB a video, and the device encodes nothing. `token_file` says what the file holds and
how it is checked; its ``format`` is "linkedout-pack".
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from linkedout_edge.errors import PackError, VideoNotFoundError
from linkedout_edge.inputs import check_list
from linkedout_edge.options import file_path, new_file
from linkedout_edge.store import token_file
from linkedout_edge.store.fingerprint import Fingerprint
from linkedout_edge.store.token_file import Videos
from linkedout_edge.store.tokens import Tokens

FORMAT = "linkedout-pack"
MAX_PACK_BYTES = 2**30
EXAMPLE = "videos.safetensors"
"""A good name for such a file."""


def export_pack(store: Tokens, path: str | os.PathLike[str], ids: Iterable[str] | None = None) -> int:
    """See `TokenStore.export_pack`."""
    file = new_file(path, EXAMPLE)
    wanted = store.ids() if ids is None else list(dict.fromkeys(check_list(ids, "ids")))
    if missing := [i for i in wanted if i not in store]:
        raise VideoNotFoundError(
            f"{len(missing)} of the ids are not in the store, the first is {missing[0]!r}: encode them first, or leave "
            "them out"
        )
    videos = read_videos(store, wanted)
    token_file.write(file, FORMAT, store.token_space, videos, "the pack")
    return len(videos.ids)


def import_pack(store: Tokens, path: str | os.PathLike[str], max_bytes: int) -> tuple[str, ...]:
    """See `TokenStore.import_pack`."""
    pack = read_pack(file_path(path), token_space=store.token_space, shape=store.shape, max_bytes=max_bytes)
    if len(pack.ids) > store.max_videos:
        raise PackError(f"the pack holds {len(pack.ids)} videos, and the store at most {store.max_videos}")
    store.check_writable()
    with store.batch():
        for i, known_as, tokens, scales in zip(pack.ids, pack.fingerprints, pack.tokens, pack.scales, strict=True):
            store.put(i, tokens, scales, known_as)
    return tuple(pack.ids)


def read_pack(path: str | os.PathLike[str], *, token_space: str, shape: tuple[int, int, int], max_bytes: int) -> Videos:
    """Read a pack, and check all of it.

    Args:
        path: The file.
        token_space: The one expected.
        shape: L, M and D.
        max_bytes: A larger file is refused unread.

    Raises:
        TokenSpaceError: It was made by another model.
        PackError: Anything else that is wrong with it.
    """
    what = token_file.Kind(FORMAT, "the pack", "a file that export_pack wrote")
    return token_file.read(path, what, token_space=token_space, shape=shape, max_bytes=max_bytes)[0]


def read_videos(store: Tokens, ids: Iterable[str]) -> Videos:
    """What a file holds of these ids, without those that left the store meanwhile."""
    known = {i: store.fingerprint(i) or Fingerprint("") for i in ids}
    with store.lock:
        here = [i for i in known if i in store]
        return Videos(here, [known[i] for i in here], *store.read(here))
