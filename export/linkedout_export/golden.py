"""Golden vectors: what every binding must reproduce, in plain files (JSON and PNG).

Run ``python -m linkedout_export.golden bindings/conformance`` after the default bundle changed. The layout is described
in ``bindings/conformance/README.md``.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from linkedout_edge import Event, Recommender, Video
from linkedout_edge.backends import cpu
from linkedout_edge.bundle import open_bundle
from linkedout_edge.decode import prepare_frames
from linkedout_edge.decode.base import slot_centers, spread
from linkedout_edge.history_file import KIND as HISTORY
from linkedout_edge.microworld import caption, random_attributes, render_frames
from linkedout_edge.store import Fingerprint, read_tokens, token_file
from linkedout_edge.store.store import PACK
from linkedout_edge.text import Tokenizer

FORMAT = 3
VIDEOS = 8
"""Of the micro-video world, of the encoder's own frame size and at most its count. `other_sizes` come after them."""
TOLERANCE = {
    "pixel": 1,  # of the prepared frames, by any implementation of area resizing
    "score": 1e-3,  # from the given tokens, by any inference library
    "token_steps": 2,  # from the given frames, by the same version of ONNX Runtime on the same instruction set
    "token_cosine": 0.99,  # from the given frames, by anything else: its int8 rounds differently
    "score_from_frames": 0.15,  # centered tokens show more of the rounding than whole ones do
}
LONG = "A very long title: " + "one red ball and two blue boxes roll down the green hill, " * 3 + "slowly."
TITLES = (
    "",
    "A Child in a PINK dress , climbing stairs !",
    "två katter på en soffa",
    "42 bikes\tin 7 streets",
    "🎈" * 5,
    LONG,
)
SURROGATES = (("\ud83d alone", "? alone"), ("cut \ud83d", "cut ?"), ("\udf88\ud83c turned", "?? turned"))
"""Titles with halves of a character, which a UTF-16 string cut anywhere has, and what they are read as."""

Case = dict[str, object]

ALL = list(range(VIDEOS + 2))
CASES: list[tuple[str, list[dict], list[int], list[int]]] = [
    ("one event", [{"video": 0}], [2, 3, 4, 5, 6, 7], ALL),
    (
        "skip and dislike",
        [{"video": 0, "watched": 0.1}, {"video": 1, "liked": False}, {"video": 2, "liked": True}],
        [3, 4, 5, 6, 7],
        ALL,
    ),
    (
        "ages",
        [{"video": 4, "age_hours": 300.0, "watched": 0.9}, {"video": 5, "age_hours": 26.0}],
        [0, 1, 2, 3, 6, 7],
        ALL,
    ),
    ("the same video twice", [{"video": 6}, {"video": 6, "watched": 0.4}], [0, 1, 6], ALL),
    (
        "watched, and skipped as well",
        [{"video": 0}, {"video": 3, "liked": False}, {"video": 0, "watched": 0.0}],
        [1, 2, 4, 5],
        ALL,
    ),
    ("cold start: an empty history", [], [3, 1, 2, 5, 9, 0], ALL),
    ("cold start: skips alone", [{"video": 0, "watched": 0.1}], [3, 1, 2, 5, 9], ALL),
    (
        "two interests",
        [{"video": 0}, {"video": 1}, {"video": 0}, {"video": 1, "watched": 0.8}],
        [2, 3, 4, 5, 6, 7, 8, 9],
        ALL,
    ),
    (
        "many events",
        [{"video": i % VIDEOS, "watched": 0.3 + 0.05 * i} for i in range(13)],
        list(range(VIDEOS)),
        ALL,
    ),
    ("one candidate", [{"video": 3}], [5], ALL),
    ("no candidates", [{"video": 3}], [], ALL),
    ("other frame sizes", [{"video": 8}, {"video": 1, "watched": 0.8}], [9, 0, 2], ALL),
    ("a small store, another mean", [{"video": 0}, {"video": 1, "watched": 0.1}], [2, 3], [0, 1, 2, 3]),
]
"""Name, events, candidates and what is in the store, which the average video follows."""


def render_videos(size: int, count: int) -> tuple[list[np.ndarray], list[str]]:
    """Frames uint8 [count or fewer, size, size, 3] and titles; the last videos have fewer frames."""
    rng = np.random.default_rng(2026)
    frames, titles = [], []
    for i in range(VIDEOS):
        attributes = random_attributes(rng)
        f = {VIDEOS - 1: 1, VIDEOS - 2: 3}.get(i, count)
        frames.append(render_frames(attributes, i, np.array(slot_centers(f, 1.0)), size))
        titles.append(caption(attributes, rng) if i % 3 == 0 else "")
    return frames, titles


