"""Plausible wrong calls of the commands: each is told what is right, before long work, and --json stays JSON."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from linkedout_edge import Recommender
from linkedout_edge.cli.main import cli
from linkedout_edge.storage import FILE_NAME


def run(*args: object, code: int = 2, **options: object) -> Result:
    done = CliRunner().invoke(cli, [str(a) for a in args], **options)  # type: ignore[arg-type]
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is loaded: what is wrong is said before."""
    monkeypatch.setattr(Recommender, "load", None)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.mark.usefixtures("nothing_loads")
def test_a_video_that_stands_alone_is_told_its_option() -> None:
    assert "new/ stands alone: put videos to rank behind --candidates" in run("rank", "new/").stderr
    said = json.loads(run("rank", "--candidates", "a.mp4", "--json", "b.mp4").stdout)
    assert said["error"]["message"].startswith("b.mp4 stands alone")


def test_a_folder_without_videos_is_said_to_have_none(tiny_bundle: Path, clips: list[Path], empty: Path) -> None:
    model = ("--bundle", tiny_bundle, "--decoder", "opencv")
    wanted = "there is no video in this folder"
    for more in ((), ("--deadline", 60_000)):
        done = run("rank", "--candidates", empty, "--json", *more, *model, code=1)
        assert json.loads(done.stdout)["failed"][0]["reason"].startswith(wanted)
    shown = run("rank", "--candidates", empty, *model, code=1)
    assert "the list begins" not in shown.stderr  # there is none
    assert wanted in " ".join(run("history", "add", empty, "--data-dir", empty.parent, *model, code=1).stdout.split())
    shown = run("rank", "--history", empty, "--candidates", *clips[:2], *model, code=1)
    assert "The watched video cannot be used" in shown.stderr


@pytest.mark.usefixtures("nothing_loads")
@pytest.mark.parametrize(
    "call",
    [
        ("encode", "a.mp4", "--export-pack"),
        ("history", "save"),
        ("history", "export"),
        ("inspect", "CLIP", "--frames"),
        ("bench", "--save"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_written_is_said_before_the_work(call: tuple[str, ...], clips: list[Path], empty: Path) -> None:
    words = [str(clips[0]) if word == "CLIP" else word for word in call]
    assert "there is no folder" in run(*words, empty / "none" / "x.png").stderr
    assert re.search("is a (folder|directory)", run(*words, empty).stderr)
    assert list(empty.iterdir()) == []


def test_encode_says_what_it_looked_for(tiny_bundle: Path, empty: Path) -> None:
    (empty / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    done = run("encode", empty, "--bundle", tiny_bundle, "--data-dir", empty.parent / "data", code=1)
    assert f"No video found in {empty}; photos in folders are left out." in done.stderr


def test_packs_go_into_a_folder(tiny_bundle: Path, clips: list[Path], empty: Path) -> None:
    (empty / "file").touch()
    done = run("encode", clips[0], "--packs", empty / "file", "--bundle", tiny_bundle)
    assert "file is a file: name a folder" in done.stderr


@pytest.mark.usefixtures("nothing_loads")
def test_bench_updates_a_file_that_is_there(empty: Path) -> None:
    assert "does not exist" in run("bench", "--update", empty / "gone.md").stderr


def test_warnings_of_the_library_reach_the_user_once(tiny_bundle: Path, clips: list[Path], empty: Path) -> None:
    (empty / FILE_NAME).write_bytes(b"garbage" * 1000)
    done = run("history", "list", "--json", "--data-dir", empty, code=0)
    assert done.stderr.startswith("warning: the database in data_dir was damaged")
    assert json.loads(done.stdout) == {"events": []}
    model = ("--bundle", tiny_bundle, "--device", "npu", "--decoder", "opencv")
    assert run("rank", "--candidates", *clips[:2], *model, code=0).stderr.count("device 'npu' cannot be used") == 1


def test_nothing_is_forgotten_unless_the_user_agrees(empty: Path) -> None:
    for answer in ("", "n\n"):
        done = run("history", "clear", "--json", "--data-dir", empty, input=answer, code=1)
        assert json.loads(done.stdout) == {"forgotten": 0}
    done = run("history", "clear", "--data-dir", empty, input="", code=1)
    assert "answer y, or use --yes" in done.stdout
    assert json.loads(run("history", "clear", "--json", "--data-dir", empty, input="y\n", code=0).stdout)


def test_export_into_a_file_says_so(empty: Path) -> None:
    done = run("history", "export", empty / "out.json", "--data-dir", empty / "data", code=0)
    assert done.stdout == ""
    assert f"0 written to {empty / 'out.json'}" in done.stderr
    assert json.loads((empty / "out.json").read_text()) == {"events": []}


@pytest.mark.parametrize(
    ("call", "code", "told"),
    [
        (("history", "list"), 0, "Nothing was watched yet."),
        (("history", "export"), 0, '"events": []'),
        (("history", "taste", "--bundle", "BUNDLE"), 0, "(0 watched)"),
        (("history", "save", "FILE", "--bundle", "BUNDLE"), 0, "0 saved"),
        (("history", "forget", "a.mp4"), 1, "not in the history: a.mp4"),
        (("history", "clear", "--yes"), 0, "0 forgotten"),
        (("rank",), 2, ""),
        (("doctor", "--privacy"), 0, "Nothing is kept there."),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_what_only_reads_makes_no_folder(
    call: tuple[str, ...], code: int, told: str, tiny_bundle: Path, empty: Path, tmp_path: Path
) -> None:
    words = {"BUNDLE": tiny_bundle, "FILE": tmp_path / "saved.safetensors"}
    for folder in (tmp_path / "none", empty):
        done = run(*(words.get(word, word) for word in call), "--data-dir", folder, code=code)
        assert told in done.stdout
        if call[0] != "doctor":
            assert f"Nothing is stored in {folder} yet." in done.stderr
    assert not (tmp_path / "none").exists()
    assert list(empty.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_named(empty: Path) -> None:
    for call in (("inspect", empty), ("rank", "--candidates", "a.mp4", "--bundle", empty)):
        assert f"manifest.json is missing, so {empty.resolve()} is no bundle" in run(*call).stderr
    assert "int8 is none" in run("inspect", "int8", "--frames", empty / "x.png").stderr


def test_demo_says_what_is_missing(tiny_bundle: Path, clips: list[Path], empty: Path) -> None:
    model = ("--bundle", tiny_bundle, "--out", empty / "out")
    done = run("demo", clips[0].parent, "--history", "gone.mp4", *model)
    assert "--history gone.mp4: there is no such file" in done.stderr
    shutil.copy(clips[0], empty)
    assert "has only one video" in run("demo", empty, *model).stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, file names are text")
def test_names_that_are_no_text_are_inspected_and_drawn(tiny_bundle: Path, clips: list[Path], empty: Path) -> None:
    """OpenCV crashes on them."""
    names = [os.fsdecode(bytes([0xFF, 0x61 + n]) + b".mp4") for n in range(2)]
    for clip, name in zip(clips, names, strict=False):
        shutil.copy(clip, empty / name)
    seen = json.loads(run("inspect", empty / names[0], "--json", "--decoder", "opencv", code=0).stdout)
    assert (seen["container"], seen["frames"][0]) == ({}, 7)
    assert json.loads(run("inspect", clips[0], "--json", "--decoder", "opencv", code=0).stdout)["container"]["width"]
    drawn = run("demo", empty, "--bundle", tiny_bundle, "--out", empty / "out", "--json", code=0)
    assert [r["id"] for r in json.loads(drawn.stdout)["ranked"]]
