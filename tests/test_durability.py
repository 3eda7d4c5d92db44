"""What has returned is on the disk: asked of SQLite itself, and of the file while the work continues."""

from __future__ import annotations

import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clocks import each_look_takes
from packed import put_tokens, random_tokens

from linkedout_edge import Recommender, Video
from linkedout_edge.storage import FILE_NAME

FULL = 2


def on_disk(folder: Path, table: str) -> int:
    """Rows that have been committed."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as con:
        return int(con.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """All that are opened from now on."""
    found: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def noted(*args: Any, **options: Any) -> sqlite3.Connection:
        found.append(connect(*args, **options))
        return found[-1]

    monkeypatch.setattr(sqlite3, "connect", noted)
    return found


def test_every_commit_waits_for_the_disk(
    tiny_bundle: Path, tmp_path: Path, connections: list[sqlite3.Connection]
) -> None:
    """No test can cut the power, and a killed process loses nothing that the system has: so SQLite is asked."""
    asked = []
    with Recommender.load(tiny_bundle, precision="fp32", data_dir=tmp_path) as rec:
        for _ in range(2):  # also after writing, not just when opened
            for con in connections:
                with contextlib.suppress(sqlite3.ProgrammingError):  # closed already
                    if Path(con.execute("PRAGMA database_list").fetchone()[2]) == tmp_path / FILE_NAME:
                        asked.append(
                            [con.execute(f"PRAGMA {p}").fetchone()[0] for p in ("synchronous", "busy_timeout")]
                        )
            put_tokens(rec, tmp_path, ["a", "b"], random_tokens(2))
            rec.history.add("a")
    assert len(asked) >= 2
    assert all(synchronous >= FULL for synchronous, _ in asked), asked
    assert all(timeout == 15_000 for _, timeout in asked), asked


def test_encoding_much_is_on_the_disk_by_64_videos(tiny_bundle: Path, tmp_path: Path) -> None:
    """A killed process has encoded no more than so many in vain."""
    rng = np.random.default_rng(0)
    videos = [Video(frames=rng.integers(0, 256, (1, 8, 8, 3), np.uint8), id=f"v{n}") for n in range(150)]
    folder = tmp_path / "d"

    def progress(done: int, total: int) -> None:
        assert done - on_disk(folder, "videos") <= 64

    with Recommender.load(tiny_bundle, precision="fp32", data_dir=folder) as rec:
        rec.encode(videos, progress)
        assert on_disk(folder, "videos") == 150


def test_encoding_slowly_is_on_the_disk_after_two_seconds(tiny_bundle: Path, tmp_path: Path) -> None:
    """... and no more than two seconds of work, where videos take long."""
    rng = np.random.default_rng(0)
    videos = [Video(frames=rng.integers(0, 256, (1, 8, 8, 3), np.uint8), id=f"v{n}") for n in range(8)]
    folder = tmp_path / "d"
    behind = []

    def progress(done: int, total: int) -> None:
        behind.append(done - on_disk(folder, "videos"))

    with Recommender.load(tiny_bundle, precision="fp32", data_dir=folder) as rec, each_look_takes(seconds=2.1):
        rec.encode(videos, progress)
    assert len(behind) == 8
    assert max(behind) <= 1
