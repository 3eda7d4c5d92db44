"""Events and candidates → scores, order and evidence; everything is stored by now, nothing is decoded here.

What costs something is done once: the user graph runs when the history changed, candidates that lie side by side in
the store are scored where they lie, others are gathered a cache-sized part at a time. With a handle from
``rec.store.select`` nothing is done in Python for each candidate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.backends.base import Session
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError, VideoNotFoundError
from linkedout_edge.inputs import Event
from linkedout_edge.intake import Intake
from linkedout_edge.listwise import arrange, unit_tokens
from linkedout_edge.prior import Priors
from linkedout_edge.ranking import Evidence, Role
from linkedout_edge.scoring import User, UserCache, event_features, score, this_minute
from linkedout_edge.store import Rows, Selection, TokenStore

KEPT_FOR_EXPLAINING = 4096
"""Tokens of that many best places stay with a ranking; the others' are looked up in the store when explained."""

Floats: TypeAlias = NDArray[np.float32]
Positions: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Wish:
    """How the list is to be made; see `Recommender.rank`."""

    limit: int | None = None
    diversity: float = 0.0
    fold_duplicates: bool = False
    priors: Priors | None = None


class Scored(NamedTuple):
    """What a `Ranking` is made of, and the seconds that user and scorer took."""

    ids: Sequence[str]
    scores: Floats  # [C]
    layers: Floats  # [C, L]
    order: Positions  # [K]
    evidence: Evidence
    sources: str | list[str]
    user_seconds: float
    score_seconds: float


