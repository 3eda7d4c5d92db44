"""How long ranking takes, beside what else one could do, in one run.

    python benchmarks/latency.py                        # the built-in bundle
    python benchmarks/latency.py --bundle runs/base/bundle --videos FOLDER    # clips of your own, too

Each figure is a median; what is compared takes turns within one loop, so that a busy machine is busy for all of them.
Prints tables and ends with one JSON line. docs/latency.md says what is measured and why.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from clips import videos_of

from linkedout_edge import Event, Recommender, Video
from linkedout_edge.cli import terminal
from linkedout_edge.encode.request import RequestPlan
from linkedout_edge.rank.taste import EVIDENCE_EVENTS, FEW_EVENTS, TEMPER, TEMPER_EVENTS, of_events
from linkedout_edge.store import Tokens, read_tokens, write_tokens

EVENTS = 64
TOP_K = 50
Rows = list[dict[str, Any]]


def side_by_side(baselines: dict[str, Callable[[], object]], seconds: float, least: int = 5) -> dict[str, float]:
    """Median milliseconds of each, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in baselines}
    for run in baselines.values():
        run()
    until = time.perf_counter() + seconds
    while min(map(len, times.values())) < least or time.perf_counter() < until:
        for name, run in baselines.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(t) for name, t in times.items()}


def fill(rec: Recommender, count: int) -> list[str]:
    """That many videos of random tokens, straight into the store."""
    shape = rec._tokens.shape
    rng = np.random.default_rng(0)
    ids = [f"video-{n:06}" for n in range(count)]
    for start in range(0, count, 1024):
        some = ids[start : start + 1024]
        tokens = rng.integers(-127, 128, (len(some), *shape), dtype=np.int8)
        write_tokens(rec.store, some, tokens, rng.random((len(some), *shape[:2]), dtype=np.float32) * 0.02)
    return ids


def past(ids: list[str]) -> list[Event]:
    now = datetime.now(timezone.utc)
    return [
        Event(i, watched=(n % 10) / 10, liked=[None, True, None, False][n % 4], at=now - timedelta(hours=EVENTS - n))
        for n, i in enumerate(ids[:EVENTS])
    ]


