"""What keeps ranking fast, checked as behaviour: what is *not* done. Timings are for benchmarks/latency.py."""

from __future__ import annotations

import builtins
import math
import os
import pathlib
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from linkedout_edge import Event, Recommender, Video
from linkedout_edge import ranker as ranker_module
from linkedout_edge import ranking as ranking_module
from linkedout_edge.config import ModelConfig
from linkedout_edge.scorers import MAX_CANDIDATES_SHAPE, GraphScorer
from linkedout_edge.scoring import UserCache
from linkedout_edge.store import Fingerprint, View


class Counting:
    """A session that remembers the feeds it was run with."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.device = session.device
        self.shapes: list[dict[str, tuple[int, ...]]] = []

    def run(self, feeds: Any) -> Any:
        self.shapes.append({k: v.shape for k, v in feeds.items()})
        return self.session.run(feeds)

    def close(self) -> None:
        self.session.close()


@pytest.fixture
def user(rec: Recommender) -> Counting:
    """The user graph, counted."""
    counting = Counting(rec._sessions["user"])
    rec._ranker._users = UserCache(counting)
    return counting


@pytest.fixture
def scorer(rec: Recommender) -> Counting:
    """The scorer graph, counted."""
    counting = Counting(rec._sessions["scorer"])
    rec._ranker._scorer = GraphScorer(counting)
    return counting


def fill(rec: Recommender, count: int, seed: int = 0) -> list[str]:
    c = ModelConfig.tiny()
    rng = np.random.default_rng(seed)
    tokens = rng.integers(-127, 128, (count, c.layers, c.tokens_per_layer, c.token_width), dtype=np.int8)
    scales = np.full(tokens.shape[1:3], 0.02, np.float32)
    ids = [f"v{n}" for n in range(count)]
    for i, t in zip(ids, tokens, strict=True):
        rec.store.put(i, t, scales, Fingerprint(i))
    return ids


# The user graph


def test_the_user_graph_runs_only_when_something_changed(rec: Recommender, user: Counting) -> None:
    ids = fill(rec, 20)
    history = [Event("v0", watched=0.5), Event("v1", liked=True)]
    first = rec.rank(history, ids)
    for candidates in (ids, ids[5:], rec.store.select(), [Video(id="v3")], None):
        rec.rank(history, candidates, top_k=2, diversity=0.5)
    assert len(user.shapes) == 1
    assert rec.rank([Event("v0", watched=0.5), "v1"], ids).ids  # another history
    assert len(user.shapes) == 2
    assert rec.rank(history, ids).to_dict()["ranked"] == first.to_dict()["ranked"]
    assert len(user.shapes) == 2  # and back
    rec.rank(history[::-1], ids)
    assert len(user.shapes) == 3
    rec.store.put("v1", *[a[0].copy() for a in rec.store.gather(rec.store.rows(["v2"]))[:2]], Fingerprint("new"))
    changed = rec.rank(history, ids)
    assert len(user.shapes) == 4
    assert changed.scores.tolist() != first.scores.tolist()
    assert math.isclose(changed[0].explain().matrix.sum(), changed[0].score, abs_tol=1e-3)
    rec.rank([], ids)
    assert len(user.shapes) == 4  # a cold start needs none


def test_the_rolling_history_is_remembered_too(rec: Recommender, user: Counting) -> None:
    fill(rec, 6)
    rec.history.add("v0")
    before = rec.rank().scores.tolist()
    assert rec.rank().scores.tolist() == before
    assert len(user.shapes) == 1
    rec.history.add("v1", watched=0.1)
    rec.rank()
    assert len(user.shapes) == 2


def test_ages_count_by_the_minute(rec: Recommender, user: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = fill(rec, 6)
    noon = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
    history = [Event("v0", at=noon - timedelta(hours=1))]
    now = noon
    monkeypatch.setattr(ranker_module, "this_minute", lambda: now.replace(second=0, microsecond=0))
    rec.rank(history, ids)
    now = noon + timedelta(seconds=59)
    rec.rank(history, ids)
    assert len(user.shapes) == 1
    now = noon + timedelta(seconds=60)
    rec.rank(history, ids)
    assert len(user.shapes) == 2
    for minutes in range(2, 40):  # a history of unknown age has no clock
        now = noon + timedelta(minutes=minutes)
        rec.rank(["v0"], ids)
    assert len(user.shapes) == 3
    assert len(rec._ranker._users._users) <= UserCache.KEPT


def test_what_is_forgotten_is_not_remembered_as_a_user(rec: Recommender) -> None:
    ids = fill(rec, 6)
    rec.rank(ids[:2], ids)
    rec.forget("v0")
    assert not rec._ranker._users._users
    rec.rank(ids[1:3], ids)
    users = rec._ranker._users
    rec.close()
    assert not users._users


# Handles


class Untouchable(dict[str, int]):
    """A dictionary that may not be asked for single ids."""

    def get(self, *_: Any) -> Any:
        raise AssertionError("looked up an id")

    __getitem__ = __contains__ = get  # type: ignore[assignment]


def test_a_handle_needs_no_look_up_no_file_and_no_object_for_a_candidate(
    rec: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = fill(rec, 300)
    handle = rec.store.select()
    rec.rank(ids[:2], handle)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("looked at a file")

    for target, name in ((pathlib.Path, "stat"), (pathlib.Path, "exists"), (os, "stat"), (builtins, "open")):
        monkeypatch.setattr(target, name, never)
    ranking = rec.rank([], handle, top_k=5)
    assert len(ranking) == 5
    known = rec.store._row
    monkeypatch.setattr(rec.store, "_row", Untouchable(known))
    monkeypatch.setattr(handle, "ids", ListThatIsNotRead(handle.ids))
    made = []
    original = ranking_module.Ranked.__init__
    monkeypatch.setattr(
        ranking_module.Ranked, "__init__", lambda self, *a, **k: (made.append(1), original(self, *a, **k))[1]
    )
    cold = rec.rank([], handle, top_k=50, prior=np.arange(300.0))
    assert len(cold) == 50
    assert made == []
    assert cold[0].id == "v299"
    assert made == [1]


class ListThatIsNotRead(list[str]):
    """May be asked for its length and for single places, not be gone through."""

    def __iter__(self) -> Any:
        raise AssertionError("went through all ids")


def test_ids_that_are_stored_are_not_looked_at_on_disk(
    rec: Recommender, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rec.encode(clips)
    ids = [str(c) for c in clips]

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("looked at a file")

    for target, name in ((pathlib.Path, "stat"), (os, "stat"), (builtins, "open")):
        monkeypatch.setattr(target, name, never)
    assert len(rec.rank(ids[:2], ids)) == 6
    assert len(rec.rank(clips[:2], [Video(c) for c in clips], deadline_ms=1)) == 6


def test_candidates_side_by_side_are_not_copied(rec: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranker_module, "KEPT_FOR_EXPLAINING", 50)
    fill(rec, 400)
    seen: list[bool] = []
    original = View.read

    def read(self: Any, where: Any) -> Any:
        found = original(self, where)
        if len(found.tokens) > 50:
            seen.append(np.shares_memory(found.tokens, rec.store._tokens))
        return found

    monkeypatch.setattr(View, "read", read)
    rec.rank(["v0"], rec.store.select(), top_k=3)
    assert seen
    assert all(seen)


# The scorer


def test_the_scorer_sees_few_fixed_shapes(rec: Recommender, scorer: Counting) -> None:
    ids = fill(rec, 5000)
    for count in (1, 15, 16, 17, 99, 100, 1000, 1024, 1025, 5000):
        rec.rank(["v0"], ids[:count], top_k=1)
        rec.rank(["v0"], ids[: 2 * count : 2], top_k=1)
    sizes = {s["tokens"][0] for s in scorer.shapes}
    assert max(sizes) == MAX_CANDIDATES_SHAPE
    assert len(sizes) <= 12


def test_parts_give_what_the_whole_gives(rec: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = fill(rec, 3000)
    every = rec.rank(["v0", "v1"], rec.store.select())
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(ids).tolist()
    again = {r.id: r.score for r in rec.rank(["v0", "v1"], shuffled)}
    assert again == {r.id: r.score for r in every}
    monkeypatch.setattr(ranker_module, "KEPT_FOR_EXPLAINING", 10)
    large = rec.rank(["v0", "v1"], shuffled, top_k=20)
    assert large.ids == every.ids[:20]
    assert large.scores.tolist() == every.scores[:20].tolist()
    for place in (0, 9, 10, 19):
        assert math.isclose(large[place].explain().matrix.sum(), large[place].score, abs_tol=1e-3)


def test_top_k_is_the_head_of_the_whole(rec: Recommender) -> None:
    ids = fill(rec, 500)
    for n in range(0, 500, 7):  # ties
        rows = rec.store.gather(rec.store.rows(["v3"])).copies()
        rec.store.put(f"v{n}", rows.tokens[0], rows.scales[0], Fingerprint(f"v{n}"))
    whole = rec.rank(["v0", "v1"], ids)
    assert len(set(whole.scores.tolist())) < 500
    for k in (1, 2, 50, 71, 72, 499, 500, 501):
        assert rec.rank(["v0", "v1"], ids, top_k=k).ids == whole.ids[:k]
    assert whole[10:20].ids == whole.ids[10:20]
    assert whole[::-3].scores.tolist() == whole.scores[::-3].tolist()


# Memory


def rss() -> int:
    return int(psutil.Process().memory_info().rss)


def churn(rec: Recommender, ids: list[str], ranks: int, frames: np.ndarray, encodes: int) -> None:
    rng = np.random.default_rng(1)
    for n in range(ranks):
        count = int(rng.integers(1, len(ids)))
        history = [ids[int(i)] for i in rng.integers(0, len(ids), 1 + n % 40)]
        ranking = rec.rank(history, ids[:count], top_k=10, diversity=0.5 * (n % 5 == 0))
        assert ranking[0].explain().score == ranking[0].score
    for n in range(encodes):
        rec.encode([Video(frames=np.roll(frames, n, axis=2) ^ np.uint8(n % 256), id=f"churn{n % 50}")])


def test_memory_stays_flat(rec: Recommender, frames: np.ndarray) -> None:
    ids = fill(rec, 1500)
    churn(rec, ids, 300, frames, 60)
    before = rss()
    churn(rec, ids, 1000, frames, 100)
    assert rss() - before < 12 << 20


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_stays_flat_for_long(rec: Recommender, frames: np.ndarray) -> None:
    ids = fill(rec, 1500)
    churn(rec, ids, 1000, frames, 100)
    before = rss()
    churn(rec, ids, 10_000, frames, 1000)
    assert rss() - before < 12 << 20


@pytest.mark.parametrize("forget", [lambda h: h.clear(), lambda h: h.forget("clip0")], ids=["clear", "forget"])
def test_what_is_derived_from_a_history_goes_with_it(rec: Recommender, frames: np.ndarray, forget: Any) -> None:
    rec.encode([Video(frames=frames, id="clip0"), Video(frames=255 - frames, id="clip1")])
    rec.history.add("clip0")
    rec.rank(candidates=["clip1"])
    assert len(rec._ranker._users._users)
    forget(rec.history)
    assert not len(rec._ranker._users._users)
