from __future__ import annotations

import asyncio
import json
import logging
import math
import shutil
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from public_calls import all_calls
from stored import fill, limit_store, tokens_of

from linkedout_edge import Event, Failed, Recommender, Video
from linkedout_edge.config import ModelConfig
from linkedout_edge.decode import Limits
from linkedout_edge.encode.encoder import Encoded, Job
from linkedout_edge.errors import (
    ArgumentError,
    ArgumentTypeError,
    ClosedError,
    DeviceError,
    LinkedOutError,
    VideoNotFoundError,
    VideoUnreadableError,
)
from linkedout_edge.rank.scorer import Scorer
from linkedout_edge.rank.taste import MAX_EVENTS


def load(bundle: Path, **options: Any) -> Recommender:
    return Recommender.load(bundle, **{"precision": "fp32", "decoder": "opencv", **options})


class CountingDecoder:
    """Grey frames whose level is the number in the path; remembers what it was asked for."""

    name = "counting"

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __call__(self, path: str, count: int, size: int, limits: Limits) -> np.ndarray:
        self.paths.append(Path(path).name)
        rng = np.random.default_rng(len(Path(path).read_bytes()))
        return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def files(folder: Path, count: int) -> list[str]:
    paths = [folder / f"v{n}" for n in range(count)]
    for n, p in enumerate(paths):
        p.write_bytes(b"x" * (n + 1))
    return [str(p) for p in paths]


# Ranking


def test_clips_are_ranked_and_explained_exactly(rec: Recommender, clips: list[Path]) -> None:
    at = datetime.now(timezone.utc) - timedelta(hours=5)
    history = [clips[0], Event(clips[1], watched=0.1), Event(clips[0], liked=True, at=at)]
    ranking = rec.rank(history, clips[1:])
    assert [r.rank for r in ranking] == [1, 2, 3, 4, 5]
    assert {r.id for r in ranking} == {str(c) for c in clips[1:]}
    assert ranking.failed == ()
    assert np.all(np.diff(ranking.scores) <= 0)
    assert len(set(ranking.scores.tolist())) > 1
    for r in ranking:
        assert r.source == "content"
        assert math.isclose(sum(r.layers), r.score, abs_tol=1e-5)
        explanation = r.explain()
        assert explanation.matrix.shape == (3, 3)
        assert explanation.history == (str(clips[0]), str(clips[1]), str(clips[0]))
        assert math.isclose(explanation.matrix.sum(), r.score, abs_tol=1e-3)
        np.testing.assert_allclose(explanation.matrix.sum(0), r.layers, atol=1e-3)
    t = ranking.timing
    assert t.decode > 0
    assert t.encode > 0
    assert t.decode + t.encode + t.user + t.score <= t.total
    json.dumps(ranking.to_dict())


def test_the_order_is_the_same_again_in_another_batch_and_on_openvino(
    tiny_bundle: Path, clips: list[Path], rec: Recommender
) -> None:
    pytest.importorskip("openvino")
    first = rec.rank(clips[:2], clips[1:])
    assert rec.rank(clips[:2], clips[1:]).ids == first.ids
    with load(tiny_bundle) as one, load(tiny_bundle, backend="openvino") as other:
        for clip in reversed(clips):
            one.encode([clip])
        scores = {r.id: r.score for r in first}
        for ranking in (one.rank(clips[:2], clips[1:]), other.rank(clips[:2], clips[1:])):
            for r in ranking:
                assert math.isclose(scores[r.id], r.score, abs_tol=1e-3)


