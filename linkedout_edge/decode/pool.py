"""Decoding beside the app: a few processes, each of which decodes one file at a time and may crash or hang.

A process is a plain ``python -c``, not one of `multiprocessing`: that would run the app's main module again in each,
which an app without ``if __name__ == "__main__"`` does not survive. Frames come through memory that has no name in the
system, so that whoever is killed leaves nothing behind.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from linkedout_edge import errors
from linkedout_edge.decode.base import Frames, Limits
from linkedout_edge.decode.hardware import say_once
from linkedout_edge.errors import BackendError, ClosedError, DecoderCrashedError, DecoderTimeoutError, VideoError
from linkedout_edge.lifetime import OneProcess

logger = logging.getLogger("linkedout_edge")

MEMORY = 2 << 30
"""Bytes that a process may take above its libraries: 8K video with all its reference pictures takes about one GiB."""
IDLE_SECONDS = 10.0
"""A process that nobody has needed for so long is ended; starting one takes about half a second."""
MAX_FILES = 1000
"""A process is ended after so many, so that what a library leaks is bounded."""
START_SECONDS = 60.0
GRACE_SECONDS = 3.0
"""How much longer than `Limits.max_decode_seconds`, which decoders look at themselves, a process may take."""
_START = """
import json, sys
setup = json.loads(sys.stdin.buffer.readline())
sys.path[:] = setup["sys_path"]
from linkedout_edge.decode.worker import main
main(setup)
"""


def why_not() -> str | None:
    """Why there can be no decoder processes here; None where there can be."""
    if os.name != "posix":
        return "decoder processes need Linux or macOS"
    if getattr(sys, "frozen", False) or not sys.executable:
        return "this app is frozen, or embeds Python: there is no interpreter to start for decoder processes"
    return None


def isolated(decoder: object) -> tuple[str, dict[str, Any]] | None:
    """Name and settings of the same decoder in a process of its own; None of an app's own decoder."""
    from linkedout_edge.decode.opencv import OpenCVDecoder
    from linkedout_edge.decode.pyav import PyAVDecoder

    if type(decoder) is PyAVDecoder:  # one that is derived from it is another one
        return "pyav", {"min_key_frames": decoder.min_key_frames, "hardware": decoder.hardware}
    return ("opencv", {}) if type(decoder) is OpenCVDecoder else None


class DecoderPool(OneProcess):
    """A `Decoder` that decodes in processes of its own. Call it from as many threads as there are to be processes.

    Processes are started when they are needed, and ended when they idle. What happens to one costs one video.

    Args:
        decoder: ``"pyav"`` or ``"opencv"``.
        processes: At most so many.
        settings: Arguments of `PyAVDecoder`.
        fallback: Decodes in this process where none can be started (a sandbox may forbid it); None makes that an error.
        memory: Bytes that each may take above its libraries (Linux).
    """

    def __init__(
        self,
        decoder: str,
        processes: int,
        *,
        settings: dict[str, Any] | None = None,
        fallback: Callable[[str, int, int, Limits], Frames] | None = None,
        memory: int = MEMORY,
    ) -> None:
        super().__init__()
        self.name = decoder
        self.processes = processes
        self._settings = settings or {}
        self._fallback = fallback
        self._memory = memory
        self._changed = threading.Condition()  # guards what follows
        self._idle: list[_Process] = []  # the one used last is used next
        self._all: set[_Process] = set()
        self._taken = 0
        self._reaper: threading.Thread | None = None
        self._closed = False

    def __call__(self, path: str | os.PathLike[str], count: int, size: int, limits: Limits) -> Frames:
        """See `Decoder.__call__`.

        Raises:
            DecoderCrashedError: The process ended while it decoded the file.
            DecoderTimeoutError: It took too long, and was ended.
            BackendError: No process can be started, and there is no `fallback`.
            ClosedError: After `close`.
        """
        return self._decode(path, count, size, limits, quick=False)[0]

    def quick(self, path: str | os.PathLike[str], count: int, size: int, limits: Limits) -> tuple[Frames, bool]:
        """See `QuickDecoder.quick`; a full look where the decoder takes no quick ones. Raises as a call does."""
        return self._decode(path, count, size, limits, quick=True)

    def _decode(
        self, path: str | os.PathLike[str], count: int, size: int, limits: Limits, *, quick: bool
    ) -> tuple[Frames, bool]:
        request = {
            "path": os.fspath(path),
            "folder": _folder(),
            "count": count,
            "size": size,
            "limits": asdict(limits),
            "quick": quick,
        }
        try:
            process = self._take(count * size * size * 3)
        except (OSError, BackendError) as e:
            if self._fallback is None:
                raise BackendError(f"no decoder process can be started ({e}): load with decoders=0") from e
            logger.warning("no decoder process can be started, so this process decodes: %s", e)
            glance: Callable[..., tuple[Frames, bool]] | None = getattr(self._fallback, "quick", None)
            if quick and glance is not None:
                return glance(os.fspath(path), count, size, limits)
            return self._fallback(os.fspath(path), count, size, limits), True
        healthy = False
        try:
            found = process.decode(request, limits.max_decode_seconds)
            healthy = True
            return found
        except VideoError as e:
            healthy = not isinstance(e, DecoderCrashedError | DecoderTimeoutError)
            raise
        finally:
            self._give_back(process, healthy)

    def process_ids(self) -> list[int]:
        """Of those that run now."""
        with self._changed:
            return [p.pid for p in self._all]

    def close(self) -> None:
        """End all processes; a call that is under way fails its video."""
        if self._forked:
            return
        with self._changed:
            self._closed = True
            for process in self._all:
                process.kill()  # whoever waits for its answer gives it back, which ends it
            for process in self._idle:
                self._drop(process)
            self._idle.clear()
            self._changed.notify_all()

    def _take(self, frame_bytes: int) -> _Process:
        """A process that is alive, an idle one or a new one; waits while all are busy."""
        self._check_process()
        with self._changed:
            self._changed.wait_for(lambda: self._taken < self.processes or self._closed)
            if self._closed:
                raise ClosedError()
            self._taken += 1
            while self._idle:
                process = self._idle.pop()
                if process.is_alive() and process.frame_bytes >= frame_bytes:
                    return process
                self._drop(process)  # somebody ended it; no video is to blame
        try:
            process = _Process(self.name, self._settings, self._memory, frame_bytes)
        except BaseException:
            with self._changed:
                self._taken -= 1
                self._changed.notify()
            raise
        with self._changed:
            self._all.add(process)
        return process

    def _give_back(self, process: _Process, healthy: bool) -> None:
        with self._changed:
            self._taken -= 1
            if self._closed or not healthy or process.files >= MAX_FILES:
                self._drop(process)
            else:
                process.idle_since = time.monotonic()
                self._idle.append(process)
                if self._reaper is None:
                    self._reaper = threading.Thread(target=self._reap, name="linkedout-decoders", daemon=True)
                    self._reaper.start()
            self._changed.notify_all()

    def _drop(self, process: _Process) -> None:
        self._all.discard(process)
        process.end()

    def _reap(self) -> None:
        """End what idles; gone when nothing is left to end."""
        with self._changed:
            while self._all and not self._closed:
                self._changed.wait(IDLE_SECONDS / 4)
                until = time.monotonic() - IDLE_SECONDS
                for process in [p for p in self._idle if p.idle_since < until]:
                    self._idle.remove(process)
                    self._drop(process)
            self._reaper = None

    def _native(self) -> tuple[object, ...]:
        return tuple(self._all)  # a forked child must not wait for its parent's children

    def _stop(self, until: float) -> None:
        self.close()


