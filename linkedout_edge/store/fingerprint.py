"""Which content an id stands for: what its tokens were made from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, NamedTuple

from linkedout_edge.errors import VideoNotFoundError, VideoUnreadableError
from linkedout_edge.inputs import Video

_SAMPLE = 64 * 1024

QUICK = "quick:"


class Fingerprint(NamedTuple):
    """What the tokens of an id were made from.

    Attributes:
        content: Hash of the frames, or of a file's size, first and last 64 KiB and middle 64 KiB. Where the tokens are
            of a quick look, ``quick:`` stands before it, in databases and packs, too.
        title: The title that the model read, or None.
        size: Bytes of the file; None for frames.
        mtime_ns: Its modification time: with an equal size and time the file is not read again.
    """

    content: str
    title: str | None = None
    size: int | None = None
    mtime_ns: int | None = None

    @property
    def is_quick(self) -> bool:
        """Whether the tokens are of a quick look."""
        return self.content.startswith(QUICK)

    @property
    def digest(self) -> str:
        """The hash alone."""
        return self.content.removeprefix(QUICK)

    def as_quick(self) -> Fingerprint:
        """The same content, looked at quickly."""
        return self._replace(content=QUICK + self.digest)


def fingerprint(video: Video) -> Fingerprint:
    """Fingerprint of a video's content as it is now.

    Raises:
        VideoNotFoundError: The file does not exist, or the video is only an id.
        VideoUnreadableError: It cannot be read, or is no file.
    """
    if video.frames is not None:
        return Fingerprint(video.content, video.title)
    if video.path is None:
        raise not_stored()
    path = Path(video.path)
    try:
        if not path.is_file():  # follows links; false for a fifo, which would block
            if path.is_dir():
                raise VideoUnreadableError("it is a directory, not a video file: list its files")
            if path.exists():
                raise VideoUnreadableError("it is not a regular file")
            if "://" in str(video.path):
                raise VideoNotFoundError("it is a URL, and only files are read: download it first")
            raise VideoNotFoundError("there is no such file, and no video of that id in the store")
        with path.open("rb") as f:
            info = path.stat()
            content = content_hash(f, info.st_size)
    except (OSError, ValueError) as e:
        if isinstance(e, VideoNotFoundError | VideoUnreadableError):
            raise
        raise VideoUnreadableError(f"the file cannot be read: {getattr(e, 'strerror', None) or e}") from e
    return Fingerprint(content, video.title, info.st_size, info.st_mtime_ns)


def not_stored() -> VideoNotFoundError:
    """What is wrong with an id that the store does not have."""
    return VideoNotFoundError("the id is not in the store: encode the video first, or pass its path or frames")


def content_hash(file: IO[bytes], size: int) -> str:
    """Hash of a file's size, its first and last 64 KiB and 64 KiB of its middle, as 32 hex digits."""
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    for offset in sorted({0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)}):
        file.seek(offset)
        digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def file_is_unchanged(video: Video, known: Fingerprint) -> bool:
    """Whether size and time of the video's file are still the known ones; False if it cannot be looked at."""
    if video.path is None or known.size is None:
        return False
    try:
        info = Path(video.path).stat()
    except (OSError, ValueError):
        return False
    return (info.st_size, info.st_mtime_ns) == (known.size, known.mtime_ns)
