"""Answers of the Python package, for the JavaScript tests to compare with.

    python test/reference.py FOLDER [clip]

writes clip.webm and clip.json, or without "clip" reference.json: titles, resized frames, content hashes, sums of the
kernel, and rankings of random tokens with all options. And from-python-pack.safetensors and
from-python-history.safetensors. Seeded: the same in each run.
"""

from __future__ import annotations

import json
import random
import string
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from linkedout_edge import Event, Prior, Recommender, Video
from linkedout_edge.bundle import open_bundle
from linkedout_edge.config import ModelConfig
from linkedout_edge.decode import Limits, get_decoder, prepare_frames
from linkedout_edge.rank.scorer import score_with_numpy
from linkedout_edge.store import fingerprint, write_tokens
from linkedout_edge.text import Tokenizer

CONFIG = ModelConfig()
SHAPE = (CONFIG.layers, CONFIG.tokens_per_layer, CONFIG.token_width)
SIZES = [
    (128, 128),
    (256, 256),
    (384, 512),
    (256, 384),
    (97, 173),
    (200, 136),
    (719, 405),
    (64, 300),
    (300, 64),
    (33, 20),
    (1, 1),
    (128, 256),
]


def titles(rng: random.Random) -> list[str]:
    """1,000 texts: words, digits, blanks, other scripts, emoji, and a word without an end."""
    alphabets = [
        string.ascii_letters,
        string.digits + " ",
        string.printable,
        "åäöéßñ ",
        "日本語のタイトル ",
        "🎈🐈👩‍👩‍👧 ",
        "\u00ad\u200b\t\n\x7f",
    ]
    words = ["a", "red", "Ball", "ROLLS", "down", "the", "hill,", "slowly.", "2026", "in", "über", "猫"]
    texts = ["x" * 3000, " ", "<pad>", "<eos> a", "'s n't"]
    while len(texts) < 1000:
        if rng.random() < 0.5:
            texts.append(" ".join(rng.choices(words, k=rng.randint(1, 12))))
        else:
            texts.append("".join(rng.choices(rng.choice(alphabets) + rng.choice(alphabets), k=rng.randint(0, 60))))
    return texts


def resized(rng: np.random.Generator) -> list[dict]:
    """Frames of many sizes, and what they are made to."""
    rows = []
    for height, width in SIZES:
        frames = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        video = Video(frames=frames)
        rows.append(
            {
                "shape": list(frames.shape),
                "data": frames.tobytes().hex(),
                "prepared": prepare_frames(frames, CONFIG.frames, CONFIG.frame_size).tobytes().hex(),
                "content": video.content,
            }
        )
    return rows


def files(rng: np.random.Generator, folder: Path) -> list[dict]:
    """Content hashes of files of many lengths."""
    rows = []
    for size in (0, 1, 65_536, 65_537, 131_072, 300_001):
        path = folder / f"{size}.bin"
        path.write_bytes(rng.bytes(size))
        rows.append({"name": path.name, "content": fingerprint(Video(path)).content})
    return rows


