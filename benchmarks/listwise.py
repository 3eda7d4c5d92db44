"""What shapes a list, measured: a determinantal point process against MMR, and which cosine means "the same video".

    python benchmarks/listwise.py [--bundle int8] [--data FOLDER]

Diversity: on users of the micro-video exam the best ten are rearranged by either method at many strengths. Shown is how
many values of the facets ten videos cover (that is what variety means to a viewer) beside the NDCG@10 that is left.
Duplicates (needs --data, a folder with images/objects.csv and videos/): photos filmed as clips, and the real clips, are
encoded again in several ways; shown is how near the copies are, and how near different videos are. The last line is one
JSON document.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import av
import cv2
import numpy as np
from linkedout_quant.evaluation.exam import pool_videos, product_scores
from linkedout_quant.evaluation.metrics import bootstrap_interval, user_metrics
from linkedout_quant.media import find_media, load_still
from linkedout_quant.progress import track
from linkedout_quant.training.stills import CameraPath
from rich.table import Table

from linkedout_edge import Recommender
from linkedout_edge.cli import output, terminal
from linkedout_edge.decode import DEFAULT_LIMITS, get_decoder
from linkedout_edge.microworld import make_exam, one_hot
from linkedout_edge.rank.rerank import DIVERSIFIED, _similarities, diversify, unit_tokens
from linkedout_edge.results import best_first
from linkedout_edge.store import read_tokens

STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
THRESHOLDS = (0.9, 0.95, 0.97, 0.98, 0.99)
SIDE, FRAMES, FPS = 256, 36, 12
Edit = Callable[[np.ndarray], np.ndarray]
COPIES: dict[str, tuple[str, dict[str, str], Edit]] = {
    "half the size": ("libx264", {"crf": "23"}, lambda f: _resized(f, f.shape[1] // 2, f.shape[2] // 2)),
    "poor quality (H.264, crf 38)": ("libx264", {"crf": "38"}, lambda f: f),
    "another codec (MPEG-4, q 8)": ("mpeg4", {"qmin": "8", "qmax": "8"}, lambda f: f),
    "a tenth shorter": ("libx264", {"crf": "23"}, lambda f: f[len(f) // 20 : len(f) - len(f) // 20]),
    "borders cut off by a twentieth": ("libx264", {"crf": "23"}, lambda f: _cropped(f, 0.05)),
    "brighter": ("libx264", {"crf": "23"}, lambda f: np.clip(f * 1.1 + 8, 0, 255).astype(np.uint8)),
    "with a bar of text": ("libx264", {"crf": "23"}, lambda f: _captioned(f)),
}


def _resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    size = (width // 2 * 2, height // 2 * 2)
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])


def _cropped(frames: np.ndarray, share: float) -> np.ndarray:
    y, x = (int(s * share) for s in frames.shape[1:3])
    return _resized(frames[:, y : frames.shape[1] - y, x : frames.shape[2] - x], *frames.shape[1:3])


def _captioned(frames: np.ndarray) -> np.ndarray:
    out = frames.copy()
    top = int(0.85 * out.shape[1])
    out[:, top:] //= 4
    for f in out:
        cv2.putText(f, "WATCH THIS", (8, out.shape[1] - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)
    return out


def write(path: Path, frames: np.ndarray, codec: str, options: dict[str, str]) -> Path:
    """Frames uint8 [F, H, W, 3] RGB as a file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
        container.mux(stream.encode())
    return path


def mmr(order: np.ndarray, scores: np.ndarray, vectors: np.ndarray, diversity: float, places: int) -> np.ndarray:
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998), with the same similarities as the product's."""
    window = order[:DIVERSIFIED]
    similar, quality = _similarities(vectors[window]), (1 - diversity) * scores[window]
    chosen, nearest = [int(np.argmax(quality))], np.full(len(window), -np.inf)
    while len(chosen) < min(places, len(window)):
        nearest = np.maximum(nearest, similar[chosen[-1]])
        gain = quality - diversity * nearest
        gain[chosen] = -np.inf
        chosen.append(int(np.argmax(gain)))
    return window[chosen]


