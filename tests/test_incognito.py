"""Incognito, seen from the disk: not even what was looked at is told by the order of use."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
import pytest
from packed import put_tokens, random_tokens
from stored import inner, tokens_of

from linkedout_edge import Recommender
from linkedout_edge.storage import FILE_NAME
from linkedout_edge.store import Fingerprint


def test_a_ranking_while_incognito_leaves_the_database_as_it_was(tiny_bundle: Path, tmp_path: Path) -> None:
    def written(incognito: bool) -> list[tuple[object, ...]]:
        """What the tables of videos and events hold after a ranking."""
        with Recommender.load(tiny_bundle, precision="fp32", data_dir=tmp_path) as rec:
            if "a" not in rec.store:
                put_tokens(rec, tmp_path, list("abcd"), random_tokens(4))
                rec.history.add("a")
            with rec.history.incognito() if incognito else nullcontext():
                assert len(rec.rank(["b"], ["c"])) == 1
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as con:
            return [row for t in ("videos", "events") for row in con.execute(f"SELECT * FROM {t} ORDER BY n")]

    before = written(incognito=False)
    assert written(incognito=True) == before
    assert written(incognito=False) != before


@pytest.mark.parametrize("on_disk", [True, False], ids=["data_dir", "memory"])
def test_a_video_that_is_encoded_again_while_incognito_is_itself_again_afterwards(
    tiny_bundle: Path, clips: list[Path], tmp_path: Path, on_disk: bool
) -> None:
    video, other = tmp_path / "v.mp4", str(clips[2])
    shutil.copy(clips[0], video)
    id = str(video)
    with Recommender.load(
        tiny_bundle, precision="fp32", decoder="opencv", data_dir=tmp_path / "d" if on_disk else None
    ) as rec:
        rec.encode([id, other])
        known, tokens = inner(rec.store).fingerprint(id), tokens_of(rec.store, [id])
        shutil.copy(clips[1], video)
        with rec.history.incognito():
            assert rec.encode([id, other]).encoded == (id,)
            assert rec.encode([id, other]).encoded == ()
            assert not np.array_equal(tokens_of(rec.store, [id])[0], tokens[0])
            os.utime(other)  # touched: its content is looked at, and nothing is noted
            assert rec.encode([other]).encoded == ()
        in_memory = tokens_of(rec.store, [id])
        assert inner(rec.store).fingerprint(id) == known
        with rec.history.incognito():  # nothing is left to come back
            pass
        assert rec.encode([id]).encoded == (id,)
        assert not np.array_equal(tokens_of(rec.store, [id])[0], tokens[0])
    for before, after in zip(tokens, in_memory, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_full_look_while_incognito_leaves_the_quick_one(tiny_bundle: Path, tmp_path: Path) -> None:
    with Recommender.load(tiny_bundle, precision="fp32", data_dir=tmp_path) as rec:
        store = inner(rec.store)
        zeros = np.zeros(store.shape, np.int8), np.zeros(store.shape[:2], np.float32)
        store.put("v", *zeros, Fingerprint("0" * 32).as_quick())
        with rec.history.incognito():
            store.put("v", *zeros, Fingerprint("0" * 32))
            assert rec.store.stats().quick == 0
        assert rec.store.stats().quick == 1
        assert store.fingerprint("v") == Fingerprint("0" * 32).as_quick()
    with Recommender.load(tiny_bundle, precision="fp32", data_dir=tmp_path) as rec:
        assert rec.store.stats().quick == 1
