"""The history on a database: what is kept, what is really gone, and what the clock may do."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from stored import NOW, Clock, put, raw_bytes, stored

from linkedout_edge import Event, Recommender, Video
from linkedout_edge.errors import ClosedError


@pytest.mark.parametrize("key", [None, "k"])
def test_events_are_there_when_opened_again(tmp_path: Path, key: str | None) -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    with stored(tmp_path, key) as s:
        s.history.add("a.mp4", watched=0.5, liked=False)
        s.history.add(Event(Video("p/\udcff.mp4", id="other id", title="T ü"), at=datetime(2026, 5, 1, 3, tzinfo=zone)))
        s.history.add(Event("unknown age"))
        before, exported = list(s.history), s.history.export()
    with stored(tmp_path, key) as s:
        assert list(s.history) == before
        assert s.history.export() == exported
        assert list(s.history)[1].video.path == "p/\udcff.mp4"
        assert list(s.history)[1].at == before[1].at
        assert s.store.stats().pinned == 3
        assert set(s.store) == {"a.mp4", "other id", "unknown age"}


def test_bounds_reach_the_disk(tmp_path: Path) -> None:
    clock = Clock()
    with stored(tmp_path, max_events=3, max_age=timedelta(days=10), clock=clock) as s:
        for i in "abcd":
            s.history.add(i)
        assert [e.id for e in s.history] == ["b", "c", "d"]
        clock.now += timedelta(days=20)
        s.history.add("e")
        assert [e.id for e in s.history] == ["e"]
        assert len(s.history) == 1
    with stored(tmp_path, clock=clock) as s:  # a year: they are still there, since only one event says how late it is
        assert [e.id for e in s.history] == ["c", "d", "e"]
    clock.now += timedelta(days=8)
    with stored(tmp_path, max_age=timedelta(days=10), clock=clock) as s:
        assert [e.id for e in s.history] == ["e"]
    with stored(tmp_path, max_age=None, clock=clock) as s:
        assert [e.id for e in s.history] == ["e"]
        assert list(s.store) == ["e"]
    clock.now += timedelta(days=20)
    with stored(tmp_path, max_age=timedelta(days=10), clock=clock) as s:
        assert list(s.history) == []


def test_a_clock_that_jumps_years_ahead_and_back_empties_nothing(tmp_path: Path) -> None:
    clock = Clock()
    with stored(tmp_path, clock=clock) as s:
        for i in "abc":
            s.history.add(i)
    for years in (10, 20):
        clock.now += timedelta(days=365 * years)
        with stored(tmp_path, clock=clock) as s:
            assert list(s.history) == []  # too old, as far as anybody can tell
            s.history.add(f"ahead {years}")
            assert [e.id for e in s.history] == [f"ahead {years}"]
        clock.now -= timedelta(days=365 * years)
        with stored(tmp_path, clock=clock) as s:
            assert [e.id for e in s.history][:3] == ["a", "b", "c"]
            s.history.add(f"back {years}")
            assert {"a", "b", "c"} <= set(s.store)
    clock.now += timedelta(days=400)  # time that really passes
    with stored(tmp_path, clock=clock) as s:
        s.history.add("later")
        clock.now += timedelta(days=8)
        s.history.add("later still")
        left = [e.id for e in s.history]
        assert {"later", "later still"} <= set(left)
        assert not {"a", "b", "c", "back 10"} & {*left, *s.store}


def test_the_order_is_that_of_adding_when_the_clock_jumps_back(tmp_path: Path) -> None:
    clock = Clock()
    with stored(tmp_path, clock=clock, max_age=timedelta(days=365)) as s:
        s.history.add("first")
        clock.now -= timedelta(days=3)
        s.history.add("second")
        assert [e.id for e in s.history] == ["first", "second"]
    with stored(tmp_path, clock=clock) as s:
        assert [e.id for e in s.history] == ["first", "second"]
        # "The last hour" holds what was really watched then, though its time seems to lie in the future.
        assert s.history.forget(since=timedelta(hours=1)) == 2


@pytest.mark.parametrize("key", [None, "k"])
def test_what_is_forgotten_leaves_the_files(tmp_path: Path, key: str | None) -> None:
    with stored(tmp_path, key) as s:
        for n in range(40):
            s.history.add(Event(Video(f"secret-{n}.mp4", title=f"hidden-{n}.")))
        put(s.store, "kept-candidate")
        assert key or b"secret-7." in raw_bytes(tmp_path)
        assert s.history.forget("secret-7.mp4") == 1
        raw = raw_bytes(tmp_path)  # of a database that is open
        assert b"secret-7." not in raw
        assert b"hidden-7." not in raw
        assert key or b"secret-8." in raw
        assert s.history.clear() == 39
        raw = raw_bytes(tmp_path)
        assert b"secret" not in raw
        assert b"hidden" not in raw
        assert list(s.store) == ["kept-candidate"]
    assert b"secret" not in raw_bytes(tmp_path)
    with stored(tmp_path, key) as s:
        assert list(s.history) == []


def test_nothing_is_left_in_the_slack_of_a_large_database(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    names = [f"mark{n:04d}" + "x" * int(rng.integers(0, 300)) for n in range(600)]
    with stored(tmp_path, max_events=1000) as s:
        with s.tokens.batch():
            for n in rng.permutation(600):
                put(s.store, names[n], title=names[n])
        for n in rng.permutation(600)[:60]:
            s.history.add(names[n])
        for n in rng.permutation(600)[:300]:  # moves rows about
            put(s.store, names[n], 5, title=names[n] + "!" * int(rng.integers(0, 200)))
        gone = [names[n] for n in rng.permutation(600)[:400]]
        for part in range(0, 400, 40):
            s.store.remove(gone[part : part + 40])
        for i in {e.id for e in s.history} & set(gone):
            s.history.forget(i)
        raw = raw_bytes(tmp_path)
        assert [i for i in gone if i.encode()[:8] in raw] == []
        left = [i for i in names if i not in gone]
        assert all(i.encode()[:8] in raw for i in left)


def test_auto_encoded_tokens_leave_with_their_event(tmp_path: Path) -> None:
    with stored(tmp_path) as s:
        put(s.store, "encoded before")
        s.history.add("encoded before")
        s.history.add("auto-encoded")
        s.history.add("auto-encoded")
        s.history.forget(since=NOW + timedelta(days=10_000))
        assert set(s.store) == {"encoded before", "auto-encoded"}
        assert s.history.forget("auto-encoded") == 2
        assert s.history.forget("encoded before") == 1
        assert list(s.store) == ["encoded before"]


def test_processes_see_each_others_events(tmp_path: Path) -> None:
    with stored(tmp_path) as one, stored(tmp_path) as two:
        one.history.add("a")
        assert [e.id for e in two.history] == ["a"]
        two.history.add("b")
        assert len(one.history) == 2
        assert one.history.forget("a") == 1
        assert [e.id for e in two.history] == ["b"]
        assert two.store.stats().pinned == 1
        two.history.clear()
        assert len(one.history) == 0


def test_incognito(tmp_path: Path) -> None:
    with stored(tmp_path) as s:
        s.history.add("before")
        with s.history.incognito():
            assert s.history.is_incognito
            with s.history.incognito():
                returned = s.history.add("hidden", watched=0.3)
            assert s.history.is_incognito
            assert (returned.id, returned.watched) == ("hidden", 0.3)
            put(s.store, "hidden too")
        assert not s.history.is_incognito
        assert [e.id for e in s.history] == ["before"]
        assert list(s.store) == ["before"]
        assert b"hidden" not in raw_bytes(tmp_path)
        s.history.add("after")
    with stored(tmp_path) as s:
        assert [e.id for e in s.history] == ["before", "after"]
        s.history.close()
        with pytest.raises(ClosedError), s.history.incognito():
            pass


# With a model


def test_a_history_outlives_its_files_and_its_recommender(tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copy(c, tmp_path)) for c in clips]
    options = {"precision": "fp32", "decoder": "opencv", "data_dir": tmp_path / "data"}
    with Recommender.load(tiny_bundle, key="k", **options) as rec:  # type: ignore[arg-type]
        rec.history.add(copies[0])
        rec.history.add(copies[1], watched=0.1)
        assert rec.encode(copies[2:]).failed == ()
        expected = rec.rank(candidates=copies[2:])
    for c in copies:
        c.unlink()
    with Recommender.load(tiny_bundle, key="k", **options) as rec:  # type: ignore[arg-type]
        again = rec.rank()
        assert again.failed == ()
        assert again.timing.encode == 0
        assert sorted(again.ids) == sorted(map(str, copies[2:]))
        assert {r.id: r.score for r in again} == pytest.approx({r.id: r.score for r in expected}, abs=1e-3)
        assert rec.forget(str(copies[0]))
        assert [e.id for e in rec.history] == [str(copies[1])]
        assert rec.history.clear() == 1


def test_a_ranking_while_incognito_leaves_nothing(tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    with Recommender.load(tiny_bundle, decoder="opencv", data_dir=tmp_path) as rec:
        with rec.history.incognito():
            assert len(rec.rank([clips[0]], clips[1:3])) == 2
        assert len(rec.store) == 0
    assert clips[0].name.encode() not in raw_bytes(tmp_path)


def test_a_file_that_changes_between_two_runs_is_encoded_again(
    tiny_bundle: Path, clips: list[Path], tmp_path: Path
) -> None:
    file = Path(shutil.copy(clips[0], tmp_path / "a.mp4"))
    for source, encoded in ((None, 1), (None, 0), (clips[1], 1)):
        if source:
            shutil.copy(source, file)
        with Recommender.load(tiny_bundle, decoder="opencv", data_dir=tmp_path / "d") as rec:
            assert len(rec.encode([file]).encoded) == encoded
