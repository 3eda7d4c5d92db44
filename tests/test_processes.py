"""Forks, pickles, Ctrl-C and the end of the interpreter: a clear error or a normal end, never a hang or a crash."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from public_calls import all_calls
from stored import inner

from linkedout_edge import Event, Failed, Recommender, Video, errors
from linkedout_edge.storage.database import FILE_NAME, Database

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
# Python 3.12 on warns of a fork in a process that has threads; that is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")

SCRIPT_START = """
import faulthandler, os, signal, sys, threading, time
import numpy as np
faulthandler.enable()
from linkedout_edge import Recommender, Video, errors
bundle, folder, *rest = sys.argv[1:]
pictures = np.random.default_rng(0).integers(0, 256, (8, 720, 1280, 3), np.uint8)
def videos(*names): return [Video(frames=pictures, id=str(n)) for n in names]
def child(work, expected=0):
    pid = os.fork()
    if pid == 0:
        work()
        sys.exit(expected)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == expected
def refused(call, *args, **options):
    try:
        call(*args, **options)
    except errors.ForkedError as e:
        assert "load a recommender in each process" in str(e)
    else:
        raise AssertionError("no error")
"""


def run(script: str, *arguments: object, first: str = "", status: int = 0) -> str:
    """Run a script in a process of its own; what it printed. A crash or a hang shows its stacks."""
    code = first + SCRIPT_START + textwrap.dedent(script)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)  # its children, too
            said, _ = process.communicate()
    assert process.returncode == status, f"status {process.returncode}\n{said}"
    assert "Fatal Python error" not in said
    return said


def in_child(work: Callable[[], None]) -> int:
    """Exit status of a forked child that does `work` and goes without any clean-up."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # not faulthandler: its own watching thread stays behind, too
        status = 1
        try:
            work()
            status = 0
        except BaseException as e:
            print(f"{type(e).__name__}: {e}", file=sys.__stderr__, flush=True)
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


UNDER_WAY: list[Callable[[Recommender], Any]] = [  # what a call was about to do when the process was forked
    lambda r: r._parts.session.run({}),
    lambda r: r._parts.database and r._parts.database.reading().__enter__(),
    lambda r: r._parts.database and r._parts.database.transaction().__enter__(),
]


