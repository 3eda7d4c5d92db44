"""Incognito, seen from the disk: not even what was looked at is told by the order of use."""

from __future__ import annotations

import sqlite3
from contextlib import closing, nullcontext
from pathlib import Path

from packed import put_tokens, random_tokens

from linkedout_edge import Recommender
from linkedout_edge.storage import FILE_NAME


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
