"""What was forgotten is gone from memory, too, whatever was computed from it; and stays out of what is under way."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored import copy, fill, open_stored, put, tokens_of

from linkedout_edge import Event, Recommender, Video
from linkedout_edge.errors import ArgumentError, ArgumentTypeError, ClosedError
from linkedout_edge.rank import taste
from linkedout_edge.rank.scorer import Scorer
from linkedout_edge.storage import tables


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> weakref.WeakSet[taste.Taste]:
    """Every fitted user that is still held by something."""
    held: weakref.WeakSet[taste.Taste] = weakref.WeakSet()
    original = taste.fit

    def fit(*args: Any, **more: Any) -> taste.Taste:
        user = original(*args, **more)
        held.add(user)
        return user

    monkeypatch.setattr(taste, "fit", fit)
    return held


def count(users: weakref.WeakSet[taste.Taste]) -> int:
    gc.collect()
    return len(users)


def during(monkeypatch: pytest.MonkeyPatch, target: Any, name: str, then: Callable[[], object]) -> None:
    """Let another thread do something just before the first call of a method."""
    original, done = getattr(target, name), []

    def call(self: Any, *args: Any, **more: Any) -> Any:
        if not done:
            done.append(1)
            other = threading.Thread(target=then)
            other.start()
            other.join()
        return original(self, *args, **more)

    monkeypatch.setattr(target, name, call)


@pytest.mark.usefixtures("fixed_mean")
def test_a_video_that_leaves_while_others_are_scored_moves_none_of_them(
    rec: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = fill(rec, 20)
    history, some = ["v2", "v3"], ids[1:]
    wanted = rec.rank(history, some)
    with monkeypatch.context() as patch:
        during(patch, Scorer, "score", lambda: rec.store.remove("v0"))
        assert rec.rank(history, some).scores.tolist() == wanted.scores.tolist()
    assert rec.rank(history, some).scores.tolist() == wanted.scores.tolist()


@pytest.mark.parametrize(
    "forget",
    [
        lambda rec: rec.forget("v5"),
        lambda rec: rec.store.remove("v5"),
        lambda rec: rec.history.forget("v2"),
        lambda rec: rec.history.clear(),
    ],
    ids=["forget", "remove", "history.forget", "history.clear"],
)
def test_forgetting_drops_all_that_was_derived(
    rec: Recommender,
    users: weakref.WeakSet[taste.Taste],
    monkeypatch: pytest.MonkeyPatch,
    forget: Callable[[Recommender], object],
) -> None:
    ids = fill(rec, 20)
    rec.history.add("v2")
    for _ in range(2):
        rec.rank(None, ids)
    assert count(users) == 1  # kept for the next ranking
    forget(rec)
    assert count(users) == 0
    with monkeypatch.context() as patch:  # a ranking that is under way keeps nothing either
        during(patch, Scorer, "score", lambda: rec.store.remove("v9"))
        rec.rank(["v3"], ids[10:])
    assert count(users) == 0


def test_a_forgotten_event_is_not_kept_by_a_ranking_that_has_read_it(
    rec: Recommender, users: weakref.WeakSet[taste.Taste], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = fill(rec, 20)
    rec.history.add("v2")
    during(monkeypatch, taste, "fit", lambda: rec.history.forget("v2"))
    rec.rank(None, ids)  # the video itself stays in the store
    assert count(users) == 0


def test_incognito_leaves_nothing_in_memory(rec: Recommender, users: weakref.WeakSet[taste.Taste]) -> None:
    rng = np.random.default_rng(0)
    with rec.history.incognito():
        videos = [Video(frames=rng.integers(0, 256, (2, 16, 16, 3), np.uint8), id=f"p{n}") for n in range(4)]
        rec.encode(videos)
        for _ in range(2):
            rec.rank(["p0"], [v.id for v in videos])
        assert count(users) == 1
    assert list(rec.store) == []
    assert count(users) == 0


def test_what_another_process_forgot_is_dropped_here_too(
    tiny_bundle: Path, tmp_path: Path, users: weakref.WeakSet[taste.Taste]
) -> None:
    with (
        Recommender.load(tiny_bundle, data_dir=tmp_path) as one,
        Recommender.load(tiny_bundle, data_dir=tmp_path) as two,
    ):
        ids = fill(one, 10)
        one.history.add("v2")
        for _ in range(2):
            two.rank(None, ids)
        assert count(users) == 1
        one.store.remove("v5")
        assert two.store.stats().videos == 9
        assert count(users) == 0
        two.rank(None, ids[6:])
        assert count(users) == 1
        one.history.forget("v2")
        assert len(two.history) == 0
        assert count(users) == 0


@pytest.mark.usefixtures("fixed_mean")
def test_neither_the_video_nor_its_older_contents_are_left_in_an_explanation(rec: Recommender) -> None:
    """What is beyond the best 4,096 is read from the store when it is explained, so it is not there any more."""
    ids = fill(rec, 4200)
    ranking = rec.rank(["v0"], ids)
    replaced, removed, stays = (ranking[n].id for n in (4150, 4160, 4170))
    copy(rec.store, "v1", replaced, "another content")
    rec.store.remove(removed)
    for place in (4150, 4160):
        with pytest.raises(ArgumentError, match="rank again"):
            ranking[place].explain()
    assert ranking[4170].explain().id == stays


def test_closing_while_a_ranking_is_made(rec: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = fill(rec, 5000)
    with monkeypatch.context() as patch:
        during(patch, Scorer, "score", rec.close)
        with pytest.raises(ClosedError):
            rec.rank([Event("v0")], ids)
    with pytest.raises(ClosedError):
        rec.rank(["v0"], ids)


def test_a_remembered_list_is_compared_with_ids_only(rec: Recommender) -> None:
    fill(rec, 3)
    rec.rank([], ["v0"])
    with pytest.raises(ArgumentTypeError, match=r"candidates\[0\]"):
        rec.rank([], [np.zeros((2, 4, 4, 3), np.uint8)])  # type: ignore[list-item]


def test_ids_stay_in_the_order_in_which_they_came(tiny_bundle: Path, tmp_path: Path) -> None:
    with Recommender.load(tiny_bundle, data_dir=tmp_path) as rec:
        ids = fill(rec, 6)
        rec.store.remove("v1")
        put(rec.store, "v0", 7)  # another content of the same id
        put(rec.store, "v1")
        wanted = [*ids[:1], *ids[2:], "v1"]
        assert list(rec.store) == rec.store.select().ids == wanted
    with Recommender.load(tiny_bundle, data_dir=tmp_path) as rec:
        assert list(rec.store) == wanted


def test_a_video_that_is_put_again_while_all_are_loaded_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_FETCHED", 2)
    one = open_stored(tmp_path)
    for n in range(6):
        put(one.store, f"v{n}")
    original = tables.VideoTable.load

    def load(self: Any) -> Any:
        for n, video in enumerate(original(self)):
            yield video
            if n == 1:  # another process, between two parts
                one.store.remove("v0")
                put(one.store, "v0", 100)

    with monkeypatch.context() as patch:
        patch.setattr(tables.VideoTable, "load", load)
        two = open_stored(tmp_path)
    two.tokens.refresh()
    assert sorted(two.store) == sorted(two.store.select().ids) == [f"v{n}" for n in range(6)]
    assert tokens_of(two.store, ["v0"])[0].flat[0] == 100
    for left, i in ((5, "v1"), (4, "v5"), (3, "v0"), (2, "v3")):
        two.store.remove(i)
        assert len(two.store) == len(list(two.store)) == left
        assert i not in two.store
    one.close()
    two.close()