def other_sizes() -> tuple[list[np.ndarray], list[str]]:
    """Frames uint8 [13, 97, 173, 3] and [9, 200, 150, 3], and titles, the first longer than the encoder reads.

    More frames than the encoder takes, to choose from, and sides both above and below its own. Fine stripes show how
    they were resized and a color of its own which frame it is, yet as PNGs they are small.
    """
    frames = []
    for count, height, width in ((13, 97, 173), (9, 200, 150)):
        y, x = np.mgrid[:height, :width]
        video = np.empty((count, height, width, 3), np.uint8)
        for i in range(count):
            stripes = ((x + i) % (3 + i % 3) < 2) ^ (y % (4 + i % 2) < 2)
            disc = (x - width * (i + 1) / (count + 1)) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2
            color = np.array([40 + 200 * i // count, 220 - 180 * i // count, 60 + 90 * (i % 3)])
            video[i] = np.where(disc[..., None], 255 - color, np.where(stripes[..., None], color, color // 4))
        frames.append(video)
    return frames, [LONG, ""]


def write_strip(path: Path, frames: np.ndarray) -> None:
    """Write frames uint8 [F, H, W, 3] as one PNG, from top to bottom; a file that shows the same stays as it is."""
    strip = np.ascontiguousarray(frames.reshape(-1, frames.shape[2], 3)[..., ::-1])
    before = cv2.imread(str(path)) if path.exists() else None
    if before is None or not np.array_equal(before, strip):
        cv2.imwrite(str(path), strip, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def golden_case(
    rec: Recommender, videos: list[Video], name: str, events: list[dict], candidates: list[int], store: list[int]
) -> Case:
    """Rank one case through the public API and note all that is expected.

    Args:
        rec: With an empty store.
        videos: All of them.
        name: Of the case.
        events, candidates, store: By numbers of videos.
    """
    rec.encode([videos[i] for i in store])
    now = datetime.now(timezone.utc)
    history = [
        Event(
            f"video{e['video']}",
            watched=e.get("watched", 1.0),
            liked=e.get("liked"),
            at=now - timedelta(hours=e["age_hours"]) if "age_hours" in e else None,
        )
        for e in events
    ]
    ranking = rec.rank(history, [f"video{i}" for i in candidates])
    taste = rec.taste(history)
    return {
        "name": name,
        "store": [f"video{i}" for i in store],
        "events": events,
        "candidates": [f"video{i}" for i in candidates],
        "order": [r.id for r in ranking],
        "scores": {r.id: round(float(r.score), 6) for r in ranking},
        "contributions": {r.id: [round(float(x), 6) for x in r.layers] for r in ranking},
        "likes": [list(interest.videos) for interest in taste.likes],
        "avoids": list(taste.avoids),
        "explanations": {r.id: np.asarray(r.explain().matrix, float).round(6).tolist() for r in ranking},
    }


def error_cases() -> list[dict]:
    """Inputs that must be refused, with the error's name and, for a single video, the code in ``failed``."""
    return [
        {
            "call": "rank",
            "what": "a bare string for a list",
            "candidates": "video0",
            "raises": "ArgumentTypeError",
        },
        {"call": "rank", "what": "top_k below 1", "top_k": 0, "raises": "ArgumentError"},
        {"call": "rank", "what": "watched above 1", "watched": 1.5, "raises": "ArgumentError"},
        {
            "call": "rank",
            "what": "an id that nobody knows",
            "candidates": ["no/such/file.mp4"],
            "failed": "not_found",
        },
        {"call": "rank", "what": "frames of float", "frames_dtype": "float32", "failed": "invalid_frames"},
        {
            "call": "rank",
            "what": "frames without colour",
            "frames_shape": [8, 16, 16],
            "failed": "invalid_frames",
        },
        {"call": "load", "what": "an unknown precision", "bundle": "int9", "raises": "BundleNotFoundError"},
    ]


def write_golden(out: Path, bundle: str) -> None:
    """Write all golden files of a bundle (a precision of the embedded one, or a path)."""
    out.mkdir(parents=True, exist_ok=True)
    with open_bundle(bundle) as opened:
        config = opened.manifest.config
        tokenizer = Tokenizer.from_json(opened.tokenizer())
        files = [*opened.manifest.files(opened.precision).values(), opened.manifest.tokenizer]
    with Recommender.load(bundle) as rec:
        info = rec.info()
        square, other = render_videos(config.frame_size, config.frames), other_sizes()
        frames, titles = square[0] + other[0], square[1] + other[1]
        videos = [
            Video(frames=f, id=f"video{i}", title=t or None)
            for i, (f, t) in enumerate(zip(frames, titles, strict=True))
        ]
        failed = rec.encode(videos).failed
        if failed:
            raise RuntimeError(f"golden videos could not be encoded: {failed}")
        tokens, scales = read_tokens(rec.store, [v.id for v in videos])
        described = []
        for i, (f, title) in enumerate(zip(frames, titles, strict=True)):
            name = f"video{i}.png"
            write_strip(out / name, f)
            row = {
                "id": f"video{i}",
                "frames": name,
                "frame_count": len(f),
                "title": title,
                "title_ids": tokenizer.encode(title, config.title_tokens),
            }
            if i >= VIDEOS:
                write_strip(out / f"video{i}-prepared.png", prepare_frames(f, config.frames, config.frame_size))
                chosen = spread(len(f), config.frames).tolist()
                row |= {"chosen": chosen, "prepared": f"video{i}-prepared.png"}
            described.append(row | {"tokens": tokens[i].tolist(), "scales": scales[i].astype(float).round(9).tolist()})
        document: dict[str, Any] = {
            "format": FORMAT,
            "bundle": {
                "name": info.bundle,
                "precision": info.precision,
                "token_space": info.token_space,
                "title_tokens": config.title_tokens,
                "sha256": {f.path: f.sha256 for f in files},
            },
            "made_with": {
                "onnxruntime": info.versions["onnxruntime"],
                "architecture": cpu.instruction_set().architecture,
                "instruction_set": cpu.instruction_set().features,
            },
            "tolerance": TOLERANCE,
            "videos": described,
            "titles": [{"text": t, "ids": tokenizer.encode(t)} for t in TITLES],
            "surrogates": [
                # JSON in JSON: not every parser takes a lone surrogate, and those should still read this file.
                {"json": json.dumps(text), "read_as": same, "ids": tokenizer.encode(text)}
                for text, same in SURROGATES
            ],
            "cases": [],
            "errors": error_cases(),
        }
    for case in CASES:
        with Recommender.load(bundle) as rec:
            document["cases"].append(golden_case(rec, videos, *case))
    document["files"] = write_files(out, document)
    (out / "golden.json").write_text(json.dumps(document, indent=1, ensure_ascii=True) + "\n")


def write_files(out: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Write a feature pack of all videos and a saved history, from the tokens that the document gives; what they hold.

    The events are of fixed times, and one video occurs twice.
    """
    space = document["bundle"]["token_space"]
    ids = [v["id"] for v in document["videos"]]
    known = [Fingerprint(f"{n:032x}", v["title"] or None) for n, v in enumerate(document["videos"])]
    tokens = np.array([v["tokens"] for v in document["videos"]], np.int8)
    scales = np.array([v["scales"] for v in document["videos"]], np.float32)
    token_file.write(out / "pack.safetensors", PACK, space, token_file.Videos(ids, known, tokens, scales))
    names = ["video3", "katt 🐈.mp4"]
    moment = 1767225600.25  # 2026-01-01 00:00:00.25 UTC
    events = [
        {"id": names[0], "watched": 0.25, "liked": None, "at": moment},
        {"id": names[1], "watched": 1.0, "liked": True, "at": None},
        {"id": names[0], "watched": 1.0, "liked": False, "at": moment + 3600},
    ]
    rows = [(0, 0.25, -1, moment), (1, 1.0, 1, np.nan), (0, 1.0, 0, moment + 3600)]
    videos = token_file.Videos(names, known[3:5], tokens[3:5], scales[3:5])
    more = {"events": np.array(rows, np.float64)}
    token_file.write(out / "history.safetensors", HISTORY, space, videos, more)
    return {"pack": "pack.safetensors", "history": "history.safetensors", "events": events}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundle", default="int8")
    arguments = parser.parse_args()
    write_golden(arguments.out, arguments.bundle)


if __name__ == "__main__":
    main()