class Ranker:
    """Scores and orders what is stored.

    Args:
        config: The model's shapes.
        store: Holds the tokens.
        user: The user graph.
        scorer: The scorer graph.
        layer_names: L names.
    """

    def __init__(
        self, config: ModelConfig, store: TokenStore, user: Session, scorer: Session, layer_names: tuple[str, ...]
    ) -> None:
        self._config = config
        self._store = store
        self._scorer = scorer
        self._layer_names = layer_names
        self._users = UserCache(user)
        self.seconds = 0.0
        """What the latest ranking took here: deadlines leave so much time for it."""

    def forget(self) -> None:
        """Drop what is remembered of histories."""
        self._users.clear()

    def rank(
        self, events: list[Event], chosen: Sequence[str] | Selection, pending: list[str], wish: Wish, intake: Intake
    ) -> Scored:
        """Rank candidates.

        Args:
            events: What was watched, oldest first.
            chosen: Candidates, each once.
            pending: Candidates that are not encoded yet: they follow behind all others.
            wish: How the list is to be made.
            intake: Notes what another thread removed meanwhile.
        """
        start = time.perf_counter()
        store = self._store
        with store.lock:
            rows = store.rows([e.id for e in events])
            usable = _usable([e.id for e in events], rows, "history", intake)
            events, rows = [events[n] for n in usable], rows[usable]
            past = store.gather(rows).copies()
            store.touch(rows)
        user = self._user(past, events)
        after_user = time.perf_counter()

        with store.lock:
            ids: Sequence[str] = chosen.ids if isinstance(chosen, Selection) else chosen
            rows = chosen.rows() if isinstance(chosen, Selection) else store.rows(ids)
            if intake.unusable or (rows.size and rows.min() < 0):
                usable = _usable(ids, rows, "candidate", intake)
                ids, rows = [ids[n] for n in usable], rows[usable]
            store.touch(rows)
            if len(rows) > KEPT_FOR_EXPLAINING:  # where they lie, without a copy of them all
                stamps = np.empty(len(rows), np.int64)

                def part(where: slice) -> tuple[NDArray[np.int8], Floats]:
                    found = store.gather(rows[where])
                    stamps[where] = found.stamps
                    return found.tokens, found.scales

                if not events:
                    for at in range(0, len(rows), KEPT_FOR_EXPLAINING):
                        part(slice(at, at + KEPT_FOR_EXPLAINING))
                content, layers = self._score(user, len(rows), part)
                made = self._list(
                    ids, content, layers, pending, events, wish, lambda p: unit_tokens(store.gather(rows[p]).tokens)
                )
                kept = made.order[made.order < len(rows)][:KEPT_FOR_EXPLAINING]
                saved = store.gather(rows[kept])
                read = self._reader(ids, kept, Rows(saved.tokens.copy(), saved.scales.copy(), stamps))
                return self._with_evidence(made, user, past, events, read, len(rows), start, after_user)
            found = store.gather(rows).copies()
        content, layers = self._score(user, len(rows), lambda where: (found.tokens[where], found.scales[where]))
        made = self._list(ids, content, layers, pending, events, wish, lambda p: unit_tokens(found.tokens[p]))
        read = self._reader(ids, None, found)
        return self._with_evidence(made, user, past, events, read, len(rows), start, after_user)

    def _user(self, past: Rows, events: list[Event]) -> User:
        c = self._config
        if not events:  # a cold start: all scores are 0
            query = np.zeros((1, 2, c.layers, c.tokens_per_layer * c.token_width), np.float32)
            return User(query, np.zeros((1, c.layers), np.float32), np.zeros((0, c.layers), np.float32))
        return self._users.encode(past.tokens, past.scales, event_features(events, this_minute()))

    def _score(
        self, user: User, total: int, part: Callable[[slice], tuple[NDArray[np.int8], Floats]]
    ) -> tuple[Floats, Floats]:
        if not len(user.weights) or not total:
            return np.zeros(total, np.float32), np.zeros((total, self._config.layers), np.float32)
        return score(self._scorer, user, total, part)

    def _list(
        self,
        ids: Sequence[str],
        content: Floats,
        layers: Floats,
        pending: list[str],
        events: list[Event],
        wish: Wish,
        vectors: Callable[[Positions], Floats],
    ) -> _Made:
        """Mix the prior in and order; who is pending comes last, in order of the prior."""
        count = len(ids)
        every: Sequence[str] = [*ids, *pending] if pending else ids
        bonus = wish.priors.bonus(every) if wish.priors else None
        scores = content if bonus is None else content + bonus[:count]
        order = arrange(scores, wish.limit, vectors, diversity=wish.diversity, fold_duplicates=wish.fold_duplicates)
        source = "content" if events or bonus is None else "prior"
        if not pending:
            return _Made(every, scores, layers, order, bonus, source)
        late = np.zeros(len(pending), np.float32) if bonus is None else bonus[count:]
        order = np.concatenate([order, count + np.argsort(-late, kind="stable")])[: wish.limit]
        return _Made(
            every,
            np.concatenate([scores, late]),
            np.concatenate([layers, np.zeros((len(pending), layers.shape[1]), np.float32)]),
            order,
            bonus,
            [source] * count + ["pending"] * len(pending),
        )

    def _with_evidence(
        self,
        made: _Made,
        user: User,
        past: Rows,
        events: list[Event],
        read: Callable[[int], tuple[NDArray[np.int8], Floats]],
        count: int,
        start: float,
        after_user: float,
    ) -> Scored:
        evidence = Evidence(
            events,
            past.tokens,
            past.scales,
            user.weights,
            user.query,
            user.bias,
            self._layer_names,
            read,
            made.bonus,
            count,
        )
        now = time.perf_counter()
        self.seconds = now - start
        return Scored(
            made.ids, made.scores, made.layers, made.order, evidence, made.sources, after_user - start, now - after_user
        )

    def _reader(
        self, ids: Sequence[str], kept: Positions | None, found: Rows
    ) -> Callable[[int], tuple[NDArray[np.int8], Floats]]:
        """Finds the tokens that a candidate was scored with: kept ones, else the store's if they are still the same.

        Args:
            ids: Of the candidates.
            kept: Positions of the rows in `found`; None: all of them. Stamps are of all candidates in any case.
            found: What was kept.
        """

        def read(position: int) -> tuple[NDArray[np.int8], Floats]:
            if kept is None:
                return found.tokens[position], found.scales[position]
            at = np.flatnonzero(kept == position)
            if at.size:
                return found.tokens[at[0]], found.scales[at[0]]
            with self._store.lock:
                row = self._store.rows([ids[position]])
                now = self._store.gather(row) if row[0] >= 0 else None
                if now is None or now.stamps[0] != found.stamps[position]:
                    raise ArgumentError(
                        "the video left the store or changed since it was ranked: rank again to explain it"
                    )
                return now.tokens[0].copy(), now.scales[0].copy()

        return read


class _Made(NamedTuple):
    ids: Sequence[str]
    scores: Floats
    layers: Floats
    order: Positions
    bonus: Floats | None
    sources: str | list[str]


def not_stored() -> VideoNotFoundError:
    """What is wrong with an id that the store does not have."""
    return VideoNotFoundError("the id is not in the store: encode the video first, or pass its path or frames")


def _usable(ids: Sequence[str], rows: Positions, role: Role, intake: Intake) -> list[int]:
    """Positions that can be scored; what another thread removed meanwhile is noted as failed."""
    for n in np.flatnonzero(rows < 0).tolist():
        if not intake.has_failed(ids[n], role):
            intake.fail(ids[n], role, not_stored())
    return [n for n, i in enumerate(ids) if rows[n] >= 0 and i not in intake.unusable]
