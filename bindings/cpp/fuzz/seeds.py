"""Files that are whole, for the fuzzers to begin with: ``python seeds.py FOLDER``; and words that they put in."""

import json
import struct
import sys
from pathlib import Path
from typing import Any

SPACE, LAYERS, TOKENS, WIDTH = "0" * 64, 2, 1, 4  # as in fuzz.cpp


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]], kind: str) -> bytes:
    """A safetensors file of the names, types, shapes and bytes given."""
    header: dict[str, Any] = {"__metadata__": {"format": kind, "version": "1", "token_space": SPACE}}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(d for _, _, d in tensors.values())


def videos(count: int) -> dict[str, tuple[str, list[int], bytes]]:
    """Tensors of that many videos."""
    records = json.dumps([[f"v{n}", None if n else "Tit\u00eal", "ab"] for n in range(count)]).encode()
    return {
        "scales": ("F32", [count, LAYERS, TOKENS], struct.pack("<f", 0.5) * (count * LAYERS * TOKENS)),
        "tokens": ("I8", [count, LAYERS, TOKENS, WIDTH], b"\1" * (count * LAYERS * TOKENS * WIDTH)),
        "records": ("U8", [len(records)], records),
    }


def manifest() -> dict[str, Any]:
    """The least that a manifest holds, and what may be left out."""
    file = {"path": "a/b", "sha256": "a" * 64, "bytes": 3}
    return {
        "format_version": 2,
        "name": "n",
        "token_space": SPACE,
        "config": {"taps": [1, 2], "tokens_per_layer": TOKENS, "token_width": WIDTH, "frames": 8},
        "precisions": {"int8": {"files": {"encoder": file}, "full_range_weights": False}},
        "tokenizer": file,
        "user_model": {"mean": [[0.5] * WIDTH] * LAYERS, "size": [1, 2], "layer_prior": [1, 0], "score_scale": 2.5},
        "layer_names": ["a", "b"],
    }


def main(folder: Path) -> None:
    """Write them."""
    events = struct.pack("<8d", 0, 1, -1, float("nan"), 1, 0.5, 1, 1.7e9)
    tokenizer = json.dumps({"vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3}, "merges": [["a", "b"]]})
    seeds = {
        "manifest": [json.dumps(manifest()).encode()],
        "tokenizer": [tokenizer.encode() + b"\0Ab  aB \xf0\x9f\x8e\x88", b"abab ab"],
        "pack": [safetensors(videos(n), "linkedout-pack") for n in (0, 1, 2)],
        "history": [safetensors({"events": ("F64", [2, 4], events), **videos(2)}, "linkedout-history")],
    }
    words = {"format", "version", "token_space", "__metadata__", "data_offsets", "dtype", "shape"}
    words |= {*manifest(), *manifest()["config"], *manifest()["user_model"], "vocab", "merges", "\\\\ud83d", "1e999"}
    words |= {"tokens", "scales", "records", "events", "I8", "F32", "F64", "U8", "encoder", "files", SPACE}
    for name, files in seeds.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for n, data in enumerate(files):
            (folder / name / f"seed{n}").write_bytes(data)
    (folder / "words").write_text("".join(f'"{w}"\n' for w in sorted(words)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
