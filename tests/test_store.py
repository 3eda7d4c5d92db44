from __future__ import annotations

import os
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from stored import CONFIG, inner, new_store, number, put, value

from linkedout_edge import Event, Video
from linkedout_edge.errors import ArgumentError, ArgumentTypeError, VideoNotFoundError, VideoUnreadableError
from linkedout_edge.history import History
from linkedout_edge.store import Snapshot, TokenStore, file_is_unchanged, fingerprint
from linkedout_edge.store.tokens import LATEST


def test_rows_survive_growth_replacement_and_removal() -> None:
    store = new_store()
    for i in range(100):
        put(store, f"v{i}", i)
    put(store, "v5", 77)
    assert store.remove("v0") == 1
    assert store.remove(["v1", "v1", "nope"]) == 1
    assert len(store) == 98
    assert "v0" not in store
    assert next(iter(store)) == "v2"
    assert value(store, "v5") == 77
    assert all(value(store, f"v{i}") == i for i in range(6, 100))
    stats = store.stats()
    assert (stats.videos, stats.payload_bytes) == (98, 98 * CONFIG.payload_bytes)


def test_removed_tokens_are_overwritten() -> None:
    store = new_store()
    put(store, "a", 1)
    put(store, "b", 42)
    store.remove("b")
    assert not (inner(store).rows.tokens == 42).any()
    store.remove("a")
    assert not inner(store).rows.tokens.any()


def test_the_least_recently_used_leaves_and_pinned_stay() -> None:
    store = new_store(max_videos=3)
    for i in "abc":
        put(store, i)
    inner(store).pin(["a"])
    inner(store).touch(inner(store).find(["b"]))
    put(store, "d")
    assert list(store) == ["a", "b", "d"]
    inner(store).unpin(["a"])
    put(store, "e")
    assert list(store) == ["b", "d", "e"]
    assert store.stats().evicted == 2


def test_the_clock_of_uses_stops_at_its_end() -> None:
    store = new_store(3)
    tokens = inner(store)
    put(store, "1")
    tokens._clock = LATEST - 1
    for name in ("2", "3", "4"):
        put(store, name)
    assert [*store] == ["2", "3", "4"]
    assert tokens.rows.used[tokens.find(["2", "3", "4"])].tolist() == [LATEST] * 3
    put(store, "5")
    assert len(store) == 3
    assert "5" in store


def test_when_all_are_pinned_the_bound_gives_way_and_comes_back() -> None:
    store = new_store(max_videos=2)
    with inner(store).pinned("abc"):
        for i in "abc":
            put(store, i)
        assert len(store) == 3
    put(store, "d")
    assert len(store) == 2
    assert "d" in store


def test_a_selection_follows_what_leaves() -> None:
    store = new_store()
    for n, i in enumerate("abc"):
        put(store, i, n + 1)
    handle = store.select(["c", "a", "nope", "c"])
    assert (handle.ids, handle.missing, len(handle)) == (["c", "a"], ("nope",), 2)
    store.remove("b")
    put(store, "a", 7)
    assert inner(store).rows.tokens[handle._rows()][:, 0, 0, 0].tolist() == [3, 7]
    store.remove("c")
    assert (handle._rows() < 0).tolist() == [True, False]
    assert store.select().ids == ["a"]
    with pytest.raises(ArgumentTypeError, match="must be a list"):
        store.select("a")


def test_a_snapshot_says_whether_what_was_read_still_holds() -> None:
    store = new_store()
    for i in "abcd":
        put(store, i)
    tokens = inner(store)
    with tokens.lock:
        some = tokens.rows.snapshot(tokens.find(["b", "d"]))
    put(store, "c", 9)
    put(store, "e")
    assert some.mark.is_current()  # other rows come and go
    put(store, "b", 9)
    assert not some.mark.is_current()


class Watched(np.ndarray):
    """Tokens of rows, which nobody may write to while a snapshot calls them alive."""

    snapshots: list[Snapshot]

    def __setitem__(self, at: object, values: object) -> None:
        rows = np.arange(len(self))[at]
        for snapshot in self.snapshots:
            assert not snapshot.mark.alive[rows].any()
            assert not (np.isin(rows, snapshot.mark.rows).any() and snapshot.mark.is_current())
        super().__setitem__(at, values)


def test_rows_are_dead_before_they_are_overwritten() -> None:
    store = new_store()
    ids = [f"v{n}" for n in range(150)]
    for i in ids:
        put(store, i)
    rows = inner(store).rows
    watched = rows.tokens.view(Watched)
    watched.snapshots = [rows.snapshot(rows.find(ids))]
    rows.tokens = watched
    put(store, "v7", 3)
    assert store.remove(ids[:60]) == 60
    watched.snapshots.append(rows.snapshot(rows.find(ids[60:])))
    assert store.remove(ids[60:80]) == 20  # the rest moves together
    assert [value(store, i) for i in store] == [number(i) for i in ids[80:]]
    assert rows.find(ids[80:]).tolist() == list(range(70))
    assert not any(s.mark.is_current() for s in watched.snapshots)