def torch_baselines(
    rec: Recommender, ids: list[str], history: list[Event], tokens: np.ndarray, scales: np.ndarray
) -> dict[str, Callable[[], object]]:
    """The same model in eager torch; without torch, nothing.

    ``torch`` does what `rank` by ids does: from events and ids, with the int8 tokens in memory, to the best ids. Of two
    ways to gather (rows of one tensor, a dictionary of tensors) the faster one on this machine counts, and so does the
    faster number of threads. ``torch kept`` has all that could be prepared at hand: the user's query, and candidates as
    one float tensor; what is left is one product and top-k.
    """
    try:
        import torch
    except ImportError as error:
        print(f"without eager torch: {error}")
        return {}
    past = rec._ranker.encode_history(history, RequestPlan(rec._tokens), rec._tokens.derived)
    space = past.user.space
    mean, size, prior = (torch.from_numpy(a).float() for a in (space.mean, space.size, space.prior))
    t, s = torch.from_numpy(tokens.copy()), torch.from_numpy(scales.copy())
    row = {i: n for n, i in enumerate(ids)}
    each = {i: (t[n].clone(), s[n].clone()) for n, i in enumerate(ids)}
    k, count = min(TOP_K, len(ids)), len(history)

    def by_row(wanted: list[str]) -> tuple[Any, Any]:
        rows = torch.tensor([row[i] for i in wanted])
        return t[rows], s[rows]

    def by_tensor(wanted: list[str]) -> tuple[Any, Any]:
        pairs = [each[i] for i in wanted]
        return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])

    def dequantize(tokens: Any, sizes: Any) -> Any:
        return (tokens * sizes[..., None]).flatten(2)

    def encode(gather: Callable[[list[str]], tuple[Any, Any]]) -> tuple[Any, Any]:
        seen = dequantize(*gather([e.id for e in history])) - mean
        y, noise = (torch.from_numpy(a).float() for a in of_events(history, datetime.now(timezone.utc)))
        by_layer = seen.transpose(0, 1)
        kernels = by_layer @ by_layer.transpose(1, 2) / size[:, None, None]
        late = min(count, EVIDENCE_EVENTS)
        root = torch.linalg.cholesky(kernels[:, -late:, -late:] + noise[-late:].diag())
        white = torch.linalg.solve_triangular(root, y[-late:].expand(len(root), -1)[..., None], upper=False)
        evidence = -0.5 * late * white.square().sum((1, 2)).log() - root.diagonal(dim1=1, dim2=2).log().sum(1)
        gates = torch.softmax(prior.log() + TEMPER / (1 + late / TEMPER_EVENTS) * evidence, 0)
        few = 1 + FEW_EVENTS / count
        alpha = torch.linalg.solve((gates[:, None, None] * kernels).sum(0) + few * noise.diag(), few * y)
        query = torch.einsum("n,l,nlf->lf", alpha, gates / size, seen)
        return query, (query * mean).sum()

    def best(query: Any, offset: Any, values: Any) -> list[str]:
        scores = values.flatten(1) @ query.flatten() - offset
        return [ids[n] for n in scores.topk(k).indices.tolist()]

    def whole(gather: Callable[[list[str]], tuple[Any, Any]]) -> Callable[[], object]:
        @torch.inference_mode()
        def run() -> object:
            return best(*encode(gather), dequantize(*gather(ids)))

        return run

    with torch.inference_mode():
        query, offset = encode(by_row)
        values = dequantize(t, s)

    @torch.inference_mode()
    def kept() -> object:
        return best(query, offset, values)

    took = {}
    for threads in sorted({1, rec.info().threads}):
        torch.set_num_threads(threads)
        for gather in (by_row, by_tensor):
            took[threads, gather] = side_by_side({"": whole(gather)}, 0.2, 3)[""]
    threads, gather = min(took, key=lambda key: took[key])
    torch.set_num_threads(threads)
    return {"torch": whole(gather), "torch kept": kept}


