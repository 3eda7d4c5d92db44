"""The numbers that the documentation promises, seen from outside: none is looked up in the code."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from packed import SHAPE, put_tokens, random_tokens

from linkedout_edge import Event, Recommender
from linkedout_edge.decode import Limits
from linkedout_edge.errors import ArgumentError, PackError, StorageVersionError
from linkedout_edge.storage import FILE_NAME


def numbered(count: int) -> list[str]:
    return [f"v{n}" for n in range(count)]


# Store


def test_of_100_000_videos_the_least_used_leave_and_paths_come_back(tiny_bundle: Path, tmp_path: Path) -> None:
    """What is named by its path is encoded again when it is ranked, however often the same list was ranked before."""
    decoded: list[str] = []

    def decoder(path: str, count: int, size: int, limits: Limits) -> np.ndarray:
        decoded.append(path)
        return np.random.default_rng(len(decoded)).integers(0, 256, (1, size, size, 3), dtype=np.uint8)

    paths = [str(tmp_path / f"{n}.mp4") for n in range(3)]
    for p in paths:
        Path(p).write_bytes(p.encode())
    with Recommender.load(tiny_bundle, precision="fp32", decoder=decoder) as rec:
        rec.history.add(paths[2])
        for _ in range(3):
            assert set(rec.rank([paths[2]], paths).ids) == set(paths)
        assert sorted(decoded) == paths
        ids = numbered(100_000 - 3)
        put_tokens(rec, tmp_path, ids, np.broadcast_to(random_tokens(1), (len(ids), *SHAPE)))
        stats = rec.store.stats()
        assert (stats.videos, stats.max_videos, stats.evicted) == (100_000, 100_000, 0)
        put_tokens(rec, tmp_path, ["one more"], random_tokens(1))
        stats = rec.store.stats()
        assert stats.evicted > 0
        assert stats.videos == 100_001 - stats.evicted
        assert rec.store.select([*paths, "one more", ids[-1]]).missing == (paths[0], paths[1])  # [2] was watched

        ranking = rec.rank([paths[2]], paths)
        assert set(ranking.ids) == set(paths)
        assert ranking.failed == ()
        assert sorted(decoded) == sorted([*paths, paths[0], paths[1]])


def test_the_list_of_changes_holds_20_000(tiny_bundle: Path, tmp_path: Path) -> None:
    """It is for processes that are open; all others read everything."""

    def changes(more: int = 0) -> int:
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as con:
            con.executemany("INSERT INTO changes (video) VALUES (1)", [()] * more)
            con.commit()
            return int(con.execute("SELECT count(*) FROM changes").fetchone()[0])

    with Recommender.load(tiny_bundle, precision="fp32", data_dir=tmp_path) as rec:
        put_tokens(rec, tmp_path, ["a", "b"], random_tokens(2))
    assert changes(more=20_100) > 20_000
    with Recommender.load(tiny_bundle, precision="fp32", data_dir=tmp_path) as rec:
        assert changes() == 20_000
        assert rec.store.select().ids == ["a", "b"]


def test_a_database_of_the_next_format_is_refused_as_it_is(tiny_bundle: Path, tmp_path: Path) -> None:
    Recommender.load(tiny_bundle, precision="fp32", data_dir=tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as con:
        con.execute(f"PRAGMA user_version={con.execute('PRAGMA user_version').fetchone()[0] + 1}")
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(StorageVersionError, match="update"):
        Recommender.load(tiny_bundle, precision="fp32", data_dir=tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


# History


def test_the_history_holds_256_events_and_a_year(rec: Recommender, tmp_path: Path) -> None:
    ids = numbered(300)
    put_tokens(rec, tmp_path, ids, random_tokens(300))
    for i in ids[:257]:
        rec.history.add(i)
    assert [e.id for e in rec.history] == ids[1:257]
    assert len(rec.history) == rec.store.stats().pinned == 256
    rec.history.clear()
    now = datetime.now(timezone.utc)
    for i, days in (("v1", 366), ("v2", 364), ("v3", 0)):
        rec.history.add(Event(i, at=now - timedelta(days=days)))
    assert [e.id for e in rec.history] == ["v2", "v3"]
    assert "v1" in rec.rank().ids  # not watched, as far as rankings go
    assert not {"v2", "v3"} & set(rec.rank().ids)


def test_since_a_moment_includes_the_moment(rec: Recommender, tmp_path: Path) -> None:
    put_tokens(rec, tmp_path, ["before", "then", "later"], random_tokens(3))
    then = datetime.now(timezone.utc) - timedelta(hours=1)
    step = timedelta(microseconds=1)
    for i, at in (("before", then - step), ("then", then), ("later", then + step)):
        rec.history.add(Event(i, at=at))
    assert rec.history.forget(since=then) == 2
    assert [e.id for e in rec.history] == ["before"]


def test_of_a_long_history_the_latest_192_count(rec: Recommender, tmp_path: Path) -> None:
    ids = numbered(250)
    put_tokens(rec, tmp_path, ids, random_tokens(250))
    candidates = [*ids[:5], *ids[-5:]]
    whole = rec.rank(ids, candidates)
    assert whole[0].explain().history == tuple(ids[-192:])
    latest, oldest = rec.rank(ids[-192:], candidates), rec.rank(ids[:192], candidates)
    assert dict(zip(whole.ids, whole.scores, strict=True)) == pytest.approx(
        dict(zip(latest.ids, latest.scores, strict=True)), abs=1e-5
    )
    assert np.abs(whole.scores - oldest.scores).max() > 1e-2
    assert rec.rank(ids, [*candidates, "v250"], exclude_watched=True).ids == []  # watched is watched


# Lists


def at_cosine(base: np.ndarray, cosine: float, seed: int) -> np.ndarray:
    """Int8 tokens of the shape of `base`, each at that cosine with the one in `base`, but for rounding."""
    a = base / np.linalg.norm(base, axis=-1, keepdims=True)
    b = np.random.default_rng(seed).standard_normal(base.shape)
    b -= (a * b).sum(-1, keepdims=True) * a
    b /= np.linalg.norm(b, axis=-1, keepdims=True)
    v = cosine * a + np.sqrt(1 - cosine**2) * b
    return np.rint(v / np.abs(v).max() * 127).astype(np.int8)


def test_videos_are_duplicates_from_a_cosine_of_nine_tenths_on(rec: Recommender, tmp_path: Path) -> None:
    base = random_tokens(1)[0].astype(np.float64)
    tokens = np.stack([base.astype(np.int8), at_cosine(base, 0.91, 1), at_cosine(base, 0.89, 2)])
    put_tokens(rec, tmp_path, ["it", "the same", "another"], tokens)
    given = ["it", "the same", "another"]
    assert rec.rank([], given, fold_duplicates=True).ids == ["it", "another"]
    assert rec.rank([], given[::-1], fold_duplicates=True).ids == ["another", "the same"]


def test_deduplication_compares_with_the_best_1024(rec: Recommender, tmp_path: Path) -> None:
    ids = numbered(1030)
    tokens = random_tokens(1030)
    put_tokens(rec, tmp_path, [*ids, "copy"], np.concatenate([tokens, tokens[1020:1021]]))
    in_order = -np.arange(len(ids) + 1.0)  # a prior decides while nothing was watched
    assert rec.rank([], [*ids, "copy"], fold_duplicates=True, prior=in_order).ids == ids


def test_diversity_reorders_the_best_200(rec: Recommender, tmp_path: Path) -> None:
    ids = numbered(300)
    put_tokens(rec, tmp_path, ids, random_tokens(300))
    plain, varied = (rec.rank(ids[:3], ids, diversity=d).ids for d in (0, 1))
    assert varied[200:] == plain[200:]
    moved = [n for n in range(200) if varied[n] != plain[n]]
    assert moved[0] < 10
    assert moved[-1] > 190


# Explanations


def test_a_place_is_explained_by_what_was_ranked_or_not_at_all(rec: Recommender, tmp_path: Path) -> None:
    """Never by the tokens that another content of the same id has since, in lists of any length."""
    ids = numbered(4200)
    put_tokens(rec, tmp_path, ids, random_tokens(4200))
    ranking = rec.rank(["v1", "v2"], rec.store.select())
    before = [ranking[n].explain().matrix for n in (0, 4199)]
    put_tokens(rec, tmp_path, ids, random_tokens(4200, seed=1))
    refused = []
    for n in (0, 1, 2000, 4095, 4096, 4199):
        try:
            explanation = ranking[n].explain()
        except ArgumentError as e:
            assert "rank again" in str(e)  # noqa: PT017
            refused.append(n)
            continue
        np.testing.assert_allclose(explanation.matrix.sum(), ranking[n].score, atol=1e-3)
        if n in (0, 4199):
            np.testing.assert_allclose(explanation.matrix, before[n > 0])
    assert not {0, 1, 2000} & set(refused)  # the best are kept with the ranking
    rec.store.remove(ids)
    np.testing.assert_allclose(ranking[0].explain().matrix, before[0])


# Packs


def test_packs_of_more_than_a_gibibyte_are_refused_unread(rec: Recommender, tmp_path: Path) -> None:
    path = tmp_path / "p"
    with path.open("wb") as f:
        f.truncate(2**30 + 1)  # takes no room
    with pytest.raises(PackError, match="more than the 1073741824 allowed"):
        rec.store.import_pack(path)
    put_tokens(rec, tmp_path, ["a"], random_tokens(1))
    rec.store.export_pack(path)
    assert rec.store.import_pack(path, max_bytes=path.stat().st_size) == ("a",)
    with pytest.raises(PackError, match="more than"):
        rec.store.import_pack(path, max_bytes=path.stat().st_size - 1)


def test_who_reads_a_pack_while_it_is_replaced_reads_the_old_one(rec: Recommender, tmp_path: Path) -> None:
    path, reader = tmp_path / "p", tmp_path / "what a reader has open"
    put_tokens(rec, tmp_path, ["a"], random_tokens(1))
    rec.store.export_pack(path)
    old = path.read_bytes()
    os.link(path, reader)
    put_tokens(rec, tmp_path, ["b"], random_tokens(1))
    rec.store.export_pack(path)
    assert path.read_bytes() != old
    assert reader.read_bytes() == old
