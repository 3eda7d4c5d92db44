"""A store in step with folders: what is found, skipped, moved, forgotten, resumed and watched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from looks import Glancing

from linkedout_edge import Recommender
from linkedout_edge.cli.library import Library, Outcome, find_videos


@pytest.fixture
def folder(clips: list[Path], tmp_path: Path) -> Path:
    """Six clips, two of them deeper and under odd names, among what is no video."""
    root = tmp_path / "videos"
    (root / "more" / "deep").mkdir(parents=True)
    (root / ".hidden").mkdir()
    for n, clip in enumerate(clips):
        place = root / "more" / "deep" / f"no suffix {n}" if n > 3 else root / f"clip{n}.mp4"
        shutil.copy(clip, place)
    shutil.copy(clips[0], root / ".hidden" / "a.mp4")
    shutil.copy(clips[0], root / ".part.mp4")
    (root / "notes.txt").write_text("no video")
    (root / "list.mp4").write_text("#EXTM3U\nhttp://example.org/a.ts\n")
    (root / "empty.mp4").touch()
    cv2.imwrite(str(root / "photo.jpg"), np.zeros((9, 9, 3), np.uint8))
    os.mkfifo(root / "pipe.mp4")
    (root / "loop").symlink_to(root)
    return root


@pytest.fixture
def rec(tiny_bundle: Path) -> Iterator[Recommender]:
    with Recommender.load(tiny_bundle, precision="fp32", decoder=Glancing(), threads=1) as recommender:
        yield recommender


def statuses(outcomes: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for o in outcomes:
        found.setdefault(Path(o.id).name, []).append(o.status)
    return found


def test_videos_are_found_by_what_is_in_them(folder: Path) -> None:
    found = find_videos(str(folder))
    assert [str(Path(p).relative_to(folder)) for p in found] == [
        *(f"clip{n}.mp4" for n in range(4)),
        "more/deep/no suffix 4",
        "more/deep/no suffix 5",
    ]


def test_a_folder_that_cannot_be_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(find_videos(str(folder))) == 4
    said = f"{folder / 'more' / 'deep'} cannot be read (Permission denied): the videos in it are left out"
    find_videos(str(folder))
    assert capsys.readouterr().err.count(f"warning: {said}\n") == 1


def test_files_that_are_videos_only_by_name_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ", ".join(str(folder / name) for name in ("empty.mp4", "list.mp4", "pipe.mp4"))
    find_videos(str(folder))
    assert capsys.readouterr().err == f"warning: left out, as no videos or not readable: {named}\n"
    for n in range(4):
        (folder / "more" / f"{n}.MOV").write_text("a page that says that the video is gone")
    assert len(find_videos(str(folder))) == 6
    named += "".join(f", {folder / 'more' / name}" for name in ("0.MOV", "1.MOV"))
    assert capsys.readouterr().err == f"warning: left out, as no videos or not readable: {named} and 2 more\n"


def test_what_is_known_is_skipped_and_what_changed_is_looked_at(rec: Recommender, folder: Path) -> None:
    paths = find_videos(str(folder))
    library = Library(rec, "full")
    assert {o.status for o in library.encode(paths)} == {"encoded"}
    assert {o.status for o in library.encode(paths)} == {"unchanged"}
    with Path(paths[1]).open("ab") as file:
        file.write(b"more")
    assert [o.id for o in library.encode(paths) if o.status == "encoded"] == [paths[1]]


def test_auto_looks_at_all_quickly_and_then_closer(rec: Recommender, folder: Path) -> None:
    paths = find_videos(str(folder))
    library = Library(rec)
    told: list[tuple[str, int, int]] = []
    outcomes = list(library.encode([*paths, str(folder / "gone.mp4")], lambda *step: told.append(step)))
    assert told == [*(("encoded", n, 7) for n in range(1, 8)), *(("refined", n, 6) for n in range(1, 7))]
    assert [o.status for o in outcomes] == ["encoded"] * 6 + ["failed"] + ["refined"] * 6
    assert [o.quick for o in outcomes] == [True] * 6 + [False] * 7
    assert outcomes[6].code == "not_found"
    assert [o.status for o in library.encode(paths)] == ["unchanged"] * 6


def test_a_pass_that_was_broken_off_is_gone_on_with(rec: Recommender, folder: Path) -> None:
    paths = find_videos(str(folder))
    library = Library(rec)
    first = library.encode(paths)
    assert next(first).status == "encoded"  # then somebody stops it
    first.close()
    assert sorted(statuses(library.encode(paths)).values()) == [["unchanged", "refined"]] * 6
    assert rec.store.stats().quick == 0


def test_a_file_that_was_moved_is_recognised(rec: Recommender, folder: Path) -> None:
    paths = find_videos(str(folder))
    library = Library(rec)
    list(library.encode(paths))
    rec.history.add(paths[1])
    before = {i: rec.rank(paths[2:3], [i])[0].score for i in paths[:2]}
    for n in (0, 1):
        Path(paths[n]).rename(folder / f"new{n}.mp4")
    shutil.copy(paths[2], folder / "copy.mp4")  # no move: the other is still there
    assert statuses(library.encode(find_videos(str(folder)))) == {
        **{f"clip{n}.mp4": ["unchanged"] for n in (2, 3)},
        **{f"no suffix {n}": ["unchanged"] for n in (4, 5)},
        "new0.mp4": ["moved"],
        "new1.mp4": ["moved"],
        "copy.mp4": ["encoded", "refined"],
    }
    for n in (0, 1):
        assert rec.rank(paths[2:3], [str(folder / f"new{n}.mp4")])[0].score == pytest.approx(before[paths[n]], abs=0.3)
    assert paths[0] not in rec.store
    assert paths[1] in rec.store  # the history still means it


def test_what_is_gone_is_forgotten_after_a_while(
    rec: Recommender, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = find_videos(str(folder))
    library = Library(rec, forget_after=60)
    list(library.encode(paths))
    rec.history.add(paths[0])
    now = time.monotonic()
    monkeypatch.setattr("linkedout_edge.cli.library.time.monotonic", lambda: now)
    for n in (0, 1, 2):
        Path(paths[n]).unlink()
    assert list(library.forget_gone([str(folder)])) == []
    shutil.copy(paths[3], paths[2])  # it is back
    now += 61
    assert list(library.forget_gone([str(folder)])) == [Outcome(paths[1], "forgotten")]
    assert paths[1] not in rec.store
    assert all(p in rec.store for p in (paths[0], paths[2], paths[3]))


def test_a_disk_that_was_unplugged_is_not_forgotten(rec: Recommender, folder: Path) -> None:
    library = Library(rec, forget_after=0)
    list(library.encode(find_videos(str(folder))))
    away = folder.rename(folder.parent / "away")
    assert list(library.forget_gone([str(folder)])) == []
    folder.mkdir()  # the place where it is mounted
    assert list(library.forget_gone([str(folder)])) == []
    (away / "clip0.mp4").rename(folder / "clip0.mp4")
    assert len(list(library.forget_gone([str(folder)]))) == 5


# The command


def command(bundle: Path, data: Path, *args: Any) -> list[str]:
    model = ["--bundle", str(bundle), "--precision", "fp32", "--decoder", "opencv", "--data-dir", str(data)]
    return [sys.executable, "-m", "linkedout_edge.cli.main", "encode", *model, *map(str, args)]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_command_tells_of_each_video_and_of_all(tiny_bundle: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "broken.mp4").write_bytes((folder / "clip0.mp4").read_bytes()[:600])
    done = subprocess.run(
        command(tiny_bundle, tmp_path / "data", folder, "--json"), capture_output=True, text=True, timeout=300
    )
    *each, last = lines(done.stdout)
    assert done.returncode == 0, done.stderr
    assert {Path(e["id"]).name: e["status"] for e in each} == {
        **{f"clip{n}.mp4": "encoded" for n in range(4)},
        **{f"no suffix {n}": "encoded" for n in (4, 5)},
        "broken.mp4": "failed",
    }
    assert last["summary"]["counts"] == {"encoded": 6, "failed": 1}
    assert last["summary"]["stored"] == 6
    plain = subprocess.run(command(tiny_bundle, tmp_path / "data", folder), capture_output=True, text=True, timeout=300)
    assert "0 encoded, 6 already known, 1 failed · 6 in the store" in plain.stdout
    assert "broken.mp4" in plain.stdout
    assert "[unreadable]" in plain.stdout
    nothing = subprocess.run(
        command(tiny_bundle, tmp_path / "data", folder / ".hidden" / "no"), capture_output=True, text=True, timeout=300
    )
    assert nothing.returncode == 1


def test_a_command_that_was_killed_goes_on_where_it_was(tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(200):
        shutil.copy(clips[n % 6], folder / f"v{n:03}.mp4")
    run = command(tiny_bundle, tmp_path / "data", folder, "--json")
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline())["id"]]
        process.send_signal(signal.SIGKILL)
        told += [e["id"] for e in lines(process.stdout.read())]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    *each, last = lines(done.stdout)
    assert last["summary"]["stored"] == 200
    again = {e["id"] for e in each if e["status"] == "encoded"}
    assert not again & set(told)  # what was told was durable
    assert len(again) < 200


def test_watching(tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    folder = tmp_path / "watched"
    folder.mkdir()
    shutil.copy(clips[0], folder / "a.mp4")
    run = command(tiny_bundle, tmp_path / "data", folder, "--json", "--watch", "--forget-after", "0")
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        guard = threading.Timer(240, process.kill)
        guard.start()

        def next_line() -> dict[str, Any]:
            while True:
                found: dict[str, Any] = json.loads(process.stdout.readline())
                if found.get("status") != "unchanged":
                    return found

        def name_and_status() -> tuple[str, str]:
            found = next_line()
            return Path(found["id"]).name, found["status"]

        assert name_and_status() == ("a.mp4", "encoded")
        assert "summary" in next_line()
        shutil.copy(clips[1], folder / "b.mp4")
        assert name_and_status() == ("b.mp4", "encoded")
        (folder / "deeper").mkdir()
        (folder / "b.mp4").rename(folder / "deeper" / "c.mp4")
        assert name_and_status() == ("c.mp4", "moved")
        shutil.copy(clips[2], folder / "a.mp4")
        assert name_and_status() == ("a.mp4", "encoded")
        (folder / "a.mp4").unlink()
        assert name_and_status() == ("a.mp4", "forgotten")
        process.send_signal(signal.SIGINT)
        process.wait(60)
        guard.cancel()
    with Recommender.load(tiny_bundle, precision="fp32", data_dir=tmp_path / "data") as rec:
        assert list(rec.store) == [str(folder / "deeper" / "c.mp4")]


def test_watching_needs_a_folder(tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    done = subprocess.run(
        command(tiny_bundle, tmp_path / "data", clips[0], "--watch"), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert "--watch needs a folder" in done.stderr