class _Process:
    """One decoder process, from this side."""

    def __init__(self, decoder: str, settings: dict[str, Any], memory: int, frame_bytes: int) -> None:
        self.frame_bytes = frame_bytes
        self.files = 0
        self.idle_since = 0.0
        fd = _nameless_memory(frame_bytes)
        try:
            self._frames = mmap.mmap(fd, frame_bytes)
            setup = {
                "sys_path": sys.path,
                "decoder": decoder,
                "settings": settings,
                "memory": memory,
                "frames": fd,
                "parent": os.getpid(),
            }
            self._process = subprocess.Popen(
                # Isolated: neither the folder that the app runs in nor the environment decides what is imported.
                [sys.executable, "-I", "-c", _START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(fd,),
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C in a terminal is for the app alone
                bufsize=0,
            )
        finally:
            os.close(fd)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        try:
            answer = self._ask(setup, START_SECONDS)
        except VideoError as e:
            self.end()
            raise BackendError(f"it ended or hung while starting: {e}") from None
        if "ready" not in answer:
            self.end()
            raise BackendError(str(answer.get("bug", answer)).strip().rpartition("\n")[2])

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def decode(self, request: dict[str, Any], seconds: float) -> tuple[Frames, bool]:
        """Let it decode one file, in at most about so many seconds of its CPU and of the clock."""
        self.files += 1
        seconds += GRACE_SECONDS
        answer = self._ask({**request, "cpu_seconds": seconds}, seconds)
        if "shape" in answer:
            shape = answer["shape"]
            frames = np.frombuffer(self._frames, np.uint8, int(np.prod(shape))).reshape(shape)
            return frames.copy(), answer["whole"]
        if "bug" in answer:
            raise AssertionError(f"a decoder process failed in our own code:\n{answer['bug']}")
        raise getattr(errors, answer["error"])(answer["message"])

    def kill(self) -> None:
        """End it, even where a signal has stopped it."""
        self._process.kill()

    def end(self) -> None:
        """End it and wait until it is gone, which takes no time. Nobody may be waiting for its answer."""
        self._process.kill()
        self._process.wait()
        self._requests.close()
        self._answers.close()

    def _ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a message and wait for the answer.

        Raises:
            DecoderCrashedError: The process ended.
            DecoderTimeoutError: There is no answer in time.
        """
        until = time.monotonic() + seconds
        answer = b""
        try:
            self._requests.write(json.dumps(message).encode() + b"\n")
            poll = select.poll()
            poll.register(self._answers, select.POLLIN)
            while not answer.endswith(b"\n"):
                left = until - time.monotonic()
                if left <= 0 or not poll.poll(left * 1000):
                    raise DecoderTimeoutError(f"decoding did not end within {seconds:.3g} s and was stopped")
                part = os.read(self._answers.fileno(), 65536)
                if not part:
                    raise self._crashed()
                answer += part
        except BrokenPipeError:
            raise self._crashed() from None
        found: dict[str, Any] = json.loads(answer)
        for text in found.get("said", ()):  # its log goes nowhere
            say_once(text)
        return found

    def _crashed(self) -> DecoderCrashedError:
        status = self._process.wait()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return DecoderCrashedError(
            f"the process that decoded it ended ({how}): the file is damaged, malicious or too large"
        )


def _folder() -> str | None:
    """Where relative paths begin now; None where that folder is gone."""
    try:
        return os.getcwd()  # noqa: PTH109 (a name of any bytes)
    except OSError:
        return None


def _nameless_memory(size: int) -> int:
    """A descriptor of memory to share, gone with the last process that has it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("linkedout-frames")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
