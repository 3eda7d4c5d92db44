"""Reads the track lists of MP4 and Matroska files for what decoding libraries do not report.

PyAV reports the rotation of a frame but not whether it is mirrored (its `side_data` has the whole matrix, at the
price of memory that is never freed, or of the process: ICC profiles end in a double free). OpenCV always looks at the
first video track, even if that is a thumbnail. Layouts: ISO/IEC 14496-12 (boxes `moov`, `trak`, `tkhd`, `hdlr`) and
RFC 9559 (elements Tracks, TrackEntry, Video, Projection).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from linkedout_edge.decode.files import MediaFile
from linkedout_edge.decode.orientation import UPRIGHT, Orientation

__all__ = ["Track", "video_tracks"]

MAX_TABLE = 64 << 20
"""Bytes of a list of tracks beyond which it is not read: an hour of video has one of 2 MB."""
MAX_ITEMS = 4096


@dataclass(frozen=True)
class Track:
    """One video track.

    Attributes:
        id: Track id or number, as the file counts.
        orientation: What makes its frames upright.
        default: Whether players prefer it.
        hide_at: Where in the file bytes can be changed so that it has no such track.
        hide: What to change them to.
    """

    id: int
    orientation: Orientation
    default: bool
    hide_at: int
    hide: bytes


def video_tracks(file: MediaFile) -> list[Track]:
    """Video tracks in the order of the file; empty where the container has no such list, or a damaged one."""
    readers = {"mp4": _mp4_tracks, "matroska": _matroska_tracks}
    if file.kind not in readers:
        return []
    try:
        with open(file.path, "rb") as stream:  # noqa: PTH123 (a name of any bytes)
            return readers[file.kind](stream)
    except (OSError, ValueError, struct.error, IndexError, OverflowError):
        return []


# -- MP4 -----------------------------------------------------------------------------------------------------------


def _mp4_tracks(stream: BinaryIO) -> list[Track]:
    size = os.fstat(stream.fileno()).st_size
    at = 0
    for _ in range(MAX_ITEMS):
        stream.seek(at)
        header = stream.read(16)
        if len(header) < 8:
            return []
        length, kind, start = _box(header, 0, size - at)
        if length < start:
            return []
        if kind == b"moov":
            if length > MAX_TABLE:
                return []
            stream.seek(at)
            return _movie(stream.read(length), at)
        at += length
    return []


def _box(data: bytes, at: int, left: int) -> tuple[int, bytes, int]:
    """Length of the box at an offset, its kind, and the length of its header. Length 0: to the end."""
    length, kind = struct.unpack_from(">I4s", data, at)
    if length == 1:
        return struct.unpack_from(">Q", data, at + 8)[0], kind, 16
    return length or left, kind, 8


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first and last+1 offset of the contents of each box."""
    for _ in range(MAX_ITEMS):
        if start + 8 > end:
            return
        length, kind, header = _box(data, start, end - start)
        if length < header or start + length > end:
            return
        yield kind, start + header, start + length
        start += length


def _movie(data: bytes, offset: int) -> list[Track]:
    boxes = list(_boxes(data, 8 if data[:4] != b"\0\0\0\1" else 16, len(data)))
    whole = next((_matrix(data, a, 36) for kind, a, _ in boxes if kind == b"mvhd"), (1.0, 0.0, 0.0, 1.0))
    found = [_mp4_track(data, a, b, whole, offset) for kind, a, b in boxes if kind == b"trak"]
    return [track for track in found if track is not None]


def _matrix(data: bytes, at: int, skip: int) -> tuple[float, float, float, float]:
    """The part of a display matrix that turns: a, b, c, d. Times and lengths before it are longer in version 1."""
    at += skip + (12 if data[at] == 1 else 0)
    a, b, _, c, d = struct.unpack_from(">5i", data, at)
    return a / 65536, b / 65536, c / 65536, d / 65536


def _mp4_track(
    data: bytes, start: int, end: int, whole: tuple[float, float, float, float], offset: int
) -> Track | None:
    parts = {kind: (a, b) for kind, a, b in _boxes(data, start, end)}
    if b"tkhd" not in parts or b"mdia" not in parts:
        return None
    handler = next((a for kind, a, _ in _boxes(data, *parts[b"mdia"]) if kind == b"hdlr"), None)
    if handler is None or data[handler + 8 : handler + 12] != b"vide":
        return None
    header = parts[b"tkhd"][0]
    a, b, c, d = _matrix(data, header, 40)
    e, f, g, h = whole  # applied after the track's own
    return Track(
        id=struct.unpack_from(">I", data, header + (20 if data[header] == 1 else 12))[0],
        orientation=Orientation.from_matrix(a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h),
        default=bool(data[header + 3] & 1),
        hide_at=offset + data.rfind(b"trak", 0, start),
        hide=b"free",  # a box of nothing
    )


