"""A store of a million videos and a folder of packs, measured on made-up tokens; and what encoding a real clip costs.

    python benchmarks/scale.py [--videos 100000 1000000] [--pack 256 4096] [--clips FOLDER]

Random tokens of the bundle's shape are written as packs, taken over into a store that has room for them, and ranked by
a handle with a history of 100. With --clips, the files of that folder are encoded into packs by the local engine (one
process, one thread). The last line is one JSON document; docs/scale.md quotes it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from linkedout_edge import Event, Recommender
from linkedout_edge.scale import encode_to_packs
from linkedout_edge.scale.shards import SHARD_VIDEOS, by_shard, pack_name
from linkedout_edge.store import Fingerprint, token_file
from linkedout_edge.store.store import PACK
from linkedout_edge.store.token_file import Videos

HISTORY = 100
TOP = 50
RUNS = 15
COPIES = 4


def write_packs(folder: Path, videos: int, per_pack: int) -> dict[str, Any]:
    """Write made-up packs; seconds and bytes a video."""
    rng = np.random.default_rng(0)
    with Recommender.load() as rec:
        (layers, m, d), space = rec._tokens.shape, rec._tokens.token_space
    shards = -(-videos // per_pack)
    spent = 0.0
    for shard in range(shards):
        count = min(per_pack, videos - shard * per_pack)
        made = Videos(
            [f"/library/{shard:06d}/{n:06d}.mp4" for n in range(count)],
            [Fingerprint(bytes(row).hex()) for row in rng.integers(0, 256, (count, 16), np.uint8)],
            rng.integers(-127, 128, (count, layers, m, d), np.int8),
            rng.uniform(0.01, 0.02, (count, layers, m)).astype(np.float32),
        )
        start = time.perf_counter()
        token_file.write(folder / pack_name(shard, shards), PACK, space, made)
        spent += time.perf_counter() - start
    size = sum(p.stat().st_size for p in folder.iterdir())
    return {
        "videos": videos,
        "per_pack": per_pack,
        "packs": shards,
        "write_s": spent,
        "pack_bytes_per_video": size / videos,
    }


def of_a_store(folder: Path, videos: int, threads: int | None) -> dict[str, Any]:
    """Take packs over into a store that has room for them, and rank."""
    process = psutil.Process()
    row: dict[str, Any] = {}
    with Recommender.load(threads=threads) as rec:
        rec._tokens.max_videos = videos
        packs = sorted(folder.iterdir())
        before = process.memory_info().rss
        start = time.perf_counter()
        for p in packs:
            rec.store.import_pack(p)
        row["import_s"] = time.perf_counter() - start
        row["rss_bytes_per_video"] = (process.memory_info().rss - before) / videos
        start = time.perf_counter()
        everything = rec.store.select()
        row["select_ms"] = 1e3 * (time.perf_counter() - start)
        assert len(everything) == videos
        step = videos // HISTORY
        history = [Event(everything.ids[n * step], 1.0 if n % 2 else 0.1) for n in range(HISTORY)]
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            ranking = rec.rank(history, everything, top_k=TOP)
            times.append(1e3 * (time.perf_counter() - start))
            assert len(ranking) == TOP
        row["rank_first_ms"], row["rank_ms"] = times[0], statistics.median(times[1:])
        row["rss_mb_at_end"] = process.memory_info().rss / 1e6
        row["scorer_threads"] = rec.info().threads
    return row


def of_clips(clips: Path) -> dict[str, Any]:
    """Encode real clips into packs: seconds of wall and of CPU for each, decoding and all; then find them unchanged."""
    files = sorted(p for p in clips.iterdir() if p.is_file())
    with tempfile.TemporaryDirectory(prefix="linkedout-scale-") as folder:
        links = [Path(folder) / f"{n}-{f.name}" for n in range(COPIES) for f in files]
        for n, link in enumerate(links):
            link.symlink_to(files[n % len(files)].absolute())
        packs = Path(folder) / "packs"
        encode_to_packs(files[:1], Path(folder) / "warm")
        start, cpu = time.perf_counter(), time.process_time()
        result = encode_to_packs(links, packs)
        wall, used = time.perf_counter() - start, time.process_time() - cpu
        again = time.process_time()
        assert encode_to_packs(links, packs).unchanged == result.encoded
        known = time.process_time() - again
    return {
        "clips": result.encoded,
        "failed": result.failed,
        "bytes_per_clip": sum(f.stat().st_size for f in files) / len(files),
        "wall_s_per_clip": wall / len(links),
        "cpu_s_per_clip": used / len(links),
        "known_cpu_s_per_clip": known / len(links),
    }


def of_a_driver(videos: int) -> dict[str, Any]:
    """What the list of a run weighs where it is cut into shards, apart from Ray."""
    process = psutil.Process()
    before = process.memory_info().rss
    start = time.perf_counter()
    ids = [f"s3://bucket/library/{n % 1000:03d}/{n:032x}.mp4" for n in range(videos)]
    shards = by_shard(ids, -(-videos // SHARD_VIDEOS))
    rows = [json.dumps({"shard": s, "ids": mine}) for s, mine in shards.items()]
    return {
        "videos": videos,
        "shards": len(rows),
        "cut_s": time.perf_counter() - start,
        "rss_bytes_per_video": (process.memory_info().rss - before) / videos,
        "id_characters": len(ids[0]),
    }


def apart(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What `work` finds in a process of its own: memory that was freed stays with the process that had it."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--pack", type=int, nargs="*", default=[256, 4096], help="videos a pack")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clips", type=Path, help="a folder of real videos")
    args = parser.parse_args()

    found: dict[str, Any] = {"stores": []}
    for videos in args.videos:
        for per_pack in args.pack:
            with tempfile.TemporaryDirectory(prefix="linkedout-scale-") as folder:
                row = apart(write_packs, Path(folder), videos, per_pack)
                row |= apart(of_a_store, Path(folder), videos, args.threads)
            found["stores"].append(row)
            print(" · ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
    found["driver"] = apart(of_a_driver, 1_000_000)
    print(" · ".join(f"{k} {v:.4g}" for k, v in found["driver"].items()))
    if args.clips:
        found["clips"] = of_clips(args.clips)
        print(" · ".join(f"{k} {v:.4g}" for k, v in found["clips"].items()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
