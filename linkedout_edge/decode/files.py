"""Looks at a file before any decoder does: is it there, is it a file, is it a video container we mean to open.

FFmpeg decides by content what a file is, and some "videos" are scripts: an HLS or DASH playlist, an `ffconcat` list or
an SDP session makes it open other files or network addresses. So nothing reaches a decoder unless it starts like one
of the containers below, whatever it is called.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from linkedout_edge.errors import VideoNotFoundError, VideoTooLargeError, VideoUnreadableError

if TYPE_CHECKING:
    from linkedout_edge.decode.base import Limits

PROBE_BYTES = 1 << 20
"""What FFmpeg reads at most to decide on a format, and so what `sniff` must have seen."""

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
    (0, b"\x00\x00\x00\x01", "annexb"),
    (0, b"DKIF", "ivf"),
    (0, b"GIF8", "gif"),
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpeg"),
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


def check_file(path: str | os.PathLike[str], limits: Limits) -> str:
    """Make sure that `path` may be handed to a decoder. Never blocks on a pipe or a device.

    Args:
        path: a file on this device.
        limits: of which `max_bytes` is checked here.

    Returns:
        The absolute path, which no decoder can mistake for a URL or an option.

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
        raise VideoUnreadableError(f"cannot look at {name!r}: {error}") from None
    if stat.S_ISDIR(status.st_mode):
        raise VideoUnreadableError(f"{name!r} is a directory: hand in its files one by one")
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
    sniff(head, name)
    return str(Path(name).absolute())


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
    kind = _match(head, _CONTAINERS) or _transport_stream(head)
    # FFmpeg looks for these two anywhere in what it probes, so a file with a video's first bytes can still carry them.
    if kind and (b"\nc=IN IP" in head or b"\rc=IN IP" in head or b"dash:profile" in head.lower()):
        raise VideoUnreadableError(f"{name!r} carries a network playlist: linkedout-edge opens video files only")
    if kind:
        return kind
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for marker, what in _PLAYLISTS:
        if start.startswith(marker):
            raise VideoUnreadableError(
                f"{name!r} is {what}, not a video: linkedout-edge follows no references to other files or the network; "
                f"hand in the video file itself"
            )
    raise VideoUnreadableError(
        f"{name!r} is not a video, whatever its name says: it starts with {head[:12]!r}; expected MP4/MOV, "
        f"Matroska/WebM, AVI, MPEG, FLV, Ogg, ASF, IVF, GIF, PNG or JPEG"
    )


def _match(head: bytes, table: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((kind for offset, magic, kind in table if head.startswith(magic, offset)), None)


def _transport_stream(head: bytes) -> str | None:
    """MPEG-TS has one sync byte a packet and no other magic, so ask for three in a row (or all of a shorter file)."""
    for size, offset in ((188, 0), (192, 4)):
        syncs = head[offset : offset + 3 * size : size]
        if len(syncs) == 3 and syncs == b"GGG":
            return "mpegts"
    return None
