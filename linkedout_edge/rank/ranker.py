"""Events and candidates → scores, order and evidence. All of them are stored; nothing is decoded here.

A history that was ranked with before is not looked up and fitted again, and candidates are scored where they lie in
the store. With a handle from ``rec.store.select``, no Python code runs for each candidate.

The store is not locked meanwhile: rankings run beside each other and beside writers. If a writer touched a row that was
being read (of a long list: if any row left the store), the ranking is made again.

When something is forgotten, all that was remembered between rankings is dropped; a ranking that began before then
remembers nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.encode.request import RequestPlan
from linkedout_edge.errors import ArgumentError
from linkedout_edge.inputs import Event
from linkedout_edge.rank import coldstart, interests, memo, taste
from linkedout_edge.rank.memo import EncodedHistory
from linkedout_edge.rank.prior import standardized
from linkedout_edge.rank.profile import TasteSummary, summarise
from linkedout_edge.rank.request import RankOptions, Request
from linkedout_edge.rank.rerank import Positions, rerank, unit_tokens
from linkedout_edge.rank.scorer import Scorer
from linkedout_edge.rank.taste import Singles, Space, Taste, dequantize
from linkedout_edge.results import Evidence, Role
from linkedout_edge.store import Derived, Mark, Selection, Snapshot, Tokens, not_stored

KEPT_FOR_EXPLAINING = 4096
"""Tokens of that many best places stay with a ranking; the others' are looked up in the store when explained."""
CHUNK = 1024
"""Candidates whose tokens are upcast at a time, to say how unsure their scores are."""
ATTEMPTS = 3
"""Rankings that are made again because a writer came between; the last one locks the store."""

Tokenised: TypeAlias = tuple[NDArray[np.int8], Singles]
"""Tokens int8 ``[C, L, M, D]`` and scales float32 ``[C, L, M]``; of one video, without C."""


class ScoredCandidates(NamedTuple):
    """What a `Ranking` is made of."""

    ids: Sequence[str]
    scores: Singles  # [C]
    layers: Singles  # [K, L]
    order: Positions  # [K]
    evidence: Evidence
    sources: str | list[str]


