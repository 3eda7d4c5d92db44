"""How long decoding takes: every decoder on every video of a folder, median of some runs.

    python benchmarks/decode.py           # clips that are rendered for it
    python benchmarks/decode.py FOLDER    # your own

Prints a table and ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
from clips import videos_of

from linkedout_edge.cli import terminal
from linkedout_edge.decode import Decoder, Limits, get_decoder
from linkedout_edge.errors import MissingDependencyError, VideoError


def decoders() -> dict[str, Decoder]:
    found: dict[str, Decoder] = {"opencv": get_decoder("opencv")}
    try:
        found["pyav"] = get_decoder("pyav")
    except MissingDependencyError as error:
        print(f"without PyAV: {error}")
        return found
    from linkedout_edge.decode.pyav import PyAVDecoder

    return found | {"pyav, key frames": PyAVDecoder(min_key_frames=1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--frames", type=int, default=7)
    parser.add_argument("--size", type=int, default=144)
    args = parser.parse_args()
    terminal.prepare()
    with videos_of(args.folder) as videos:
        measure(videos, args)


def measure(videos: list[Path], args: argparse.Namespace) -> None:
    rows = []
    print(f"{'video':24} {'decoder':18} {'frames':>6} {'ms':>8}  difference from OpenCV, gray levels")
    for path in videos:
        reference: np.ndarray | None = None
        for name, decode in decoders().items():
            times = []
            try:
                for _ in range(args.runs):
                    start = time.perf_counter()
                    frames = decode(path, args.frames, args.size, Limits())
                    times.append((time.perf_counter() - start) * 1000)
            except VideoError as error:
                print(f"{path.name:24} {name:18} {error.code}: {error}")
                continue
            reference = frames if reference is None else reference
            same = frames.shape == reference.shape
            difference = float(np.abs(frames.astype(int) - reference).mean()) if same else None
            row = {
                "video": path.name,
                "decoder": name,
                "frames": len(frames),
                "ms": round(statistics.median(times), 1),
                "difference": difference,
            }
            rows.append(row)
            shown = "" if difference is None else f"{difference:.2f}"
            print(f"{path.name:24} {name:18} {len(frames):6} {row['ms']:8.1f}  {shown}")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(json.dumps({"benchmark": "decode", "cpus": cpus, "runs": args.runs, "size": args.size, "rows": rows}))


if __name__ == "__main__":
    main()
