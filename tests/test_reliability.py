"""Killed processes, full disks, folders that cannot be written, damaged files, several writers, random orders."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from stored import Clock, Opened, number, open_stored, put, stored, value

from linkedout_edge import Event, Recommender, errors
from linkedout_edge.cli.rank import rank
from linkedout_edge.storage import FILE_NAME
from linkedout_edge.store import Fingerprint

HERE = str(Path(__file__).parent)

# kill -9

WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from stored import open_stored, put

folder, key, name = Path(sys.argv[2]), sys.argv[3] or None, sys.argv[4]
s = open_stored(folder, key, max_videos=100_000, max_events=100_000)
print("ready", flush=True)
n = 0
while True:
    ids = [f"{name}-video{n + k}" for k in range(5)]
    with s.tokens.batch():
        for i in ids:
            put(s.store, i)
    for i in ids:
        print("put", i, flush=True)
    s.history.add(f"{name}-event{n}")
    print("add", f"{name}-event{n}", flush=True)
    if n % 50 == 45:
        print("forgetting", f"{name}-event{n - 5}", flush=True)
        s.history.forget(f"{name}-event{n - 5}")
        print("forget", f"{name}-event{n - 5}", flush=True)
    n += 5
"""


def start_writer(folder: Path, key: str, name: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, HERE, str(folder), key, name]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill_and_check(folder: Path, key: str, rounds: int) -> None:
    rng = random.Random(1)
    videos: set[str] = set()
    events: list[str] = []
    forgotten: set[str] = set()
    perhaps: set[str] = set()
    for r in range(rounds):
        writer = start_writer(folder, key, f"r{r}")
        out = ""
        while r == rounds - 1 and not ("put " in out and "add " in out):  # once something is written, however slowly
            assert writer.stdout is not None
            out += writer.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.4))
        writer.send_signal(signal.SIGKILL)
        out += writer.communicate()[0]
        for line in out.splitlines(keepends=True):
            if not line.endswith("\n"):
                continue  # cut off
            what, _, id = line.strip().partition(" ")
            if what == "put":
                videos.add(id)
            elif what == "add":
                events.append(id)
            elif what == "forgetting":
                perhaps.add(id)
            elif what == "forget":
                forgotten.add(id)
        with stored(folder, key or None, max_videos=100_000, max_events=100_000) as s:
            assert s.database.notices == []
            assert videos - set(s.store) == set()
            assert all(value(s.store, i) == number(i) for i in s.store)
            found = [e.id for e in s.history]
            assert [i for i in found if i in set(events) - perhaps] == [i for i in events if i not in perhaps]
            assert forgotten.isdisjoint(found)
            assert set(found) <= set(s.store)  # never an event without its tokens
    assert videos
    assert events


@pytest.mark.parametrize("key", ["", "k"], ids=["plain", "encrypted"])
def test_nothing_acknowledged_is_lost_when_killed(tmp_path: Path, key: str) -> None:
    kill_and_check(tmp_path, key, 5 if not key else 2)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_killed_fifty_times(tmp_path: Path) -> None:
    kill_and_check(tmp_path, "", 50)


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path, "", name) for name in ("one", "two")]
    lines = [w.stdout.readline() for w in writers if w.stdout]  # both have started, however busy the machine is
    time.sleep(1.0)
    for w in writers:
        w.send_signal(signal.SIGKILL)
        lines += w.communicate()[0].splitlines(keepends=True)
    said = [tuple(x.split()) for x in lines if x.endswith("\n")]
    assert {i.partition("-")[0] for _, i in said} == {"one", "two"}
    with stored(tmp_path, max_videos=100_000, max_events=100_000) as s:
        assert {i for what, i in said if what == "put"} <= set(s.store)
        gone = {i for what, i in said if what == "forgetting"}
        assert {i for what, i in said if what == "add"} - gone <= {e.id for e in s.history}
        assert all(value(s.store, i) == number(i) for i in s.store)


