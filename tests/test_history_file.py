"""A history as one file: what comes back, what is refused, and that nothing is doubled or lost."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file
from stored import NOW, SPACE, new_store, put, stored, value

from linkedout_edge import Event, errors
from linkedout_edge.cli.history import history

EVENTS = [
    Event("a.mp4", watched=0.1, at=NOW - timedelta(days=3, microseconds=7)),
    Event("b\udcff.mp4", liked=True),
    Event("a.mp4", liked=False, at=NOW),
]
META = {"format": "linkedout-history", "version": "1", "token_space": SPACE}


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "history.safetensors"
    with stored(tmp_path / "first") as s:
        put(s.store, "b\udcff.mp4", 9, title="ü")
        for e in EVENTS:
            s.history.add(e)
        assert s.history.save(path) == 3
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600
    return path


def told(events: object) -> list[tuple]:
    return [(e.id, e.watched, e.liked, e.at) for e in events]  # type: ignore[attr-defined]


def test_it_comes_back_with_its_tokens(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with stored(tmp_path / "second", "k") as s:
        s.history.add(Event("mine", at=NOW))
        assert s.history.load(path) == 3
    with stored(tmp_path / "second", "k") as s:
        assert told(s.history) == [("mine", 1.0, None, NOW), *told(EVENTS)]
        assert value(s.store, "b\udcff.mp4") == 9
        assert s.tokens.fingerprint("b\udcff.mp4").title == "ü"


def test_loading_twice_adds_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with stored(tmp_path / "second") as s:
        s.history.add(EVENTS[1])
        assert [s.history.load(path), s.history.load(path)] == [2, 0]
        assert len(s.history) == 3


def test_tokens_that_it_auto_encoded_leave_with_its_events(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with stored(tmp_path / "second") as s:
        put(s.store, "a.mp4", 33)
        s.history.load(path)
        assert value(s.store, "a.mp4") == 33  # known before: it keeps its tokens
        s.history.clear()
        assert list(s.store) == ["a.mp4"]


def test_nothing_is_kept_while_incognito(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with stored(tmp_path / "second") as s:
        with s.history.incognito():
            assert s.history.load(path) == 0
        assert (len(s.history), len(s.store)) == (0, 0)


def test_the_latest_stay_within_bounds(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with stored(tmp_path / "second", max_events=2) as s:
        s.history.load(path)
        assert told(s.history) == told(EVENTS[1:])


def test_a_new_history_can_be_saved(tmp_path: Path) -> None:
    with stored(tmp_path / "d") as s:
        assert s.history.save(tmp_path / "none") == 0
        assert s.history.load(tmp_path / "none") == 0


def test_a_folder_a_missing_file_and_no_path_are_refused_by_name(tmp_path: Path) -> None:
    with stored(tmp_path / "d") as s:
        with pytest.raises(errors.StorageError, match=r"is a folder: name a file inside it, such as .*\.safetensors"):
            s.history.save(tmp_path)
        with pytest.raises(errors.StorageError, match=r"there is no folder .*none: make it first"):
            s.history.save(tmp_path / "none" / "file")
        with pytest.raises(errors.PackNotFoundError, match=r"missing: there is no such file"):
            s.history.load(tmp_path / "missing")
        for wrong in (3, None, b"file"):
            for call in (s.history.save, s.history.load):
                with pytest.raises(errors.ArgumentTypeError, match="path must be a str"):
                    call(wrong)


SPOILT = {
    "video": (0, 2.0, "names no video"),
    "half a video": (0, 0.5, "names no video"),
    "no video": (0, np.nan, "names no video"),
    "watched": (1, 1.5, "outside 0 to 1"),
    "watched nan": (1, np.nan, "outside 0 to 1"),
    "liked": (2, 0.5, "liked"),
    "at": (3, 1e300, "calendar"),
    "at inf": (3, np.inf, "calendar"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_event_changes_nothing(tmp_path: Path, what: str) -> None:
    path, (column, wrong, message) = saved(tmp_path), SPOILT[what]
    arrays = load_file(path)
    arrays["events"][1, column] = wrong
    save_file(arrays, path, META)
    with stored(tmp_path / "second") as s:
        with pytest.raises(errors.PackError, match=message):
            s.history.load(path)
        assert (len(s.history), len(s.store)) == (0, 0)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with stored(tmp_path / "second") as s:
        s.store.export_pack(tmp_path / "pack")
        with pytest.raises(errors.PackError, match="another kind of file than the saved history"):
            s.history.load(tmp_path / "pack")
        with pytest.raises(errors.PackNotFoundError, match="no such file"):
            s.history.load(tmp_path / "none")
        arrays = load_file(path)
        save_file(arrays | {"events": arrays["events"][:, :3].copy()}, path, META)
        with pytest.raises(
            errors.PackError, match=r"events in the saved history is F64 \[3, 3\]: expected F64 \[3, 4\]"
        ):
            s.history.load(path)
        many = np.zeros((70_000, 4))
        save_file(arrays | {"events": many}, path, META)
        with pytest.raises(errors.PackError, match="70000 events"):
            s.history.load(path)
    with stored(tmp_path / "third", space="another") as s, pytest.raises(errors.TokenSpaceError):
        s.history.load(path)
    with pytest.raises(errors.PackError, match="another kind"):
        new_store().import_pack(path)


def test_by_the_command_line(tmp_path: Path) -> None:
    bundle = ["--data-dir", str(tmp_path / "d"), "--json"]
    run = CliRunner().invoke
    empty = run(history, ["save", str(tmp_path / "h"), *bundle])
    assert (empty.exit_code, json.loads(empty.stdout)) == (0, {"saved": 0})
    loaded = run(history, ["load", str(tmp_path / "h"), *bundle])
    assert (loaded.exit_code, json.loads(loaded.stdout)) == (0, {"added": 0, "events": 0})
    missing = run(history, ["load", str(tmp_path / "none"), *bundle])
    assert isinstance(missing.exception, errors.PackNotFoundError)
