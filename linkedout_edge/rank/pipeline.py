"""The path of a ranking, from what a caller passes to a `Ranking`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import numpy as np

from linkedout_edge.encode.encoder import Effort, Job, Timings
from linkedout_edge.encode.request import RequestPlan
from linkedout_edge.encode.service import EncodeService
from linkedout_edge.errors import NotInTimeError
from linkedout_edge.history import History
from linkedout_edge.inputs import EventLike, VideoLike, as_events, check_list
from linkedout_edge.rank.memo import find_history
from linkedout_edge.rank.prior import Priors
from linkedout_edge.rank.profile import TasteSummary
from linkedout_edge.rank.ranker import Ranker
from linkedout_edge.rank.request import RankOptions, Request, resolve
from linkedout_edge.rank.taste import MAX_EVENTS
from linkedout_edge.results import Ranking, Timing
from linkedout_edge.store import Selection, Tokens


class Pipeline:
    """Ranks: looks up what is named, has the rest encoded, fits the user, scores and orders.

    Args:
        store: What is encoded.
        history: What was watched.
        encoding: Encodes what is not stored yet.
        ranker: Scores and orders what is stored.
    """

    def __init__(self, store: Tokens, history: History, encoding: EncodeService, ranker: Ranker) -> None:
        self._store = store
        self._history = history
        self._encoding = encoding
        self._ranker = ranker

    def rank(
        self,
        history: Iterable[EventLike] | None,
        candidates: Iterable[VideoLike] | Selection | None,
        options: RankOptions,
    ) -> Ranking:
        """See `Recommender.rank`."""
        start = time.perf_counter()
        until = None if options.deadline_ms is None else time.monotonic() + options.deadline_ms / 1000
        derived = self._store.derived  # first: what is forgotten from here on is not remembered
        self._store.refresh()
        looks_on = until is not None and not self._history.is_incognito  # there, nothing runs in the background
        effort: Effort = "full" if until is None else "auto" if looks_on else "quick"
        watched = self._history if history is None else history
        request = resolve(self._store, derived, watched, candidates, options, effort)
        timings, jobs = Timings(), request.jobs
        with ExitStack() as while_ranking:
            if jobs:
                while_ranking.enter_context(self._store.pinned(request.ids()))
                self._encode(request, until, timings)
            encoded_at = time.perf_counter()
            encoded = request.known
            if encoded is None or jobs:
                whole = not jobs and len(request.events) == min(len(request.given), MAX_EVENTS)
                given = request.given if whole else None
                encoded = self._ranker.encode_history(request.events, request.plan, derived, given)
            fitted_at = time.perf_counter()
            quick = self._store.quick()
            scored = self._ranker.rank(encoded, request, options, derived)
        end = time.perf_counter()
        timing = Timing(timings.decode, timings.encode, fitted_at - encoded_at, end - fitted_at, end - start)
        ids, scores, layers, order, evidence, sources = scored
        if quick:
            sources = _with_quick(sources, ids, quick)
        return Ranking(ids, scores, layers, order, request.plan.failed, timing, evidence, sources)

    def taste(self, history: Iterable[EventLike] | None) -> TasteSummary:
        """See `Recommender.taste`."""
        derived = self._store.derived
        self._store.refresh()
        given = list(self._history if history is None else check_list(history, "history"))
        encoded = find_history(derived, given, self._store.revision)
        if encoded is None:
            events = [e for e in as_events(given) if e.id in self._store]
            encoded = self._ranker.encode_history(events[-MAX_EVENTS:], RequestPlan(self._store), derived)
        return self._ranker.summary(encoded)

    def _encode(self, request: Request, until: float | None, timings: Timings) -> None:
        """Encode what is new; until a deadline, in order of urgency."""
        if until is None:
            self._encoding.encode(request.plan, timings)
            return
        watched = {e.id for e in request.events}
        first = _by_urgency(request.jobs, watched, request.priors)
        late = self._encoding.encode_until(until - self._ranker.seconds, first, request.plan, timings)
        if self._history.is_incognito:  # what is encoded later would be recorded
            self._encoding.cancel(late)
        for i in watched & late:
            error = NotInTimeError("it was not encoded before the deadline, so it did not count")
            request.plan.fail(i, "history", error)
        request.leave_out(late)


def _by_urgency(jobs: Sequence[Job], watched: set[str], priors: Priors | None) -> list[Job]:
    """What was watched comes first, because it moves all scores; then what the prior likes best."""
    first, rest = [j for j in jobs if j.id in watched], [j for j in jobs if j.id not in watched]
    if priors and rest:
        bonus = priors.bonus([j.id for j in rest])
        rest = [rest[n] for n in np.argsort(-bonus, kind="stable")]
    return [*first, *rest]


def _with_quick(sources: str | Sequence[str], ids: Sequence[str], quick: frozenset[str]) -> list[str]:
    """Sources by id, where what was ranked by content was ranked by a quick look."""
    each = [sources] * len(ids) if isinstance(sources, str) else sources
    return ["quick" if s == "content" and i in quick else s for i, s in zip(ids, each, strict=True)]
