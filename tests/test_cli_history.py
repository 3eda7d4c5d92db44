"""The commands that keep something: encode, history and doctor --privacy."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from linkedout_edge.cli.data import KEY_VARIABLE, absolute, default_data_dir
from linkedout_edge.cli.encode import encode
from linkedout_edge.cli.history import history, parse_since
from linkedout_edge.cli.privacy import privacy
from linkedout_edge.errors import ArgumentError, StorageError, WrongKeyError
from linkedout_edge.storage import FILE_NAME


def run(command: click.Command, *args: object, code: int = 0, **options: object) -> Result:
    done = CliRunner().invoke(command, [str(a) for a in args], **options)  # type: ignore[arg-type]
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done


def result(command: click.Command, *args: object, code: int = 0) -> dict:
    return json.loads(run(command, *args, "--json", code=code).stdout)


def encoded(*args: object, code: int = 0) -> dict:
    """What the command says at its end."""
    return json.loads(run(encode, *args, "--json", code=code).stdout.splitlines()[-1])["summary"]


def test_a_life_of_a_history(tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    where = ["--data-dir", tmp_path / "d"]
    model = ["--bundle", tiny_bundle, "--decoder", "opencv"]
    done = encoded(clips[0].parent, tmp_path / "gone.mp4", *where, *model)
    assert (done["counts"], done["stored"]) == ({"encoded": 6, "failed": 1}, 6)
    assert encoded(*clips, *where, *model)["counts"] == {"unchanged": 6}
    assert encoded(tmp_path / "gone.mp4", *where, *model, code=1)["counts"] == {"failed": 1}

    done = result(history, "add", f"{clips[0]}@10%", clips[1], "--liked", *where, *model)
    assert (done["added"], done["events"]) == ([str(clips[0]), str(clips[1])], 2)
    run(history, "add", clips[2], *where, *model)
    assert result(history, "add", tmp_path / "gone.mp4", *where, *model, code=1)["failed"][0]["code"] == "not_found"
    events = result(history, "list", *where)["events"]
    assert [(e["watched"], e["liked"]) for e in events] == [(0.1, True), (1.0, True), (1.0, None)]
    table = run(history, "list", *where).output
    assert clips[0].name in table
    assert "10%" in table
    run(history, "export", tmp_path / "out.json", *where)
    assert json.loads((tmp_path / "out.json").read_text())["events"] == events
    assert json.loads(run(history, "export", *where).stdout)["events"] == events
    if Path("/dev/full").exists():  # not on macOS
        with pytest.raises(StorageError, match="full cannot be written: No space left on device"):
            run(history, "export", "/dev/full", *where)

    kept = result(privacy, *where)
    assert [Path(f["path"]).name for f in kept["files"]] == [FILE_NAME]
    assert "3 watched videos" in kept["files"][0]["holds"]
    assert "tokens of 6 videos" in kept["files"][0]["holds"]
    assert "not encrypted" in run(privacy, *where).output

    told = run(history, "forget", tmp_path / "x.mp4", tmp_path / "y.mp4", *where, code=1).output.splitlines()
    assert [line.split(":")[0] for line in told if line[0] != "/"] == ["0 forgotten", *["not in the history"] * 2]
    run(history, "forget", clips[5], *where, code=1)  # encoded, but not watched
    assert clips[5].name.encode() in (tmp_path / "d" / FILE_NAME).read_bytes()
    assert result(history, "forget", clips[2], *where)["forgotten"] == 1
    assert clips[2].name.encode() not in (tmp_path / "d" / FILE_NAME).read_bytes()
    assert result(history, "forget", "--since", "1h", *where)["forgotten"] == 2
    run(history, "add", clips[3], *where, *model)
    assert run(history, "clear", *where, input="n\n", code=1).exception
    assert result(history, "clear", "--yes", *where)["forgotten"] == 1
    assert "Nothing was watched" in run(history, "list", *where).output


def test_how_much_was_watched(tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    here = ["--data-dir", tmp_path, "--bundle", tiny_bundle, "--decoder", "opencv"]
    run(history, "add", clips[0], clips[1], "--watched", "25%", *here)
    run(history, "add", f"{clips[2]}@0.5", clips[3], "--watched", 0.5, "--disliked", *here)
    run(history, "add", clips[4], "--watched", 0, *here)
    events = result(history, "list", "--data-dir", tmp_path)["events"]
    assert [e["watched"] for e in events] == [0.25, 0.25, 0.5, 0.5, 0]
    assert [e["liked"] for e in events] == [None, None, False, False, None]
    with pytest.raises(ArgumentError, match=r"clip5.mp4@0.1 and --watched 0.9 contradict each other"):
        run(history, "add", clips[5], f"{clips[5]}@0.1", "--watched", 0.9, *here)
    for wrong in ("90", "-1", "nan", "most"):
        assert (
            f"'{wrong}' is neither a number" in run(history, "add", clips[5], "--watched", wrong, *here, code=2).stderr
        )
    assert len(result(history, "list", "--data-dir", tmp_path)["events"]) == 5


def test_keys(tiny_bundle: Path, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ["--data-dir", tmp_path / "d"]
    (tmp_path / "key").write_bytes(bytes(range(32)))
    keyed = [*where, "--key-file", tmp_path / "key"]
    run(history, "add", clips[0], *keyed, "--bundle", tiny_bundle, "--decoder", "opencv")
    assert len(result(history, "list", *keyed)["events"]) == 1
    with pytest.raises(WrongKeyError):
        run(history, "list", *where)
    assert "encrypted; without" in result(privacy, *where)["files"][0]["holds"]
    monkeypatch.setenv(KEY_VARIABLE, "x")
    with pytest.raises(ArgumentError, match="both --key-file and LINKEDOUT_KEY"):
        run(history, "list", *keyed)
    with pytest.raises(WrongKeyError):
        run(history, "list", *where)
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(ArgumentError, match="cannot be read"):
        run(history, "list", *where, "--key-file", tmp_path / "nowhere")


def test_mistakes(tmp_path: Path) -> None:
    for args in ([], ["a", "--since", "1h"]):
        with pytest.raises(ArgumentError, match="history clear"):
            run(history, "forget", *args, "--data-dir", tmp_path)
    with pytest.raises(ArgumentError, match="is not a time"):
        parse_since("yesterday")
    assert parse_since("1.5h") == timedelta(hours=1.5)
    local = parse_since("2026-05-01T18:00")
    assert isinstance(local, datetime)
    assert local.utcoffset() is not None


def test_a_database_without_tables_holds_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    assert [f["holds"] for f in result(privacy, "--data-dir", tmp_path)["files"]] == ["nothing yet"]
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 500)
    assert "cannot be read" in result(privacy, "--data-dir", tmp_path)["files"][0]["holds"]


def test_privacy_names_every_file(tmp_path: Path) -> None:
    assert result(privacy, "--data-dir", tmp_path / "no")["files"] == []
    for name in (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", f"{FILE_NAME}.damaged-1", "other.txt"):
        (tmp_path / name).write_bytes(b"x")
    files = result(privacy, "--data-dir", tmp_path)["files"]
    assert len(files) == 5
    assert all(f["holds"] and f["remove"] for f in files)
    assert default_data_dir().name == "linkedout-edge"
    assert absolute(["a/../b.mp4"]) == [str(Path.cwd() / "b.mp4")]


@pytest.mark.parametrize("command", [encode, history, privacy, *history.commands.values()], ids=lambda c: c.name)
def test_every_command_has_help(command: click.Command) -> None:
    assert len(run(command, "--help").output) > 100
    assert all(p.help for p in command.params if isinstance(p, click.Option))