@needs_fork
def test_every_call_in_a_child_is_a_clear_error(tiny_bundle: Path, tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()

    def decoder(path: str, count: int, size: int, limits: Any) -> np.ndarray:
        started.set()
        go_on.wait(30)
        return np.zeros((1, size, size, 3), np.uint8)

    (tmp_path / "a.mp4").write_bytes(b"a")
    with Recommender.load(tiny_bundle, decoder=decoder, data_dir=tmp_path / "data") as rec:
        # Another thread holds locks when the process is forked; in the child nobody will ever release them.
        encoding = threading.Thread(target=rec.encode, args=([tmp_path / "a.mp4"],))
        encoding.start()
        holding = threading.Thread(target=_hold, args=(rec, started, go_on))
        holding.start()
        assert started.wait(10)

        def work() -> None:
            for call in [*all_calls(), *UNDER_WAY]:
                with pytest.raises(errors.ForkedError, match="load a recommender in each process"):
                    call(rec)
            assert "forked" in repr(rec)
            rec.history.close()
            inner(rec.store).close()
            rec.close()
            rec.__exit__(None, None, None)

        assert in_child(work) == 0
        go_on.set()
        encoding.join()
        holding.join()
        assert list(rec.store) == [str(tmp_path / "a.mp4")]


def _hold(rec: Recommender, started: threading.Event, go_on: threading.Event) -> None:
    started.wait(30)
    with (
        inner(rec.store).lock,
        rec.history._lock,
        rec._encoding._background._changed,
        rec._parts.session.__dict__.get("_lock", threading.Lock()),
    ):
        go_on.wait(30)


@needs_fork
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_child_ends_with_its_own_status_and_the_parent_goes_on(
    backend: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip(backend)
    script = """
    import gc
    rec = Recommender.load(bundle, backend=rest[0], threads=4, data_dir=folder)
    rec.encode(videos("a", "b"))
    before = rec.rank(["a"], ["b"])
    def use():
        refused(rec.rank, ["a"], ["b"])
        before[0].explain()  # what was ranked before is data
    def forget():
        global rec
        del rec
        gc.collect()
    def load():
        with Recommender.load(bundle, backend=rest[0], threads=4) as own:
            own.encode(videos("a", "b"))
            assert abs(own.rank(["a"], ["b"])[0].score - before[0].score) < 1e-3
        Recommender.load(bundle, backend=rest[0])  # not closed
    child(use)
    child(lambda: rec.close())
    child(lambda: None, 3)
    child(forget)
    child(load)
    child(lambda: child(lambda: refused(rec.rank, ["a"], ["b"])))
    with rec:  # a child that leaves the block by its end, or by an exception
        child(lambda: None, 5)
        pid = os.fork()
        if pid == 0:
            sys.exit(6)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
        cycle = [Recommender.load(bundle, backend=rest[0], threads=4)]
        cycle.append(cycle)
        del cycle
        child(gc.collect)
        rec.rank(["a"], videos(*range(9)), deadline_ms=0)  # encodes in the background
        child(use)
        assert rec.wait(30)
        assert len(rec.rank(["a"], ["b", *map(str, range(9))])) == 10
    print("parent done")
    """
    assert "parent done" in run(script, tiny_bundle, tmp_path, backend)


@needs_fork
def test_a_child_made_in_the_middle_of_encoding(tiny_bundle: Path, tmp_path: Path) -> None:
    script = """
    parent = os.getpid()
    def progress(done, total):
        if done == 2 and os.getpid() == parent:
            pid = os.fork()
            if pid:
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    rec = Recommender.load(bundle, threads=4, data_dir=folder)
    try:
        rec.encode(videos(*"abcdef"), progress)
    except errors.ForkedError:
        assert os.getpid() != parent
        sys.exit(7)
    assert os.getpid() == parent
    assert len(rec.store) == 6
    """
    run(script, tiny_bundle, tmp_path)


@needs_fork
def test_both_keep_what_they_acknowledge_in_one_data_dir(tiny_bundle: Path, tmp_path: Path) -> None:
    """SQLite would take the parent's locks for the child's, and the parent would remove the log it writes to."""
    script = """
    rec = Recommender.load(bundle, data_dir=folder)
    rec.encode(videos("parent"))
    told, tell = os.pipe()
    answered, answer = os.pipe()
    pid = os.fork()
    if pid == 0:
        own = Recommender.load(bundle, data_dir=folder)
        os.write(answer, b"x")
        os.read(told, 1)
        own.history.add("parent")
        own.encode(videos("child"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.read(answered, 1)
    rec.close()
    os.write(tell, b"x")
    os.waitpid(pid, 0)
    with Recommender.load(bundle, data_dir=folder) as rec:
        assert sorted(rec.store) == ["child", "parent"], list(rec.store)
        assert len(rec.history) == 1
    """
    run(script, tiny_bundle, tmp_path)


@needs_fork
def test_a_data_dir_that_was_in_use_when_the_process_was_forked(tmp_path: Path) -> None:
    database = Database(tmp_path / "d")
    inside, leave = threading.Event(), threading.Event()

    def write() -> None:
        with database.transaction():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=write)
    thread.start()
    assert inside.wait(10)

    def work() -> None:
        with pytest.raises(errors.ForkedError, match="only after the fork"):
            Database(tmp_path / "d")
        Database(tmp_path / "other").close()

    assert in_child(work) == 0
    leave.set()
    thread.join()
    assert in_child(lambda: Database(tmp_path / "d").close()) == 0
    with database.reading() as con:
        assert con.execute("SELECT count(*) FROM videos").fetchone() == (0,)
    database.close()
    assert (tmp_path / "d" / FILE_NAME).exists()


@needs_fork
def test_a_pool_of_forked_workers(tiny_bundle: Path, tmp_path: Path) -> None:
    script = """
    import multiprocessing
    rec = Recommender.load(bundle, threads=4)
    rec.encode(videos("a", "b"))
    def inherited(n):
        return len(rec.rank(["a"], ["b"]))
    def start():
        global own
        own = Recommender.load(bundle, threads=1)
    def ranks(n):
        return own.rank(videos("a"), videos("b"))
    def main():
        fork = multiprocessing.get_context("fork")
        with fork.Pool(2) as pool:
            refused(pool.map, inherited, range(4))
            pool.close()
            pool.join()
        with fork.Pool(2, start, maxtasksperchild=1) as pool:
            there = pool.map(ranks, range(3))
            pool.close()
            pool.join()
        here = rec.rank(["a"], ["b"])
        assert all(abs(r[0].score - here[0].score) < 1e-3 and r.ids == ["b"] for r in there)
    main()
    """
    run(script, tiny_bundle, tmp_path)


def test_what_cannot_be_sent_says_what_to_do(rec: Recommender) -> None:
    for thing in (rec, rec.history, rec.store, rec.store.select(), [rec]):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            if attempt is copy.copy and thing not in (rec, rec.history, rec.store):
                continue
            with pytest.raises(errors.ArgumentTypeError, match=r"Recommender\.load\(\.\.\.\) in the other process"):
                attempt(thing)


def test_what_a_worker_gives_back_can_be_sent(rec: Recommender, frames: np.ndarray) -> None:
    videos = [Video(frames=frames, id="a"), Video(frames=255 - frames, id="b")]
    result = rec.encode([*videos, "missing.mp4"])
    ranking = rec.rank(["a"], ["b", "missing.mp4"])
    assert ranking[0].explain().history == ("a",)
    for thing in (result, rec.info(), rec.store.stats(), Failed("a", "video", "conflict", "why"), Event("a")):
        assert pickle.loads(pickle.dumps(thing)) == thing
    again = pickle.loads(pickle.dumps(ranking))
    assert list(again) == list(ranking)
    assert (again.failed, again.timing) == (ranking.failed, ranking.timing)
    with pytest.raises(errors.ArgumentError, match="explain"):
        again[0].explain()


def test_every_error_can_be_sent() -> None:
    kinds = [k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, errors.LinkedOutError)]
    for error in [*(kind("what was wrong") for kind in kinds), errors.DeviceError("what was wrong", "why")]:
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
    assert again.reason == "why"


