"""Keeps a store in sync with folders of videos: new, changed, moved and removed files.

Videos are found by what their first bytes say, not by their names. A video's id is its absolute path.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from linkedout_edge.decode.files import STILLS, sniff
from linkedout_edge.encode.encoder import Effort
from linkedout_edge.errors import VideoError
from linkedout_edge.inputs import Video
from linkedout_edge.store import fingerprint

if TYPE_CHECKING:
    from linkedout_edge.recommender import Recommender
    from linkedout_edge.results import EncodeResult

CHUNK = 64
"""Videos between two reports: as many as the store writes at a time."""
HEAD = 4096
"""Bytes that tell a video from anything else; decoders look closer."""

SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv"}
"""A file of such a name that is no video is worth a word."""
NAMED = 5
"""How many such files are named."""

Status = Literal["encoded", "refined", "unchanged", "moved", "failed", "forgotten"]
Advance = Callable[[Status, int, int], None]
"""Called after each video with what its pass is for, ``encoded`` or ``refined``, how many are done, and of how many."""


def _silent(what: Status, done: int, total: int) -> None:
    pass


class Outcome(NamedTuple):
    """What became of one file.

    Attributes:
        id: Its absolute path.
        status: ``encoded``: looked at, quickly or well. ``refined``: looked at well after a quick look. ``unchanged``:
            known. ``moved``: known under another path, which is not there any more. ``failed``. ``forgotten``: gone for
            long enough.
        quick: Whether what is stored is of a quick look.
        code: Of a failure; see `Failed`.
        reason: Of a failure; of a moved one, where it was.
    """

    id: str
    status: Status
    quick: bool = False
    code: str = ""
    reason: str = ""


def is_video(path: str) -> bool:
    """Whether the first bytes of a file are a video's. Photos are none; what cannot be read is none."""
    try:
        if not Path(path).is_file():  # a pipe would block
            return False
        with Path(path).open("rb") as file:
            return sniff(file.read(HEAD), path) not in STILLS
    except (OSError, ValueError, VideoError):
        return False


def find_videos(folder: str) -> list[str]:
    """Absolute paths of the videos in a folder and the folders in it, sorted; what is hidden is left out.

    Folders that cannot be read, and files that are videos only by name, are left out as well, with a warning.
    """
    found: list[str] = []
    other: list[str] = []
    top = os.path.abspath(folder)  # noqa: PTH100 (links stay as they are)
    for path, folders, names in os.walk(top, onerror=_unreadable):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(n for n in names if not n.startswith(".")):
            file = str(Path(path, name))
            if is_video(file):
                found.append(file)
            elif Path(name).suffix.lower() in SUFFIXES:
                other.append(file)
    if other:
        more = f" and {len(other) - NAMED} more" if len(other) > NAMED else ""
        _say(f"warning: left out, as no videos or not readable: {', '.join(other[:NAMED])}{more}")
    return found


def _unreadable(error: OSError) -> None:
    _say(f"warning: {error.filename} cannot be read ({error.strerror}): the videos in it are left out")


@functools.cache  # once, however often a folder is looked through
def _say(warning: str) -> None:
    from linkedout_edge.cli.output import note

    note(warning)  # not logged: logs name nothing


class Library:
    """Brings a recommender's store in step with files.

    Args:
        rec: Its store takes the tokens.
        effort: ``auto`` looks at all quickly first, and then well at what that was new to.
        forget_after: Seconds after which a file that is gone is forgotten, counted from when that was noticed.
    """

    def __init__(self, rec: Recommender, effort: Effort = "auto", forget_after: float = 3600.0) -> None:
        self._rec = rec
        self._effort = effort
        self._forget_after = forget_after
        self._gone_since: dict[str, float] = {}

    def encode(self, paths: Sequence[str], advance: Advance = _silent) -> Iterator[Outcome]:
        """Encode files in order. Yields one outcome for each as soon as it is durable; with ``auto``, two for some.

        Args:
            paths: Absolute.
            advance: Called for each video, earlier than the outcomes, which come in groups.

        Raises:
            BackendError, StorageError, ClosedError: As `Recommender.encode`.
        """
        moved = dict(self._moved(paths))
        for new, old in moved.items():
            yield Outcome(new, "moved", new in self._rec._tokens.quick(), reason=old)
        first: Effort = "full" if self._effort == "full" else "quick"
        again: list[str] = []
        for outcome in self._encode([p for p in paths if p not in moved], first, "encoded", advance):
            if outcome.quick:
                again.append(outcome.id)
            yield outcome
        if self._effort == "auto":
            again += [p for p in moved if p in self._rec._tokens.quick()]
            yield from (o for o in self._encode(again, "full", "refined", advance) if o.status != "unchanged")

    def forget_gone(self, folders: Iterable[str]) -> Iterator[Outcome]:
        """Forget stored videos of these folders whose files have been gone for long enough.

        A folder that is itself gone, or empty, is one whose disk was unplugged: nothing of it is forgotten. Neither is
        what the history holds.
        """
        roots = [str(Path(f).absolute()) for f in folders]
        alive = tuple(r.rstrip(os.sep) + os.sep for r in roots if _has_something(r))
        held = {e.id for e in self._rec.history}
        now = time.monotonic()
        missing = [i for i in self._rec.store if i.startswith(alive) and i not in held and not os.path.lexists(i)]
        self._gone_since = {i: self._gone_since.get(i, now) for i in missing}
        due = [i for i in missing if now - self._gone_since[i] >= self._forget_after]
        if due:
            self._rec.store.remove(due)
        for i in due:
            yield Outcome(i, "forgotten")

    def _moved(self, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
        """New paths of known contents, which get the stored tokens, and their old paths."""
        store = self._rec._tokens
        new = [p for p in dict.fromkeys(paths) if p not in store]
        if not new:
            return
        held = {e.id for e in self._rec.history}
        gone: dict[str, str] = {}
        for i in store.ids():
            known = store.fingerprint(i) if Path(i).is_absolute() and not os.path.lexists(i) else None
            if known is not None and known.title is None:
                gone[known.digest] = i
        for path in new if gone else []:
            try:
                found = fingerprint(Video(path))
            except VideoError:  # it is reported when it is encoded
                continue
            old = gone.pop(found.digest, None)
            if old is not None and store.copy(old, path, found):
                if old not in held:
                    store.remove([old])
                yield path, old

    def _encode(self, paths: Sequence[str], effort: Effort, status: Status, advance: Advance) -> Iterator[Outcome]:
        paths = list(dict.fromkeys(paths))
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]

            def progress(done: int, total: int, before: int = start) -> None:
                advance(status, before + done, len(paths))

            yield from _outcomes(chunk, self._rec.encode(chunk, progress, effort=effort), status)


def _outcomes(paths: Sequence[str], result: EncodeResult, status: Status) -> Iterator[Outcome]:
    quick, encoded = set(result.quick), set(result.encoded)
    failed = {f.id: f for f in result.failed}
    for path in paths:
        if path in failed:
            yield Outcome(path, "failed", False, failed[path].code, failed[path].reason)
        else:
            yield Outcome(path, status if path in encoded else "unchanged", path in quick)


def _has_something(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(True for _ in entries)
    except OSError:
        return False
