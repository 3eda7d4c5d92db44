"""A quick look, then a full one: what is rankable at once, what follows, and what survives."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from looks import Glancing
from stored import tokens_of

from linkedout_edge import Recommender, Video
from linkedout_edge.decode import Limits, get_decoder
from linkedout_edge.errors import ArgumentError, VideoUnreadableError


@pytest.fixture
def decoder() -> Glancing:
    return Glancing()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"v{n}" for n in range(5)]
    for n, p in enumerate(paths):
        p.write_bytes(b"x" * (n + 1))
    return [str(p) for p in paths]


def load(bundle: Path, decoder: Any, **kwargs: Any) -> Recommender:
    return Recommender.load(bundle, precision="fp32", decoder=decoder, threads=1, **kwargs)


def tokens(rec: Recommender, ids: list[str]) -> np.ndarray:
    return tokens_of(rec.store, ids)[0]


def test_quick_then_full(tiny_bundle: Path, decoder: Glancing, files: list[str]) -> None:
    with load(tiny_bundle, decoder) as rec, load(tiny_bundle, Glancing()) as plain:
        plain.encode(files)
        done = rec.encode(files, effort="quick")
        assert done.encoded == done.quick == tuple(files)
        assert rec.store.stats().quick == 5
        assert {r.source for r in rec.rank(files[:1], files)} == {"quick"}
        assert rec.wait(20)
        assert rec.store.stats().quick == 5  # nobody asked for more
        assert not np.array_equal(tokens(rec, files), tokens(plain, files))
        again = rec.encode(files, effort="quick")
        assert (again.encoded, again.quick) == ((), tuple(files))
        full = rec.encode(files[:2])
        assert (full.encoded, full.quick) == (tuple(files[:2]), ())
        assert {r.id: r.source for r in rec.rank(files[:1], files)} == {
            **dict.fromkeys(files[:2], "content"),
            **dict.fromkeys(files[2:], "quick"),
        }
        assert rec.refine().encoded == tuple(files[2:])
        assert rec.store.stats().quick == 0
        np.testing.assert_array_equal(tokens(rec, files), tokens(plain, files))
        assert rec.refine().encoded == rec.encode(files).encoded == ()


def test_auto_looks_again_in_the_background(tiny_bundle: Path, decoder: Glancing, files: list[str]) -> None:
    with load(tiny_bundle, decoder) as rec:
        decoder.open.clear()
        assert rec.encode(files, effort="auto").quick == tuple(files)
        assert decoder.taken("quick") == [f"v{n}" for n in range(5)]
        before = rec.rank(files[:1], files)
        assert {r.source for r in before} == {"quick"}
        decoder.open.set()
        assert rec.wait(20)
        assert sorted(decoder.taken("full")) == [f"v{n}" for n in range(5)]
        after = rec.rank(files[:1], files)
        assert {r.source for r in after} == {"content"}
        assert before.scores.tolist() != after.scores.tolist()
        assert rec.encode(files, effort="auto").quick == ()
        assert rec.wait(20)
        assert len(decoder.looks) == 10


def test_a_deadline_ranks_by_quick_looks(tiny_bundle: Path, decoder: Glancing, files: list[str]) -> None:
    with load(tiny_bundle, decoder) as rec:
        decoder.open.clear()
        ranking = rec.rank(files[:1], files, deadline_ms=20_000)
        assert {r.source for r in ranking} == {"quick"}
        assert ranking.failed == ()
        assert ranking[0].explain().matrix.any()
        decoder.open.set()
        assert rec.wait(20)
        assert {r.source for r in rec.rank(files[:1], files)} == {"content"}


def test_incognito_leaves_no_full_look_behind(tiny_bundle: Path, decoder: Glancing, files: list[str]) -> None:
    with load(tiny_bundle, decoder) as rec:
        with rec.history.incognito():
            assert len(rec.rank([], files, deadline_ms=20_000)) == 5
        assert rec.wait(20)
        assert decoder.taken("full") == []
        assert list(rec.store) == []


def test_what_is_forgotten_meanwhile_does_not_come_back(tiny_bundle: Path, decoder: Glancing, files: list[str]) -> None:
    with load(tiny_bundle, decoder) as rec:
        decoder.open.clear()
        rec.encode(files, effort="auto")
        assert rec.store.remove(files[0]) == 1  # its full look is under way, or waits
        threading.Timer(0.2, decoder.open.set).start()
        assert rec.forget(files[4])
        assert rec.wait(20)
        assert list(rec.store) == files[1:4]


def test_quick_survives_a_restart_and_goes_on(
    tiny_bundle: Path, decoder: Glancing, files: list[str], tmp_path: Path
) -> None:
    with load(tiny_bundle, decoder, data_dir=tmp_path / "data") as rec:
        rec.encode([*files[:3], Video(files[3], id="named", title="a dog")], effort="quick")
        rec.encode(files[:1])
    with load(tiny_bundle, decoder, data_dir=tmp_path / "data") as rec:
        assert rec.store.stats().quick == 3
        assert rec.encode(files[:3], effort="quick").encoded == ()
        Path(files[2]).unlink()
        assert rec.refine().encoded == (files[1],)
        assert rec.store.stats().quick == 2
        gone = rec.encode([files[2]])  # what is known of it stays useful
        assert (gone.unchanged, gone.failed, gone.quick) == ((files[2],), (), (files[2],))
        rec.encode([Video(files[3], id="named", title="a dog")])
        assert rec.store.stats().quick == 1
        rec.store.export_pack(tmp_path / "pack")
    with load(tiny_bundle, decoder) as other:
        other.store.import_pack(tmp_path / "pack")
        assert other.store.stats().quick == 1
        known = rec_sources(other, files[:3])
        assert known == {files[0]: "content", files[1]: "content", files[2]: "quick"}


def rec_sources(rec: Recommender, ids: list[str]) -> dict[str, str]:
    return {r.id: r.source for r in rec.rank(ids[:1], ids)}


def test_a_full_look_that_fails_leaves_the_quick_one(tiny_bundle: Path, decoder: Glancing, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"x")
    with load(tiny_bundle, decoder) as rec:
        assert rec.encode([bad], effort="auto").failed == ()
        assert rec.wait(20)
        assert rec_sources(rec, [str(bad)]) == {str(bad): "quick"}
        assert [f.code for f in rec.refine().failed] == ["unreadable"]
        assert str(bad) in rec.store


def test_what_a_quick_look_shows_whole_needs_no_full_one(
    tiny_bundle: Path, decoder: Glancing, frames: np.ndarray, tmp_path: Path
) -> None:
    still = tmp_path / "still"
    still.write_bytes(b"x")
    with load(tiny_bundle, decoder) as rec:
        assert rec.encode([still, Video(frames=frames, id="f")], effort="auto").quick == ()
        assert rec.wait(20)
        assert decoder.taken("full") == []


def test_decoders_without_quick_looks_look_fully(rec: Recommender, clips: list[Path]) -> None:
    assert rec.encode(clips, effort="quick").quick == ()
    assert rec.store.stats().quick == 0


def test_nonsense_is_refused(rec: Recommender) -> None:
    with pytest.raises(ArgumentError, match=r"effort 'fast'.*'auto', 'quick', 'full'"):
        rec.encode([], effort="fast")  # type: ignore[arg-type]


# PyAV's


def test_pyav_takes_key_frames(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from media import grays, which, write

    path = write(tmp_path / "a.mp4", grays(50), gop=25)
    decode: Any = get_decoder("pyav")
    frames, whole = decode.quick(path, 8, 64, Limits())
    assert which(frames, 50).round().tolist() == [0, 25]
    assert not whole
    full = decode(path, 8, 64, Limits())
    assert len(full) == 8
    frames, whole = decode.quick(write(tmp_path / "b.mp4", grays(48), gop=5), 8, 64, Limits())
    assert whole  # a key frame in each slot
    np.testing.assert_array_equal(frames, decode(tmp_path / "b.mp4", 8, 64, Limits()))


def test_pyav_gives_at_least_one_frame_of_whatever_can_be_decoded(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from media import scenes, write

    decode: Any = get_decoder("pyav")
    one_key = write(tmp_path / "one.mp4", scenes(50), gop=50)
    assert len(decode.quick(one_key, 8, 64, Limits())[0]) == 2  # the key frame, and one further on
    for suffix in ("mkv", "ts", "avi"):
        frames, _ = decode.quick(write(tmp_path / f"a.{suffix}", scenes(50), gop=50), 8, 64, Limits())
        assert 1 <= len(frames) <= 8
    with pytest.raises(VideoUnreadableError):
        decode.quick(__file__, 8, 64, Limits())


def test_large_pictures_are_decoded_without_the_loop_filter_and_nearly_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    from media import write

    from linkedout_edge.decode import pyav

    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 40, 3), dtype=np.uint8)
    images = [np.kron(n, np.ones((16, 16, 1), np.uint8)) for n in noise]  # 640 × 480, blocks with edges
    path = write(tmp_path / "a.mp4", images, gop=20, options={"crf": "30"})
    decode = get_decoder("pyav")
    without = decode(path, 8, 64, Limits()).astype(int)
    monkeypatch.setattr(pyav, "FINE", 10**9)
    apart = np.abs(without - decode(path, 8, 64, Limits()))
    assert 0 < apart.mean() < 3
