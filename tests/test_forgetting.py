"""What is remembered between rankings, and when it must not be."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored import fill, open_stored, put

from linkedout_edge import Event, Recommender, Video, taste
from linkedout_edge.errors import ArgumentTypeError, ClosedError
from linkedout_edge.scorer import Scorer
from linkedout_edge.storage import tables


def remembered(rec: Recommender) -> dict[str, int]:
    """How many of each kind of memory are held."""
    ranker = rec._ranker
    return {"lists": len(ranker.lists._latest), "histories": len(ranker._pasts._latest)}


NOTHING = dict.fromkeys(("lists", "histories"), 0)


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
    rec: Recommender, monkeypatch: pytest.MonkeyPatch, forget: Callable[[Recommender], object]
) -> None:
    ids = fill(rec, 20)
    rec.history.add("v2")
    for _ in range(2):
        rec.rank(None, ids)
    assert all(remembered(rec).values())
    forget(rec)
    assert remembered(rec) == NOTHING
    for _ in range(2):
        rec.rank(["v3", "v4"], ids[6:])
    with monkeypatch.context() as patch:  # a ranking that is under way remembers nothing either
        during(patch, Scorer, "score", lambda: rec.store.remove("v9"))
        rec.rank(["v3"], ids[10:])
    assert remembered(rec) == NOTHING


def test_a_forgotten_event_is_not_remembered_by_a_ranking_that_has_read_it(
    rec: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = fill(rec, 20)
    rec.history.add("v2")
    during(monkeypatch, taste, "fit", lambda: rec.history.forget("v2"))
    rec.rank(None, ids)  # the video itself stays in the store
    assert remembered(rec)["histories"] == 0


def test_incognito_leaves_nothing_in_memory(rec: Recommender) -> None:
    rng = np.random.default_rng(0)
    with rec.history.incognito():
        videos = [Video(frames=rng.integers(0, 256, (2, 16, 16, 3), np.uint8), id=f"p{n}") for n in range(4)]
        rec.encode(videos)
        for _ in range(2):
            rec.rank(["p0"], [v.id for v in videos])
        assert all(remembered(rec).values())
    assert list(rec.store) == []
    assert remembered(rec) == NOTHING


def test_what_another_process_forgot_is_dropped_here_too(tiny_bundle: Path, tmp_path: Path) -> None:
    with (
        Recommender.load(tiny_bundle, data_dir=tmp_path) as one,
        Recommender.load(tiny_bundle, data_dir=tmp_path) as two,
    ):
        ids = fill(one, 10)
        one.history.add("v2")
        for _ in range(2):
            two.rank(None, ids)
        assert all(remembered(two).values())
        one.store.remove("v5")
        two.store.refresh()
        assert remembered(two) == NOTHING
        for _ in range(2):
            two.rank(None, ids[6:])
        one.history.forget("v2")
        assert len(two.history) == 0
        assert remembered(two) == NOTHING


def test_closing_while_a_ranking_is_made(rec: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = fill(rec, 5000)
    wanted = rec.rank([Event("v0")], ids[:50]).ids
    with monkeypatch.context() as patch:
        during(patch, Scorer, "score", rec.close)
        assert rec.rank(["v0"], ids[:50]).ids == wanted  # it has read all that it needs
    with pytest.raises(ClosedError):
        rec.rank(["v0"], ids)


def test_a_long_ranking_says_that_the_store_was_closed(rec: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = fill(rec, 5000)
    during(monkeypatch, Scorer, "score", rec.close)
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
        rec.store.remove("v1")  # the last row moves into the gap
        put(rec.store, "v0", 7)  # another content of the same id
        put(rec.store, "v1")
        wanted = [*ids[:1], *ids[2:], "v1"]
        assert list(rec.store) == rec.store.select().ids == wanted
        handle = rec.store.select()
        assert rec.store.rows(handle.ids).tolist() == handle.rows().tolist()
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
    two.store.refresh()
    assert sorted(two.store) == sorted(two.store.select().ids) == [f"v{n}" for n in range(6)]
    assert two.store.gather(two.store.rows(["v0"])).tokens.flat[0] == 100
    for left, i in ((5, "v1"), (4, "v5"), (3, "v0"), (2, "v3")):
        two.store.remove(i)
        assert len(two.store) == len(list(two.store)) == left
        assert i not in two.store
    one.close()
    two.close()
