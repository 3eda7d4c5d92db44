"""Checks a file before any decoder opens it: does it exist, is it a file, is it a video container that we support?

FFmpeg decides by content what a file is, and some "videos" are scripts: an HLS or DASH playlist, an `ffconcat` list or
an SDP session makes it open other files or network addresses. So nothing reaches a decoder unless it starts like one
of the containers below, whatever it is called. What was found also decides how the file is opened: a name never does.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from linkedout_edge.decode.limits import Limits
from linkedout_edge.errors import VideoNotFoundError, VideoTooLargeError, VideoUnreadableError

__all__ = ["BARE", "PROBE_BYTES", "STILLS", "MediaFile", "check_file", "sniff"]

PROBE_BYTES = 1 << 20
"""The most that FFmpeg reads to detect a format, so `sniff` must see as much."""

STILLS = ("png", "jpeg")
"""Kinds that hold one picture."""

BARE = ("h264", "hevc", "mpegvideo")
"""Kinds without a container, and so without times."""


class MediaFile(NamedTuple):
    """A file that is safe to pass to a decoder.

    Attributes:
        path: Absolute, so that no decoder can mistake it for a URL or an option.
        kind: What `sniff` says it is.
        name: As the caller named it, for messages.
    """

    path: str
    kind: str
    name: str


# (offset, magic bytes, name)
_CONTAINERS: tuple[tuple[int, bytes, str], ...] = (
    *((4, box, "mp4") for box in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (8, b"AVI ", "avi"),
    (0, b"FLV\x01", "flv"),
    (0, b"OggS", "ogg"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
    (0, b"\x00\x00\x01\xb3", "mpegvideo"),
    (0, b"DKIF", "ivf"),
    (0, b"GIF8", "gif"),
)

_AUDIO: tuple[tuple[int, bytes, str], ...] = (
    (8, b"WAVE", "WAV"),
    (0, b"ID3", "MP3"),
    (0, b"\xff\xfb", "MP3"),
    (0, b"\xff\xf3", "MP3"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"fLaC", "FLAC"),
    (0, b"FORM", "AIFF"),
    (4, b"ftypM4A ", "M4A"),
    (4, b"ftypM4B ", "M4B"),
)

_PLAYLISTS: tuple[tuple[bytes, str], ...] = (
    (b"#extm3u", "an HLS playlist"),
    (b"ffconcat", "an FFmpeg concat list"),
    (b"[playlist]", "a PLS playlist"),
    (b"<?xml", "an XML document"),
    (b"<mpd", "a DASH manifest"),
    (b"<smil", "a SMIL playlist"),
    (b"<asx", "an ASX playlist"),
    (b"v=0", "an SDP session"),
    (b"rtsp://", "an address"),
    (b"http", "an address"),
)

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif")


def check_file(path: str | os.PathLike[str], limits: Limits) -> MediaFile:
    """Check that `path` is safe to pass to a decoder. Never blocks on a pipe or a device.

    Args:
        path: a file on this device.
        limits: of which `max_bytes` is checked here.

    Raises:
        VideoNotFoundError: nothing is there.
        VideoUnreadableError: not a regular file, empty, not permitted, or not a video container.
        VideoTooLargeError: more than `limits.max_bytes`.
    """
    name = os.fspath(path)
    try:
        status = Path(name).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise VideoNotFoundError(f"no such video file: {name!r}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name; OSError: name too long, no permission
        raise VideoUnreadableError(f"cannot read {name!r}: {error}") from None
    if stat.S_ISDIR(status.st_mode):
        raise VideoUnreadableError(f"{name!r} is a directory: pass its files one by one")
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe would wait for a writer, for ever if none comes.
        raise VideoUnreadableError(f"{name!r} is not a regular file (a pipe, socket or device)")
    if status.st_size == 0:
        raise VideoUnreadableError(f"{name!r} is empty")
    if status.st_size > limits.max_bytes:
        raise VideoTooLargeError(
            f"{name!r} has {status.st_size:,} bytes, over the limit of {limits.max_bytes:,} (Limits.max_bytes)"
        )
    try:
        with Path(name).open("rb") as file:
            head = file.read(PROBE_BYTES)
    except OSError as error:
        raise VideoUnreadableError(f"cannot read {name!r}: {error.strerror or error}") from None
    return MediaFile(str(Path(name).absolute()), sniff(head, name), name)


def sniff(head: bytes, name: str) -> str:
    """Name the container that the first bytes belong to.

    Args:
        head: the first `PROBE_BYTES` bytes of the file, or all of a shorter one.
        name: for messages.

    Returns:
        The container's family, such as ``"mp4"`` or ``"matroska"``.

    Raises:
        VideoUnreadableError: a playlist, audio, or anything else that is not a known video container.
    """
    audio = _match(head, _AUDIO)
    if audio:
        raise VideoUnreadableError(f"{name!r} is audio only ({audio}): it has no pictures to rank by")
    kind = _match(head, _CONTAINERS) or _picture(head) or _elementary_stream(head) or _transport_stream(head)
    # FFmpeg looks for these two anywhere in what it probes, so a file with a video's first bytes can still carry them.
    if kind and (b"\nc=IN IP" in head or b"\rc=IN IP" in head or b"dash:profile" in head.lower()):
        raise VideoUnreadableError(f"{name!r} carries a network playlist: linkedout-edge opens video files only")
    if kind == "mp4" and _is_tiled(head):
        raise VideoUnreadableError(
            f"{name!r} is a tiled photo (HEIC or AVIF), of which a video decoder sees one tile: save it as JPEG or "
            f"PNG, or pass its pixels with Video(frames=...)"
        )
    if kind:
        return kind
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for marker, what in _PLAYLISTS:
        if start.startswith(marker):
            raise VideoUnreadableError(
                f"{name!r} is {what}, not a video: references to other files or the network are not followed; pass "
                f"the video file itself"
            )
    raise VideoUnreadableError(
        f"{name!r} is not a video, whatever its name says: it starts with {head[:12]!r}; expected MP4/MOV, "
        f"Matroska/WebM, AVI, MPEG, FLV, Ogg, ASF, IVF, GIF, PNG or JPEG"
    )


def _match(head: bytes, table: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((kind for offset, magic, kind in table if head.startswith(magic, offset)), None)


def _picture(head: bytes) -> str | None:
    """PNG or JPEG, and whether it is a picture or a film in that format."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        film = head.find(b"acTL")  # the chunk that makes it an animation stands before the first pixels
        return "apng" if 0 <= film < (head.find(b"IDAT") % (len(head) + 1)) else "png"
    if head.startswith(b"\xff\xd8\xff"):
        # One picture right behind another is motion JPEG, unless they are what a camera calls a multi-picture file:
        # a photo and, say, its map of brightness.
        following = head.find(b"\xff\xd9\xff\xd8\xff")
        return "mjpeg" if following >= 0 and b"MPF\0" not in head[:following] else "jpeg"
    return None