# -- Matroska ------------------------------------------------------------------------------------------------------

_SEGMENT, _TRACKS, _ENTRY = 0x18538067, 0x1654AE6B, 0xAE
_NUMBER, _TYPE, _DEFAULT, _VIDEO = 0xD7, 0x83, 0x88, 0xE0
_PROJECTION, _YAW, _PITCH, _ROLL = 0x7670, 0x7673, 0x7674, 0x7675
_CLUSTER = 0x1F43B675


def _matroska_tracks(stream: BinaryIO) -> list[Track]:
    size = os.fstat(stream.fileno()).st_size
    at, end = 0, size
    for _ in range(MAX_ITEMS):
        stream.seek(at)
        head = stream.read(12)
        if len(head) < 2 or at >= end:
            return []
        kind, length, used = _element(head, 0)
        if kind == _SEGMENT:  # gone into, not over
            at += used
            continue
        if kind == _CLUSTER and length is None:
            return []
        if kind == _TRACKS:
            if length is None or length > MAX_TABLE:
                return []
            stream.seek(at + used)
            data = stream.read(length)
            found = [_matroska_track(data, a, b, at + used) for k, a, b in _elements(data, 0, len(data)) if k == _ENTRY]
            return [track for track in found if track is not None]
        if length is None:
            return []
        at += used + length
    return []


def _number(data: bytes, at: int, *, keep_marker: bool) -> tuple[int, int]:
    """A number of variable length, and how many bytes it takes."""
    first = data[at]
    length = 9 - first.bit_length()
    if length > 8 or at + length > len(data):
        raise ValueError("not a number of EBML")
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), length


def _element(data: bytes, at: int) -> tuple[int, int | None, int]:
    """Id and length (None: unknown) of the element at an offset, and the length of its header."""
    kind, a = _number(data, at, keep_marker=True)
    length, b = _number(data, at + a, keep_marker=False)
    return kind, None if length == (1 << 7 * b) - 1 else length, a + b


def _elements(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    for _ in range(MAX_ITEMS):
        if start + 2 > end:
            return
        kind, length, used = _element(data, start)
        if length is None or start + used + length > end:
            return
        yield kind, start + used, start + used + length
        start += used + length


def _matroska_track(data: bytes, start: int, end: int, offset: int) -> Track | None:
    parts = {kind: (a, b) for kind, a, b in _elements(data, start, end)}
    where = parts.get(_TYPE)
    if where is None or where[1] == where[0] or int.from_bytes(data[slice(*where)], "big") != 1:
        return None

    def number(kind: int, default: int) -> int:
        return int.from_bytes(data[slice(*parts[kind])], "big") if kind in parts else default

    turned = UPRIGHT
    if _VIDEO in parts:
        video = {kind: (a, b) for kind, a, b in _elements(data, *parts[_VIDEO])}
        if _PROJECTION in video:
            angles = {k: _float(data[a:b]) for k, a, b in _elements(data, *video[_PROJECTION])}
            turned = _projected(angles.get(_YAW, 0.0), angles.get(_PITCH, 0.0), angles.get(_ROLL, 0.0))
    return Track(
        id=number(_NUMBER, 0),
        orientation=turned,
        default=number(_DEFAULT, 1) == 1,
        hide_at=offset + where[1] - 1,
        hide=b"\x21",  # a track of metadata
    )


def _float(data: bytes) -> float:
    """A big-endian float of 4 or 8 bytes; of none, 0."""
    return float(struct.unpack({4: ">f", 8: ">d"}[len(data)], data)[0]) if len(data) in (4, 8) else 0.0


def _projected(yaw: float, pitch: float, roll: float) -> Orientation:
    """Half a turn about the upright axis shows the picture from behind: mirrored. Other views are for headsets."""
    if pitch or yaw not in (0.0, 180.0, -180.0):
        return UPRIGHT
    return Orientation.turned(roll, mirror_x=bool(yaw))