def warm(rec: Recommender, sizes: list[int], seconds: float) -> Rows:
    """Warm rankings of C candidates and what one might do instead."""
    ids = fill(rec, max(sizes))
    history = past(ids)
    rows: Rows = []
    names = ["by ids", "new ids", "changed", "by handle", "top 1", "torch", "torch kept", "numpy", "limit"]
    print(f"\nwarm rank, history {EVENTS}, top_k={TOP_K}, median ms")
    print(f"{'C':>8} " + " ".join(f"{n:>10}" for n in names))
    for count in sizes:
        some = np.random.default_rng(3).permutation(ids[:count]).tolist()  # gathered, not in a row
        lists = itertools.cycle([some[n:] + some[:n] for n in range(12)])  # more than are remembered
        events, recent = itertools.count(), deque(history, EVENTS)
        handle = rec.store.select(ids[:count])
        pasts = itertools.cycle([history, history[:-1]])  # the latest ranking would only be given again
        tokens, scales = read_tokens(rec.store, some)
        matrix = np.random.default_rng(1).standard_normal((count, tokens[0].size)).astype(np.float32)
        k = min(TOP_K, count)

        def numpy_way(matrix: np.ndarray = matrix, k: int = k) -> object:
            scores = matrix @ matrix[:EVENTS].mean(0)
            best = np.argpartition(-scores, k - 1)[:k]
            return best[np.argsort(-scores[best])]

        def changed(some: list[str] = some, events: Iterator[int] = events, recent: deque[Event] = recent) -> object:
            recent.append(Event(ids[next(events) % 90]))  # the oldest leaves
            return rec.rank([*recent], some, top_k=TOP_K).ids

        stored = [a.reshape(-1).view(np.int64) for a in (tokens, scales)]
        baselines: dict[str, Callable[[], object]] = {
            "by ids": lambda some=some: rec.rank(history, some, top_k=TOP_K).ids,
            "new ids": lambda lists=lists: rec.rank(history, next(lists), top_k=TOP_K).ids,
            "changed": changed,
            "by handle": lambda handle=handle, pasts=pasts: rec.rank(next(pasts), handle, top_k=TOP_K).ids,
            "top 1": lambda handle=handle, pasts=pasts: rec.rank(next(pasts), handle, top_k=1)[0],
            **torch_baselines(rec, some, history, tokens, scales),
            "numpy": numpy_way,
            "limit": lambda stored=stored: [a.sum() for a in stored],
        }
        took = side_by_side(baselines, seconds)
        alone = {n: side_by_side({n: baselines[n]}, seconds / 8)[n] for n in baselines}
        ranking = rec.rank(history, handle, top_k=TOP_K)
        row: dict[str, Any] = {"candidates": count, "ms": {n: round(v, 4) for n, v in took.items()}}
        row["alone_ms"] = {n: round(v, 4) for n, v in alone.items()}
        row["inside"] = {"user_ms": ranking.timing.user * 1e3, "score_ms": ranking.timing.score * 1e3}
        if "torch" in took:
            row["torch_over"] = {n: round(took["torch"] / took[n], 2) for n in ("by ids", "new ids", "changed")}
            row["torch_over_alone"] = {n: round(alone["torch"] / alone[n], 2) for n in ("by ids", "new ids", "changed")}
        row["handle_over_numpy"] = round(took["by handle"] / took["numpy"], 2)
        row["handle_over_limit"] = round(took["by handle"] / took["limit"], 2)
        rows.append(row)
        for what, shown in (("", took), ("alone", alone)):
            print(f"{what or count:>8} " + " ".join(f"{shown[n]:10.3f}" if n in shown else f"{'-':>10}" for n in names))
    for row in rows:
        parts = [f"{v} x faster than eager torch {n}" for n, v in row.get("torch_over", {}).items()]
        parts += [f"handle takes {row['handle_over_numpy']} x NumPy", f"{row['handle_over_limit']} x the limit"]
        print(f"{row['candidates']:8} {', '.join(parts)}")
    return rows


def cold(rec: Recommender, videos: list[Path], runs: int) -> Rows:
    """A ranking of one new clip, split into its parts."""
    import cv2

    print(f"\n{'one new clip':28} {'decode':>8} {'resize':>8} {'encode':>8} {'store':>8} {'rank':>8} {'all':>8}  ms")
    ids = list(rec.store)
    rows: Rows = []
    spent = {"resize": 0.0, "store": 0.0}
    real_resize, real_put = cv2.resize, Tokens.put

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - start

        return inner

    cv2.resize, Tokens.put = timed("resize", real_resize), timed("store", real_put)  # type: ignore[method-assign]
    try:
        for path in videos:
            took: dict[str, list[float]] = {n: [] for n in ("decode", "resize", "encode", "store", "rank", "total")}
            for n in range(runs + 1):
                spent.update(resize=0.0, store=0.0)
                ranking = rec.rank(past(ids), [Video(path, id=f"{path.name}#{n}")])
                rec.store.remove(f"{path.name}#{n}")
                t = ranking.timing
                if n == 0 or not len(ranking):
                    continue
                took["resize"].append(spent["resize"])
                took["decode"].append(t.decode - spent["resize"])
                took["encode"].append(t.encode)
                took["store"].append(spent["store"])
                took["rank"].append(t.user + t.score)
                took["total"].append(t.total)
            if not took["total"]:
                print(f"{path.name:28} {ranking.failed[0].code}: {ranking.failed[0].reason}")
                continue
            ms = {name: round(statistics.median(v) * 1e3, 3) for name, v in took.items()}
            rows.append({"video": path.name, "ms": ms})
            print(f"{path.name[:28]:28} " + " ".join(f"{v:8.2f}" for v in ms.values()))
    finally:
        cv2.resize, Tokens.put = real_resize, real_put  # type: ignore[method-assign]
    return rows


