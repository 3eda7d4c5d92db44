"""All errors that linkedout-edge raises on purpose.

All errors derive from `LinkedOutError` and from the built-in exception that fits, so that both
``except LinkedOutError`` and ``except ValueError`` do what a caller expects. A message says what was wrong,
what was expected and how to fix it.

What goes wrong with *one video* inside `rank` or `encode` is not raised: it is a `Failed` entry in the result, whose
`code` is the `code` of the `VideoError` below.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LinkedOutError(Exception):
    """Base class of all errors of this library."""


class ArgumentError(LinkedOutError, ValueError):
    """An argument has an invalid value; the message lists valid ones."""


class ArgumentTypeError(LinkedOutError, TypeError):
    """An argument has the wrong type, such as a bare string where a list of videos is expected."""


class BundleError(LinkedOutError):
    """A bundle cannot be used."""


class BundleNotFoundError(BundleError, FileNotFoundError):
    """There is no bundle under the given name or path."""


class BundleCorruptError(BundleError, ValueError):
    """A bundle's files do not match its manifest (changed bytes, a missing graph, a path that leaves the folder)."""


class BundleVersionError(BundleError, ValueError):
    """A bundle was written in a format that this version of the library does not read."""


class BackendError(LinkedOutError, RuntimeError):
    """The inference library failed, or cannot do what was asked."""


class MissingDependencyError(LinkedOutError, ImportError):
    """An optional library is needed; the message has the exact ``pip install`` line."""


class DeviceError(BackendError):
    """The device or execution provider that was asked for is not available here.

    Attributes:
        reason: Why, without advice.
    """

    def __init__(self, message: str = "", reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = message if reason is None else reason

    def __reduce__(self) -> tuple[type[DeviceError], tuple[str, str]]:
        # By itself an exception is unpickled from its message alone.
        return type(self), (str(self), self.reason)


class ClosedError(LinkedOutError, RuntimeError):
    """The recommender was closed; load a new one."""

    def __init__(self, message: str = "the recommender was closed: load a new one with Recommender.load(...)") -> None:
        super().__init__(message)


class ForkedError(LinkedOutError, RuntimeError):
    """The recommender was loaded by the process that this one was forked from; load one here."""


class StorageError(LinkedOutError, OSError):
    """The data in `data_dir` cannot be read or written."""


class StorageFullError(StorageError):
    """There is no space left in `data_dir`; everything that was acknowledged before is still there."""


class StorageReadOnlyError(StorageError, PermissionError):
    """`data_dir` cannot be written to; ranking still works."""


class StorageBusyError(StorageError, TimeoutError):
    """Another process locks the database for longer than we wait."""


class StorageDamagedError(StorageError, ValueError):
    """The database was damaged while it was in use; it is set aside and rebuilt when it is opened again."""


class StorageVersionError(StorageError, ValueError):
    """`data_dir` was written by a newer version of the library, or by another program."""


class WrongKeyError(StorageError, ValueError):
    """The key is wrong, is missing for an encrypted store, or was given for one that is not encrypted."""


class PackError(LinkedOutError, ValueError):
    """A feature pack cannot be used: not a pack, damaged, too large, or of other shapes."""


class PackNotFoundError(PackError, FileNotFoundError):
    """There is no pack under the given path."""


class TokenSpaceError(PackError):
    """A feature pack was made by another model, so its tokens cannot be compared."""


class ClusterError(LinkedOutError, ConnectionError):
    """Ray cannot be started, or its cluster cannot be joined."""


class StalledError(LinkedOutError, TimeoutError):
    """Encoding many videos on a cluster came to a halt; what was written stays, and the same call continues there."""


class VideoError(LinkedOutError):
    """One video cannot be used. `code` is stable and meant for programs; the message is meant for people."""

    code = "unreadable"


class VideoNotFoundError(VideoError, FileNotFoundError):
    """The file does not exist, or the id is not in the store."""

    code = "not_found"


class VideoUnreadableError(VideoError, ValueError):
    """The file cannot be decoded as a video: it is empty, truncated, mislabeled, audio only, or a directory."""

    code = "unreadable"


class VideoTooLargeError(VideoError, ValueError):
    """The file exceeds a limit on bytes, pixels, length or decoding time."""

    code = "too_large"


class DecoderCrashedError(VideoError, RuntimeError):
    """The decoder process ended while decoding this file: it is damaged, malicious, or over a memory or CPU limit."""

    code = "decoder_crashed"


class DecoderTimeoutError(VideoError, TimeoutError):
    """The decoder process hung on this file and was killed."""

    code = "decoder_timeout"


class InvalidFramesError(VideoError, ValueError):
    """A frame array has the wrong type, shape or dtype; ``uint8 [F, H, W, 3]`` RGB is expected."""

    code = "invalid_frames"


class ConflictError(VideoError, ValueError):
    """One id stands for two different contents in one call."""

    code = "conflict"


class NotInTimeError(VideoError, TimeoutError):
    """A watched video was not encoded before the deadline of the call, so it did not count."""

    code = "pending"


def unknown(what: str, value: object, known: Iterable[str]) -> str:
    """Message for a name that is not among `known`, with the closest match where there is one."""
    options = list(known)
    close = difflib.get_close_matches(str(value), options, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {value!r}: expected one of {', '.join(map(repr, options))}.{hint}"
