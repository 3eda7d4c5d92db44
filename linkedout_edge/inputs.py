"""The inputs of `rank` and `encode`: `Video`, `Event`, and lists of them.

Two kinds of mistake are kept apart. A mistake in the *call* (a bare string for a list, a naive datetime, a number where
a video belongs) is raised here, because nothing sensible can be ranked. A problem of *one video* (missing file, wrong
array) is found later, when that video is needed, and becomes a `Failed` entry.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from linkedout_edge.errors import ArgumentError, ArgumentTypeError

_LIST_HINT = "pass a list, such as [{0}]"


class Video:
    """One video: a file, frames that the app has already decoded, or the id of a video that is in the store.

    Args:
        path: File to decode. It is not opened here.
        frames: uint8 ``[F, H, W, 3]`` RGB. The array is not copied: do not change it afterwards.
        id: Name of the video in rankings, history and store. Default: ``os.fspath(path)`` unchanged, or the content
            hash of the frames.
        title: Text that the model reads together with the frames.

    Raises:
        ArgumentError: Both `path` and `frames`, or none of `path`, `frames` and `id`, or an empty `id`.
        ArgumentTypeError: `path`, `id` or `title` is not a string.
    """

    __slots__ = ("_content", "_frames", "_id", "_name", "_path", "_says_only_its_id", "_title")

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        frames: Any = None,
        id: str | None = None,
        title: str | None = None,
    ) -> None:
        if path is not None and not isinstance(path, str | os.PathLike):
            hint = "; frames go into frames=" if isinstance(path, np.ndarray) else ""
            raise ArgumentTypeError(f"path must be a str or os.PathLike, not {type(path).__name__}{hint}")
        for name, value in (("id", id), ("title", title)):
            if value is not None and not isinstance(value, str):
                raise ArgumentTypeError(f"{name} must be a str, not {type(value).__name__}")
        if path is not None and frames is not None:
            raise ArgumentError("a Video has either a path or frames, not both: leave one out")
        if path is None and frames is None and id is None:
            raise ArgumentError("a Video needs a path, frames, or the id of a stored video")
        if id == "":
            raise ArgumentError("id must not be empty: leave it out to use the path")
        text = None
        if path is not None:
            text = os.fspath(path)
            if not isinstance(text, str):
                raise ArgumentTypeError("path must be a text path, not bytes: use os.fsdecode(path)")
        self._path: str | None = text
        self._frames = frames
        self._id = id
        self._name = text if id is None else id
        self._title = title
        self._says_only_its_id = frames is None and title is None and text in (None, self._name)
        self._content: str | None = None

    @property
    def path(self) -> str | None:
        """The file, as given."""
        return self._path

    @property
    def frames(self) -> Any:
        """The frames, as given and not yet checked, or None."""
        return self._frames

    @property
    def title(self) -> str | None:
        """The title, or None."""
        return self._title

    @property
    def id(self) -> str:
        """The given id, else the path unchanged, else the content hash of the frames (32 hex digits)."""
        return self.content if self._name is None else self._name

    @property
    def content(self) -> str:
        """Hash of the frames (BLAKE2b-128 of shape, dtype and bytes), computed once; "" without frames."""
        if self._content is None:
            self._content = "" if self._frames is None else _hash_frames(self._frames)
        return self._content

    @property
    def name(self) -> str:
        """Name of the video in sentences: its title, else the last part of its id."""
        return self.name_with(None)

    def name_with(self, known_title: str | None) -> str:
        """As `name`, but with the known title if the video has none itself."""
        for title in (self._title, known_title):
            if title and title.strip():
                return title.strip()
        identity = self.id
        return identity.replace("\\", "/").rstrip("/").rpartition("/")[2] or identity

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Video):
            return NotImplemented
        return self is other or (self.id == other.id and self._key() == other._key())

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        parts = [repr(self._path)] if self._path is not None else []
        if self._frames is not None:
            parts.append(f"frames=<{type(self._frames).__name__} {getattr(self._frames, 'shape', '')}>")
        parts += [f"{n}={v!r}" for n, v in (("id", self._id), ("title", self._title)) if v is not None]
        return f"Video({', '.join(parts)})"

    def _key(self) -> tuple[str, str | None, str | None, str]:
        return self.id, self._path, self._title, self.content


def _hash_frames(frames: Any) -> str:
    if not isinstance(frames, np.ndarray):  # cannot be ranked; still needs a name to fail under
        return f"<frames: {type(frames).__name__}>"
    digest = hashlib.blake2b(f"{frames.dtype.str} {frames.shape}\n".encode(), digest_size=16)
    if not frames.dtype.hasobject:
        digest.update(np.ascontiguousarray(frames).tobytes())
    return digest.hexdigest()


VideoLike: TypeAlias = "str | os.PathLike[str] | Video"


def as_video(value: object, where: str = "video", expected: str = "a str, path or Video") -> Video:
    """A str, path or `Video` as a `Video`; `where` names the argument in the message, which says what is `expected`.

    Raises:
        ArgumentTypeError: It is something else.
    """
    if isinstance(value, Video):
        return value
    if isinstance(value, str | os.PathLike):
        return Video(value)
    hint = ""
    if isinstance(value, np.ndarray):
        hint = "; wrap frames as Video(frames=...)"
    elif isinstance(value, bytes):
        hint = "; use os.fsdecode for a path in bytes"
    elif isinstance(value, Event):
        hint = "; an Event belongs in the history, pass its .video"
    raise ArgumentTypeError(f"{where} must be {expected}, not {type(value).__name__}{hint}")


@dataclass(frozen=True)
class Event:
    """One watched video, and how it was watched.

    Attributes:
        video: The `Video` (a str or path is turned into one).
        watched: Fraction that was watched, in [0, 1]. A low one is a skip.
        liked: True for a like, False for a dislike, None for neither.
        at: When, as an aware datetime; None if unknown. A time in the future (the clock was set back) counts as now.

    Raises:
        ArgumentError: `watched` is not in [0, 1], or `at` has no time zone.
        ArgumentTypeError: A field has the wrong type.
    """

    video: Video
    watched: float = 1.0
    liked: bool | None = None
    at: datetime | None = None

    # Written out because `video` accepts more types than it stores.
    def __init__(
        self,
        video: VideoLike,
        watched: float = 1.0,
        liked: bool | None = None,
        at: datetime | None = None,
    ) -> None:
        if isinstance(watched, bool | np.bool_) or not isinstance(watched, Real):
            raise ArgumentTypeError(f"watched must be a number from 0 to 1, not {type(watched).__name__}")
        fraction = float(watched)
        if not (math.isfinite(fraction) and 0.0 <= fraction <= 1.0):
            hint = "; it is a fraction, divide percent by 100" if 1.0 < fraction <= 100.0 else ""
            raise ArgumentError(f"watched must be from 0 to 1, not {fraction}{hint}")
        if liked is not None and not isinstance(liked, bool | np.bool_):
            raise ArgumentTypeError(f"liked must be True, False or None, not {type(liked).__name__}")
        if at is not None:
            if not isinstance(at, datetime):
                raise ArgumentTypeError(f"at must be a datetime with a time zone, not {type(at).__name__}")
            if at.utcoffset() is None:
                raise ArgumentError("at has no time zone: use datetime.now(timezone.utc), or at.astimezone()")
        object.__setattr__(self, "video", as_video(video))
        object.__setattr__(self, "watched", fraction)
        object.__setattr__(self, "liked", None if liked is None else bool(liked))
        object.__setattr__(self, "at", at)

    @property
    def id(self) -> str:
        """Id of the video."""
        return self.video.id


EventLike: TypeAlias = "str | os.PathLike[str] | Video | Event"


def check_list(values: object, where: str) -> Iterable[Any]:
    """`values`, if it can be a list of videos.

    Raises:
        ArgumentTypeError: A single video, a mapping, or nothing to iterate over.
    """
    if isinstance(values, list):  # nearly always
        return values
    if isinstance(values, str | bytes | os.PathLike | Video | Event):
        shown = "..." if isinstance(values, Video | Event) else repr(values)
        raise ArgumentTypeError(
            f"{where} must be a list, not a single {type(values).__name__}: {_LIST_HINT.format(shown)}"
        )
    if isinstance(values, Mapping | np.ndarray) and not (isinstance(values, np.ndarray) and values.ndim == 1):
        raise ArgumentTypeError(f"{where} must be a list of videos, not a {type(values).__name__}")
    if not isinstance(values, Iterable):
        raise ArgumentTypeError(f"{where} must be a list of videos, not {type(values).__name__}")
    return values


def as_videos(values: object, where: str = "videos") -> list[Video]:
    """A list of str, paths and `Video`s as `Video`s. Raises as `check_list` and `as_video` do."""
    return [as_video(v, f"{where}[{i}]") for i, v in enumerate(check_list(values, where))]


def as_events(values: object, where: str = "history") -> list[Event]:
    """A list of str, paths, `Video`s and `Event`s as `Event`s. Raises as `check_list` and `as_video` do."""
    items = check_list(values, where)
    expected = "a str, path, Video or Event"
    return [v if isinstance(v, Event) else Event(as_video(v, f"{where}[{i}]", expected)) for i, v in enumerate(items)]