def smolvlm(runs: int) -> dict[str, Any] | None:
    """One clip of 8 frames through a model of SmolVLM2-256M's shape with random weights: no decoding of text."""
    try:
        import torch
        from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
    except ImportError as error:
        print(f"without SmolVLM: {error}")
        return None
    config = SmolVLMConfig(
        vision_config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 512,
            "patch_size": 16,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 49280,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "pad_token_id": 2,
        },
        scale_factor=4,
        image_token_id=49190,
        pad_token_id=2,
    )
    model = SmolVLMForConditionalGeneration(config).eval()
    parameters = sum(p.numel() for p in model.parameters())
    frames, visual = 8, (512 // 16 // 4) ** 2
    ids = torch.cat([torch.full((1, frames * visual), 49190), torch.randint(0, 49000, (1, 32))], 1)
    pixels = torch.rand(1, frames, 3, 512, 512)
    times = []
    with torch.inference_mode():
        for _ in range(runs):
            start = time.perf_counter()
            model.model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids))
            times.append(time.perf_counter() - start)
    ms = statistics.median(times) * 1e3
    print(f"{'SmolVLM2-256M shape, torch':28} {'':>8} {'':>8} {ms:8.0f}  ({parameters / 1e6:.0f} M parameters, fp32)")
    return {"parameters": parameters, "encode_ms": round(ms, 1)}


FIRST = """
import sys, time
from linkedout_edge import Recommender, Video
import numpy as np
bundle, precision, decoder = sys.argv[1], sys.argv[2] or None, "auto"
with Recommender.load(bundle, precision=precision) as rec:
    frames = np.random.default_rng(0).integers(0, 256, (2, 7, 144, 144, 3), dtype=np.uint8)
    print(rec.rank([Video(frames=frames[0])], [Video(frames=frames[1])])[0].score)
"""

PEAK = """
import resource, sys
sys.path.insert(0, sys.argv[4])
from latency import fill, past, TOP_K
from linkedout_edge import Recommender
with Recommender.load(sys.argv[1], precision=sys.argv[2] or None) as rec:
    ids = fill(rec, int(sys.argv[3]))
    history, handle = past(ids), rec.store.select()
    for _ in range(5):
        rec.rank(history, ids[:1000], top_k=TOP_K)
        rec.rank(history, handle, top_k=TOP_K)
    try:  # ru_maxrss remembers the parent's memory from before exec; this does not
        with open("/proc/self/status") as f:
            peak = next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak * 1024, rec.store.stats().payload_bytes)
"""


