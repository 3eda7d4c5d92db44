"""What one call of `Recommender.rank` asks for: its options, and which videos it is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from linkedout_edge.encode.encoder import Effort, Job
from linkedout_edge.encode.request import RequestPlan
from linkedout_edge.errors import ArgumentError
from linkedout_edge.inputs import Event, EventLike, Video, VideoLike, as_events, as_video, check_list
from linkedout_edge.options import at_least_0, flag, fraction, positive
from linkedout_edge.rank.memo import EncodedHistory, find_history, find_list, keep_list
from linkedout_edge.rank.prior import Prior, PriorLike, Priors
from linkedout_edge.rank.taste import MAX_EVENTS
from linkedout_edge.store import Derived, Selection, Tokens, not_stored


@dataclass(frozen=True, kw_only=True, eq=False)
class RankOptions:
    """How `Recommender.rank` makes its list. The keywords of `rank` and `arank` are the same.

    Attributes:
        top_k: Return only this many.
        diversity: From 0 (by score alone) to 1: how much the best 200 are reordered so that neighbors differ.
        deadline_ms: Answer after about this many milliseconds; see `rank`.
        exclude_watched: Leave out candidates that are in the history.
        fold_duplicates: Keep only the best placed of near-identical videos.
        prior: What you know besides content: a mapping from id to number, numbers aligned with the candidates, or a
            `Prior` with a weight; kept as a `Prior`.
        explore: From 0 (off) to 1: how much it counts that little is known of a video.

    Raises:
        ArgumentError, ArgumentTypeError: A value that makes no sense.
    """

    top_k: int | None = None
    diversity: float = 0.0
    deadline_ms: float | None = None
    exclude_watched: bool = False
    fold_duplicates: bool = False
    prior: PriorLike | None = None
    explore: float = 0.0

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "top_k": None if self.top_k is None else positive("top_k", self.top_k),
            "diversity": fraction("diversity", self.diversity),
            "exclude_watched": flag("exclude_watched", self.exclude_watched),
            "fold_duplicates": flag("fold_duplicates", self.fold_duplicates),
            "explore": fraction("explore", self.explore),
        }
        if self.deadline_ms is not None:
            checked["deadline_ms"] = at_least_0("deadline_ms", self.deadline_ms, "milliseconds")
        if self.prior is not None and not isinstance(self.prior, Prior):
            checked["prior"] = Prior(self.prior)  # its numbers are checked with each ranking: a mapping may change
        vars(self).update(checked)

    def is_default(self) -> bool:
        """Whether all values are the defaults."""
        return vars(self) == vars(RankOptions())


@dataclass
class Request:
    """The videos of one call.

    Attributes:
        plan: The videos that it names, and which of them failed.
        jobs: What has to be encoded for it.
        given: The history as the caller passed it.
        events: What of it counts, oldest first.
        known: The same history, if it was fitted lately.
        candidates: Ids, each once, without those that failed already; or a `Selection` of what is stored, which, if
            there are `jobs`, is the caller's own: nothing of it is pinned or looked up again.
        priors: What the app knows besides content.
        pending: Candidates that were not encoded in time; they are not among `candidates`.
    """

    plan: RequestPlan
    jobs: list[Job]
    given: list[Any]
    events: list[Event]
    known: EncodedHistory | None
    candidates: list[str] | Selection
    priors: Priors | None
    pending: list[str] = field(default_factory=list)

    def ids(self) -> list[str]:
        """Ids that must stay stored until the ranking is made."""
        named = [] if isinstance(self.candidates, Selection) else self.candidates
        return list(dict.fromkeys([*self.plan.ids, *(e.id for e in self.events), *named]))

    def leave_out(self, late: set[str]) -> None:
        """Go on without what was not encoded in time."""
        self.events = [e for e in self.events if e.id not in late]
        if late and not isinstance(self.candidates, Selection):
            self.pending = [i for i in self.candidates if i in late]
            self.candidates = [i for i in self.candidates if i not in late]


def resolve(
    store: Tokens,
    derived: Derived,
    history: Iterable[EventLike],
    candidates: Iterable[VideoLike] | Selection | None,
    options: RankOptions,
    effort: Effort,
) -> Request:
    """Look up what a call names.

    Args:
        store: What is encoded.
        derived: Its own, from before anything was read.
        history: As of `Recommender.rank`.
        candidates: The same.
        options: The same.
        effort: How closely to look at what is new.

    Raises:
        ArgumentError, ArgumentTypeError: Arguments that make no sense.
    """
    priors = None if options.prior is None else Priors(options.prior)
    given: list[Any] = list(check_list(history, "history"))
    named: list[Any] | None = None
    if candidates is not None and not isinstance(candidates, Selection):
        named = list(check_list(candidates, "candidates"))
    plan = RequestPlan(store, effort=effort)
    listed = None if named is None else find_list(derived, named)
    # Named by nothing but str, no candidate can contradict a watched video.
    only_ids = listed is not None or named is None or {str}.issuperset(map(type, named))
    known = find_history(derived, given, store.revision) if only_ids else None
    every = as_events(given) if known is None else known.events
    events = every[-MAX_EVENTS:]
    if known is None and not (only_ids and plan.needs_none([e.video for e in events])):
        events = [e for e in events if plan.add(e.video, "history")]
    watched: set[str] = set()
    if options.exclude_watched or candidates is None:  # what was watched too long ago to count, too
        watched = {e.id for e in (every if len(every) == len(given) else as_events(given))}
    chosen: list[str] | Selection
    aligned: Sequence[str] | None = named  # what a prior that is a sequence belongs to
    if isinstance(candidates, Selection):
        chosen, aligned = _of_handle(store, candidates, watched, plan), candidates.ids
    elif named is None:
        chosen = [i for i in store.ids() if i not in watched]
    elif only_ids:
        chosen = listed if listed is not None and not watched else _of_ids(store, derived, named, watched, plan)
    else:
        videos = [as_video(c, f"candidates[{i}]") for i, c in enumerate(named)]
        chosen = list(dict.fromkeys(v.id for v in videos if v.id not in watched and plan.add(v, "candidate")))
        aligned = [v.id for v in videos]
    if priors:
        priors.align(aligned)
    jobs = plan.jobs()
    if jobs and isinstance(chosen, Selection) and chosen is not candidates:
        chosen = chosen.ids  # they alone: encoding takes a while, and rows may move meanwhile
    return Request(plan, jobs, given, events, known, chosen, priors)


def _of_handle(store: Tokens, handle: Selection, watched: set[str], plan: RequestPlan) -> list[str] | Selection:
    if handle._tokens is not store:
        raise ArgumentError("the selection was made by another recommender's store: call rec.store.select again")
    for missing in handle.missing:
        plan.fail(missing, "candidate", not_stored())
    return [i for i in handle.ids if i not in watched] if watched else handle


def _of_ids(
    store: Tokens, derived: Derived, given: list[str], watched: set[str], plan: RequestPlan
) -> list[str] | Selection:
    """The usual case, without an object for every candidate; what is all stored is as good as a handle."""
    ids = [i for i in dict.fromkeys(given) if i not in watched] if watched else list(dict.fromkeys(given))
    with store.lock:
        rows = store.find(ids)
        selection = Selection(store, ids, rows)
    if ids and rows.min() < 0:
        return [i for i, row in zip(ids, rows.tolist(), strict=True) if row >= 0 or plan.add(Video(i), "candidate")]
    if not watched:
        keep_list(derived, given, selection)
    return selection