def _elementary_stream(head: bytes) -> str | None:
    """Bare H.264 or HEVC: start codes, and units that a stream may begin with."""
    start = 4 if head.startswith(b"\x00\x00\x00\x01") else 3 if head.startswith(b"\x00\x00\x01") else 0
    first = head[start : start + 2]
    if not start or len(first) < 2:
        return None
    # HEVC: parameter sets, access unit delimiter, messages, of layer 0; the second byte is 1 and no H.264 unit's is
    # for these first bytes.
    if first[0] in (0x40, 0x42, 0x44, 0x46, 0x4E) and first[1] == 1:
        return "hevc"
    # H.264: the same, and slices, for recordings that begin in the middle.
    if not first[0] & 0x80 and first[0] & 0x1F in (1, 5, 6, 7, 8, 9):
        return "h264"
    return None


def _transport_stream(head: bytes) -> str | None:
    """MPEG-TS has one sync byte a packet and no other magic, so ask for five in a row (three of a short file).

    A recording may begin anywhere inside a packet.
    """
    for size in (188, 192, 204):
        wanted = 5 if len(head) >= 6 * size else 3
        for offset in range(size):
            if head[offset : offset + wanted * size : size] == b"G" * wanted:
                return "mpegts"
    return None


def _is_tiled(head: bytes) -> bool:
    """Whether this is a HEIF picture that is put together from others."""
    brands = head[8 : min(int.from_bytes(head[:4], "big"), 256)] if head[4:8] == b"ftyp" else b""
    heif = any(brands[i : i + 4] in _HEIF_BRANDS for i in range(0, len(brands), 4))
    infe = head.find(b"infe")
    return heif and infe >= 0 and b"grid" in head[infe : infe + 65536]