def test_rows_that_moved_together_are_found_again() -> None:
    store = new_store()
    ids = [f"v{n}" for n in range(300)]
    for n, i in enumerate(ids):
        put(store, i, n % 120 + 1)
    tokens = inner(store)
    with tokens.lock:
        before = tokens.rows.snapshot(tokens.find(["v299"]))
    handle = store.select(ids[150:])
    store.remove(ids[:150])
    assert not before.mark.is_current()
    assert handle._rows().max() < 150
    assert all(value(store, i) == n % 120 + 1 for n, i in enumerate(ids) if n >= 150)
    assert list(store) == ids[150:]
    assert not tokens.rows.tokens[150:].any()


def test_fingerprints_of_files(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"x" * 500_000)
    video = Video(file)
    first = fingerprint(video)
    assert file_is_unchanged(video, first)
    os.utime(file, ns=(1, 1))
    assert not file_is_unchanged(video, first)
    assert fingerprint(video).content == first.content
    for place in (0, 250_000, 499_999):
        changed = bytearray(b"x" * 500_000)
        changed[place] = 0
        file.write_bytes(changed)
        assert fingerprint(video).content != first.content
    file.unlink()
    assert not file_is_unchanged(video, first)
    with pytest.raises(VideoNotFoundError, match="no such file"):
        fingerprint(video)
    with pytest.raises(VideoUnreadableError, match="a directory"):
        fingerprint(Video(tmp_path))
    with pytest.raises(VideoNotFoundError, match="encode the video first"):
        fingerprint(Video(id="x"))
    with pytest.raises(VideoNotFoundError):
        fingerprint(Video("a\0b"))


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(VideoUnreadableError, match="regular file"):
        fingerprint(Video(tmp_path / "pipe"))


def test_many_threads_leave_a_store_in_order() -> None:
    store = new_store(max_videos=20)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for n in rng.integers(0, 40, 300):
            put(store, f"v{n}", n) if n % 3 else store.remove(f"v{n - 1}")

    threads = [threading.Thread(target=work, args=(s,)) for s in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(store) <= 20
    assert all(value(store, i) == int(i[1:]) for i in store)


# History

NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)


def new_history(store: TokenStore | None = None, **options) -> History:  # type: ignore[no-untyped-def]
    kept = new_store() if store is None else store
    return History(inner(kept), lambda v: put(kept, v.id), clock=lambda: NOW, **options)


def test_events_are_kept_in_order_without_frames(frames: np.ndarray) -> None:
    history = new_history()
    history.add("a.mp4", watched=0.5)
    kept = history.add(Event(Video(frames=frames, id="f", title="T"), liked=True))
    assert (kept.video.frames, kept.video.title, kept.at) == (None, "T", None)
    assert [e.id for e in history] == ["a.mp4", "f"]
    assert history.export() == [
        {"id": "a.mp4", "title": None, "watched": 0.5, "liked": None, "at": NOW.isoformat()},
        {"id": "f", "title": "T", "watched": 1.0, "liked": True, "at": None},
    ]


def test_history_is_bounded_by_number_and_age_and_pins() -> None:
    store = new_store(max_videos=2)
    history = new_history(store, max_events=2, max_age=timedelta(days=1))
    history.add(Event("old", at=NOW - timedelta(days=2)))
    assert list(history) == []
    for i in "abc":
        history.add(i)
    assert [e.id for e in history] == ["b", "c"]
    assert store.stats().pinned == 2
    put(store, "other")
    assert {"b", "c"} <= set(store)


def test_forgetting_by_id_by_time_and_all() -> None:
    history = new_history()
    history.add(Event("a", at=NOW - timedelta(hours=3)))
    history.add(Event("b", at=NOW - timedelta(minutes=30)))
    history.add(Event("unknown age"))
    history.add(Event("a", at=NOW - timedelta(hours=2)))
    assert history.forget(since=timedelta(hours=1)) == 2
    assert history.forget("a") == 2
    assert history.forget("a") == 0
    history.add("c")
    assert history.forget(since=NOW - timedelta(seconds=1)) == 1
    history.add("d")
    assert history.clear() == 1
    assert len(history) == 0
    assert history._store.count_pinned() == 0


def test_history_mistakes() -> None:
    history = new_history()
    with pytest.raises(ArgumentError, match="id or since"):
        history.forget()
    with pytest.raises(ArgumentError, match="time zone"):
        history.forget(since=datetime(2026, 1, 1))
    with pytest.raises(ArgumentError, match="an Event is complete"):
        history.add(Event("a"), watched=0.1)
    with pytest.raises(ArgumentTypeError, match="unknown event field 'whatched'"):
        history.add("a", whatched=0.1)
    assert len(history) == 0
