"""Looking at a library of many clips: quick and full looks, one core and all, beside what one would write by hand.

    python benchmarks/library.py make PHOTOS FOLDER      # 48 clips of photos, with ffmpeg (some minutes)
    python benchmarks/library.py new FOLDER              # one new clip: a quick and a full look, all in
    python benchmarks/library.py scale FOLDER --videos 96  # one core and all; beside cv2 and a session by hand
    python benchmarks/library.py memory FOLDER --videos 10000
    python benchmarks/library.py faults FOLDER --videos 400  # a decoder killed or stopped at every 50th file
    python benchmarks/library.py quality PHOTOS.csv      # what quick looks cost in NDCG@10
    python benchmarks/library.py hardware FOLDER         # each device that PyAV can open, beside software: which to set
    python benchmarks/library.py precision FOLDER --bundle BUNDLE --device cuda  # which precision a GPU is to run

Clips are H.264, HEVC, AV1 and VP9, 240p to 1080p, 5 to 9 seconds, with key frames every 1, 2 and 8 seconds, of moving
crops of photos. A library of more videos than clips holds each clip several times, under names of its own. Prints a
line a measurement, and ends with one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from linkedout_edge import Recommender, Video
from linkedout_edge.backends import create_backend
from linkedout_edge.bundle import open_bundle
from linkedout_edge.decode import DEFAULT_LIMITS, Frames, get_decoder
from linkedout_edge.decode.hardware import devices, trouble
from linkedout_edge.errors import DeviceError, MissingDependencyError
from linkedout_edge.threads import available_cpus

CODECS = {
    "h264": ["-c:v", "libx264", "-preset", "veryfast", "-crf", "26"],
    "hevc": ["-c:v", "libx265", "-preset", "ultrafast", "-crf", "28", "-x265-params", "log-level=error:pools=2"],
    "av1": ["-c:v", "libsvtav1", "-preset", "12", "-crf", "40"],
    "vp9": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M", "-row-mt", "1"],
}
HEIGHTS = {"240p": (426, 240), "480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
KEYS = (1, 2, 8)
"""Seconds between key frames."""
FPS = 30


def make(photos: list[Path], folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for n, (codec, height, key) in enumerate(itertools.product(CODECS, HEIGHTS, KEYS)):
        path = folder / f"{codec}_{height}_{key}s.{'webm' if codec == 'vp9' else 'mp4'}"
        if path.exists():
            continue
        width, tall = HEIGHTS[height]
        command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{tall}"]
        command += ["-r", str(FPS), "-i", "-", *CODECS[codec], "-g", str(key * FPS), "-pix_fmt", "yuv420p"]
        unfinished = path.with_suffix(".part" + path.suffix)
        with subprocess.Popen([*command, str(unfinished)], stdin=subprocess.PIPE) as ffmpeg:
            assert ffmpeg.stdin is not None
            for shot in rng.choice(len(photos), 3, replace=False):
                for frame in moving_crop(cv2.imread(str(photos[shot])), (width, tall), 45 + n % 3 * 20, rng):
                    ffmpeg.stdin.write(frame.tobytes())
        unfinished.rename(path)


def moving_crop(photo: np.ndarray, size: tuple[int, int], count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """A window that slides and zooms over a photo: `count` frames uint8 [H, W, 3]."""
    high, wide = photo.shape[:2]
    share = size[0] / size[1]
    full = min(wide, high * share)
    ends = []
    for _ in range(2):
        w = full * rng.uniform(0.6, 0.95)
        ends.append((rng.uniform(0, wide - w), rng.uniform(0, high - w / share), w))
    frames = []
    for t in np.linspace(0, 1, count):
        x, y, w = ((1 - t) * a + t * b for a, b in zip(*ends, strict=True))
        move = np.array([[size[0] / w, 0, -x * size[0] / w], [0, size[0] / w, -y * size[0] / w]])
        frames.append(cv2.warpAffine(photo, move, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT))
    return frames


def clips_in(folder: Path) -> list[str]:
    return [str(p) for p in sorted(folder.iterdir()) if p.is_file() and ".part" not in p.name]


@contextmanager
def library(folder: Path, count: int) -> Iterator[list[str]]:
    """So many names of the clips in a folder, mixed."""
    clips = clips_in(folder)
    order = np.random.default_rng(0).permutation(count)
    with tempfile.TemporaryDirectory(prefix="linkedout-library-") as temporary:
        names = [Path(temporary) / f"{n:05}{Path(clips[i % len(clips)]).suffix}" for n, i in enumerate(order)]
        for name, i in zip(names, order, strict=True):
            name.symlink_to(Path(clips[i % len(clips)]).absolute())
        yield [str(n) for n in names]


# -- one new clip --------------------------------------------------------------------------------------------------


def new(folder: Path, runs: int) -> dict[str, Any]:
    """From a file that was never seen to a ranking, in ms."""
    found: dict[str, Any] = {}
    print(f"{'clip':28} {'quick':>8} {'full':>8}  median ms of {runs}, best in brackets")
    with Recommender.load("int8") as rec:
        clips = clips_in(folder)
        rec.encode(clips[:1])
        for clip in clips:
            times: dict[str, list[float]] = {"quick": [], "full": []}
            for _ in range(runs):
                for effort, took in times.items():
                    rec.forget(clip)
                    start = time.perf_counter()
                    rec.encode([clip], effort=effort)  # type: ignore[arg-type]
                    rec.rank(clips[:1], [clip])
                    took.append((time.perf_counter() - start) * 1e3)
            rec.encode(clips[:1])
            row = {k: [statistics.median(v), min(v)] for k, v in times.items()}
            found[Path(clip).name] = row
            print(f"{Path(clip).name:28}" + "".join(f" {m:6.0f} ({b:.0f})" for m, b in row.values()), flush=True)
    return found


# -- many ----------------------------------------------------------------------------------------------------------


def by_hand(paths: list[str]) -> int:
    """What one would write: seek with cv2, squash, run the graph. OpenCV's wheels cannot decode AV1."""
    import onnxruntime

    with open_bundle("int8", None) as bundle:
        config, graph = bundle.manifest.config, bundle.encoder()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    side, wanted = config.frame_size, config.frames
    encoded = 0
    for path in paths:
        capture = cv2.VideoCapture(path)
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        frames = np.zeros((1, wanted, side, side, 3), np.uint8)
        mask = np.zeros((1, wanted), bool)
        for n in range(wanted):
            capture.set(cv2.CAP_PROP_POS_FRAMES, (2 * n + 1) * total // (2 * wanted))
            ok, picture = capture.read()
            if ok:
                frames[0, n], mask[0, n] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)[..., ::-1], 1
        capture.release()
        if not mask.any():
            continue
        encoded += 1
        title = np.zeros((1, config.title_tokens), np.int32)
        session.run(None, {"frames": frames, "frame_mask": mask, "title_ids": title, "title_mask": title.astype(bool)})
    return encoded