# Full disk


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "600k") -> Iterator[Path]:
    """A tmpfs where we may mount one."""
    folder.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    if (
        not mounted
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(s: Opened, word: str) -> list[str]:
    """Put until it is refused; what was acknowledged."""
    done: list[str] = []
    with pytest.raises(errors.StorageFullError, match="no space left"):  # noqa: PT012
        for n in range(10_000):
            put(s.store, f"{word}{n}")
            done.append(f"{word}{n}")
    return done


def check_full(s: Opened, done: list[str]) -> None:
    last = f"a{len(done)}"
    assert last in s.store  # in memory, so that ranking continues
    assert s.store.stats().unsaved >= 1
    with pytest.raises(errors.StorageFullError):
        s.history.add("watched")
    assert len(s.history) == 0
    with s.tokens.batch(durable=False):
        put(s.store, "ranked")


def test_a_database_that_cannot_grow(tmp_path: Path) -> None:
    with stored(tmp_path) as s:
        with s.database.reading() as con:
            con.execute("PRAGMA max_page_count=60")
        done = fill_up(s, "a")
        check_full(s, done)
        with s.database.reading() as con:
            con.execute("PRAGMA max_page_count=100000")
        s.history.add("watched")  # writes what had to wait as well
        assert s.store.stats().unsaved == 0
    with stored(tmp_path) as s:
        assert {*done, "watched", "ranked"} <= set(s.store)
        assert [e.id for e in s.history] == ["watched"]
        assert all(value(s.store, i) == number(i) for i in s.store)


@pytest.mark.parametrize("key", [None, "k"])
def test_a_full_disk_loses_nothing(tmp_path: Path, key: str | None) -> None:
    with small_disk(tmp_path / "small") as folder:
        with stored(folder, key) as s:
            s.history.add("first")
            done = fill_up(s, "a")
            with pytest.raises(errors.StorageFullError):
                s.history.add("watched")
            assert [e.id for e in s.history] == ["first"]
        with stored(folder, key) as s:  # still full
            assert {*done, "first"} <= set(s.store)
            assert [e.id for e in s.history] == ["first"]
            assert all(value(s.store, i) == number(i) for i in s.store)


def test_a_disk_that_others_filled(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "1m") as folder:
        with stored(folder) as s:
            put(s.store, "a")
            s.history.add("b")
        with contextlib.suppress(OSError), (folder / "theirs").open("wb", buffering=0) as f:
            while True:
                f.write(b"x" * 4096)
        with stored(folder) as s:  # opens, if only to read
            assert set(s.store) == {"a", "b"}
            assert [e.id for e in s.history] == ["b"]
            with pytest.raises(errors.StorageError):  # noqa: PT012
                for n in range(1000):
                    put(s.store, f"c{n}")
        (folder / "theirs").unlink()
        with stored(folder) as s:
            assert {"a", "b"} <= set(s.store)
            s.history.add("c")


# Folders that cannot be written


@contextlib.contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    if os.geteuid():
        folder.chmod(0o500)
        for p in folder.iterdir():
            p.chmod(0o400)
        yield
        folder.chmod(0o700)
        return
    bind = ["mount", "--bind", str(folder), str(folder)]
    if not shutil.which("mount") or subprocess.run(bind, check=False, capture_output=True).returncode:
        pytest.skip("root may write everywhere, and cannot mount here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_read_only_folder_still_ranks(
    tiny_bundle: Path, clips: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    with Recommender.load(tiny_bundle, decoder="opencv", data_dir=folder) as rec:
        rec.history.add(clips[0])
        rec.encode(clips[1:3])
    with unwritable(folder), Recommender.load(tiny_bundle, decoder="opencv", data_dir=folder) as rec:
        assert len(rec.rank()) == 2
        with caplog.at_level(logging.INFO):
            assert len(rec.rank(candidates=clips[1:])) == 5  # new ones stay in memory
        assert "memory only" in caplog.text
        assert clips[3].name not in caplog.text
        assert rec.encode(clips[1:3]).failed == ()  # known
        with pytest.raises(errors.StorageReadOnlyError, match="cannot be written to"):
            rec.history.add(clips[1])
        with pytest.raises(errors.StorageReadOnlyError):
            rec.history.clear()
        assert len(rec.history) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    with unwritable(empty):
        where = ["--data-dir", str(empty), "--bundle", str(tiny_bundle), "--decoder", "opencv", "--json"]
        done = CliRunner().invoke(rank, ["--history", str(clips[0]), "--candidates", *map(str, clips[1:3]), *where])
        assert done.exit_code == 0, done.output
        assert len(json.loads(done.stdout)["ranked"]) == 2
    with unwritable(empty), Recommender.load(tiny_bundle, decoder="opencv", data_dir=empty) as rec:
        assert len(rec.rank([clips[0]], clips[1:3])) == 2
        with pytest.raises(errors.StorageReadOnlyError):
            rec.encode(clips[4:])
    assert list(empty.iterdir()) == []


def test_a_file_that_was_only_touched_is_not_unsaved_in_a_read_only_folder(tmp_path: Path) -> None:
    with stored(tmp_path) as s:
        put(s.store, "touched")
    with unwritable(tmp_path), stored(tmp_path) as s:
        touched = Fingerprint("content 1", None, 3, 4)
        s.tokens.set_fingerprint("touched", touched)
        assert s.tokens.fingerprint("touched") == touched
        assert s.store.stats().unsaved == 0


# Damage


def damaged_database(folder: Path, key: str | None = None) -> Path:
    with stored(folder, key) as s:
        with s.tokens.batch():
            for n in range(300):
                put(s.store, f"v{n}")
        for n in range(20):
            s.history.add(f"e{n}")
    return folder / FILE_NAME


@pytest.mark.parametrize("key", [None, "k"])
def test_whole_records_of_a_damaged_database_are_taken_over(
    tmp_path: Path, key: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = damaged_database(tmp_path, key)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = os.urandom(8192)
    path.write_bytes(content)
    with stored(tmp_path, key) as s:
        assert len(s.database.notices) == 1
        assert "was damaged" in caplog.text
        assert len(s.store) > 200
        assert len(s.history) == 20
        assert all(value(s.store, i) == number(i) for i in s.store)
        aside = tmp_path / f"{FILE_NAME}.damaged-1"
        assert aside.exists()
        put(s.store, "more")
    with stored(tmp_path, key) as s:
        assert s.database.notices == []
        assert "more" in s.store
        s.history.forget("e3")  # what is set aside would hold it still
        assert not aside.exists()


@pytest.mark.parametrize("content", [b"no database " * 1000, b"\0" * 8192], ids=["text", "zeros"])
def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    for n in (1, 2):
        (tmp_path / FILE_NAME).write_bytes(content)
        with stored(tmp_path, "k") as s:
            assert len(s.store) == 0
            assert f"damaged-{n}" in s.database.notices[0]
    assert len(list(tmp_path.glob("*.damaged-*"))) == 2


def test_flipped_bits_never_crash(tmp_path: Path) -> None:
    whole = damaged_database(tmp_path / "a").read_bytes()
    rng = random.Random(3)
    for n in range(25):
        folder = tmp_path / f"b{n}"
        folder.mkdir()
        content = bytearray(whole)
        for _ in range(rng.choice([1, 10, 200])):
            content[rng.randrange(100 if n % 5 == 0 else len(content))] ^= 1 << rng.randrange(8)
        (folder / FILE_NAME).write_bytes(content[: rng.randrange(len(content))] if n % 6 == 5 else content)
        try:
            s = open_stored(folder)
        except errors.StorageVersionError:
            continue  # the bits that say whose file it is
        with contextlib.closing(s):
            for i in s.store:  # what is there is right
                if not i.startswith(("v", "e")):
                    pytest.fail(i)
                assert value(s.store, i) == number(i)
            list(s.history)
            put(s.store, "new")


def watch_and_put(s: Opened, count: int) -> None:
    for n in range(count):
        put(s.store, f"n{n}")
        s.history.add(f"h{n}")


@pytest.mark.parametrize("key", [None, "k"])
def test_damage_while_in_use_is_said_and_mended_by_the_next_call(tmp_path: Path, key: str | None) -> None:
    path = damaged_database(tmp_path, key)
    with stored(tmp_path, key) as s:
        known = set(s.store)
        with path.open("r+b") as f:
            f.seek(4096)
            f.write(os.urandom(path.stat().st_size - 4096))
        s.database._con.execute("PRAGMA cache_size=0")
        with pytest.raises(errors.StorageDamagedError, match="try again"):
            watch_and_put(s, 50)
        watched = [e.id for e in s.history]
        s.history.add("works")
        assert len(s.database.notices) == 1
        assert known <= set(s.store)  # nothing of it could be salvaged, but it was in memory
        assert [e.id for e in s.history] == [*watched, "works"]
        put(s.store, "last")
    with stored(tmp_path, key) as s:
        assert not s.database.notices
        assert known | {"works", "last"} <= set(s.store)
        assert [e.id for e in s.history] == [*watched, "works"]
        assert all(value(s.store, i) == number(i) for i in s.store)


def test_a_database_that_is_held_for_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkedout_edge.storage.database._BUSY_SECONDS", 0.2)
    with stored(tmp_path) as s:
        con = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
        con.execute("BEGIN IMMEDIATE")
        with pytest.raises(errors.StorageBusyError, match="try again"):
            put(s.store, "a")
        con.execute("ROLLBACK")
        con.close()
        s.tokens.flush()
        assert s.store.stats().unsaved == 0


def test_many_open_at_once(tmp_path: Path) -> None:
    problems: list[BaseException] = []

    def work(n: int) -> None:
        try:
            with stored(tmp_path) as s:
                put(s.store, f"v{n}")
        except BaseException as e:
            problems.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert problems == []
    with stored(tmp_path) as s:
        assert set(s.store) == {f"v{n}" for n in range(8)}


def test_logs_name_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "secret-folder"
    path = damaged_database(folder)
    path.write_bytes(b"x" * 10_000)
    with caplog.at_level(logging.INFO), stored(folder) as s:
        s.history.add("secret-video")
        s.history.forget("secret-video")
    assert caplog.text
    assert "secret" not in caplog.text


# Random orders

IDS = st.sampled_from([f"id{n}" for n in range(8)])
SHORT = settings(
    max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


class StoreMachine(RuleBasedStateMachine):
    """Two processes' stores on one database hold what a dictionary holds."""

    @initialize(key=st.sampled_from([None, b"k" * 32]))
    def start(self, key: bytes | None) -> None:
        import tempfile

        self.folder = Path(tempfile.mkdtemp())
        self.key = key
        self.model: dict[str, int] = {}
        self.both = [open_stored(self.folder, key), open_stored(self.folder, key)]

    @rule(which=st.integers(0, 1), id=IDS, number=st.integers(1, 120))
    def put(self, which: int, id: str, number: int) -> None:
        put(self.both[which].store, id, number)
        self.model[id] = number

    @rule(which=st.integers(0, 1), ids=st.lists(IDS, max_size=4), number=st.integers(1, 120))
    def put_several(self, which: int, ids: list[str], number: int) -> None:
        with self.both[which].tokens.batch():
            for i in ids:
                put(self.both[which].store, i, number)
                self.model[i] = number

    @rule(which=st.integers(0, 1), id=IDS)
    def remove(self, which: int, id: str) -> None:
        self.both[which].store.remove(id)
        self.model.pop(id, None)

    @rule(which=st.integers(0, 1))
    def open_again(self, which: int) -> None:
        self.both[which].close()
        self.both[which] = open_stored(self.folder, self.key)

    @invariant()
    def both_agree(self) -> None:
        for s in getattr(self, "both", []):
            s.tokens.refresh()
            assert {i: value(s.store, i) for i in s.store} == self.model

    def teardown(self) -> None:
        for s in getattr(self, "both", []):
            s.close()
        shutil.rmtree(getattr(self, "folder", "/nowhere"), ignore_errors=True)


class HistoryMachine(RuleBasedStateMachine):
    """Two processes' histories on one database hold what a list holds, and never an event without its tokens."""

    @initialize()
    def start(self) -> None:
        import tempfile

        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.model: list[tuple[str, Any, Any]] = []
        self.both = [self.open(), self.open()]

    def open(self) -> Opened:
        return open_stored(self.folder, max_videos=6, max_events=5, max_age=timedelta(days=10), clock=self.clock)

    @rule(which=st.integers(0, 1), id=IDS)
    def add(self, which: int, id: str) -> None:
        self.both[which].history.add(id)
        self.add_to_model(id, self.clock.now)

    @rule(which=st.integers(0, 1), id=IDS)
    def add_of_unknown_age(self, which: int, id: str) -> None:
        self.both[which].history.add(Event(id))
        self.add_to_model(id, None)

    @rule(which=st.integers(0, 1), id=IDS)
    def forget(self, which: int, id: str) -> None:
        self.prune()
        assert self.both[which].history.forget(id) == sum(e[0] == id for e in self.model)
        self.model = [e for e in self.model if e[0] != id]

    @rule(which=st.integers(0, 1))
    def clear(self, which: int) -> None:
        self.both[which].history.clear()
        self.model = []

    @rule(days=st.integers(-3, 6))
    def time_passes(self, days: int) -> None:
        self.clock.now += timedelta(days=days)

    @rule(which=st.integers(0, 1), id=IDS)
    def put(self, which: int, id: str) -> None:
        put(self.both[which].store, id)

    @rule(which=st.integers(0, 1))
    def open_again(self, which: int) -> None:
        self.both[which].close()
        self.both[which] = self.open()

    def add_to_model(self, id: str, at: Any) -> None:
        self.model = [*self.model, (id, at, self.clock.now)]
        self.prune()

    def prune(self) -> None:
        recorded = [e[2] for e in self.model]
        reached = [min(recorded[n:]) for n in range(len(recorded))]
        sure = [t for t in reached if t <= self.clock.now - timedelta(days=7)]
        if sure:
            oldest = max(sure) - timedelta(days=10)
            self.model = [e for e in self.model if e[1] is None or e[1] >= oldest]
        self.model = self.model[-5:]

    @invariant()
    def both_agree(self) -> None:
        if hasattr(self, "both"):
            self.prune()
        for s in getattr(self, "both", []):
            oldest = self.clock.now - timedelta(days=10)
            young = [(i, at) for i, at, _ in self.model if at is None or at >= oldest]
            assert [(e.id, e.at) for e in s.history] == young
            s.tokens.refresh()
            held = {i for i, _, _ in self.model}
            assert held <= set(s.store)
            assert s.store.stats().pinned == len(held)

    def teardown(self) -> None:
        for s in getattr(self, "both", []):
            s.close()
        shutil.rmtree(getattr(self, "folder", "/nowhere"), ignore_errors=True)


StoreMachine.TestCase.settings = SHORT
HistoryMachine.TestCase.settings = SHORT
TestStoreInAnyOrder = StoreMachine.TestCase
TestHistoryInAnyOrder = HistoryMachine.TestCase