class Ranker:
    """Scores and orders what is stored.

    Args:
        store: Holds the tokens.
        space: What the bundle knows of tokens.
        scorer: What scores.
        layer_names: L names.
    """

    def __init__(self, store: Tokens, space: Space, scorer: Scorer, layer_names: tuple[str, ...]) -> None:
        self._store = store
        self._scorer = scorer
        self._layer_names = layer_names
        self._space = space
        self.seconds = 0.0
        """What the latest ranking took here: deadlines leave so much time for it."""

    def encode_history(
        self, events: list[Event], plan: RequestPlan, derived: Derived, given: list[Any] | None = None
    ) -> EncodedHistory:
        """Find a history's tokens, and fit the user.

        Args:
            events: Oldest first.
            plan: Notes what another thread removed meanwhile.
            derived: The store's, from before the history was read.
            given: What the caller passed, if nothing of it failed: to be recalled next time.
        """
        store, hour = self._store, memo.this_hour()
        with store.lock:
            rows = store.find([e.video.id for e in events])
            if plan.unusable or (rows.size and rows.min() < 0):
                usable = _usable([e.id for e in events], rows, "history", plan)
                events, rows, given = [events[n] for n in usable], rows[usable], None
            revision = store.revision
            before = memo.find_user_before(derived, rows, revision)
            stored = store.rows.snapshot(rows if before is None else rows[-1:]).take(slice(None))
            space = before.space if before is not None else self._space.following(store.rows.sum.total(), len(store))
        values = dequantize(*stored)
        user = taste.fit(values, *taste.of_events(events, hour), space, overwrite=True, before=before)
        ageless = not any(e.at for e in events)
        encoded = EncodedHistory(
            given or [], events, rows, user, interests.find_interests(user), revision, None if ageless else hour
        )
        memo.keep_history(derived, encoded)
        return encoded

    def rank(
        self, history: EncodedHistory, request: Request, options: RankOptions, derived: Derived
    ) -> ScoredCandidates:
        """Rank a request's candidates; those that are pending follow behind all others.

        The latest ranking, asked for again while the store is the same, is not made again.

        Raises:
            ClosedError: The store was closed meanwhile.
        """
        start = time.perf_counter()
        store, chosen = self._store, request.candidates
        plain = request.priors is None and not request.plan.unusable
        handle = chosen if plain and isinstance(chosen, Selection) else None
        how = (options.top_k, options.diversity, options.fold_duplicates, options.explore)
        with store.lock:
            store.check_open()
            if history.revision == store.revision:
                store.touch(history.rows)
            asked, latest = (store.revision, history, handle, how), derived.ranking
            if handle is not None and latest is not None and latest[0] == asked:
                store.touch(handle._rows())
                known: ScoredCandidates = latest[1]
                return known
        for left in reversed(range(ATTEMPTS)):
            with nullcontext() if left else store.lock:
                scored = self._attempt(history, request, options)
            if scored is not None:
                break
        assert scored is not None  # nobody writes while the store is locked
        whole = handle is not None and scored.ids is handle.ids  # else some left the store: each call says so itself
        if whole and history.given and len(scored.order) <= KEPT_FOR_EXPLAINING:
            derived.ranking = asked, scored
        self.seconds = time.perf_counter() - start
        return scored

    def _attempt(self, history: EncodedHistory, request: Request, options: RankOptions) -> ScoredCandidates | None:
        """One ranking; None if a row was written while it was read."""
        store, chosen, plan, user = self._store, request.candidates, request.plan, history.user
        with store.lock:
            store.check_open()
            ids: Sequence[str] = chosen.ids if isinstance(chosen, Selection) else chosen
            rows = chosen._rows() if isinstance(chosen, Selection) else store.find(ids)
            if plan.unusable or (rows.size and rows.min() < 0):
                usable = _usable(ids, rows, "candidate", plan)
                ids, rows = [ids[n] for n in usable], rows[usable]
            store.touch(rows)
            view = store.rows.snapshot(rows)
        # Of few places out of many, layers are scored once more: all candidates' take more memory than anything else.
        few = options.top_k is not None and options.top_k <= KEPT_FOR_EXPLAINING < len(rows)
        content, split = self._score(user, view, not few)
        # While nothing is known to be liked, all is uncertain alike.
        explored = options.explore * self._unsure(user, view) if options.explore and user.is_known else None
        pending = request.pending
        bonus = request.priors.bonus([*ids, *pending] if pending else ids) if request.priors else None
        scores = content if explored is None else content + explored
        scores = scores if bonus is None else scores + bonus[: len(ids)]
        cold = bonus is None and not user.is_known
        source = "cold_start" if cold else "content" if history.events else "prior"
        order = self._order(scores, cold, history, options, view)
        kept = order[:KEPT_FOR_EXPLAINING]
        found = view.take(kept)
        layers = self._layers(user, found) if split is None else split[order]
        read = self._reader(view.mark, kept, found)
        if not view.mark.is_current():
            return None
        evidence = Evidence(history.events, user, self._layer_names, read, self._name, bonus, explored, len(rows))
        sources: str | list[str] = source
        if pending:  # last, in order of the prior
            late = np.zeros(len(pending), np.float32) if bonus is None else bonus[len(ids) :]
            order = np.concatenate([order, len(ids) + np.argsort(-late, kind="stable")])[: options.top_k]
            layers = np.concatenate([layers, np.zeros((len(order) - len(layers), layers.shape[1]), np.float32)])
            scores, sources = np.concatenate([scores, late]), [source] * len(ids) + ["pending"] * len(pending)
            ids = [*ids, *pending]
        return ScoredCandidates(ids, scores, layers, order, evidence, sources)

    def warm_up(self) -> None:
        """Fit and score once."""
        shape = self._store.shape
        tokens, scales = np.ones((1, *shape), np.int8), np.ones((1, *shape[:2]), np.float32)
        user = taste.fit(dequantize(tokens, scales), np.ones(1), np.ones(1), self._space)
        self._scorer.score(user, tokens, scales, np.zeros(1, np.int64))

    def summary(self, history: EncodedHistory) -> TasteSummary:
        """What a user seems to like and to avoid."""
        return summarise(history.events, history.user, history.interests, self._layer_names, self._name)

    def _name(self, event: Event) -> str:
        """What to call a watched video: by the event's own title, else by the one that it was encoded with."""
        if event.video.title:
            return event.video.name
        known = self._store.fingerprint(event.id)
        return event.video.name_with(None if known is None else known.title)

    def _score(self, user: Taste, view: Snapshot, split: bool) -> tuple[Singles, Singles | None]:
        total = len(view)
        if not len(user) or not total:
            return np.zeros(total, np.float32), np.zeros((total, self._store.shape[0]), np.float32)
        return self._scorer.score(user, view.tokens, view.scales, view.mark.rows, split=split)

    def _unsure(self, user: Taste, view: Snapshot) -> Singles:
        """How unsure each score is, standardised as a prior is: float32 ``[C]``."""
        out = np.empty(len(view), np.float32)
        for start in range(0, len(view), CHUNK):
            part = slice(start, min(len(view), start + CHUNK))
            out[part] = user.deviation(dequantize(*view.take(part)))
        return standardized(out).astype(np.float32)

    def _layers(self, user: Taste, found: Tokenised) -> Singles:
        """Contributions float32 ``[K, L]`` of rows that were read."""
        _, layers = self._scorer.score(user, *found, np.arange(len(found[0]), dtype=np.int64))
        assert layers is not None
        return layers

    def _order(
        self, scores: Singles, cold: bool, history: EncodedHistory, options: RankOptions, view: Snapshot
    ) -> Positions:
        """Best first. The list's head is shared by several interests, or spread out while none is known."""
        head = coldstart.WINDOW if cold else interests.WINDOW if len(history.interests) > 1 else 0
        top_k, head = options.top_k, 0 if options.diversity else head
        order = rerank(
            scores,
            top_k if top_k is None else max(top_k, head),
            lambda p: unit_tokens(view.take(p)[0]),
            diversity=options.diversity,
            fold_duplicates=options.fold_duplicates,
        )
        if head:
            window, user = order[:head], history.user
            values, ranked = dequantize(*view.take(window)), scores[window].astype(np.float64)
            if cold:
                mixed = coldstart.arrange_unknown(user, values, ranked)
            else:
                mixed = interests.take_turns(user, history.interests, values, ranked)
            order[:head] = window[mixed]
        return order[:top_k]

    def _reader(self, mark: Mark, kept: Positions, found: Tokenised) -> Callable[[int], Tokenised]:
        """Finds the tokens that a candidate was scored with: kept ones, else the store's if they are still the same.

        Args:
            mark: The candidates' rows; the store's arrays themselves would outlive it.
            kept: Positions of the rows in `found`.
            found: What was kept.
        """
        store = self._store

        def read(position: int) -> Tokenised:
            at = np.flatnonzero(kept == position)
            if at.size:
                return found[0][at[0]], found[1][at[0]]
            row = mark.rows[position]
            with store.lock:
                if not mark.alive[row]:
                    raise ArgumentError(
                        "the video left the store or changed since it was ranked: rank again to explain it"
                    )
                return store.rows.tokens[row].copy(), store.rows.scales[row].copy()

        return read


def _usable(ids: Sequence[str], rows: NDArray[np.int32], role: Role, plan: RequestPlan) -> list[int]:
    """Positions that can be scored; what another thread removed meanwhile is noted as failed."""
    failed = {f.id for f in plan.failed if f.role == role}
    for n in np.flatnonzero(rows < 0).tolist():
        if ids[n] not in failed:
            plan.fail(ids[n], role, not_stored())
    return [n for n, i in enumerate(ids) if rows[n] >= 0 and i not in plan.unusable]