def diversity_table(rec: Recommender, users: int) -> list[dict]:
    """NDCG@10 and variety of ten, of both methods at each strength."""
    exam = make_exam(users_per_length=users)
    videos = pool_videos(exam, rec.info().frame_size, rec.info().frames)
    rec.encode(videos)
    facets = np.stack([one_hot(a) for a, _ in exam.pool])
    unit = unit_tokens(read_tokens(rec.store, [v.id for v in videos])[0])
    now, rows = datetime.now(timezone.utc), []
    drawn = [u for u in exam.users if len(u.history) == 8]
    scored = [product_scores(rec, u, now).astype(np.float32) for u in track(drawn, "users")]
    for method in ("DPP", "MMR"):
        for strength in STRENGTHS:
            ndcg, variety = [], []
            for user, scores in zip(drawn, scored, strict=True):
                order, vectors = best_first(scores, None), unit[user.candidates]
                if strength == 0:
                    ten = order[:10]
                elif method == "DPP":
                    ten = diversify(order, scores, lambda p, v=vectors: v[p], strength, 10)[:10]
                else:
                    ten = mmr(order, scores, vectors, strength, 10)
                places = np.full(len(scores), -1.0)
                places[ten] = np.arange(10, 0, -1)
                ndcg.append(user_metrics(places, user.relevant)["ndcg@10"])
                variety.append(float((facets[user.candidates[ten]].sum(0) > 0).sum()))
            rows.append(
                {
                    "method": method,
                    "strength": strength,
                    "ndcg@10": round(float(np.mean(ndcg)), 4),
                    "interval": [round(x, 4) for x in bootstrap_interval(ndcg)],
                    "facet values": round(float(np.mean(variety)), 2),
                }
            )
    return rows


def duplicate_table(rec: Recommender, data: Path, photos: int) -> tuple[list[dict], dict]:
    """Cosines of copies with what they are copies of, and of each video with the nearest other one."""
    rng = np.random.default_rng(0)
    decode = get_decoder()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shown = [
            CameraPath.random(photo.shape, rng, 0.75).frames(photo, np.linspace(0, 1, FRAMES), SIDE)
            for photo in (load_still(m.path) for m in find_media([data / "images" / "objects.csv"])[:photos])
        ]
        shown += [decode(m.path, FRAMES, SIDE, DEFAULT_LIMITS) for m in find_media([data / "videos"])]
        originals, copies = [], {name: [] for name in COPIES}
        for i, frames in enumerate(track(shown, "clips")):
            originals.append(write(folder / f"{i}.mp4", frames, "libx264", {"crf": "20"}))
            for n, (name, (codec, options, edit)) in enumerate(COPIES.items()):
                copies[name].append(write(folder / f"{i}-{n}.mp4", edit(frames), codec, options))

        def unit(paths: list[Path]) -> np.ndarray:
            rec.encode([str(p) for p in paths])
            return unit_tokens(read_tokens(rec.store, [str(p) for p in paths])[0])

        own = unit(originals)
        rows = []
        for name, paths in copies.items():
            near = np.einsum("kd,kd->k", own, unit(paths))
            rows.append(
                {"copy": name, "median": float(np.median(near)), "5 %": float(np.percentile(near, 5))}
                | {f"from {t}": float((near >= t).mean()) for t in THRESHOLDS}
            )
        among = own @ own.T
        np.fill_diagonal(among, -1)
        nearest = among.max(1)
        other = {"median": float(np.median(nearest)), "95 %": float(np.percentile(nearest, 95))}
        return rows, other | {f"from {t}": float((nearest >= t).mean()) for t in THRESHOLDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="int8")
    parser.add_argument("--data", type=Path, help="with images/objects.csv and videos/")
    parser.add_argument("--users", type=int, default=120)
    parser.add_argument("--photos", type=int, default=120)
    a = parser.parse_args()
    terminal.prepare()
    console = output.console()
    with Recommender.load(a.bundle) as rec:
        report: dict = {"diversity": diversity_table(rec, a.users)}
        if a.data is not None:
            report["copies"], report["others"] = duplicate_table(rec, a.data, a.photos)
    table = Table("method", "strength", "NDCG@10", "95 %", "facet values in ten", title="variety and what it costs")
    for r in report["diversity"]:
        low, high = r["interval"]
        table.add_row(
            r["method"],
            f"{r['strength']:g}",
            f"{r['ndcg@10']:.3f}",
            f"{low:.3f} – {high:.3f}",
            f"{r['facet values']:.1f}",
        )
    console.print(table)
    if a.data is not None:
        table = Table("", "median", "worst 5 %", *(f"≥ {t:g}" for t in THRESHOLDS), title="cosine with the original")
        for r in report["copies"]:
            table.add_row(
                r["copy"], f"{r['median']:.3f}", f"{r['5 %']:.3f}", *(f"{r[f'from {t}']:.0%}" for t in THRESHOLDS)
            )
        other = report["others"]
        table.add_row(
            "the nearest other video", f"{other['median']:.3f}", f"{other['95 %']:.3f}",
            *(f"{other[f'from {t}']:.0%}" for t in THRESHOLDS), style="bold",
        )  # fmt: skip
        console.print(table)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