def random_tokens(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of `count` videos in a few clusters, with copies of cosine 1.0, 0.95 (to be folded) and 0.84 (not)."""
    kinds = rng.normal(0, 40, (5, *SHAPE))
    values = kinds[rng.integers(0, 5, count)] + rng.normal(0, 25, (count, *SHAPE))
    for n, spread in enumerate((0.5, 15, 30)):
        values[10 + 2 * n : 12 + 2 * n] = values[5:7] + rng.normal(0, spread, (2, *SHAPE))
    tokens = np.clip(np.rint(values), -127, 127).astype(np.int8)
    return tokens, rng.uniform(0.005, 0.02, (count, *SHAPE[:2])).astype(np.float32)


def kernel(rng: np.random.Generator) -> dict:
    """The scoring kernel's bits for one query."""
    tokens, scales = random_tokens(rng, 60)
    digits = rng.integers(-32639, 32640, SHAPE, dtype=np.int64).astype(np.int16)
    units = rng.uniform(1e-7, 1e-4, SHAPE[:2]).astype(np.float32)
    offsets = rng.normal(0, 1, SHAPE[0]).astype(np.float32)
    rows = rng.permutation(60).astype(np.int64)
    scores, layers = np.empty(60, np.float32), np.empty((60, SHAPE[0]), np.float32)
    score_with_numpy(digits, units, offsets, tokens, scales, rows, scores, layers)
    arrays = {"digits": digits, "units": units, "offsets": offsets, "tokens": tokens, "scales": scales}
    arrays |= {"scores": scores, "layers": layers}
    return {"rows": rows.tolist()} | {name: array.tobytes().hex() for name, array in arrays.items()}


def rankings(rec: Recommender, rng: np.random.Generator) -> list[dict]:
    """Rankings of random stores and histories, with options in the words of JavaScript."""
    ids = list(rec.store)
    now = time.time()
    prior = {i: float(v) for i, v in zip(ids[::2], rng.normal(0, 5, len(ids[::2])), strict=True)}
    options: list[tuple[dict, dict]] = [
        ({}, {}),
        ({"top_k": 7}, {"topK": 7}),
        ({"diversity": 0.6}, {"diversity": 0.6}),
        ({"diversity": 1.0, "top_k": 12}, {"diversity": 1.0, "topK": 12}),
        ({"fold_duplicates": True}, {"foldDuplicates": True}),
        (
            {"fold_duplicates": True, "diversity": 0.3, "top_k": 20},
            {"foldDuplicates": True, "diversity": 0.3, "topK": 20},
        ),
        ({"exclude_watched": True}, {"excludeWatched": True}),
        ({"prior": prior}, {"prior": prior}),
        ({"prior": Prior(prior, -0.4)}, {"prior": {"values": prior, "weight": -0.4}}),
        ({"explore": 0.7}, {"explore": 0.7}),
    ]
    rows = []
    for case in range(30):
        count = [0, 1, 2, 5, 12, 40, 100, 250][case % 8]
        liked = [None, None, None, True, False]
        events = [
            {
                "video": str(rng.choice(ids)),
                "watched": float(rng.choice([0.0, 0.1, 0.6, 1.0]) if case % 5 else 0.1),
                "liked": liked[int(rng.integers(0, 5))] if case % 5 else None,
                "at": int((now - rng.uniform(1, 9000) * 3600) * 1000) if rng.random() < 0.5 else None,  # milliseconds
            }
            for _ in range(count)
        ]
        history = [
            Event(
                e["video"],
                e["watched"],
                e["liked"],
                None if e["at"] is None else datetime.fromtimestamp(e["at"] / 1000, timezone.utc),
            )
            for e in events
        ]
        python, javascript = options[case % len(options)]
        ranking = rec.rank(history, ids, **python)
        rows.append(
            {
                "now": now,
                "events": events,
                "options": javascript,
                "ids": ranking.ids,
                "scores": ranking.scores.tolist(),
                "sources": sorted({r.source for r in ranking}),
                "explanations": [r.explain().to_dict() for r in ranking[:3]],
                "taste": rec.taste(history).to_dict(),
            }
        )
    return rows


def write_clip(folder: Path) -> None:
    """A clip whose frames tell themselves apart by their gray, and which of them Python takes: their means."""
    import av

    path = folder / "clip.webm"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 1_000_000
        for n in range(41):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + 5 * n, np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
    frames = get_decoder("auto")(str(path), CONFIG.frames, CONFIG.frame_size, Limits())
    found = {"means": frames.mean((1, 2, 3)).tolist(), "content": fingerprint(Video(path)).content}
    (folder / "clip.json").write_text(json.dumps(found))


def main() -> None:
    """Command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    if sys.argv[2:] == ["clip"]:
        write_clip(folder)
        return
    rng = np.random.default_rng(17)
    with open_bundle("int8") as bundle:
        tokenizer = Tokenizer.from_json(bundle.tokenizer())
    with Recommender.load("int8", threads=1) as rec:
        tokens, scales = random_tokens(rng, 90)
        titles_of = [f"clip number {n}" if n % 3 else None for n in range(90)]
        write_tokens(rec.store, [f"videos/{n:02}.mp4" for n in range(90)], tokens, scales, titles_of)
        rec.store.export_pack(folder / "from-python-pack.safetensors")
        answers = {
            "titles": [{"text": t, "ids": tokenizer.encode(t)} for t in titles(random.Random(17))],
            "resized": resized(rng),
            "files": files(rng, folder),
            "kernel": kernel(rng),
            "rankings": rankings(rec, rng),
        }
        at = datetime(2026, 11, 1, 12, 30, 0, 123456, timezone.utc)
        rec.history.add(Event("videos/03.mp4", 0.25, None, at))
        rec.history.add(Event("videos/04.mp4", 1.0, True))
        rec.history.add(Event("videos/03.mp4", 1.0, False, at + timedelta(hours=1)))
        rec.history.save(folder / "from-python-history.safetensors")
    (folder / "reference.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
