"""The database's records, as MessagePack.

A video's record is its tokens and scales (bytes of fixed length), then a `VideoRecord`; an event's is an `EventRecord`.
Text is stored as bytes, so that file names that are not UTF-8 survive.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from linkedout_edge.inputs import Event, Video
from linkedout_edge.storage.encryption import DamagedRecordError, id_bytes


class VideoRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A stored video's record, without its tokens; fields as in `store.Fingerprint`."""

    id: bytes
    content: str
    title: bytes | None = None
    size: int | None = None
    mtime_ns: int | None = None


class EventRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One watched video.

    Attributes:
        id: Its id.
        path: Its file, if it had one.
        title: Its title.
        watched: Watched fraction.
        liked: True, False or None.
        at: When it was watched, ISO 8601, or None.
        added_at: When it was added, ISO 8601.
        auto_encoded: Whether its video was encoded only for the history: its tokens leave the store with it.
    """

    id: bytes
    path: bytes | None
    title: bytes | None
    watched: float
    liked: bool | None
    at: str | None
    added_at: str
    auto_encoded: bool = False


class StoredEvent(NamedTuple):
    """An event of the history: its row in the database (0 in memory), when it was added, and see `EventRecord`."""

    row: int
    event: Event
    added_at: datetime
    auto_encoded: bool


_encode = msgspec.msgpack.Encoder().encode
_decode_video = msgspec.msgpack.Decoder(VideoRecord).decode
_decode_event = msgspec.msgpack.Decoder(EventRecord).decode


def pack_video(tokens: NDArray[np.int8], scales: NDArray[np.float32], record: VideoRecord) -> bytes:
    """Tokens, scales (little endian), then the rest."""
    return tokens.astype(np.int8, copy=False).tobytes() + scales.astype("<f4", copy=False).tobytes() + _encode(record)


def unpack_video(data: bytes, payload: int) -> tuple[bytes, VideoRecord]:
    """The payload's bytes, and the rest.

    Raises:
        DamagedRecordError: It is not such a record.
    """
    try:
        return data[:payload], _decode_video(data[payload:])
    except (msgspec.MsgspecError, UnicodeError):  # the latter: text that is no UTF-8
        raise DamagedRecordError from None


def pack_event(event: Event, added_at: datetime, auto_encoded: bool) -> bytes:
    """Bytes of an event."""
    video = event.video
    return _encode(
        EventRecord(
            id=id_bytes(event.id),
            path=None if video.path is None else id_bytes(video.path),
            title=None if video.title is None else id_bytes(video.title),
            watched=event.watched,
            liked=event.liked,
            at=event.at.isoformat() if event.at else None,
            added_at=added_at.isoformat(),
            auto_encoded=auto_encoded,
        )
    )


def unpack_event(row: int, data: bytes) -> StoredEvent:
    """The event.

    Raises:
        DamagedRecordError: It is not such a record.
    """
    try:
        r = _decode_event(data)
        identity, path = text(r.id), text(r.path)
        video = Video(path, id=None if path == identity else identity, title=text(r.title))
        at = None if r.at is None else datetime.fromisoformat(r.at)
        return StoredEvent(
            row, Event(video, r.watched, r.liked, at), datetime.fromisoformat(r.added_at), r.auto_encoded
        )
    except (msgspec.MsgspecError, ValueError, TypeError):
        raise DamagedRecordError from None


def text(value: bytes | None) -> str | None:
    """Decode text from its bytes."""
    return None if value is None else value.decode("utf-8", "surrogatepass")
