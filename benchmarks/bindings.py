"""How long the bindings take beside Python, in one run: ``python benchmarks/bindings.py``.

Each binding is a process that does one thing for each word it reads, and answers how many seconds it took; so all take
turns on the same machine, and what else runs there slows all alike. Words: ``rank`` (the history as before), ``event``
(one more event, not timed, so that the next ranking fits the user again) and ``encode``. One thread each.

A binding is left out, and that is said, where it is not built.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from linkedout_edge import Event, Recommender, Video
from linkedout_edge.bundle.reader import embedded_folder

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from cpp_core import BUILDS, onnxruntime_library  # noqa: E402
from stored import put_tokens  # noqa: E402

WATCHED = 32
MEASURES = {"rank": "rank, same history", "fit": "rank after a new event", "encode": "encode a video"}


class Python:
    """Python, in this process."""

    def __init__(self, rec: Recommender, frames: np.ndarray) -> None:
        ids = list(rec.store)
        self._rec, self._frames = rec, frames
        self._events = [Event(i) for i in ids[:WATCHED]]
        # In turns: the latest one would only be given again.
        self._lists = itertools.cycle([ids[WATCHED:], ids[: WATCHED - 1 : -1]])
        self._encoded = 0

    def ask(self, word: str) -> float:
        """Do what the word says; seconds."""
        if word == "event":
            self._events.append(self._events[0])
            return 0.0
        video = Video(frames=self._frames, id="frames", title="Two cats")
        if word == "encode":
            self._rec.store.remove(["frames"])
        start = time.perf_counter()
        if word == "encode":
            self._rec.encode([video])
        else:
            self._rec.rank(self._events, next(self._lists))[0]
        return time.perf_counter() - start

    def close(self) -> None:
        """Nothing to end."""


class Process:
    """A binding, in a process of its own."""

    def __init__(self, *command: str | Path) -> None:
        self._process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._answer() != "ready":
            raise SystemExit(f"{command[0]} does not start")

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, word: str) -> float:
        """Have it do what the word says; seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def cpp(pack: Path, frames: Path) -> Process | str:
    """The C++ core, or why it is left out."""
    program = BUILDS / "cpp" / "tests" / "bench"
    if not program.exists():
        return "not built: make test-bindings"
    return Process(program, embedded_folder(), onnxruntime_library(), pack, frames, str(WATCHED))


def javascript(where: str, pack: Path, frames: Path) -> Process | str:
    """The JavaScript package in Node or in headless Chromium, or why it is left out."""
    folder = ROOT / "bindings" / "js"
    if shutil.which("node") is None:
        return "there is no node"
    if not ((folder / "dist").is_dir() and (folder / "node_modules").is_dir()):
        return "not built: make test-bindings"
    browser = os.environ.get("LINKEDOUT_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if where == "chromium" and browser is None:
        return "there is no chromium"
    return Process("node", folder / "test" / "bench.mjs", where, pack, frames, str(WATCHED))


def java(pack: Path, frames: Path) -> Process | str:
    """The Java package on the JVM, or why it is left out."""
    build = BUILDS / "java"
    jars, library = [build / f"linkedout-edge{n}.jar" for n in ("", "-tests")], build / "liblinkedout_edge_jni.so"
    if not all(file.exists() for file in (*jars, library)):
        return "not built: make test-bindings"
    run = ["java", "-cp", ":".join(map(str, jars)), f"-Dlinkedout.edge.library={library}", "linkedout.edge.Bench"]
    return Process(*run, embedded_folder(), onnxruntime_library(), pack, frames, str(WATCHED))


BINDINGS: dict[str, Callable[[Path, Path], Process | str]] = {
    "C++": cpp,
    "Java": java,
    "Node": partial(javascript, "node"),
    "Chromium": partial(javascript, "chromium"),
}
"""Name → starts it with a feature pack and a file of frames uint8 [7][144][144][3]."""


def fill(rec: Recommender, count: int) -> None:
    rng = np.random.default_rng(0)
    for n in range(count):
        tokens = np.clip(rng.normal(0, 30, (6, 2, 64)), -127, 127).astype(np.int8)
        put_tokens(rec.store, f"video-{n:05}.mp4", tokens, rng.uniform(0.015, 0.04, (6, 2)).astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=1000)
    arguments = parser.parse_args()
    frames = np.random.default_rng(1).integers(0, 256, (7, 144, 144, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder, Recommender.load("int8", threads=1) as rec:
        pack, raw = Path(folder, "pack.safetensors"), Path(folder, "frames.rgb")
        fill(rec, WATCHED + arguments.candidates)
        rec.store.export_pack(pack)
        raw.write_bytes(frames.tobytes())
        sides: dict[str, Python | Process] = {"Python": Python(rec, frames)}
        for name, start in BINDINGS.items():
            side = start(pack, raw)
            if isinstance(side, str):
                print(f"{name}: left out, {side}")
            else:
                sides[name] = side
        seconds: dict[str, dict[str, list[float]]] = {n: {m: [] for m in MEASURES} for n in sides}
        for turn in range(arguments.rounds):
            for name, side in sides.items():
                side.ask("rank")
                seconds[name]["rank"].append(side.ask("rank"))
                side.ask("event")
                seconds[name]["fit"].append(side.ask("rank"))
                if turn % 2 == 0:
                    seconds[name]["encode"].append(side.ask("encode"))
        for side in sides.values():
            side.close()
    medians = {n: {m: statistics.median(v) * 1000 for m, v in by.items()} for n, by in seconds.items()}
    print(f"{arguments.candidates} candidates, {WATCHED} events and more, one thread; medians in ms (× Python)")
    print("| | " + " | ".join(medians) + " |")
    print("|---|" + "---|" * len(medians))
    for measure, label in MEASURES.items():
        of_python = medians["Python"][measure]
        cells = [f"{by[measure]:.2f} ({by[measure] / of_python:.2f} ×)" for by in medians.values()]
        print(f"| {label} | " + " | ".join(cells) + " |")
    print(json.dumps(medians))


if __name__ == "__main__":
    main()