def ours(effort: Any, decoders: int | None) -> Callable[[list[str]], int]:
    def encode(paths: list[str]) -> int:
        with Recommender.load("int8", decoders=decoders) as rec:
            done = rec.encode(paths, effort=effort)
            assert len(done.encoded) == len(paths), done.failed[:3]
            return len(paths)

    return encode


WAYS: dict[str, Callable[[list[str]], int]] = {
    "quick": ours("quick", None),
    "full": ours("full", None),
    "full, in the app's process": ours("full", 0),
    "by hand: cv2, session": by_hand,
}


def scale(folder: Path, count: int, runs: int) -> dict[str, Any]:
    """Videos a second and CPU seconds a video, of those that could be read; a process each, taking turns."""
    cores = sorted(os.sched_getaffinity(0))
    found: dict[str, Any] = {}
    with library(folder, count) as paths:
        cases = [(way, cpus) for way in WAYS for cpus in dict.fromkeys((1, len(cores)))]
        times: dict[tuple[str, int], list[tuple[float, float, int]]] = {case: [] for case in cases}
        for _, case in itertools.product(range(runs), cases):
            command = [sys.executable, __file__, "once", case[0], str(case[1])]
            done = subprocess.run(command, input=json.dumps(paths), capture_output=True, text=True, check=True)
            times[case].append(tuple(json.loads(done.stdout)))
    print(
        f"{'way':28} {'cores':>5} {'encoded':>8} {'videos/s':>9} {'CPU s/video':>12}  of those encoded; "
        f"medians of {runs}; load {os.getloadavg()[0]:.1f}"
    )
    for (way, cpus), took in times.items():
        rate, cpu = (statistics.median(t[k] for t in took) for k in (0, 1))
        found[f"{way}, {cpus}"] = [rate, cpu]
        print(f"{way:28} {cpus:>5} {took[0][2]:>8} {rate:9.2f} {cpu:12.3f}", flush=True)
    return found


