"""What callers get back: `Ranking`, `Ranked`, the `Explanation` of a place, `Failed`, `EncodeResult`, `Info`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.errors import ArgumentError
from linkedout_edge.inputs import Event
from linkedout_edge.rank.taste import USUAL, Taste, dequantize

Role: TypeAlias = Literal["candidate", "history", "video"]
Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Failed:
    """One video that could not be used, and why; it never spoils the rest.

    Attributes:
        id: Its id.
        role: Where it stood: ``candidate``, ``history``, or ``video`` in `encode`.
        code: Stable, for programs: ``not_found``, ``unreadable``, ``too_large``, ``invalid_frames``, ``conflict``,
            ``decoder_crashed``, ``decoder_timeout``, ``pending``.
        reason: For people.
    """

    id: str
    role: Role
    code: str
    reason: str


@dataclass(frozen=True)
class Timing:
    """Seconds of wall time that a call spent, by part; the rest of `total` is looking up and sorting."""

    decode: float = 0.0
    encode: float = 0.0
    user: float = 0.0
    score: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class EncodeResult:
    """What `Recommender.encode` did.

    Attributes:
        encoded: Ids that were encoded.
        unchanged: Ids that were in the store already.
        failed: What could not be used, and why.
        quick: Ids that still have only a quick look, encoded now or before.
    """

    encoded: tuple[str, ...]
    unchanged: tuple[str, ...]
    failed: tuple[Failed, ...]
    quick: tuple[str, ...] = ()


@dataclass(frozen=True)
class Info:
    """What runs, and where.

    Attributes:
        bundle: Name of the bundle.
        precision: Which of its precisions.
        token_space: Tokens are interchangeable within one.
        backend: Inference library.
        devices: Graph → what really runs it, whatever was asked for.
        threads: Threads on the CPU.
        decoder: What decodes files.
        frames: Frames that the model takes of a video, at most.
        frame_size: Side of the square that each is made, in pixels.
        layer_names: Names of the L layers.
        versions: Library → version.
        agreement: Measure → value against fp32, from the manifest.
        notices: What was worth saying about devices: what could not be used and why, what ``auto`` measured, which
            compiled engines were built again.
    """

    bundle: str
    precision: str
    token_space: str
    backend: str
    devices: dict[str, str]
    threads: int
    decoder: str
    frames: int
    frame_size: int
    layer_names: tuple[str, ...]
    versions: dict[str, str]
    agreement: dict[str, float]
    notices: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a video stands where it stands, exactly.

    Attributes:
        id: The ranked video.
        matrix: float32 ``[N, L]``: what each watched video adds to the score by each layer, compared with the average
            video, which has the score 0. With `prior` and `explored` it sums to the score.
        history: Ids of the N watched videos, oldest first.
        layer_names: L names.
        sentence: The strongest entries in words.
        score: The score that is explained.
        prior: The part of the score that the app's prior added; 0 without one.
        explored: The part that ``explore`` added, because little is known of such videos; 0 without.
    """

    id: str
    matrix: Floats
    history: tuple[str, ...]
    layer_names: tuple[str, ...]
    sentence: str
    score: float
    prior: float = 0.0
    explored: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "id": self.id,
            "matrix": self.matrix.tolist(),
            "history": list(self.history),
            "layer_names": list(self.layer_names),
            "sentence": self.sentence,
            "score": self.score,
            "prior": self.prior,
            "explored": self.explored,
        }


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is needed to explain a ranking; references to arrays, no work until an explanation is asked for.

    Attributes:
        events: The N events that counted, oldest first.
        user: What they say.
        layer_names: L names.
        candidate: Position → tokens int8 ``[L, M, D]`` and scales float32 ``[L, M]`` as they were scored.
        name: What to call a watched video.
        bonus: float32 ``[C]``: what the prior added to each score; None without one.
        explored: float32 ``[C]``: what optimism added to each; None without.
        scored: Positions below it were scored by content, the others are pending; None: all were.
    """

    events: Sequence[Event]
    user: Taste
    layer_names: tuple[str, ...]
    candidate: Callable[[int], tuple[NDArray[np.int8], Floats]]
    name: Callable[[Event], str]
    bonus: Floats | None = None
    explored: Floats | None = None
    scored: int | None = None

    def explain(self, position: int, id: str, score: float) -> Explanation:
        """Split the score of the candidate at `position` (in scoring order)."""
        prior = 0.0 if self.bonus is None else float(self.bonus[position])
        names = tuple(e.id for e in self.events)
        matrix = np.zeros((len(self.events), len(self.layer_names)), np.float32)
        if self.scored is not None and position >= self.scored:
            return Explanation(id, matrix, names, self.layer_names, _PENDING, score, prior)
        if len(self.user):
            matrix[:] = self.user.contributions(dequantize(*self.candidate(position)))
        explored = 0.0 if self.explored is None else float(self.explored[position])
        return Explanation(id, matrix, names, self.layer_names, self._sentence(matrix, prior), score, prior, explored)

    def _sentence(self, matrix: Floats, prior: float) -> str:
        if not self.events:
            return _prior_alone(prior) if prior else _NOTHING_KNOWN
        return _sentence(self.events, matrix, self.name)


_PENDING = "It was not looked at before the deadline, so it stands behind what was."
_NOTHING_KNOWN = "Nothing is known of your taste yet, so the list begins with videos that differ from each other."


def _prior_alone(prior: float) -> str:
    return f"Nothing was watched yet; the app's prior ranks it {'above' if prior > 0 else 'below'} the average."


def _sentence(events: Sequence[Event], matrix: Floats, name: Callable[[Event], str]) -> str:
    """One plain sentence: the watched videos that add most to the score, in its direction."""
    per_video: dict[str, float] = {}
    latest: dict[str, Event] = {}
    for event, row in zip(events, matrix.sum(1, dtype=np.float64), strict=True):
        per_video[event.id] = per_video.get(event.id, 0.0) + float(row)
        latest[event.id] = event
    total = sum(per_video.values())
    sign = 1.0 if total >= 0 else -1.0
    strongest = sorted(((sign * v, k) for k, v in per_video.items() if sign * v > 1e-9), key=lambda x: -x[0])[:2]
    if not strongest:
        return "Nothing that you watched speaks for or against it, so it keeps its place in the list."
    named = [strongest[0], *(s for s in strongest[1:] if s[0] >= 0.5 * strongest[0][0])]
    causes: dict[str, list[str]] = {}
    for _, identity in named:
        verb, cause = _cause(latest[identity], sign)
        causes.setdefault(f"{cause}|{verb}", []).append(f"“{name(latest[identity])}”")
    phrases = []
    for key, names in causes.items():
        cause, _, verb = key.partition("|")
        listed = " and ".join(names)
        phrases.append(f"you {verb} {listed}" if cause == "" else f"it {cause} {listed}, which you {verb}")
    start = "Recommended" if sign > 0 else "Ranked low"
    return f"{start} because {', and because '.join(phrases)}."


def _cause(event: Event, sign: float) -> tuple[str, str]:
    """What the user did with a video, and how that speaks for (+) or against (-) the ranked one."""
    if event.liked is False:
        verb, dislike = "disliked", True
    elif event.liked:
        verb, dislike = "liked", False
    elif event.watched < USUAL:
        verb, dislike = "skipped", True
    else:
        verb, dislike = "watched", False
    if sign > 0:
        return verb, "is unlike" if dislike else ""
    return verb, "resembles" if dislike else "is unlike"


@dataclass(frozen=True)
class Ranked:
    """One place of a ranking.

    Attributes:
        rank: From 1, the best.
        id: The video.
        score: Its score, in standard deviations of the calibration set.
        layers: What each of the L layers contributes; they sum to the score, less what prior and ``explore`` added.
        source: ``content``: scored by what is in it (plus the prior, if one was given). ``cold_start``: nothing is
            known to be liked yet, so the list begins with videos that differ from each other and from what was skipped.
            ``prior``: the same, but the prior alone decided. ``quick``: as ``content``, by a quick look, which a full
            one may still replace. ``pending``: not encoded before the deadline; it stands behind all others, its
            `layers` are 0 and its score is the prior's part alone.
    """

    rank: int
    id: str
    score: float
    layers: tuple[float, ...]
    source: str
    _explain: Callable[[], Explanation] | None = field(default=None, compare=False, repr=False)

    def explain(self) -> Explanation:
        """Why it stands here.

        Raises:
            ArgumentError: The tokens that were scored are gone: the video left the store or changed since.
        """
        if self._explain is None:
            raise ArgumentError("this Ranked was not made by a ranking: explain ranking[i] instead")
        return self._explain()

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickles travel without the arrays behind an explanation.
        return Ranked, (self.rank, self.id, self.score, self.layers, self.source)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "rank": self.rank,
            "id": self.id,
            "score": self.score,
            "layers": list(self.layers),
            "source": self.source,
        }


class Ranking(Sequence[Ranked]):
    """Videos, best first. `Ranked` objects are made when they are looked at; a slice keeps its ranks.

    Args:
        ids: C ids, in scoring order.
        scores: float32 ``[C]``.
        layers: float32 ``[K, L]``, best first.
        order: int64 ``[K]``: positions in `ids`, best first.
        failed: Videos that could not be used.
        timing: Where the time went.
        evidence: What explanations are made from.
        sources: Source of each of the C, or one for all.
    """

    def __init__(
        self,
        ids: Sequence[str],
        scores: Floats,
        layers: Floats,
        order: NDArray[np.int64],
        failed: Sequence[Failed] = (),
        timing: Timing | None = None,
        evidence: Evidence | None = None,
        sources: str | Sequence[str] = "content",
    ) -> None:
        self._ids = ids
        self._scores = scores
        self._layers = layers
        self._order = order
        self._failed = tuple(failed)
        self._timing = timing or Timing()
        self._evidence = evidence
        self._sources = sources
        self._places = range(len(order))

    def __getstate__(self) -> dict[str, Any]:
        # As with `Ranked`: pickles travel without the arrays behind explanations.
        return {**vars(self), "_evidence": None}

    @property
    def failed(self) -> tuple[Failed, ...]:
        """What could not be used, and why."""
        return self._failed

    @property
    def timing(self) -> Timing:
        """Seconds by part."""
        return self._timing

    @property
    def ids(self) -> list[str]:
        """The ids, best first."""
        ids = self._ids
        return [ids[at] for at in self._positions().tolist()]

    @property
    def scores(self) -> Floats:
        """The scores, best first: float32 ``[K]``, a copy."""
        return np.asarray(self._scores[self._positions()])

    def _positions(self) -> NDArray[np.int64]:
        places = self._places
        if places.step > 0:
            return self._order[places.start : places.stop : places.step]
        return self._order[np.asarray(places, np.int64)]

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Ranked: ...
    @overload
    def __getitem__(self, index: slice) -> Ranking: ...
    def __getitem__(self, index: int | slice) -> Ranked | Ranking:
        if isinstance(index, slice):
            part = Ranking(
                self._ids,
                self._scores,
                self._layers,
                self._order,
                self._failed,
                self._timing,
                self._evidence,
                self._sources,
            )
            part._places = self._places[index]
            return part
        place = self._places[operator.index(index)]
        at = int(self._order[place])
        identity, score, evidence = self._ids[at], float(self._scores[at]), self._evidence
        explain = None if evidence is None else lambda: evidence.explain(at, identity, score)
        source = self._sources if isinstance(self._sources, str) else self._sources[at]
        return Ranked(place + 1, identity, score, tuple(self._layers[place].tolist()), source, explain)

    def __iter__(self) -> Iterator[Ranked]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        failed = f", {len(self._failed)} failed" if self._failed else ""
        return f"<Ranking of {len(self)}{failed}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: ``ranked``, ``failed``, ``timing``."""
        return {
            "ranked": [r.to_dict() for r in self],
            "failed": [asdict(f) for f in self._failed],
            "timing": asdict(self._timing),
        }


def best_first(scores: Floats, top_k: int | None = None) -> NDArray[np.int64]:
    """Positions of the `top_k` best (of all, if None), best first, ties in input order: int64 ``[K]``."""
    count = len(scores) if top_k is None else min(top_k, len(scores))
    if count == len(scores):
        return np.argsort(-scores, kind="stable").astype(np.int64, copy=False)
    if count == 1:
        return np.array([np.argmax(scores)], np.int64)
    threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
    kept = np.flatnonzero(scores >= threshold)
    return kept[np.argsort(-scores[kept], kind="stable")[:count]].astype(np.int64, copy=False)