def python(code: str, *arguments: str) -> tuple[float, str]:
    """Seconds and output of a fresh interpreter."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return time.perf_counter() - start, done.stdout


def start_up(bundle: str, precision: str, runs: int) -> dict[str, float]:
    """Process start to first ranking (of frames, two videos encoded), beside `import torch` alone."""
    codes = {"first ranking": FIRST, "import torch": "import torch", "import linkedout_edge": "import linkedout_edge"}
    times: dict[str, list[float]] = {name: [] for name in codes}
    if importlib.util.find_spec("torch") is None:
        del codes["import torch"]
    for name, code in [*codes.items()] * runs:
        times[name].append(python(code, bundle, precision)[0])
    medians = {name: round(statistics.median(times[name]), 3) for name in codes}
    print("\nfrom process start: " + ", ".join(f"{name} {t:.2f} s" for name, t in medians.items()))
    return medians


def peak_memory(bundle: str, precision: str, counts: list[int]) -> Rows:
    """Peak resident memory of a process that ranks, and what it takes beyond the first one per token byte."""
    rows: Rows = []
    for count in counts:
        peak, payload = map(int, python(PEAK, bundle, precision, str(count), str(Path(__file__).parent))[1].split())
        row: dict[str, Any] = {"videos": count, "peak_mb": round(peak / 1e6, 1), "token_mb": round(payload / 1e6, 1)}
        if rows:
            more = row["token_mb"] - rows[0]["token_mb"]
            row["extra_over_token_bytes"] = round((row["peak_mb"] - rows[0]["peak_mb"]) / more, 2)
        rows.append(row)
        print(f"peak RSS with {count:,} videos: {row}")
    return rows


def on_disk(bundle: str, precision: str | None, count: int, seconds: float) -> dict[str, Any]:
    """A store of `count` videos in a data_dir."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with Recommender.load(bundle, precision=precision, data_dir=folder) as rec:
            fill(rec, count)
        filled = time.perf_counter() - start
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        opened, plain = [], []
        for _ in range(3):
            start = time.perf_counter()
            Recommender.load(bundle, precision=precision).close()
            plain.append(time.perf_counter() - start)
            start = time.perf_counter()
            rec = Recommender.load(bundle, precision=precision, data_dir=folder)
            opened.append(time.perf_counter() - start)
            rec.close()
        result: dict[str, Any] = {
            "videos": count,
            "fill_s": round(filled, 2),
            "disk_mb": round(size / 1e6, 1),
            "load_s": round(statistics.median(opened), 3),
            "load_without_store_s": round(statistics.median(plain), 3),
        }
        with Recommender.load(bundle, precision=precision, data_dir=folder) as rec:
            ids = list(rec.store)
            pasts = itertools.cycle([past(ids), past(ids)[:-1]])
            some = np.random.default_rng(2).choice(count, min(1000, count), replace=False)
            handles = {"1000": rec.store.select([ids[n] for n in some]), "all": rec.store.select()}
            for name, handle in handles.items():
                for threads in (1, 4):
                    result[f"ranks_per_s_{name}_{threads}_threads"] = round(
                        rate(lambda handle=handle: rec.rank(next(pasts), handle, top_k=TOP_K), threads, seconds), 1
                    )
    print(f"\nstore on disk: {result}")
    return result


def rate(call: Callable[[], object], threads: int, seconds: float) -> float:
    """Calls a second from so many threads."""
    counts = [0] * threads
    until = time.perf_counter() + seconds

    def work(n: int) -> None:
        while time.perf_counter() < until:
            call()
            counts[n] += 1

    start = time.perf_counter()
    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    return sum(counts) / (time.perf_counter() - start)


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="int8", help="a precision of the built-in bundle, a folder or a .zip")
    parser.add_argument("--precision", default=None)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--videos", type=Path, default=None, help="folder of clips for cold rankings; else some are rendered"
    )
    parser.add_argument("--quick", action="store_true", help="fewer sizes and runs; for trying it out")
    args = parser.parse_args()
    terminal.prepare()

    seconds, runs = (0.3, 1) if args.quick else (4.0, 5)
    sizes = [100, 1_000, 10_000] if args.quick else [100, 1_000, 10_000, 100_000]
    bundle, precision = str(args.bundle), args.precision or ""
    rec = Recommender.load(bundle, precision=args.precision, threads=args.threads)
    with rec, videos_of(args.videos) as videos:
        info = rec.info()
        print(f"{info.bundle} {info.precision}, scorer on {info.devices['scorer']}, {info.threads} threads, {cpu()}")
        result: dict[str, Any] = {
            "benchmark": "latency",
            "cpu": cpu(),
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": info.threads,
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "bundle": info.bundle,
            "precision": info.precision,
            "versions": info.versions,
            "warm": warm(rec, sizes, seconds),
            "cold": cold(rec, videos, runs),
        }
    if not args.quick:
        result["smolvlm"] = smolvlm(3)
    result["start"] = start_up(bundle, precision, runs)
    result["memory"] = peak_memory(bundle, precision, [1_000, 20_000] if args.quick else [1_000, 100_000])
    result["disk"] = on_disk(bundle, args.precision, 5_000 if args.quick else 100_000, seconds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
