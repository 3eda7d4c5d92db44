"""What one call asks for: which videos are known, which must be encoded, and which contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from linkedout_edge.encode.encoder import Effort, Job
from linkedout_edge.errors import ConflictError, VideoError, VideoNotFoundError
from linkedout_edge.inputs import Video
from linkedout_edge.results import Failed, Role
from linkedout_edge.store import Fingerprint, Tokens, file_is_unchanged, fingerprint


@dataclass
class _ResolvedVideo:
    """The content that an id stands for in this call."""

    video: Video
    from_store: bool
    """Named by its id alone, and known: it means what is stored."""
    title: str | None
    fingerprint: Fingerprint | None = None
    roles: dict[Role, None] = field(default_factory=dict)


class RequestPlan:
    """Takes the videos of one call in, one by one.

    Args:
        store: What is known.
        look_at_files: Whether a known id's file is compared with what is known (`encode`), or not looked at (`rank`).
        effort: How closely to look at what is to be encoded. With ``full`` and `look_at_files`, what was only looked at
            quickly is to be encoded again.
    """

    def __init__(self, store: Tokens, *, look_at_files: bool = False, effort: Effort = "full") -> None:
        self._store = store
        self._look = look_at_files
        self.effort = effort
        self._videos: dict[str, _ResolvedVideo] = {}
        self._failed: dict[tuple[str, Role, str], Failed] = {}
        self.unusable: set[str] = set()
        """Ids that could not be encoded, even if an older content of theirs is stored."""

    @property
    def failed(self) -> list[Failed]:
        """What could not be used so far, each (id, role, code) once."""
        return list(self._failed.values())

    @property
    def ids(self) -> list[str]:
        """Ids that were taken in."""
        return list(self._videos)

    def add(self, video: Video, role: Role) -> bool:
        """Take a video in; False if it contradicts an earlier one of the same id (noted in `failed`)."""
        id = video.id
        resolved = self._videos.get(id)
        if resolved is None:
            self._videos[id] = _ResolvedVideo(video, self._means_stored(video), video.title, roles={role: None})
            return True
        try:
            self._reconcile(resolved, video)
        except VideoError as e:
            self.fail(id, role, e)
            return False
        resolved.roles[role] = None
        return True

    def needs_none(self, videos: Sequence[Video]) -> bool:
        """Whether all are stored and named by nothing but their ids: nothing is to be encoded or reconciled."""
        ids = [v.id for v in videos if v._says_only_its_id]
        if self._look or len(ids) < len(videos):
            return False
        with self._store.lock:
            return bool(self._store.find(ids).min(initial=0) >= 0)

    def jobs(self) -> list[Job]:
        """What has to be encoded now."""
        return [Job(i, self._titled(v), self.effort) for i, v in self._videos.items() if self._must_encode(i, v)]

    def refinements(self) -> list[Job]:
        """Of what has not to be encoded now, a full look at each that was only looked at quickly."""
        quick = self._store.quick() & self._videos.keys()
        resolved = {i: v for i, v in self._videos.items() if i in quick and v.video.path is not None}
        return [Job(i, self._titled(v), refines=True) for i, v in resolved.items() if not self._must_encode(i, v)]

    def fail(self, id: str, role: Role, error: VideoError) -> None:
        """Note that a video could not be used."""
        self._failed.setdefault((id, role, error.code), Failed(id, role, error.code, str(error)))

    def fail_everywhere(self, id: str, error: VideoError) -> None:
        """Note it for each role in which the id was taken in, and that it is not to be ranked."""
        self.unusable.add(id)
        for role in self._videos[id].roles:
            self.fail(id, role, error)

    def _means_stored(self, video: Video) -> bool:
        """A plain path means the known id, if the store has it; `encode` looks at the file all the same."""
        return _named_by_id(video) and not self._look and video.id in self._store

    def _reconcile(self, resolved: _ResolvedVideo, video: Video) -> None:
        """Check a later video against what its id was resolved to.

        Raises:
            ConflictError: Its content or title is another one.
            VideoError: Its content was needed for the comparison and cannot be read.
        """
        if video.title is not None:
            if resolved.title is not None and resolved.title != video.title:
                raise ConflictError("its id stands for two titles in this call: give each its own id=")
            resolved.title = video.title
        if video.frames is None and (
            video.path is None or self._means_stored(video) or video.path == resolved.video.path
        ):
            return
        if resolved.from_store:
            stored = self._store.fingerprint(video.id)
            if video.frames is not None and stored is not None and stored.digest != fingerprint(video).digest:
                raise _two_contents()
            return
        if resolved.video.frames is None and resolved.video.path is None:  # so far only named
            resolved.video = video
            return
        try:
            mine = fingerprint(video).digest
        except VideoNotFoundError:
            if video.path == video.id:  # no file of that name: it means the video of that id
                return
            raise
        try:
            resolved.fingerprint = resolved.fingerprint or fingerprint(resolved.video)
        except VideoError as e:
            if isinstance(e, VideoNotFoundError) and resolved.video.path == resolved.video.id:
                resolved.video = video
                return
            raise _two_contents() from None
        if resolved.fingerprint.digest != mine:
            raise _two_contents()

    def _titled(self, resolved: _ResolvedVideo) -> Video:
        v = resolved.video
        return v if v.title == resolved.title else Video(v.path, frames=v.frames, id=v.id, title=resolved.title)

    def _must_encode(self, id: str, resolved: _ResolvedVideo) -> bool:
        if resolved.from_store and resolved.title is None:  # nearly all of them
            return id not in self._store
        stored = self._store.fingerprint(id)
        if stored is None:
            return True
        video = resolved.video
        if resolved.title is not None and resolved.title != stored.title and (video.path or video.frames is not None):
            return True
        if video.frames is not None:
            return stored.digest != video.content
        if resolved.fingerprint is not None:
            return stored.digest != resolved.fingerprint.digest
        if not self._look or video.path is None:
            return False
        better = stored.is_quick and self.effort == "full"
        if not better and file_is_unchanged(video, stored):
            return False
        try:
            now = fingerprint(video)
        except VideoError:  # gone, or not readable at present: what is known of it stays useful
            return False
        if better or now.digest != stored.digest:
            return True
        self._store.set_fingerprint(id, now._replace(title=stored.title, content=stored.content))
        return False


def _named_by_id(video: Video) -> bool:
    """Whether it may mean what is stored: it has no frames, and no path but its id."""
    return video.frames is None and video.path in (None, video.id)


def _two_contents() -> ConflictError:
    return ConflictError("its id stands for two different contents in this call: give each its own id=")
