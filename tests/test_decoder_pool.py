"""Decoder processes: the same frames; whatever happens to a process costs one video; none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from looks import Glancing

from linkedout_edge import Recommender
from linkedout_edge.decode import DEFAULT_LIMITS, Limits, get_decoder, pool
from linkedout_edge.decode.pool import DecoderPool, why_not
from linkedout_edge.errors import (
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    ClosedError,
    DecoderCrashedError,
    DecoderTimeoutError,
    VideoNotFoundError,
    VideoTooLargeError,
    VideoUnreadableError,
)

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
SOON = Limits(max_decode_seconds=0.2)


def memory_is_bounded() -> bool:
    """Whether the system keeps to a limit on memory: only Linux does, and an emulator (QEMU's user mode) does not."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); bytearray(2**31)"
    return (
        sys.platform.startswith("linux")
        and subprocess.run([sys.executable, "-c", code], capture_output=True).returncode != 0
    )


needs_bounds = pytest.mark.skipif(not memory_is_bounded(), reason="this system does not bound a process's memory")


@pytest.fixture
def decoders() -> Iterator[DecoderPool]:
    found = DecoderPool("opencv", 2)
    yield found
    found.close()
    assert found.process_ids() == []


def decode(decoder: DecoderPool, path: Path, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    return decoder(path, 4, 32, limits)


def stopped(decoders: DecoderPool) -> int:
    """The one process, which now takes a request and does not answer."""
    (process,) = decoders.process_ids()
    os.kill(process, signal.SIGSTOP)
    return process


def is_there(process: int) -> bool:
    """Whether any of its threads runs; not so a dead one for which its parent has not asked yet."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(list(Path(f"/proc/{process}/task").iterdir())) > 1
    except FileNotFoundError:
        return False


def wait_until_gone(process: int) -> None:
    until = time.monotonic() + 30
    while is_there(process):
        assert time.monotonic() < until
        time.sleep(0.05)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")


@pytest.mark.parametrize("name", ["opencv", "pyav"])
def test_frames_are_those_of_this_process(name: str, clips: list[Path]) -> None:
    if name == "pyav":
        pytest.importorskip("av")
    decoders = DecoderPool(name, 2)
    try:
        for size in (32, 64):  # more than the first process has room for
            for clip in clips[:3]:
                expected = get_decoder(name)(clip, 4, size, Limits())
                np.testing.assert_array_equal(decoders(clip, 4, size, Limits()), expected)
    finally:
        decoders.close()


def test_a_bad_file_is_what_it_is_without_a_process(decoders: DecoderPool, clips: list[Path], tmp_path: Path) -> None:
    decode(decoders, clips[0])
    before = decoders.process_ids()
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(VideoUnreadableError, match=r"bad\.mp4.*is not a video"):
        decode(decoders, tmp_path / "bad.mp4")
    with pytest.raises(VideoNotFoundError):
        decode(decoders, tmp_path / os.fsdecode(b"no\xff such"))
    with pytest.raises(VideoTooLargeError, match="max_bytes"):
        decode(decoders, clips[0], Limits(max_bytes=10))
    assert decoders.process_ids() == before


def test_paths_begin_where_the_app_is_now(
    decoders: DecoderPool, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode(decoders, clips[0])
    monkeypatch.chdir(clips[0].parent)
    assert decode(decoders, Path(clips[0].name)).shape == (4, 32, 32, 3)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoNotFoundError, match=r"'clip0\.mp4'"):
        decode(decoders, Path(clips[0].name))


def test_a_process_that_is_killed_costs_the_file_it_is_at(decoders: DecoderPool, clips: list[Path]) -> None:
    decode(decoders, clips[0])
    process = stopped(decoders)
    threading.Timer(0.3, os.kill, (process, signal.SIGKILL)).start()
    with pytest.raises(DecoderCrashedError, match="signal 9"):
        decode(decoders, clips[1])
    assert decode(decoders, clips[1]).shape == (4, 32, 32, 3)
    assert process not in decoders.process_ids()


def test_a_process_that_is_killed_between_files_costs_none(decoders: DecoderPool, clips: list[Path]) -> None:
    decode(decoders, clips[0])
    (process,) = decoders.process_ids()
    os.kill(process, signal.SIGKILL)
    if Path("/proc/self/stat").exists():
        wait_until_gone(process)
    else:
        time.sleep(1)
    assert decode(decoders, clips[1]).shape == (4, 32, 32, 3)


def test_a_process_that_hangs_is_ended(
    decoders: DecoderPool, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "GRACE_SECONDS", 0.2)
    decode(decoders, clips[0])
    stopped(decoders)
    with pytest.raises(DecoderTimeoutError, match=r"0\.4 s"):
        decode(decoders, clips[1], SOON)
    assert decoders.process_ids() == []
    assert decode(decoders, clips[1]).shape == (4, 32, 32, 3)


@needs_bounds
def test_a_file_that_needs_too_much_memory_costs_itself(clips: list[Path], tmp_path: Path) -> None:
    import cv2

    large = tmp_path / "large.png"
    cv2.imwrite(str(large), np.zeros((6000, 5000, 3), np.uint8))  # 90 MB of pixels in a file of 100 kB
    decoders = DecoderPool("opencv", 1, memory=60 << 20)
    try:
        with pytest.raises((VideoTooLargeError, VideoUnreadableError, DecoderCrashedError)):
            decode(decoders, large)
        assert decode(decoders, clips[0]).shape == (4, 32, 32, 3)
    finally:
        decoders.close()
    assert len(get_decoder("opencv")(large, 4, 32, Limits())) == 1


def _worker(script: str) -> subprocess.CompletedProcess[str]:
    code = "from linkedout_edge.decode import worker\n" + textwrap.dedent(script)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@needs_bounds
def test_the_limit_on_memory_is_real() -> None:
    done = _worker(
        "worker.limit_memory(50 << 20); a = bytearray(20 << 20); print('fits', flush=True); bytearray(1 << 28)"
    )
    assert done.stdout == "fits\n"
    assert "MemoryError" in done.stderr


def test_the_limit_on_cpu_time_is_real() -> None:
    done = _worker(
        """
        worker.limit_cpu(0.1)
        while True:
            pass
        """
    )
    assert done.returncode == -signal.SIGXCPU


def test_idle_processes_are_ended_and_started_again(
    clips: list[Path], monkeypatch: pytest.MonkeyPatch, decoders: DecoderPool
) -> None:
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.2)
    decode(decoders, clips[0])
    until = time.monotonic() + 30
    while decoders.process_ids():
        assert time.monotonic() < until
        time.sleep(0.02)
    assert decode(decoders, clips[0]).shape == (4, 32, 32, 3)


def test_a_process_serves_so_many_files(
    clips: list[Path], monkeypatch: pytest.MonkeyPatch, decoders: DecoderPool
) -> None:
    monkeypatch.setattr(pool, "MAX_FILES", 2)
    seen = set()
    for _ in range(5):
        decode(decoders, clips[0])
        seen.update(decoders.process_ids())
    assert len(seen) == 3  # of files 1 and 2, 3 and 4, and 5
    assert len(decoders.process_ids()) == 1


def test_no_more_processes_than_asked_for(clips: list[Path], decoders: DecoderPool) -> None:
    seen: list[int] = []

    def work() -> None:
        for clip in clips:
            decode(decoders, clip)
            seen.append(len(decoders.process_ids()))

    threads = [threading.Thread(target=work) for _ in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(seen) == 30
    assert max(seen) == 2


@needs_proc
def test_processes_end_with_their_parent_however_it_ends(clips: list[Path]) -> None:
    script = f"""
        import os, signal
        from linkedout_edge.decode import Limits
        from linkedout_edge.decode.pool import DecoderPool
        decoders = DecoderPool("opencv", 1)
        decoders({str(clips[0])!r}, 4, 32, Limits())
        print(*decoders.process_ids(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL
    wait_until_gone(int(done.stdout))


def test_where_no_process_can_be_started(clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(BackendError, match="decoders=0"):
        decode(DecoderPool("opencv", 1), clips[0])
    here = get_decoder("opencv")
    there = DecoderPool("opencv", 1, fallback=here)
    np.testing.assert_array_equal(decode(there, clips[0]), here(clips[0], 4, 32, Limits()))
    assert there.quick(str(clips[0]), 4, 32, Limits())[1]  # OpenCV takes no quick looks
    glancing = DecoderPool("opencv", 1, fallback=Glancing())
    assert len(glancing.quick(str(clips[0]), 4, 32, Limits())[0]) == 1


def test_without_processes_or_anything_else_the_call_fails_and_no_video(
    tiny_bundle: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Recommender.load(tiny_bundle, precision="fp32", decoder="opencv", decoders=2) as rec:
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(BackendError, match="decoders=0"):
            rec.encode(clips)


def test_after_close(clips: list[Path]) -> None:
    decoders = DecoderPool("opencv", 1)
    decode(decoders, clips[0])
    decoders.close()
    decoders.close()
    with pytest.raises(ClosedError):
        decode(decoders, clips[0])


# With a recommender


def many(clips: list[Path], folder: Path) -> list[str]:
    """Twelve files."""
    paths = [folder / f"v{n}.mp4" for n in range(12)]
    for n, p in enumerate(paths):
        p.write_bytes(clips[n % 6].read_bytes())
    return [str(p) for p in paths]


def test_an_app_that_encodes_many_uses_processes_by_itself(
    tiny_bundle: Path, clips: list[Path], tmp_path: Path
) -> None:
    paths = many(clips, tmp_path)
    with (
        Recommender.load(tiny_bundle, precision="fp32", decoder="opencv", decoders=0, threads=2) as here,
        Recommender.load(tiny_bundle, precision="fp32", decoder="opencv", threads=2) as beside,
    ):
        ours = beside._encoding.encoder.pool
        assert ours is not None
        beside.encode(paths[:1])
        assert ours.process_ids() == []  # not for one video
        assert list(beside.encode(paths).encoded) == paths[1:]
        assert 1 <= len(ours.process_ids()) <= 2
        here.encode(paths)
        expected = here.rank(paths[:2], paths)
        assert beside.rank(paths[:2], paths).ids == expected.ids
        np.testing.assert_array_equal(beside.rank(paths[:2], paths).scores, expected.scores)
    assert ours.process_ids() == []


def test_a_decoder_that_dies_costs_one_video(tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    paths = many(clips, tmp_path)
    with Recommender.load(tiny_bundle, precision="fp32", decoder="opencv", decoders=1) as rec:
        ours = rec._encoding.encoder.pool
        assert ours is not None

        def kill(done: int, total: int) -> None:
            if done == 3:
                process = stopped(ours)
                threading.Timer(0.3, os.kill, (process, signal.SIGKILL)).start()

        result = rec.encode(paths, kill)
        assert [(f.id, f.code) for f in result.failed] == [(paths[3], "decoder_crashed")]
        assert list(result.encoded) == [*paths[:3], *paths[4:]]
        assert rec.encode(paths).encoded == (paths[3],)  # it is tried again


def test_an_app_without_a_main_guard_runs_once(tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        f"print('begins', flush=True)\n"
        f"from linkedout_edge import Recommender\n"
        f"rec = Recommender.load({str(tiny_bundle)!r}, precision='fp32', decoder='opencv', decoders=2)\n"
        f"print(len(rec.encode({many(clips, tmp_path)!r}).encoded))\n"
    )
    done = subprocess.run([sys.executable, app], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begins\n12\n", "")


def test_what_makes_no_sense_is_refused(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentTypeError, match="decoders must be a whole number"):
        Recommender.load(tiny_bundle, decoders="2")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="from 0 to"):
        Recommender.load(tiny_bundle, decoders=-1)
    with pytest.raises(ArgumentError, match="in a process of its own"):
        Recommender.load(tiny_bundle, decoders=1, decoder=lambda *_: np.zeros((1, 1, 1, 3), np.uint8))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(ArgumentError, match=r"frozen.*leave decoders out"):
        Recommender.load(tiny_bundle, decoders=1)
    Recommender.load(tiny_bundle, precision="fp32").close()
