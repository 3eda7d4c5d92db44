"""Feature packs: the layer tokens of many videos as one safetensors file.

A server encodes, ships about 1 KiB a video, and the device encodes nothing. `token_file` says what the file holds and
how it is checked; its ``format`` is "linkedout-pack".
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from linkedout_edge.store import token_file
from linkedout_edge.store.fingerprint import Fingerprint
from linkedout_edge.store.token_file import Videos
from linkedout_edge.store.tokens import Tokens

KIND = token_file.Kind("linkedout-pack", "the pack", "a file that export_pack wrote")
MAX_PACK_BYTES = 2**30
EXAMPLE = "videos.safetensors"
"""A good name for such a file."""


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
    return token_file.read(path, KIND, token_space=token_space, shape=shape, max_bytes=max_bytes)[0]


def read_videos(store: Tokens, ids: Iterable[str]) -> Videos:
    """What a file holds of these ids, without those that left the store meanwhile."""
    known = {i: store.fingerprint(i) or Fingerprint("") for i in ids}
    with store.lock:
        here = [i for i in known if i in store]
        return Videos(here, [known[i] for i in here], *store.read(here))
