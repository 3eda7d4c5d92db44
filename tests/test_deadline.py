"""Anytime ranking: what is stored is ranked in time, the rest follows and is encoded behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clocks import each_look_takes

from linkedout_edge import Recommender, Video
from linkedout_edge.decode import Limits
from linkedout_edge.encode import service
from linkedout_edge.encode.encoder import Job
from linkedout_edge.encode.service import Background
from linkedout_edge.errors import ArgumentError, ArgumentTypeError, ClosedError, VideoError, VideoUnreadableError


class Gate:
    """A decoder that waits until it is let through; files named bad* fail."""

    name = "gate"

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.seen: list[str] = []
        self.entered = threading.Event()

    def __call__(self, path: str, count: int, size: int, limits: Limits) -> np.ndarray:
        name = Path(path).name
        self.entered.set()
        assert self.open.wait(60)
        self.seen.append(name)
        if name.startswith("bad"):
            raise VideoUnreadableError("it is no video")
        rng = np.random.default_rng(sum(name.encode()))
        return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def gated(tiny_bundle: Path, gate: Gate) -> Iterator[Recommender]:
    with Recommender.load(tiny_bundle, precision="fp32", decoder=gate, threads=1) as rec:
        yield rec
        gate.open.set()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"v{n}" for n in range(8)]
    for n, p in enumerate(paths):
        p.write_bytes(b"x" * (n + 1))
    return [str(p) for p in paths]


def names(ids: list[str]) -> list[str]:
    return [Path(i).name for i in ids]


def test_stored_first_then_pending_in_input_order_then_all(gated: Recommender, gate: Gate, files: list[str]) -> None:
    gated.encode(files[:4])
    gate.open.clear()
    ranking = gated.rank(files[:2], files, deadline_ms=60)  # returns, although the gate is shut
    expected = gated.rank(files[:2], files[:4])
    assert ranking.ids == [*expected.ids, *files[4:]]
    assert [r.source for r in ranking] == ["content"] * 4 + ["pending"] * 4
    assert [r.rank for r in ranking] == list(range(1, 9))
    np.testing.assert_array_equal(ranking.scores[:4], expected.scores)
    assert ranking.scores[4:].tolist() == [0] * 4
    assert ranking.failed == ()
    late = ranking[5].explain()
    assert not late.matrix.any()
    assert late.matrix.shape == (2, 3)
    assert "deadline" in late.sentence
    assert not gated.wait(timeout=0.05)
    gate.open.set()
    assert gated.wait(timeout=60)
    assert all(f in gated.store for f in files)
    whole = gated.rank(files[:2], files, deadline_ms=1000)
    assert {r.source for r in whole} == {"content"}
    assert sorted(gate.seen) == [f"v{n}" for n in range(8)]  # each once


def test_a_generous_deadline_is_a_plain_ranking(gated: Recommender, files: list[str], tiny_bundle: Path) -> None:
    ranking = gated.rank(files[:2], files, deadline_ms=60_000)
    assert {r.source for r in ranking} == {"content"}
    with Recommender.load(tiny_bundle, precision="fp32", decoder=Gate()) as other:
        plain = other.rank(files[:2], files)
    assert ranking.ids == plain.ids
    np.testing.assert_allclose(ranking.scores, plain.scores, atol=1e-6)


def test_the_ranking_itself_is_left_time_before_the_deadline(gated: Recommender, gate: Gate, files: list[str]) -> None:
    """Where the last ranking took as long as there is, none is spent on waiting for what is being encoded.

    Who waits all the same meets the gate's own error, after 20 s.
    """
    gated.encode(files[:4])
    with each_look_takes(seconds=1000):
        assert gated.rank(files[:2], files[:4]).timing.score > 900
    gate.open.clear()
    ranking = gated.rank(files[:2], files[:6], deadline_ms=60_000)
    assert [r.source for r in ranking] == ["content"] * 4 + ["pending"] * 2
    assert ranking.failed == ()
    gate.open.set()
    assert gated.wait(20)
    # That ranking took no time: now there is some for the rest.
    assert {r.source for r in gated.rank(files[:2], files, deadline_ms=60_000)} == {"content"}


def test_pending_follows_the_prior_and_counts_for_top_k(gated: Recommender, gate: Gate, files: list[str]) -> None:
    gated.encode(files[:2])
    gate.open.clear()
    prior = {files[n]: float(p) for n, p in ((2, 1), (3, 9), (4, 5), (0, 0))}
    ranking = gated.rank([files[0]], files[:6], deadline_ms=0, prior=prior, top_k=4)
    assert ranking.ids[2:] == [files[3], files[4]]
    assert [r.source for r in ranking] == ["content", "content", "pending", "pending"]
    assert ranking[2].score == pytest.approx(ranking[2].explain().prior)
    assert ranking[2].score > ranking[3].score
    gate.open.set()
    assert gated.wait(60)
    # One was taken before the prior was known to matter to others; the liked ones come before the unknown.
    assert gate.seen.index("v3") < gate.seen.index("v5")


def test_a_watched_video_that_is_late_does_not_count_and_is_reported(
    gated: Recommender, gate: Gate, files: list[str]
) -> None:
    gated.encode([files[0], files[2]])
    gate.open.clear()
    ranking = gated.rank([files[0], files[1]], [files[2], files[1]], deadline_ms=10)
    assert [(f.id, f.role, f.code) for f in ranking.failed] == [(files[1], "history", "pending")]
    assert ranking.ids == [files[2], files[1]]
    assert ranking[0].score == gated.rank([files[0]], [files[2]])[0].score
    gate.open.set()
    assert gated.wait(60)
    assert gated.rank([files[0], files[1]], [files[2]], deadline_ms=10).failed == ()


def test_what_fails_in_time_is_in_failed(gated: Recommender, files: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"?")
    bad = str(tmp_path / "bad")
    ranking = gated.rank([], [files[0], bad, "no such"], deadline_ms=20_000)
    assert ranking.ids == [files[0]]
    assert {(f.id, f.code) for f in ranking.failed} == {(bad, "unreadable"), ("no such", "not_found")}
    assert gated.wait(1)
    gated.rank([], [bad], deadline_ms=0)
    assert gated.wait(60)  # a failure behind the scenes is no crash; it shows when the video is needed again
    assert gated.rank([], [bad]).failed[0].code == "unreadable"


def test_the_latest_call_comes_first(gated: Recommender, gate: Gate, files: list[str]) -> None:
    gate.open.clear()
    gated.rank([], files[:6], deadline_ms=0)
    assert gate.entered.wait(60)
    gated.rank([], [files[7]], deadline_ms=0)
    gate.open.set()
    assert gated.wait(60)
    assert sorted(gate.seen) == ["v0", "v1", "v2", "v3", "v4", "v5", "v7"]
    assert gate.seen.index("v7") <= 4  # behind what was already being encoded, before the rest


def test_close_stops_the_background_cleanly(tiny_bundle: Path, gate: Gate, files: list[str]) -> None:
    rec = Recommender.load(tiny_bundle, precision="fp32", decoder=gate, threads=1)
    gate.open.clear()
    rec.rank([], files, deadline_ms=0)
    assert gate.entered.wait(60)
    threading.Timer(0.1, gate.open.set).start()
    rec.close()
    assert not [t for t in threading.enumerate() if t.name == "linkedout-encode"]
    assert len(gate.seen) < len(files)
    with pytest.raises(ClosedError):
        rec.wait()
    with pytest.raises(ClosedError):
        rec.rank([], files, deadline_ms=5)


def test_forgotten_means_it_does_not_come_back(gated: Recommender, gate: Gate, files: list[str]) -> None:
    gate.open.clear()
    gated.rank([], files, deadline_ms=0)
    assert gate.entered.wait(60)
    threading.Timer(0.1, gate.open.set).start()
    for f in (files[0], files[6]):  # the one being encoded, and one that waits
        gated.forget(f)
        assert f not in gated.store
    assert gated.wait(60)
    assert files[0] not in gated.store
    assert files[6] not in gated.store
    assert files[1] in gated.store


def test_forgetting_does_not_wait_for_what_others_encode(gated: Recommender, gate: Gate, files: list[str]) -> None:
    gate.open.clear()
    encoding = threading.Thread(target=gated.encode, args=(files[:3],))
    encoding.start()
    assert gate.entered.wait(60)
    gated.rank([], files[3:], deadline_ms=300)  # long enough to be at the head of the queue
    forgetting = threading.Thread(target=gated.forget, args=(files[3],))
    forgetting.start()
    forgetting.join(10)
    waited = forgetting.is_alive()
    gate.open.set()
    encoding.join()
    forgetting.join()
    assert not waited
    assert gated.wait(60)
    assert files[3] not in gated.store
    assert files[4] in gated.store


def test_progress_may_forget(gated: Recommender, files: list[str]) -> None:
    def progress(done: int, total: int) -> None:
        if done == 1:
            gated.rank([], files[3:], deadline_ms=300)
            gated.forget(files[3])

    encoding = threading.Thread(target=gated.encode, args=(files[:3], progress), daemon=True)
    encoding.start()
    encoding.join(60)
    assert not encoding.is_alive()
    assert gated.wait(60)
    assert files[3] not in gated.store
    assert files[4] in gated.store


def test_while_incognito_nothing_goes_on_behind(gated: Recommender, gate: Gate, files: list[str]) -> None:
    gate.open.clear()
    gated.rank([], files[:1], deadline_ms=0)
    assert gate.entered.wait(10)
    with gated.history.incognito():
        assert {r.source for r in gated.rank([], files[1:], deadline_ms=0)} == {"pending"}
    gate.open.set()
    assert gated.wait(20)
    assert gate.seen == ["v0"]
    assert gated.store.select().ids == files[:1]


def test_new_content_of_a_known_id_is_pending_not_ranked_as_the_old(
    gated: Recommender, gate: Gate, frames: np.ndarray, files: list[str]
) -> None:
    gated.encode([files[0], Video(frames=frames, id="f")])
    before = gated.rank([files[0]], ["f"])[0].score
    gate.open.clear()
    gate.entered.clear()
    gated.rank([], [files[1]], deadline_ms=0)  # frames need no decoder: another video keeps them waiting
    assert gate.entered.wait(10)
    ranking = gated.rank([files[0]], [Video(frames=frames[:, ::-1] // 2, id="f")], deadline_ms=0)
    assert [r.source for r in ranking] == ["pending"]
    gate.open.set()
    assert gated.wait(60)
    assert gated.rank([files[0]], ["f"])[0].score != before


def test_nothing_is_started_when_all_is_stored(gated: Recommender, files: list[str]) -> None:
    gated.encode(files)
    before = threading.active_count()
    assert len(gated.rank(files[:1], files, deadline_ms=0)) == 8
    assert len(gated.rank(files[:1], gated.store.select(), deadline_ms=0)) == 8
    assert threading.active_count() == before
    assert gated.wait(0)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1, ArgumentError),
        (float("inf"), ArgumentError),
        (float("nan"), ArgumentError),
        ("5", ArgumentTypeError),
        (True, ArgumentTypeError),
    ],
)
def test_nonsense_is_refused(gated: Recommender, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="deadline_ms"):
        gated.rank([], [], deadline_ms=value)
    with pytest.raises(error, match="timeout"):
        gated.wait(value)


# The thread alone


def job(name: str) -> Job:
    return Job(name, Video(id=name))


def test_too_many_waiting_are_dropped_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_WAITING", 3)
    begun, go, done = threading.Event(), threading.Event(), []

    def encode(jobs: Any, finished: Any) -> None:
        begun.set()
        assert go.wait(60)
        for j in jobs:
            done.append(j.id)
            finished(j, None)

    b = Background(encode, threading.RLock())
    (first,) = b.submit([job("first")])
    assert begun.wait(60)
    tickets = b.submit([job(f"old{n}") for n in range(3)]) + b.submit([job("new0"), job("new1")])
    assert [t.dropped for t in tickets] == [False, True, True, False, False]
    go.set()
    assert b.wait(60)
    assert done == ["first", "new0", "new1", "old0"]
    assert first.done
    assert not first.dropped
    b.close()
    with pytest.raises(ClosedError):
        b.submit([job("x")])


def test_what_is_queued_behind_comes_last_and_in_order() -> None:
    begun, go, done = threading.Event(), threading.Event(), []

    def encode(jobs: Any, finished: Any) -> None:
        begun.set()
        assert go.wait(60)
        for j in jobs:
            done.append(j.id)
            finished(j, None)

    b = Background(encode, threading.RLock())
    b.submit([job("first")])
    assert begun.wait(60)
    b.submit([job("c"), job("d")], behind=True)
    b.submit([job("a"), job("d")])  # who is waited for comes first
    b.submit([job("a"), job("e")], behind=True)
    go.set()
    assert b.wait(60)
    assert done == ["first", "a", "d", "c", "e"]
    b.close()
    assert b.submit([job("x")], behind=True) == []


def test_an_error_of_the_library_does_not_kill_what_follows(caplog: pytest.LogCaptureFixture) -> None:
    def encode(jobs: Any, finished: Any) -> None:
        if any(j.id == "secret.mp4" for j in jobs):
            raise RuntimeError("secret.mp4 broke it")
        for j in jobs:
            finished(j, VideoError("no"))

    b = Background(encode, threading.RLock())
    (broken,) = b.submit([job("secret.mp4")])
    assert b.wait(60)
    assert broken.dropped
    (other,) = b.submit([job("other")])
    assert b.wait(60)
    assert isinstance(other.error, VideoError)
    assert "RuntimeError" in caplog.text
    assert not [r for r in caplog.records if r.levelname == "WARNING" and "secret" in r.getMessage()]
    b.close()
    b.close()
