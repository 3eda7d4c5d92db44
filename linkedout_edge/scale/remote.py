"""Remote videos: any URL that fsspec opens (``s3://``, ``gs://``, ``https://``, ``file://``, …)."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from linkedout_edge import install
from linkedout_edge.cli.options import VIDEO_SUFFIXES
from linkedout_edge.decode.limits import DEFAULT_LIMITS
from linkedout_edge.errors import (
    LinkedOutError,
    MissingDependencyError,
    VideoError,
    VideoNotFoundError,
    VideoTooLargeError,
)
from linkedout_edge.store import content_hash

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+(::|://)")  # of two letters at least: C:\ is a drive
_PIECE = 1 << 20


class FetchError(VideoError, OSError):
    """The file could not be fetched: no connection, no permission, or an answer that makes no sense."""

    code = "fetch_failed"


def is_remote(path: str) -> bool:
    """Whether a path is a URL."""
    return _URL.match(path) is not None


def listed(url: str) -> list[str]:
    """The files that a pattern by URL matches, or the videos in a folder by URL, which ends in ``/``; sorted.

    Raises:
        FetchError: It cannot be listed.
    """
    fs, path = _open_fs(url)
    try:
        if url.endswith("/"):
            names = [n for n in fs.find(path) if PurePosixPath(n).suffix.lower() in VIDEO_SUFFIXES]
        else:
            names = list(fs.glob(path))
    except Exception as e:  # each protocol has errors of its own
        raise FetchError(f"{url} cannot be listed: {type(e).__name__}: {e}") from e
    return sorted(fs.unstrip_protocol(n) for n in names)


def content(url: str) -> str | None:
    """What the fingerprint of the fetched file would say, from three reads of 64 KiB.

    None where it cannot be known without fetching all of it.
    """
    fs, path = _open_fs(url)
    try:
        size = fs.info(path).get("size")
        if size is None:
            return None
        with fs.open(path, "rb", block_size=1 << 16, cache_type="none") as f:
            return content_hash(f, size)
    except Exception:  # whatever it was, fetching says it better
        return None


@contextmanager
def fetched(url: str, max_bytes: int = DEFAULT_LIMITS.max_bytes) -> Iterator[str]:
    """The file as a temporary one, which is removed at the end.

    Args:
        url: What to fetch.
        max_bytes: A larger file is not fetched, and fetching ends where a file turns out to be.

    Raises:
        VideoNotFoundError: There is no such file.
        VideoTooLargeError: It is larger than `max_bytes`.
        FetchError: Anything else.
        MissingDependencyError: fsspec is not installed, or what it needs for this protocol.
    """
    handle, name = tempfile.mkstemp(prefix="linkedout-fetch-", suffix=PurePosixPath(url).suffix[:8])
    try:
        with os.fdopen(handle, "wb") as target:
            try:
                _copy(url, target, max_bytes)
            except LinkedOutError:
                raise
            except FileNotFoundError as e:
                raise VideoNotFoundError("there is no such file") from e
            except Exception as e:  # each protocol has errors of its own
                raise FetchError(f"fetching it failed with {type(e).__name__}: {e}") from e
        yield name
    finally:
        Path(name).unlink(missing_ok=True)


def _copy(url: str, target: Any, max_bytes: int) -> None:
    fs, path = _open_fs(url)
    size = fs.info(path).get("size")
    if size is not None and size > max_bytes:
        raise VideoTooLargeError(f"it has {size} bytes, more than the {max_bytes} allowed")
    left = max_bytes
    with fs.open(path, "rb") as source:
        while piece := source.read(_PIECE):
            left -= len(piece)
            if left < 0:
                raise VideoTooLargeError(f"it has more than the {max_bytes} bytes allowed")
            target.write(piece)


def _open_fs(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    try:
        import fsspec
    except ImportError as e:
        raise MissingDependencyError(f"a URL needs fsspec: {install.extra('scale')}") from e
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as e:  # such as s3fs; the message names it
        raise MissingDependencyError(f"{url.partition(':')[0]} needs another library: {e}") from e
    except ValueError as e:
        raise FetchError(f"fsspec knows no such URL: {e}") from e
    return fs, path