def once(way: str, cores: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    paths = json.load(sys.stdin)
    start = time.perf_counter()
    encoded = WAYS[way](paths)
    took = time.perf_counter() - start
    cpu = sum(
        u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    print(json.dumps([encoded / took, cpu / encoded, encoded]))


# -- memory and faults ---------------------------------------------------------------------------------------------


def rss() -> float:
    """MB that this process takes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def memory(folder: Path, count: int, decoders: int) -> dict[str, Any]:
    """RSS of the app while it decodes (the graph is left out: it would take ten times as long)."""
    from linkedout_edge.decode.pool import DecoderPool

    pool = DecoderPool("pyav", decoders) if decoders else None
    decode: Any = (pool or get_decoder("pyav")).quick
    clips = clips_in(folder)
    seen = []
    for n in range(count):
        decode(clips[n % len(clips)], 7, 144, DEFAULT_LIMITS)
        if n == 100 or (n + 1) % max(1, count // 10) == 0:
            seen.append(round(rss(), 1))
            print(f"{n + 1:6} decoded, {seen[-1]:.1f} MB", flush=True)
    if pool is not None:
        pool.close()
    return {"mb": seen, "decoders": decoders}


def faults(folder: Path, count: int) -> dict[str, Any]:
    """At every 50th file a decoder process is killed, or stopped for ever, in turns."""
    with library(folder, count) as paths, Recommender.load("int8", decoders=available_cpus()) as rec:
        pool = rec._encoding.encoder.pool
        assert pool is not None
        rec._encoding.encoder.limits = type(rec._encoding.encoder.limits)(max_decode_seconds=5)

        def hurt(done: int, total: int) -> None:
            if done % 50 == 0 and done < total and pool.process_ids():
                how = signal.SIGKILL if done % 100 else signal.SIGSTOP
                os.kill(pool.process_ids()[0], how)

        start = time.perf_counter()
        done = rec.encode(paths, hurt, effort="quick")
        took = time.perf_counter() - start
        again = rec.encode(paths, effort="quick")
    found = {
        "encoded": len(done.encoded),
        "failed": dict(Counter(f.code for f in done.failed)),
        "the same again": len(again.encoded),
        "seconds": round(took, 1),
    }
    print(found)
    return found


# -- quality -------------------------------------------------------------------------------------------------------

LOOKS: dict[str, list[int]] = {
    "7 frames (a full look)": [1, 5, 8, 12, 15, 18, 22],
    "5 key frames": [0, 5, 10, 14, 19],
    "4 key frames": [0, 6, 12, 18],
    "3, one a shot": [0, 8, 16],
    "2 key frames": [0, 12],
    "1, and a second a sixth further on": [0, 4],
    "1 key frame": [0],
}
"""Frames of a clip of 24 that are looked at."""


def quality(index: Path, users: int) -> dict[str, Any]:
    """NDCG@10 of people with a taste for one kind; clips are three shots of a photo: one wide, two close.

    `index` has the columns image and imagenet_index (docs/data.md).
    """
    from linkedout_quant.evaluation.imagenet_kinds import IMAGENET_KINDS
    from linkedout_quant.evaluation.tastes import Kinds, one_taste
    from linkedout_quant.evaluation.yardstick import by_api, judge

    rng = np.random.default_rng(0)
    clips, labels = [], []
    with index.open(newline="") as file:
        for row in csv.DictReader(file):
            kind = next((k for k, numbers in IMAGENET_KINDS.items() if int(row["imagenet_index"]) in numbers), None)
            photo = cv2.imread(str(index.parent / index.stem / row["image"]))
            if kind is None or photo is None:
                continue
            shots = [shot(photo, share, rng) for share in (0.95, 0.6, 0.45)]
            clips.append(np.concatenate([shots[i] for i in rng.permutation(3)]))
            labels.append(kind)
    drawn = list(one_taste(Kinds.of(labels), users, 0))
    found: dict[str, Any] = {}
    baseline: np.ndarray | None = None
    print(f"{len(clips)} clips, {users} users; watched and candidates looked at alike")
    for name, frames in LOOKS.items():
        with Recommender.load("int8") as rec:
            ids = [f"clip{i}" for i in range(len(clips))]
            rec.encode([Video(frames=c[frames], id=i) for c, i in zip(clips, ids, strict=True)])
            ranker = by_api(rec, ids)
            values = np.array([judge(user, ranker)["ndcg@10"] for user in drawn])
        baseline = values if baseline is None else baseline
        apart = values - baseline
        error = 1.96 * float(apart.std()) / len(apart) ** 0.5
        found[name] = [float(values.mean()), float(apart.mean()), error]
        print(f"{name:36} {values.mean():.3f}  {apart.mean():+.3f} ± {error:.3f}", flush=True)
    return found


def shot(photo: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Eight frames uint8 [8, 144, 144, 3] RGB of a window that slides over a photo."""
    high, wide = photo.shape[:2]
    side = int(min(high, wide) * share)
    (x, right), (y, bottom) = rng.uniform(0, wide - side, 2), rng.uniform(0, high - side, 2)
    frames = []
    for t in np.linspace(0, 1, 8):
        a, b = int(x + t * (right - x)), int(y + t * (bottom - y))
        window = photo[b : b + side, a : a + side]
        frames.append(cv2.resize(window, (144, 144), interpolation=cv2.INTER_AREA)[..., ::-1])
    return np.stack(frames)


# -- devices -------------------------------------------------------------------------------------------------------

AGREES = 0.995
"""Cosine of tokens from which frames of a device stand for those of software: what no loop filter costs as well."""
WINS = 0.95
"""Share of the other's time from which a difference is one: below that it is noise."""
BATCHES = (1, 8, 32)
TOLERATED = 0.95
"""Cosine of a precision's tokens with those of fp32 below which it is not recommended, however fast."""


class Graph:
    """The encoder of a bundle on a device, strictly."""

    def __init__(self, bundle: str, precision: str | None, device: str) -> None:
        with open_bundle(bundle, precision) as opened:
            kind = opened.manifest.precisions[opened.precision]
            backend = create_backend(opened.backend, device=device, threads=available_cpus(), strict=True)
            self.config = opened.manifest.config
            self._session = backend.load(
                opened.encoder(),
                self.config,
                opened.precision,
                full_range=kind.full_range_weights,
                weights=opened.weights(),
            )

    def feeds(self, clips: list[Frames]) -> dict[str, np.ndarray]:
        """Clips of at least one frame, without titles, as the graph takes them."""
        c = self.config
        frames = np.zeros((len(clips), c.frames, c.frame_size, c.frame_size, 3), np.uint8)
        mask = np.zeros((len(clips), c.frames), bool)
        for n, clip in enumerate(clips):
            frames[n, : len(clip)], mask[n, : len(clip)] = clip, True
        titles = np.zeros((len(clips), c.title_tokens), np.int32)
        return {"frames": frames, "frame_mask": mask, "title_ids": titles, "title_mask": titles.astype(bool)}

    def run(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Tokens float32 [B, L·M·D], as they are used."""
        out = self._session.run(feeds)
        return (out["tokens"] * out["scales"][..., None]).reshape(len(feeds["frames"]), -1)

    def close(self) -> None:
        """Release its memory."""
        self._session.close()


def graph_on(bundle: str, precision: str, device: str) -> Graph | None:
    """The graph; None, with a line that says why, where the device cannot run it."""
    try:
        return Graph(bundle, precision, device)
    except DeviceError as error:
        print(f"{precision}: not measured: {error}")
        return None


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the rows of two arrays."""
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def timed(do: Callable[..., Any], *arguments: Any) -> float:
    """Milliseconds of a call."""
    start = time.perf_counter()
    do(*arguments)
    return (time.perf_counter() - start) * 1e3


def kind_of(clip: str) -> str:
    """Codec and height."""
    import av

    with av.open(clip) as container:
        context = container.streams.video[0].codec_context
        return f"{context.codec.canonical_name} {context.height}p"


def hardware(folder: Path, runs: int) -> dict[str, Any]:
    """Full looks on each device that PyAV opens and in software, in turns, and whether the tokens are the same."""
    try:
        reasons = {device: trouble(device) for device in devices()}
    except MissingDependencyError as error:
        print(error)
        return {}
    for device, reason in reasons.items():
        print(f"{device}: {reason or 'opens'}")
    usable = [device for device, reason in reasons.items() if reason is None]
    if not usable:
        print("No device decodes here. Decode in software: leave hardware out.")
        return {}
    graph = Graph("int8", None, "cpu")
    software = get_decoder("pyav")
    found: dict[str, Any] = {}
    print(f"{'device':12} {'codec, size':16} {'clips':>5} {'software':>9} {'device':>9} {'share':>6} {'cosine':>7}")
    for device in usable:
        decoder = get_decoder(f"pyav:{device}")
        kinds: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
        for clip in clips_in(folder):
            wanted = clip, graph.config.frames, graph.config.frame_size, DEFAULT_LIMITS
            a, b = software(*wanted), decoder(*wanted)  # the first look, which also opens the device, is not timed
            close = float(cosines(graph.run(graph.feeds([a])), graph.run(graph.feeds([b])))[0])
            turns = [(timed(software, *wanted), timed(decoder, *wanted)) for _ in range(runs)]
            here, there = (statistics.median(turn[i] for turn in turns) for i in (0, 1))
            share = statistics.median(there / here for here, there in turns)  # in a turn both have the same load
            kinds[kind_of(clip)].append((here, there, share, close))
        found[device] = {}
        for kind, rows in sorted(kinds.items()):
            here, there, share = (statistics.median(r[i] for r in rows) for i in (0, 1, 2))
            worst = min(r[3] for r in rows)
            found[device][kind] = {"software": here, "device": there, "share": share, "cosine": worst}
            print(f"{device:12} {kind:16} {len(rows):5} {here:9.1f} {there:9.1f} {share:6.2f} {worst:7.4f}", flush=True)
    graph.close()
    print("Medians, ms a video; share of software's time; the worst cosine of the tokens.")
    print(which_hardware(found))
    return found


def which_hardware(found: dict[str, Any]) -> str:
    """What to set: the device that wins most, if it wins over all kinds of clips together and its frames agree."""
    best, saved = None, WINS
    for device, kinds in found.items():
        share = statistics.geometric_mean([k["share"] for k in kinds.values()])
        if min(k["cosine"] for k in kinds.values()) >= AGREES and share < saved:
            best, saved = device, share
    if best is None:
        return (
            "Decode in software: leave hardware out. No device took less time with the same frames "
            f"(cosine of at least {AGREES})."
        )
    return f'Set decoder="pyav:{best}", or PyAVDecoder(hardware="{best}"): {saved:.2f} of the time of software.'


def precision(folder: Path, bundle: str, device: str, runs: int) -> dict[str, Any]:
    """Ms a clip for each precision of a bundle and several batches, in turns, and how close it is to fp32."""
    with open_bundle(bundle, None) as opened:
        names = list(opened.manifest.precisions)
    if "fp32" not in names:
        raise SystemExit(
            f"{bundle} has no fp32 to compare with: linkedout-edge export models/base --out runs/base/bundle"
        )
    graphs = {name: graph for name in names if (graph := graph_on(bundle, name, device)) is not None}
    if "fp32" not in graphs:
        raise SystemExit(f"nothing to compare with: fp32 does not run on {device}")
    exact = graphs["fp32"]
    decode, size = get_decoder("pyav"), (exact.config.frames, exact.config.frame_size)
    clips = [decode(clip, *size, DEFAULT_LIMITS) for clip in clips_in(folder)[: max(BATCHES)]]
    wanted = exact.run(exact.feeds(clips))
    found: dict[str, Any] = {}
    for name, graph in graphs.items():
        close = cosines(wanted, graph.run(graph.feeds(clips)))
        found[name] = {"cosine": float(np.median(close)), "worst": float(close.min())}
    for batch in BATCHES:
        feeds = exact.feeds(list(itertools.islice(itertools.cycle(clips), batch)))
        for graph in graphs.values():
            graph.run(feeds)
        turns = [{name: timed(graph.run, feeds) for name, graph in graphs.items()} for _ in range(runs)]
        for name in graphs:
            found[name][f"batch {batch}"] = statistics.median(turn[name] for turn in turns) / batch
            found[name][f"share {batch}"] = statistics.median(turn[name] / turn["fp32"] for turn in turns)
    for graph in graphs.values():
        graph.close()
    print(f"{'precision':10}" + "".join(f" {f'batch {b}':>16}" for b in BATCHES) + f" {'cosine':>8} {'worst':>8}")
    for name, row in found.items():
        times = "".join(f" {row[f'batch {b}']:9.2f} ({row[f'share {b}']:.2f})" for b in BATCHES)
        print(f"{name:10}{times} {row['cosine']:8.4f} {row['worst']:8.4f}")
    print(f"Ms a clip on {device} (share of fp32's time), medians of {runs}; cosines of {len(clips)} clips' tokens.")
    print(which_precision(found, device))
    return found


def which_precision(found: dict[str, Any], device: str) -> str:
    """The fastest one for one clip and for many; of those as fast, the one that is closest to fp32."""
    close = {name: row for name, row in found.items() if row["cosine"] >= TOLERATED}
    picked = {}
    for batch in BATCHES:
        least = min(row[f"share {batch}"] for row in close.values())
        as_fast = [name for name, row in close.items() if row[f"share {batch}"] * WINS <= least]
        picked[batch] = max(as_fast, key=lambda name: close[name]["cosine"])
    if len(set(picked.values())) == 1:
        return f"On {device} use {picked[1]}."
    return f"On {device} use " + ", ".join(f"{name} for batches of {batch}" for batch, name in picked.items()) + "."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    making = actions.add_parser("make")
    making.add_argument("photos", type=Path)
    making.add_argument("folder", type=Path)
    for name, count in (("new", 0), ("scale", 96), ("memory", 10_000), ("faults", 400), ("hardware", 0)):
        action = actions.add_parser(name)
        action.add_argument("folder", type=Path)
        action.add_argument("--videos", type=int, default=count)
        action.add_argument("--runs", type=int, default=3)
        action.add_argument("--decoders", type=int, default=2, help="of memory; 0 decodes in the app's process")
    choosing = actions.add_parser("precision")
    choosing.add_argument("folder", type=Path)
    choosing.add_argument("--bundle", default="runs/base/bundle", help="one that has fp32 (docs/bench.md)")
    choosing.add_argument("--device", default="cuda", help="as of Recommender.load; cpu tries the command out")
    choosing.add_argument("--runs", type=int, default=5)
    judging = actions.add_parser("quality")
    judging.add_argument("index", type=Path)
    judging.add_argument("--users", type=int, default=400)
    one = actions.add_parser("once")
    one.add_argument("way")
    one.add_argument("cores", type=int)
    args = parser.parse_args()
    if args.action == "make":
        make(sorted(args.photos.glob("*.jpg")), args.folder)
        return
    if args.action == "once":
        once(args.way, args.cores)
        return
    found = {
        "new": lambda: new(args.folder, args.runs),
        "scale": lambda: scale(args.folder, args.videos, args.runs),
        "memory": lambda: memory(args.folder, args.videos, args.decoders),
        "faults": lambda: faults(args.folder, args.videos),
        "quality": lambda: quality(args.index, args.users),
        "hardware": lambda: hardware(args.folder, args.runs),
        "precision": lambda: precision(args.folder, args.bundle, args.device, args.runs),
    }[args.action]()
    print(json.dumps({args.action: found}))


if __name__ == "__main__":
    main()
