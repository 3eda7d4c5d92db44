"""What keeps ranking fast, checked as behaviour: what is *not* done. Timings are for benchmarks/latency.py."""

from __future__ import annotations

import builtins
import math
import os
import pathlib
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from stored import CONFIG, SHAPE, copy, fill, inner, limit_store, put_tokens, tokens_of

from linkedout_edge import Event, Prior, Ranked, Recommender, Video
from linkedout_edge.rank import memo, taste
from linkedout_edge.rank.scorer import Scorer
from linkedout_edge.rank.taste import dequantize


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events each fit of a user had."""
    counts: list[int] = []
    original = taste.fit

    def fit(values: np.ndarray, *args: Any, **more: Any) -> taste.Taste:
        counts.append(len(values))
        return original(values, *args, **more)

    monkeypatch.setattr(taste, "fit", fit)
    return counts


# The user


def test_a_user_is_fitted_only_when_something_changed(rec: Recommender, fits: list[int]) -> None:
    ids = fill(rec, 20)
    history = [Event("v0", watched=0.5), Event("v1", liked=True)]
    first = rec.rank(history, ids)
    for candidates in (ids, ids[5:], rec.store.select(), None):
        rec.rank(history, candidates, top_k=2, diversity=0.5)
    assert len(fits) == 1
    assert rec.rank([Event("v0", watched=0.5), "v1"], ids).ids  # another history
    assert len(fits) == 2
    assert rec.rank(history, ids).to_dict()["ranked"] == first.to_dict()["ranked"]
    assert len(fits) == 2  # and back
    rec.rank(history[::-1], ids)
    assert len(fits) == 3
    copy(rec.store, "v2", "v1", "new")
    changed = rec.rank(history, ids)
    assert len(fits) == 4
    assert changed.scores.tolist() != first.scores.tolist()
    assert math.isclose(changed[0].explain().matrix.sum(), changed[0].score, abs_tol=1e-3)
    rec.store.remove("v19")
    rec.rank(history, ids[:-1])
    assert len(fits) == 5  # the average video is another


def test_the_rolling_history_is_remembered_too(rec: Recommender, fits: list[int]) -> None:
    fill(rec, 6)
    rec.history.add("v0")
    before = rec.rank().scores.tolist()
    assert rec.rank().scores.tolist() == before
    assert len(fits) == 1
    rec.history.add("v1", watched=0.1)
    rec.rank()
    assert len(fits) == 2


def test_a_history_that_is_longer_than_what_counts_is_remembered_too(rec: Recommender, fits: list[int]) -> None:
    ids = fill(rec, taste.MAX_EVENTS + 60)
    history, candidates = ids[: taste.MAX_EVENTS + 50], [*ids[:5], *ids[-10:]]  # five were watched long ago
    first = rec.rank(history, candidates, exclude_watched=True)
    assert sorted(first.ids) == sorted(ids[-10:])
    for _ in range(2):
        again = rec.rank(history, candidates, exclude_watched=True)
        assert (again.ids, again.scores.tolist()) == (first.ids, first.scores.tolist())
    assert len(rec.rank(history, candidates)) == 15
    assert fits == [taste.MAX_EVENTS]
    rec.rank(history[1:], candidates)  # the same events count, but it is another list
    assert len(fits) == 2


def test_ages_count_by_the_hour(rec: Recommender, fits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    ids = fill(rec, 6)
    noon = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
    history = [Event("v0", at=noon - timedelta(hours=1))]
    now = noon
    monkeypatch.setattr(memo, "this_hour", lambda: now.replace(minute=0, second=0, microsecond=0))
    rec.rank(history, ids)
    now = noon + timedelta(minutes=59)
    rec.rank(history, ids)
    assert len(fits) == 1
    now = noon + timedelta(minutes=60)
    rec.rank(history, ids)
    assert len(fits) == 2
    for hours in range(2, 40):  # a history of unknown age has no clock
        now = noon + timedelta(hours=hours)
        rec.rank(["v0"], ids)
    assert len(fits) == 3


def test_after_an_event_only_its_own_tokens_are_looked_at(rec: Recommender, fits: list[int]) -> None:
    ids = fill(rec, 40)
    history = [Event(i, watched=n / 10) for n, i in enumerate(ids[:10])]
    later = [*history[1:], Event("v30", liked=True)]
    rec.rank(history, ids)
    after = rec.rank(later, ids)
    rec.rank([*later, "v31"], ids)  # no event leaves
    rec.rank([*later[:-1], Event("v30", liked=False), "v31"], ids)  # something else is said of a known one
    assert fits == [10, 1, 1, 1]
    inner(rec.store).forget_derived()
    whole = rec.rank(later, ids)
    assert fits == [10, 1, 1, 1, 10]
    np.testing.assert_allclose(after.scores, whole.scores, rtol=0, atol=1e-4 * np.abs(whole.scores).max())
    np.testing.assert_allclose(after[0].explain().matrix, whole[0].explain().matrix, rtol=0, atol=1e-4)
    rec.store.remove("v39")  # the average video is another
    rec.rank([*later[1:], "v31"], ids[:-1])
    rec.rank(["v1", *later[1:]], ids[:-1])  # the new one is not the latest
    assert fits == [10, 1, 1, 1, 10, 10, 10]


# Handles


def test_a_handle_needs_no_file_and_no_object_for_a_candidate(
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
    monkeypatch.setattr(handle, "ids", ListThatIsNotRead(handle.ids))
    made = []
    original = Ranked.__init__
    monkeypatch.setattr(Ranked, "__init__", lambda self, *a, **k: (made.append(1), original(self, *a, **k))[1])
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


@pytest.mark.parametrize("order", ["stored", "shuffled"])
def test_tokens_are_not_copied_to_be_scored(rec: Recommender, order: str) -> None:
    ids = fill(rec, 20_000)
    handle = rec.store.select(ids if order == "stored" else np.random.default_rng(0).permutation(ids).tolist())
    rec.rank(["v0"], handle, top_k=3)
    tracemalloc.start()
    try:
        rec.rank(["v1"], handle, top_k=3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000 * CONFIG.payload_bytes


# The scorer


def test_parts_give_what_the_whole_gives(rec: Recommender) -> None:
    """Of a long list only the best places have layers of their own, and tokens that stay for explanations."""
    ids = fill(rec, 6000)
    every = rec.rank(["v0", "v1"], rec.store.select())
    shuffled = np.random.default_rng(0).permutation(ids).tolist()
    again = {r.id: r.score for r in rec.rank(["v0", "v1"], shuffled)}
    assert again == {r.id: r.score for r in every}
    few = rec.rank(["v0", "v1"], shuffled, top_k=20)
    assert [r.to_dict() for r in few] == [r.to_dict() for r in every[:20]]
    for place in (0, 9, 10, 19):
        assert math.isclose(few[place].explain().matrix.sum(), few[place].score, abs_tol=1e-3)
    for place in (4095, 4096, 5999):
        assert math.isclose(every[place].explain().matrix.sum(), every[place].score, abs_tol=1e-3)
    assert not any(any(r.layers) for r in rec.rank([], ids, top_k=10))


def test_top_k_is_the_head_of_the_whole(rec: Recommender) -> None:
    ids = fill(rec, 500)
    for n in range(0, 500, 7):  # ties
        copy(rec.store, "v3", f"v{n}")
    whole = rec.rank(["v0", "v1"], ids)
    assert len(set(whole.scores.tolist())) < 500
    for k in (1, 2, 50, 71, 72, 499, 500, 501):
        assert rec.rank(["v0", "v1"], ids, top_k=k).ids == whole.ids[:k]
    assert whole[10:20].ids == whole.ids[10:20]
    assert whole[::-3].scores.tolist() == whole.scores[::-3].tolist()


@pytest.mark.parametrize("count", [1, 15, 256, 257, 1024, 2500, 9000])
def test_stored_bytes_score_as_the_formula_says(rec: Recommender, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    users: list[taste.Taste] = []
    fit = taste.fit
    monkeypatch.setattr(taste, "fit", lambda *args, **more: users.append(fit(*args, **more)) or users[-1])
    ids = fill(rec, count)
    history = [Event("v0", watched=0.9), Event(f"v{count // 2}", liked=False)]
    ours = {r.id: r for r in rec.rank(history, ids)}
    (user,) = users
    values = dequantize(*tokens_of(rec.store, ids)).astype(np.float64)
    layers = np.einsum("clf,lf->cl", values, user.query) - user.offset
    close = 1e-4 * max(1.0, float(np.abs(layers).max()))
    np.testing.assert_allclose([ours[i].layers for i in ids], layers, rtol=0, atol=close)
    np.testing.assert_allclose([ours[i].score for i in ids], layers.sum(1), rtol=0, atol=close)


def test_equal_videos_get_equal_scores_wherever_they_stand(rec: Recommender) -> None:
    ids = fill(rec, 1500)
    places = [0, 7, 255, 256, 700, 1023, 1024, 1499]
    for n in places:
        copy(rec.store, "v7", f"v{n}")
    scores = {r.id: r.score for r in rec.rank(["v1", "v2", Event("v3", liked=False)], ids)}
    assert len({scores[f"v{n}"] for n in places}) == 1
    assert scores["v7"] == rec.rank(["v1", "v2", Event("v3", liked=False)], ["v7"])[0].score


# What was looked up before


@pytest.mark.usefixtures("fixed_mean")
def test_a_list_that_was_ranked_before_follows_the_store(rec: Recommender) -> None:
    ids = fill(rec, 300)
    history = [Event("v0", watched=0.4), Event("v1")]
    first = rec.rank(history, ids)
    for _ in range(3):
        again = rec.rank(list(history), list(ids))
        assert again.scores.tolist() == first.scores.tolist()  # to the last bit
        assert [r.layers for r in again] == [r.layers for r in first]
    assert rec.rank(["v3"], ids).scores.tolist() != first.scores.tolist()  # another user, the same list
    assert rec.rank(history, ids, top_k=20).to_dict()["ranked"] == first[:20].to_dict()["ranked"]
    copy(rec.store, "v9", "new")
    np.testing.assert_allclose(rec.rank(history, ids).scores, first.scores, atol=1e-6)
    copy(rec.store, "v5", "v7")
    scores = {r.id: r.score for r in rec.rank(history, ids)}
    assert scores["v7"] == scores["v5"] != next(r.score for r in first if r.id == "v7")
    copy(rec.store, "v5", "v1")  # watched: all scores change
    assert rec.rank(history, ids).scores.tolist() != first.scores.tolist()
    rec.store.remove("v299")
    gone = rec.rank(history, ids)
    assert [(f.id, f.role, f.code) for f in gone.failed] == [("v299", "candidate", "not_found")]
    assert len(gone) == 299
    rec.store.remove("v0")
    gone = rec.rank(history, ids[1:5])
    assert [(f.id, f.role) for f in gone.failed] == [("v0", "history")]


@pytest.mark.parametrize("candidates", ["ids", "handle"])
def test_the_latest_ranking_is_made_again_only_if_something_changed(
    rec: Recommender, monkeypatch: pytest.MonkeyPatch, candidates: str
) -> None:
    ids = fill(rec, 300)
    history, some = [Event("v0", watched=0.4), Event("v1")], ids if candidates == "ids" else rec.store.select(ids)
    scored: list[int] = []
    original = Scorer.score
    monkeypatch.setattr(Scorer, "score", lambda self, *a, **k: (scored.append(1), original(self, *a, **k))[1])

    def count(*args: Any, **options: Any) -> tuple[int, Any]:
        before = len(scored)
        ranking = rec.rank(*args, **options)
        return len(scored) - before, ranking

    first = count(history, some, top_k=20)[1]
    times, again = count(list(history), some if candidates == "handle" else list(ids), top_k=20)
    assert (times, again.to_dict()["ranked"]) == (0, first.to_dict()["ranked"])
    assert again[3].explain().to_dict() == first[3].explain().to_dict()
    assert not {"v0", "v1"} & set(count(history, some, top_k=20, exclude_watched=True)[1].ids)
    for options in ({"top_k": 21}, {"diversity": 0.5}, {"fold_duplicates": True}, {"explore": 0.5}, {"top_k": 20}):
        assert count(history, some, **options)[0] > 0, options
    assert count(history[:1], some, top_k=20)[1].scores.tolist() != first.scores.tolist()
    prior = {"v250": 1e3, "v7": 1.0}
    assert count(history, some, top_k=20, prior=Prior(prior, 1e6))[1].ids[0] == "v250"
    del prior["v250"]
    prior["v251"] = 1e3
    assert count(history, some, top_k=20, prior=Prior(prior, 1e6))[1].ids[0] == "v251"
    count(history, some, top_k=20)
    copy(rec.store, first.ids[0], first.ids[5])  # another content under the same id
    times, changed = count(history, some, top_k=20)
    assert times > 0
    assert changed.scores[0] == changed.scores[1]
    assert {first.ids[0], first.ids[5]} == set(changed.ids[:2])
    rec.store.remove(first.ids[0])
    assert first.ids[0] not in count(history, some, top_k=20)[1].ids


def test_a_ranking_that_is_given_again_counts_as_a_use(rec: Recommender) -> None:
    ids = fill(rec, 30)
    rec.rank(["v1"], ids[:10])
    limit_store(rec.store, 20, used=ids[10:])
    rec.rank(["v1"], ids[:10])
    put_tokens(rec.store, "one more", np.zeros(SHAPE, np.int8))  # others have to leave
    assert set(ids[:10]) <= set(rec.store)


def test_a_history_that_was_ranked_before_still_contradicts(rec: Recommender, frames: np.ndarray) -> None:
    rec.encode([Video(frames=frames, id="x"), Video(frames=255 - frames, id="y")])
    history = [Video(frames=frames, id="x")]
    assert rec.rank(history, ["x", "y"]).failed == ()
    assert rec.rank(history, ["x", "y"]).failed == ()
    ranking = rec.rank(history, [Video(frames=frames // 2, id="x"), "y"])
    assert (ranking.ids, [f.code for f in ranking.failed]) == (["y"], ["conflict"])
    rec.encode([Video(frames=frames // 2, id="x")])
    assert rec.rank(history, ["y"]).failed == ()  # encoded again: these frames are another content than what is stored
    assert rec.encode(history).unchanged == ("x",)


# Several threads


def test_rankings_do_not_wait_for_each_other(rec: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = fill(rec, 6000)
    handle = rec.store.select(ids)
    met = threading.Barrier(2, timeout=60)
    original = Scorer.score

    def score(self: Any, *args: Any, **more: Any) -> Any:
        met.wait()  # both are inside, or this fails
        return original(self, *args, **more)

    monkeypatch.setattr(Scorer, "score", score)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(rec.rank, ["v0"], handle, top_k=3) for _ in range(2)]
        assert both[0].result().ids == both[1].result().ids


@pytest.mark.parametrize("change", ["replace", "remove", "evict", "grow"])
@pytest.mark.usefixtures("fixed_mean")
def test_a_ranking_that_a_writer_comes_between_is_made_again(
    rec: Recommender, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    ids = fill(rec, 3000)
    handle = rec.store.select(ids)
    best = rec.rank(["v0"], handle, top_k=2, fold_duplicates=False)
    top, second = (i for i in best.ids)
    zeros = np.zeros(SHAPE, np.int8)
    calls = []
    original = Scorer.score

    def score(self: Any, *args: Any, **more: Any) -> Any:
        result = original(self, *args, **more)
        if not calls:  # written after it was read
            if change == "replace":
                put_tokens(rec.store, top, zeros, known_as="zeros")
            elif change == "remove":
                rec.store.remove(top)
            elif change == "evict":
                limit_store(rec.store, 2990, used=[i for i in ids if i != top])
                put_tokens(rec.store, "one more", zeros)
            else:
                put_tokens(rec.store, "one more", zeros)
        calls.append(1)
        return result

    monkeypatch.setattr(Scorer, "score", score)
    ranking = rec.rank(["v0"], handle, top_k=5)
    if change == "grow":  # nothing that was read has changed
        assert (len(calls), ranking.ids[0]) == (1, top)
        return
    assert len(calls) == 2
    assert ranking.ids[0] == second
    if change == "replace":
        assert top not in ranking.ids[:1]
    else:
        assert top in {f.id for f in ranking.failed}
        assert top not in ranking.ids
    for r in ranking:
        assert math.isclose(r.explain().matrix.sum(), r.score, abs_tol=1e-3)


def test_a_ranking_ends_even_if_writers_never_rest(rec: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = fill(rec, 50)
    original = Scorer.score
    writers: list[threading.Thread] = []

    def score(self: Any, *args: Any, **more: Any) -> Any:
        result = original(self, *args, **more)
        writers.append(threading.Thread(target=copy, args=(rec.store, "v1", "v5")))
        writers[-1].start()
        writers[-1].join(0.3)  # in the last attempt it has to wait
        return result

    monkeypatch.setattr(Scorer, "score", score)
    assert len(rec.rank(["v0"], ids)) == 50
    assert 2 <= len(writers) <= 5
    for writer in writers:
        writer.join()


@pytest.mark.usefixtures("fixed_mean")
def test_scores_are_whole_while_others_write(rec: Recommender) -> None:
    """Each video is one of two contents at any time; a ranking never sees a mixture, nor a row of somebody else."""
    ids = fill(rec, 800)
    handle = rec.store.select(ids)
    contents = [tokens_of(rec.store, [i]) for i in ("v1", "v2")]
    allowed = {r.id: r.score for r in rec.rank(["v0"], ["v1", "v2"])}.values()
    for i in ids[1:]:
        copy(rec.store, "v1", i)
    stop = threading.Event()

    def write(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            i, which = ids[int(rng.integers(1, 800))], contents[int(rng.integers(2))]
            if rng.random() < 0.3:
                rec.store.remove(i)
            put_tokens(rec.store, i, which[0][0], which[1][0], str(seed))

    writers = [threading.Thread(target=write, args=(n,)) for n in range(2)]
    for w in writers:
        w.start()
    try:
        for n in range(60):
            ranking = rec.rank(["v0"], handle if n % 2 else ids[1:])
            assert {r.score for r in ranking if r.id != "v0"} <= set(allowed)
    finally:
        stop.set()
        for w in writers:
            w.join()


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


def test_a_ranking_given_again_still_says_what_failed(rec: Recommender) -> None:
    ids = fill(rec, 12)
    handle = rec.store.select(ids[2:])
    rec.store.remove([ids[5]])
    for _ in range(3):
        ranking = rec.rank(ids[:2], handle)
        assert [f.id for f in ranking.failed] == [ids[5]]
        assert len(ranking) == 9
