"""One decoder process, which `pool.DecoderPool` starts: reads requests from stdin, answers on stdout.

Each request and each answer is a line of JSON; frames go through memory that both processes share. The process ends
when its stdin does, which is when its parent has ended, however it ended.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import resource
import signal
import threading
import time
import traceback
from pathlib import Path
from typing import Any, BinaryIO

from linkedout_edge.decode.hardware import accelerator, said
from linkedout_edge.errors import VideoError

PARENT_EVERY = 2.0
"""Seconds between looks whether the parent is still there: a file may keep us from reading stdin."""


def main(setup: dict[str, Any]) -> None:
    """Serve until stdin ends.

    Args:
        setup: ``decoder`` (name), ``settings`` (its arguments), ``memory`` (bytes above what the libraries take),
            ``frames`` (descriptor of the shared memory), ``parent`` (process id).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the app, which ends us
    answers = _own_stdout()
    threading.Thread(target=_end_with, args=(setup["parent"],), daemon=True).start()
    try:
        decode = _decoder(setup["decoder"], setup["settings"])
        # A GPU's driver reserves addresses by the hundred gigabytes, and none of that is memory.
        limit_memory(None if accelerator(setup["settings"].get("hardware")) is not None else setup["memory"])
    except Exception:
        _answer(answers, bug=traceback.format_exc())
        return
    shared = mmap.mmap(setup["frames"], 0)
    _answer(answers, ready=True)
    # Line by line: what is buffered ahead would be fine, as there is one request at a time.
    for line in open(0, "rb", closefd=False):  # noqa: SIM115 (a descriptor; it ends with us)
        _answer(answers, **serve(decode, json.loads(line), shared))


def serve(decode: Any, request: dict[str, Any], shared: mmap.mmap) -> dict[str, Any]:
    """Decode one file into `shared`; what to answer: a ``shape``, an ``error`` with its ``message``, or a ``bug``."""
    from linkedout_edge.decode.limits import Limits

    limit_cpu(request["cpu_seconds"])
    if request["folder"] is not None:
        os.chdir(request["folder"])  # the app may have gone elsewhere since it started us
    wanted = request["path"], request["count"], request["size"], Limits(**request["limits"])
    try:
        if request["quick"] and hasattr(decode, "quick"):
            frames, whole = decode.quick(*wanted)
        else:
            frames, whole = decode(*wanted), True
    except VideoError as e:
        return {"error": type(e).__name__, "message": str(e)}
    except MemoryError:
        return {"error": "VideoTooLargeError", "message": "decoding it takes more memory than a decoder process may"}
    except Exception:
        return {"bug": traceback.format_exc()}
    shared[: frames.nbytes] = frames.tobytes()
    return {"shape": list(frames.shape), "whole": whole}


def limit_memory(more: int | None) -> None:
    """Let this process take `more` bytes of addresses than it has now, None: any. Linux alone can, and is asked to."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if more is None:
        return
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def limit_cpu(more: float) -> None:
    """Let this process take `more` seconds of CPU time than it has taken; then the system ends it."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(time.process_time() + more) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _decoder(name: str, settings: dict[str, Any]) -> Any:
    import cv2

    cv2.setNumThreads(1)  # there are as many processes as CPUs
    if name == "pyav":
        import av

        from linkedout_edge.decode.pyav import PyAVDecoder

        av.logging.set_level(None)
        return PyAVDecoder(threads=1, **settings)
    from linkedout_edge.decode import get_decoder

    return get_decoder(name)


def _own_stdout() -> BinaryIO:
    """Stdout for answers alone: what a library prints goes nowhere."""
    own = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return os.fdopen(own, "wb", buffering=0)


def _answer(to: BinaryIO, **fields: Any) -> None:
    try:
        to.write(json.dumps({**fields, "said": said()}).encode() + b"\n")
    except BrokenPipeError:  # nobody is there any more
        os._exit(0)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_EVERY)
    os._exit(0)