ENDS = {
    "in the background": "rec.rank(['a'], videos(*range(500)), deadline_ms=0)",
    "in the background, in a cycle": """
        rec.rank(['a'], videos(*range(500)), deadline_ms=0)
        cycle = [rec]; cycle.append(cycle)
        del rec, cycle
        """,
    "in a daemon thread": """
        def work():
            n = 0
            while True:
                n += 1
                rec.encode(videos(f"{n} b", f"{n} c", f"{n} d"))
                rec.rank(['a'], [f"{n} b"])
        threading.Thread(target=work, daemon=True).start()
        """,
    "in a cycle": "cycle = [rec]; cycle.append(cycle); del rec, cycle",
}


@pytest.mark.parametrize("what", ENDS)
def test_the_interpreter_ends_normally(what: str, tiny_bundle: Path, tmp_path: Path) -> None:
    start = """
    rec = Recommender.load(bundle, threads=4, data_dir=folder)
    rec.encode(videos("a"))
    """
    run(textwrap.dedent(start) + textwrap.dedent(ENDS[what]) + "\ntime.sleep(0.3)", tiny_bundle, tmp_path)
    with Recommender.load(tiny_bundle, data_dir=tmp_path) as rec:
        assert "a" in rec.store


def test_a_thread_that_outlives_the_main_one_encodes_everything(tiny_bundle: Path, tmp_path: Path) -> None:
    """From then on Python's thread pools take no more work."""
    script = """
    rec = Recommender.load(bundle, threads=4, data_dir=folder)
    def work():
        threading.main_thread().join()
        rec.encode(videos("a", "b", "c"))
        rec.rank(["a"], videos("d"), deadline_ms=0)
        assert rec.wait(30)
    threading.Thread(target=work).start()
    """
    assert not run(script, tiny_bundle, tmp_path)
    with Recommender.load(tiny_bundle, data_dir=tmp_path) as rec:
        assert sorted(rec.store) == ["a", "b", "c", "d"]


def test_an_exit_handler_can_still_rank(tiny_bundle: Path, tmp_path: Path) -> None:
    """One that was registered before our own runs after it."""
    first = """
import atexit
def later(): print(len(rec.rank(videos("a"), videos("b", "c"))), len(rec.history))
atexit.register(later)
"""
    script = """
    rec = Recommender.load(bundle, threads=4, data_dir=folder)
    rec.history.add(videos("a")[0])
    """
    assert run(script, tiny_bundle, tmp_path, first=first) == "2 1\n"


INTERRUPTED = {
    "rank": "while True: rec.rank(['a'], ['b'])",
    "encode": "while True: n += 1; rec.encode(videos(*range(n, n + 9)))",
    "wait": "rec.rank(['a'], videos(*range(4000)), deadline_ms=0); rec.wait()",
    "deadline": "while True: n += 9; rec.rank(['a'], videos(*range(n, n + 9)), deadline_ms=5000)",
}


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("what", INTERRUPTED)
def test_ctrl_c_is_a_keyboard_interrupt_and_what_was_stored_stays(what: str, tiny_bundle: Path, tmp_path: Path) -> None:
    script = f"""
    rec = Recommender.load(bundle, threads=4, data_dir=folder)
    rec.encode(videos("a", "b"))
    def press():
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=press, daemon=True).start()
    n = 0
    {INTERRUPTED[what]}
    """
    said = run(script, tiny_bundle, tmp_path, status=-signal.SIGINT)
    assert said.rstrip().endswith("KeyboardInterrupt")
    with Recommender.load(tiny_bundle, data_dir=tmp_path) as rec:
        assert {"a", "b"} <= set(rec.store)


def test_decoding_leaves_no_threads_and_nothing_for_the_collector(clips: list[Path], tmp_path: Path) -> None:
    """What a child would free, when it collects garbage that the parent made."""
    pytest.importorskip("av")
    if not Path("/proc/self/task").is_dir():
        pytest.skip("counts threads in /proc")
    script = """
    import gc
    from linkedout_edge.decode import Limits, get_decoder
    decoder = get_decoder("pyav")
    decoder(bundle, 4, 64, Limits())
    gc.collect()
    gc.disable()
    before = len(os.listdir("/proc/self/task"))
    for _ in range(3):
        decoder(bundle, 4, 64, Limits())
    assert len(os.listdir("/proc/self/task")) == before
    assert not gc.collect()
    """
    run(script, clips[0], tmp_path)