def test_int8_and_a_zip_rank_too(tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    zipped = shutil.make_archive(str(tmp_path / "tiny"), "zip", tiny_bundle)
    with Recommender.load(zipped, decoder="opencv") as r:
        assert r.info().precision == "int8"
        assert len(r.rank(clips[:2], clips[2:])) == 4


def test_without_history_all_scores_are_0_and_the_list_is_spread_out(rec: Recommender, clips: list[Path]) -> None:
    ranking = rec.rank([], clips)
    assert sorted(ranking.ids) == sorted(str(c) for c in clips)
    assert set(ranking.scores.tolist()) == {0.0}
    assert {r.source for r in ranking} == {"cold_start"}
    explanation = ranking[0].explain()
    assert explanation.matrix.shape == (0, 3)
    assert "Nothing is known of your taste yet" in explanation.sentence
    assert rec.rank([], clips, top_k=2).ids == ranking.ids[:2]


def test_copies_do_not_fill_the_first_places_of_a_cold_start(rec: Recommender, frames: np.ndarray) -> None:
    copies = [Video(frames=frames, id=f"copy{n}") for n in range(5)]
    others = [Video(frames=np.roll(frames, n, -1) // n, id=f"other{n}") for n in (2, 3)]
    first = rec.rank([], [*copies, *others]).ids[:3]
    assert sum(i.startswith("copy") for i in first) == 1


def test_after_skips_alone_what_was_skipped_and_its_like_come_last(rec: Recommender, frames: np.ndarray) -> None:
    copies = [Video(frames=frames, id=f"copy{n}") for n in range(3)]
    others = [Video(frames=np.roll(frames, n, -1) // n, id=f"other{n}") for n in (2, 3, 4)]
    rec.encode([*copies, *others])
    ranking = rec.rank([Event("copy0", watched=0.1)])
    assert {r.source for r in ranking} == {"cold_start"}
    assert all(i.startswith("other") for i in ranking.ids[:3])
    assert "which you skipped" in ranking[0].explain().sentence
    assert {r.source for r in rec.rank([Event("copy0", watched=0.1), "copy1"])} == {"content"}


def test_a_prior_decides_a_cold_start(rec: Recommender, clips: list[Path]) -> None:
    ids = [str(c) for c in clips]
    ranking = rec.rank([], clips, prior=[0.0, 1.0, 0.0, 2.0, 0.0, 0.0])
    assert ranking.ids[:2] == [ids[3], ids[1]]
    assert {r.source for r in ranking} == {"prior"}


def test_exploring_adds_up_and_prefers_what_little_is_known_of(rec: Recommender, clips: list[Path]) -> None:
    plain = {r.id: r for r in rec.rank(clips[:2], clips)}
    ranking = rec.rank(clips[:2], clips, explore=0.5)
    parts = {r.id: r.explain() for r in ranking}
    for r in ranking:
        told = parts[r.id]
        assert math.isclose(told.matrix.sum() + told.explored, r.score, abs_tol=1e-3)
        assert math.isclose(told.matrix.sum(), plain[r.id].score, abs_tol=1e-3)
    explored = np.array([parts[str(c)].explored for c in clips])
    assert math.isclose(explored.mean(), 0, abs_tol=1e-5)
    assert math.isclose(explored.std(), 0.5, abs_tol=1e-5)
    assert max(explored[:2]) < max(explored[2:])
    assert plain[str(clips[0])].explain().explored == 0


def test_the_average_video_of_the_store_counts(rec: Recommender, clips: list[Path], frames: np.ndarray) -> None:
    before = {r.id: r.score for r in rec.rank(clips[:1], clips)}
    more = rec.encode([Video(frames=np.roll(frames, n, 1), id=f"m{n}") for n in range(8)]).encoded
    between = {r.id: r.score for r in rec.rank(clips[:1], clips)}
    assert before != between
    for i in more:
        rec.store.remove(i)
    assert {r.id: r.score for r in rec.rank(clips[:1], clips)} == before


@pytest.mark.parametrize(
    "history",
    [
        [Event("v0")] * 10_000,
        [Event(f"v{n % 40}", watched=0.1) for n in range(10_000)],
        [Event(f"v{n % 3}", watched=n % 2, liked=bool(n % 2)) for n in range(300)],
        [Event("v1"), Event("v1", liked=False)],
        [Event(f"v{n}", at=datetime(1, 1, 2, tzinfo=timezone.utc)) for n in range(5)],
        [Event(f"v{n}", at=datetime(9999, 12, 30, tzinfo=timezone.utc)) for n in range(5)],
    ],
    ids=["one video ten thousand times", "skips alone", "contradictions", "opposites", "ancient", "future"],
)
def test_whatever_was_watched_scores_are_finite_and_explained(rec: Recommender, history: list[Event]) -> None:
    ids = fill(rec, 40)
    ranking = rec.rank(history, ids, explore=0.2)
    assert sorted(ranking.ids) == sorted(ids)
    assert np.isfinite(ranking.scores).all()
    told = ranking[0].explain()
    assert len(told.history) == min(len(history), MAX_EVENTS)
    assert math.isclose(told.matrix.sum() + told.explored, ranking[0].score, abs_tol=1e-3)


def test_only_the_latest_events_count(rec: Recommender) -> None:
    ids = fill(rec, 40)
    latest = [Event(f"v{n % 20}") for n in range(MAX_EVENTS)]
    long = [Event("v39", liked=True)] * 100 + latest
    assert rec.rank(long, ids).scores.tolist() == rec.rank(latest, ids).scores.tolist()


def test_the_taste_is_told(rec: Recommender, frames: np.ndarray) -> None:
    nothing = rec.taste()
    assert (nothing.events, nothing.likes, nothing.avoids) == (0, (), ())
    assert nothing.sentence == "Nothing is known to be liked yet."
    rec.encode(
        [
            Video(frames=frames, id="1", title="Cats"),
            Video(frames=255 - frames, id="2"),
            Video(frames=frames // 3, id="3"),
        ]
    )
    rec.history.add("1")
    rec.history.add("2", liked=False)
    told = rec.taste()
    assert told.events == 2
    assert [like.videos for like in told.likes] == [("1",)]
    assert told.likes[0].share == 1
    assert told.avoids == ("2",)
    assert told.sentence == "Likes videos like “Cats”; avoids videos like “2”."
    assert math.isclose(sum(told.layers), 1, abs_tol=1e-9)
    assert json.loads(json.dumps(told.to_dict()))["avoids"] == ["2"]
    both = rec.taste([Event("1"), Event("3", liked=False), Event("1", watched=0.0)])
    assert both.likes[0].videos == ("1",)
    assert both.avoids == ("3",)  # "1" was skipped as well, and is named once
    assert rec.taste([Event("2"), "not stored"]).likes[0].videos == ("2",)
    with pytest.raises(ArgumentTypeError):
        rec.taste("1")


def test_titles_given_when_encoding_are_used_in_explanations(rec: Recommender, frames: np.ndarray) -> None:
    rec.encode([Video(frames=frames, id="1", title="Cats on a sofa"), Video(frames=frames // 2, id="2")])
    rec.history.add("1")
    assert rec.rank(candidates=["2"])[0].explain().sentence.count("“Cats on a sofa”") == 1
    other = rec.rank([Video(id="1", title="Mine")], ["2"])
    assert other.failed or "“Mine”" in other[0].explain().sentence


def test_empty_lists_give_an_empty_ranking(rec: Recommender, clips: list[Path]) -> None:
    assert list(rec.rank([clips[0]], [])) == []
    assert list(rec.rank([], ["missing"])) == []
    assert list(rec.rank([clips[0]])) == []
    rec.store.remove(str(clips[0]))
    assert list(rec.rank()) == []


def test_top_k_and_duplicates_and_exclude_watched(rec: Recommender, clips: list[Path]) -> None:
    whole = rec.rank(clips[:2], clips)
    assert rec.rank(clips[:2], clips, top_k=3).ids == whole.ids[:3]
    assert rec.rank(clips[:2], clips, top_k=1)[0] == whole[0]
    assert rec.rank(clips[:2], [*clips, *clips, Video(clips[0])], top_k=100).ids == whole.ids
    assert str(clips[0]) in whole.ids
    assert set(rec.rank(clips[:2], clips, exclude_watched=True).ids) == {str(c) for c in clips[2:]}


def test_equal_videos_tie_in_input_order(rec: Recommender, frames: np.ndarray, clips: list[Path]) -> None:
    ids = ["z", "a", "m"]
    assert rec.rank([clips[0]], [Video(frames=frames, id=i) for i in ids]).ids == ids


def test_titles_are_read(rec: Recommender, frames: np.ndarray, clips: list[Path]) -> None:
    given = [Video(frames=frames, id="plain"), Video(frames=frames, id="titled", title="a red ball")]
    plain, titled = sorted(rec.rank([clips[0]], given), key=lambda r: r.id)
    assert plain.score != titled.score


def test_a_plain_id_means_the_stored_video_and_its_file_is_not_looked_at(tiny_bundle: Path, tmp_path: Path) -> None:
    decoder = CountingDecoder()
    paths = files(tmp_path, 4)
    with load(tiny_bundle, decoder=decoder) as rec:
        assert rec.info().decoder == "counting"
        first = rec.rank(paths[:2], [*paths, Video(paths[3], id="four")])
        assert sorted(decoder.paths) == ["v0", "v1", "v2", "v3", "v3"]
        for p in paths:
            Path(p).unlink()
        assert rec.rank(paths[:2], [*paths, "four"]).to_dict()["ranked"] == first.to_dict()["ranked"]
        assert len(decoder.paths) == 5


def test_a_handle_ranks_like_its_ids(rec: Recommender, clips: list[Path], tiny_bundle: Path) -> None:
    rec.encode(clips)
    ids = [str(c) for c in clips]
    handle = rec.store.select([*ids, "nope"])
    by_handle = rec.rank(clips[:2], handle)
    assert by_handle.ids == rec.rank(clips[:2], ids).ids
    assert by_handle.failed[0] == Failed("nope", "candidate", "not_found", by_handle.failed[0].reason)
    rec.store.remove(ids[4])
    later = rec.rank(clips[:2], handle)
    assert ids[4] not in later.ids
    assert len(later) == 5
    assert {f.id for f in later.failed} == {"nope", ids[4]}
    assert math.isclose(later[0].explain().matrix.sum(), later[0].score, abs_tol=1e-3)
    with load(tiny_bundle) as other, pytest.raises(ArgumentError, match="another recommender"):
        other.rank([], handle)


def test_candidates_none_is_what_was_not_watched(rec: Recommender, clips: list[Path]) -> None:
    rec.encode(clips[:4])
    assert set(rec.rank([clips[0]]).ids) == {str(c) for c in clips[1:4]}
    rec.history.add(clips[1])
    assert set(rec.rank().ids) == {str(clips[n]) for n in (0, 2, 3)}


def test_many_candidates_are_scored_where_they_lie(
    rec: Recommender, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linkedout_edge.rank.ranker.KEPT_FOR_EXPLAINING", 2)
    whole = rec.rank(clips[:2], clips)
    last = whole[-1]
    assert math.isclose(last.explain().matrix.sum(), last.score, abs_tol=1e-3)
    rec.store.remove(last.id)
    with pytest.raises(ArgumentError, match="rank again"):
        last.explain()
    assert math.isclose(whole[0].explain().matrix.sum(), whole[0].score, abs_tol=1e-3)


# One video's problems


def test_bad_videos_fail_and_never_spoil_the_rest(
    rec: Recommender, clips: list[Path], tmp_path: Path, frames: np.ndarray
) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "cut.mp4").write_bytes(clips[0].read_bytes()[:100])
    bad = [tmp_path / n for n in ("missing.mp4", "empty.mp4", "text.mp4", "cut.mp4", ".")]
    arrays = {
        "float": frames.astype(np.float32),
        "gray": frames[..., 0],
        "four": np.zeros((2, 5, 5, 4), np.uint8),
        "none": np.zeros((0, 5, 5, 3), np.uint8),
        "list": [[1]],
    }
    given = [clips[0], *bad, *(Video(frames=a, id=i) for i, a in arrays.items()), Video(id="mere id"), clips[2]]
    ranking = rec.rank([clips[1], bad[0], bad[0], bad[2]], given)
    assert set(ranking.ids) == {str(clips[0]), str(clips[2])}
    codes = {(f.id, f.role): f.code for f in ranking.failed}
    assert len(codes) == len(ranking.failed) == 5 + 5 + 1 + 2
    assert (
        codes[str(bad[0]), "history"] == codes[str(bad[0]), "candidate"] == codes["mere id", "candidate"] == "not_found"
    )
    assert {codes[str(b), "candidate"] for b in bad[1:]} == {"unreadable"}
    assert {codes[i, "candidate"] for i in arrays} == {"invalid_frames"}
    assert all(f.reason for f in ranking.failed)
    alone = rec.rank([clips[1]], [clips[0], clips[2]])
    assert [(r.id, r.score) for r in alone] == [(r.id, r.score) for r in ranking]


def test_one_id_with_two_contents_fails_for_the_later_one(
    rec: Recommender, clips: list[Path], frames: np.ndarray
) -> None:
    for _ in range(2):  # and again when the id is known
        ranking = rec.rank([Video(clips[0], id="x")], [clips[2], Video(clips[1], id="x")])
        assert ranking.ids == [str(clips[2])]
        assert [(f.id, f.role, f.code) for f in ranking.failed] == [("x", "candidate", "conflict")]
    ranking = rec.rank([], [Video(frames=frames, id="y"), Video(frames=frames[::-1], id="y"), Video(clips[0], id="y")])
    assert ranking.ids == ["y"]
    assert [f.code for f in ranking.failed] == ["conflict"]
    ranking = rec.rank([], [Video(frames=frames, id="t", title="a"), Video(frames=frames, id="t", title="b")])
    assert (ranking.ids, ranking.failed[0].code) == (["t"], "conflict")


def test_the_same_content_twice_is_no_conflict(
    rec: Recommender, clips: list[Path], frames: np.ndarray, tmp_path: Path
) -> None:
    copy = shutil.copy(clips[0], tmp_path / "copy.mp4")
    given = [
        Video(clips[0], id="x"),
        Video(copy, id="x"),
        "x",
        Video(frames=frames, id="f"),
        Video(frames=frames.copy(), id="f"),
    ]
    ranking = rec.rank([Video(id="x")], given)
    assert (set(ranking.ids), ranking.failed) == ({"x", "f"}, ())


def test_frames_of_a_new_content_replace_what_was_stored(
    rec: Recommender, frames: np.ndarray, clips: list[Path]
) -> None:
    before = rec.rank([clips[0]], [Video(frames=frames, id="f")])[0].score
    after = rec.rank([clips[0]], [Video(frames=frames[:, ::-1] // 2, id="f")])[0].score
    assert before != after
    assert rec.rank([clips[0]], ["f"])[0].score == after
    bad = rec.rank([clips[0]], [Video(frames=frames.astype(float), id="f")])
    assert (bad.ids, bad.failed[0].code) == ([], "invalid_frames")


@pytest.mark.parametrize(
    ("decoder", "code", "words"),
    [
        (lambda *a: 1 / 0, "unreadable", "ZeroDivisionError"),
        (lambda *a: None, "invalid_frames", "the decoder gave NoneType"),
        (
            lambda p, count, size, limits: np.zeros((count + 1, size, size, 3), np.uint8),
            "invalid_frames",
            "expected uint8",
        ),
        (lambda p, count, size, limits: np.zeros((1, size, size, 3), np.float32), "invalid_frames", "float32"),
    ],
)
def test_a_decoder_that_misbehaves_fails_its_video(
    tiny_bundle: Path, clips: list[Path], decoder: Any, code: str, words: str
) -> None:
    with load(tiny_bundle, decoder=decoder) as rec:
        (failed,) = rec.rank([], clips[:1]).failed
        assert failed.code == code
        assert words in failed.reason


# Encoding, history, life


def test_batches_give_the_same_in_the_same_order(rec: Recommender, clips: list[Path]) -> None:
    jobs = [Job(f"v{n}", Video(c)) for n, c in enumerate([*clips, "missing", *clips[:3]])]
    alone = list(rec._encoding.encoder.run(jobs))
    rec._encoding.encoder.batch = 4
    batched = dict(rec._encoding.encoder.run(jobs))
    assert len(batched) == len(alone) == len(jobs)
    for job, one in alone:
        other = batched[job]
        if isinstance(one, Encoded):
            assert isinstance(other, Encoded)
            assert np.abs(one.tokens.astype(int) - other.tokens).max() <= 1
            np.testing.assert_allclose(one.scales, other.scales, rtol=1e-4)
        else:
            assert type(one) is type(other) is VideoNotFoundError


def test_encode_reports_and_notices_changed_files(tiny_bundle: Path, tmp_path: Path) -> None:
    decoder = CountingDecoder()
    paths = files(tmp_path, 6)
    seen: list[tuple[int, int]] = []
    with load(tiny_bundle, decoder=decoder) as rec:
        result = rec.encode([*paths, "missing", paths[0]], progress=lambda done, total: seen.append((done, total)))
        assert list(result.encoded) == paths
        assert [(f.id, f.role, f.code) for f in result.failed] == [("missing", "video", "not_found")]
        assert seen == [(n, 7) for n in range(1, 8)]
        again = rec.encode(paths)
        assert (again.encoded, list(again.unchanged)) == ((), paths)
        before = rec.rank(paths[:1], [paths[1]])[0].score
        Path(paths[1]).write_bytes(b"y" * 50)
        Path(paths[2]).write_bytes(Path(paths[2]).read_bytes())  # touched, not changed
        Path(paths[3]).unlink()
        assert rec.rank(paths[:1], [paths[1]])[0].score == before
        assert rec.encode(paths).encoded == (paths[1],)
        assert rec.rank(paths[:1], [paths[1]])[0].score != before
        assert len(decoder.paths) == 7


def test_history_keeps_what_was_watched_when_files_vanish(tiny_bundle: Path, tmp_path: Path) -> None:
    paths = files(tmp_path, 3)
    with load(tiny_bundle, decoder=CountingDecoder()) as rec:
        rec.history.add(paths[0], watched=0.7)
        rec.history.add(Event(paths[1], liked=True))
        expected = rec.rank(candidates=[paths[2]])[0].score
        Path(paths[0]).unlink()
        assert math.isclose(rec.rank(candidates=[paths[2]])[0].score, expected, abs_tol=1e-4)
        with pytest.raises(VideoNotFoundError, match="missing: there is no such file"):
            rec.history.add("missing")
        assert [e.id for e in rec.history] == paths[:2]
        assert rec.forget(paths[0])
        assert not rec.forget(paths[0])
        assert paths[0] not in rec.store
        assert [e.id for e in rec.history] == [paths[1]]


def test_history_is_not_changed_by_ranking(rec: Recommender, clips: list[Path]) -> None:
    rec.history.add(clips[0])
    before = list(rec.history)
    rec.rank([clips[1]], clips)
    rec.rank(candidates=clips)
    assert list(rec.history) == before


def test_two_threads_encode_a_video_once(tiny_bundle: Path, tmp_path: Path) -> None:
    decoder = CountingDecoder()
    paths = files(tmp_path, 8)
    results: list[Any] = []
    with load(tiny_bundle, decoder=decoder) as rec:
        threads = [
            threading.Thread(target=lambda: results.append(rec.rank(paths[:3], paths).to_dict()["ranked"]))
            for _ in range(4)
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert sorted(decoder.paths) == [f"v{n}" for n in range(8)]
    assert [r["id"] for r in results[0]] == [r["id"] for r in results[3]]
    assert len(results) == 4


def test_a_small_store_still_ranks_all(rec: Recommender, clips: list[Path]) -> None:
    limit_store(rec.store, 2)
    assert len(rec.rank([clips[0]], clips)) == 6


def test_after_close_every_call_says_so(tiny_bundle: Path, clips: list[Path]) -> None:
    rec = load(tiny_bundle)
    ranking = rec.rank(clips[:1], clips[1:])
    handle = rec.store.select()
    rec.close()
    rec.close()
    on_videos = [
        lambda r: r.encode(clips),
        lambda r: r.history.add(clips[0]),
        lambda r: r.rank([], handle),
        lambda r: asyncio.run(r.arank([], handle)),
    ]
    for call in [*all_calls(), *on_videos]:
        with pytest.raises(ClosedError, match="closed"):
            call(rec)
    assert math.isclose(ranking[0].explain().matrix.sum(), ranking[0].score, abs_tol=1e-3)
    assert "closed" in repr(rec)


def test_a_reason_does_not_name_the_video_again(tiny_bundle: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    with load(tiny_bundle) as rec:
        for failed in (*rec.encode([bad]).failed, *rec.rank([], [bad]).failed):
            assert failed.id == str(bad)
            assert "bad.mp4" not in failed.reason
        with pytest.raises(VideoUnreadableError) as raised:
            rec.history.add(bad)
        assert str(raised.value).count("bad.mp4") == 1


def test_info_and_warmup(rec: Recommender) -> None:
    info = rec.info()
    assert (info.bundle, info.precision, info.backend, info.decoder) == ("tiny", "fp32", "onnxruntime", "opencv")
    assert info.devices == {"encoder": "CPUExecutionProvider", "scorer": Scorer(ModelConfig.tiny()).device}
    assert len(info.layer_names) == 3
    assert info.threads >= 1
    json.dumps(info.to_dict())
    assert set(rec.warmup()) == {"encoder", "scorer"}


# Arguments


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"threads": 0}, ArgumentError, "threads must be at least 1"),
        ({"threads": 1.5}, ArgumentTypeError, "whole number"),
        ({"data_dir": 3}, ArgumentTypeError, "data_dir must be a folder"),
        ({"data_dir": ""}, ArgumentError, "must not be empty"),
        ({"key": "k"}, ArgumentError, "without data_dir"),
        ({"key": 3}, ArgumentTypeError, "key must be"),
        ({"cache_dir": __file__}, ArgumentError, "is a file"),
        ({"strict_device": 1}, ArgumentTypeError, "True or False"),
        ({"decoder": "ffmpeg"}, ArgumentError, "unknown decoder 'ffmpeg'"),
        ({"backend": "torch"}, ArgumentError, "unknown backend 'torch'"),
        ({"threads": 100_000}, ArgumentError, "CPUs"),
        ({"device": "npu", "strict_device": True}, DeviceError, "available here"),
        ({"precision": "int3"}, ArgumentError, "expected one of 'int8', 'fp32'"),
    ],
)
def test_load_refuses_nonsense(
    tiny_bundle: Path, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        load(tiny_bundle, **arguments)
    assert isinstance(caught.value, LinkedOutError)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"history": "a.mp4"}, ArgumentTypeError, "history must be a list"),
        ({"candidates": "a.mp4"}, ArgumentTypeError, r"candidates must be a list.*\['a.mp4'\]"),
        ({"candidates": [Event("a")]}, ArgumentTypeError, r"candidates\[0\]"),
        ({"history": [1]}, ArgumentTypeError, r"history\[0\]"),
        ({"top_k": 0}, ArgumentError, "top_k must be at least 1"),
        ({"top_k": True}, ArgumentTypeError, "whole number"),
        ({"top_k": 2.0}, ArgumentTypeError, "whole number"),
        ({"diversity": 2}, ArgumentError, "from 0 to 1"),
        ({"diversity": float("nan")}, ArgumentError, "from 0 to 1"),
        ({"diversity": "x"}, ArgumentTypeError, "diversity"),
        ({"deadline_ms": -5}, ArgumentError, "deadline_ms must be a finite number of milliseconds"),
        ({"prior": [1.0]}, ArgumentError, "1 values for 0 candidates"),
    ],
)
def test_rank_refuses_nonsense(rec: Recommender, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        rec.rank(**{"history": [], "candidates": [], **arguments})


def test_nothing_about_the_user_is_logged_above_debug(
    rec: Recommender, clips: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    rec.rank([clips[0], "secret-id"], [*clips, "other-secret"])
    rec.encode(["third-secret"])
    said = [r.getMessage() for r in caplog.records if r.levelno > logging.DEBUG]
    assert not [m for m in said if "secret" in m or str(clips[0]) in m]


def test_many_videos_encoded_side_by_side_give_the_same_in_order(tiny_bundle: Path, tmp_path: Path) -> None:
    paths = files(tmp_path, 12)
    with (
        load(tiny_bundle, decoder=CountingDecoder(), threads=1) as one,
        load(tiny_bundle, decoder=CountingDecoder(), threads=3) as several,
    ):
        seen: list[int] = []
        assert several.encode([*paths, "missing"], lambda done, total: seen.append(done)).encoded == tuple(paths)
        assert seen == list(range(1, 14))
        one.encode(paths)
        a, b = (tokens_of(r.store, paths) for r in (one, several))
        assert np.abs(a[0].astype(int) - b[0]).max() <= 1
        np.testing.assert_allclose(a[1], b[1], rtol=1e-4)


def test_a_url_or_a_folder_is_no_video_and_the_reason_says_what_to_do(rec: Recommender, tmp_path: Path) -> None:
    url, folder = rec.encode(["https://example.org/a.mp4", tmp_path]).failed
    assert (url.code, folder.code) == ("not_found", "unreadable")
    assert "download it first" in url.reason
    assert "list its files" in folder.reason


def test_options_are_one_object_or_keywords(rec: Recommender, clips: list[Path]) -> None:
    from linkedout_edge import RankOptions

    options = RankOptions(top_k=2, diversity=0.5, prior={str(clips[1]): 3.0})
    by_object = rec.rank(clips[:2], clips, options)
    by_keywords = rec.rank(clips[:2], clips, top_k=2, diversity=0.5, prior={str(clips[1]): 3.0})
    assert by_object.ids == by_keywords.ids
    assert len(by_object) == 2
    assert rec.rank(clips[:2], clips, RankOptions()).ids == rec.rank(clips[:2], clips).ids
    with pytest.raises(ArgumentError, match="not both"):
        rec.rank(clips[:2], clips, options, top_k=3)
    with pytest.raises(ArgumentError, match="must be a RankOptions"):
        rec.rank(clips[:2], clips, {"top_k": 3})  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="top_k must be at least 1"):
        RankOptions(top_k=0)
    with pytest.raises(ArgumentTypeError, match="prior must map ids to numbers"):
        RankOptions(prior="a server's score")  # type: ignore[arg-type]
