"""A history as one file: the events and the tokens of their videos, for a backup or another device.

Beside the arrays of every `token_file` it holds ::

    events   float64 [N, 4]   video (0 … V-1), watched (0 … 1), liked (-1 unknown, 0, 1), at (Unix seconds, NaN unknown)

oldest first, with the ``format`` "linkedout-history". The bindings read and write the same.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.errors import PackError
from linkedout_edge.inputs import Event, Video
from linkedout_edge.options import file_path, new_file
from linkedout_edge.store import Tokens, token_file
from linkedout_edge.store.token_file import Videos, read_videos

MAX_BYTES = 2**28
MAX_EVENTS = 65536
EXAMPLE = "history.safetensors"
"""A good name for such a file."""
KIND = token_file.Kind(
    "linkedout-history", "the saved history", "a file that history.save wrote", {"events": ("F64", 4)}
)


class Saved(NamedTuple):
    """What such a file holds: events, oldest first, and the videos that they are about."""

    events: list[Event]
    videos: Videos


def save(store: Tokens, events: Sequence[Event], path: str | os.PathLike[str]) -> int:
    """See `History.save`."""
    file = new_file(path, EXAMPLE)
    videos = read_videos(store, dict.fromkeys(e.id for e in events if e.id in store))
    place = {i: n for n, i in enumerate(videos.ids)}
    table = [
        (
            place[e.id],
            e.watched,
            -1 if e.liked is None else int(e.liked),
            math.nan if e.at is None else e.at.timestamp(),
        )
        for e in events
        if e.id in place
    ]
    more = {"events": np.array(table, np.float64).reshape(-1, 4)}
    token_file.write(file, KIND, store.token_space, videos, more, mode=0o600)
    return len(table)


def read_history(
    path: str | os.PathLike[str], *, token_space: str, shape: tuple[int, int, int], max_bytes: int
) -> Saved:
    """Read a file, and check all of it.

    Args:
        path: The file.
        token_space: The one expected.
        shape: L, M and D.
        max_bytes: A larger file is refused unread.

    Raises:
        TokenSpaceError: It was saved with another model.
        PackError: Anything else that is wrong with it.
    """
    file = file_path(path)
    try:
        videos, more = token_file.read(file, KIND, token_space=token_space, shape=shape, max_bytes=max_bytes)
        return Saved(_events(more["events"], videos), videos)
    except PackError as e:
        raise type(e)(f"{file}: {e}") from e


def _events(table: NDArray[np.float64], videos: Videos) -> list[Event]:
    video, watched, liked, at = table.T
    if len(table) > MAX_EVENTS:
        raise PackError(f"the saved history has {len(table)} events, more than {MAX_EVENTS}: save it again")
    if not (np.isin(video, np.arange(len(videos.ids))).all() and np.isin(liked, (-1, 0, 1)).all()):
        raise PackError("an event of the saved history names no video, or its liked is not -1, 0 or 1: save it again")
    if not ((watched >= 0) & (watched <= 1)).all():
        raise PackError("an event of the saved history has a watched outside 0 to 1: save it again")
    named = [Video(id=i, title=f.title) for i, f in zip(videos.ids, videos.fingerprints, strict=True)]
    try:
        times = [None if math.isnan(t) else datetime.fromtimestamp(t, timezone.utc) for t in at.tolist()]
    except (OverflowError, ValueError, OSError) as e:
        raise PackError("an event of the saved history has a time that no calendar knows: save it again") from e
    return [
        Event(named[int(v)], w, None if like < 0 else bool(like), t)
        for v, w, like, t in zip(video, watched.tolist(), liked.tolist(), times, strict=True)
    ]
