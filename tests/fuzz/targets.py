"""What reads bytes of unknown origin, with whole examples of what it reads, and a way to break them.

`parsers.py` beside this file runs millions of broken ones, tests/test_fuzz.py some thousand.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import av
import msgspec
import numpy as np
from safetensors.numpy import save

from linkedout_edge import Event, Video
from linkedout_edge.bench import compare, report, results
from linkedout_edge.bundle import open_bundle
from linkedout_edge.bundle.manifest import check_path, parse_manifest
from linkedout_edge.bundle.reader import embedded_folder
from linkedout_edge.config import ModelConfig
from linkedout_edge.decode.files import sniff
from linkedout_edge.errors import ArgumentError, BundleError, PackError, VideoUnreadableError
from linkedout_edge.history_file import read_history
from linkedout_edge.storage.encryption import DamagedRecordError
from linkedout_edge.storage.records import VideoRecord, pack_event, pack_video, unpack_event, unpack_video
from linkedout_edge.store import token_file
from linkedout_edge.store.store import PACK
from linkedout_edge.text import Tokenizer

SHAPE = (3, 2, 16)
SPACE = "a" * 64
PAYLOAD = 3 * 2 * (16 + 4)


class Target(NamedTuple):
    """Something that reads bytes.

    Attributes:
        read: Reads them, and checks what came out of it.
        examples: Makes whole ones.
        allowed: What may be raised for broken ones.
    """

    read: Callable[[bytes], object]
    examples: Callable[[], list[bytes]]
    allowed: type[Exception] | tuple[()]


def feed(target: Target, data: bytes) -> bool:
    """Whether `data` was read without complaint; raises what may not come out."""
    try:
        target.read(data)
    except target.allowed:
        return False
    return True


# -- containers --------------------------------------------------------------------------------------------------------


def _videos() -> list[bytes]:
    """The start of a real file of each container that PyAV writes here, and of what is no video."""
    found = [
        b"#EXTM3U\nhttp://x/",
        b"ffconcat version 1.0\nfile x",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"ID3\4",
        b"<?xml ?><MPD>",
    ]
    for container, codec in (
        ("mp4", "mpeg4"), ("mov", "mjpeg"), ("matroska", "mpeg4"), ("avi", "mpeg4"), ("mpegts", "mpeg2video"),
        ("mpeg", "mpeg2video"), ("flv", "flv"), ("asf", "mpeg4"), ("ogg", "theora"), ("gif", "gif"), ("ivf", "vp8"),
        ("image2pipe", "png"), ("image2pipe", "mjpeg"), ("mpeg2video", "mpeg2video"), ("m2ts", "mpeg2video"),
    ):  # fmt: skip
        file = io.BytesIO()
        try:
            with av.open(file, "w", format="mpegts" if container == "m2ts" else container) as out:
                if container == "m2ts":
                    out.options["mpegts_m2ts_mode"] = "1"
                stream = out.add_stream(codec, rate=25)
                stream.width, stream.height = 32, 32
                stream.pix_fmt = {"gif": "rgb8", "png": "rgb24", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
                for n in range(2):
                    frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90 * n, np.uint8), format="rgb24")
                    out.mux(stream.encode(frame))
                out.mux(stream.encode())
        except (av.FFmpegError, ValueError):  # this FFmpeg was built without that encoder
            continue
        found.append(file.getvalue()[:4096])
    return found


def _read_head(head: bytes) -> None:
    assert sniff(head, "a video")


# -- bundles -----------------------------------------------------------------------------------------------------------


def _manifests() -> list[bytes]:
    whole = json.loads((embedded_folder() / "manifest.json").read_bytes())
    entry = {"path": "static/x/encoder.onnx", "sha256": "0" * 64, "bytes": 7}
    export = {
        "format": "onnx",
        "precision": "int8",
        "static": True,
        "files": {"encoder.onnx": entry},
        "sizes": {"encoder": 1},
    }
    return [
        json.dumps(m).encode() for m in (whole, whole | {"exports": {"static/x": export}, "parity": {"encoder": 1e-6}})
    ]


def _read_manifest(data: bytes) -> None:
    manifest = parse_manifest(data)
    for precision in manifest.precisions:
        for entry in manifest.files(precision).values():
            check_path(entry.path)
    assert 0 < manifest.config.payload_bytes <= 1 << 20


def _zips() -> list[bytes]:
    files = {"encoder": b"e" * 99, "tokenizer": b'{"vocab": {}, "merges": []}'}
    entries = {n: {"path": n, "sha256": hashlib.sha256(d).hexdigest(), "bytes": len(d)} for n, d in files.items()}
    tokenizer = entries.pop("tokenizer")
    manifest = {
        "format_version": 2, "name": "x", "token_space": SPACE, "precisions": {"int8": {"files": entries}},
        "tokenizer": tokenizer, "config": msgspec.to_builtins(ModelConfig.tiny()),
        "user_model": {"mean": [[0.5] * 32] * 3, "size": [1.0] * 3},
    }  # fmt: skip
    found = []
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", how) as z:
            z.writestr("manifest.json", json.dumps(manifest))
            for name, data in files.items():
                z.writestr(name, data)
        found.append(file.getvalue())
    return found


def _read_zip(data: bytes) -> None:
    with open_bundle(_file("bundle.zip", data)) as bundle:
        bundle.tokenizer()
        bundle.encoder()
        bundle.weights()


# -- feature packs -----------------------------------------------------------------------------------------------------


def _pack(records: bytes, count: int) -> bytes:
    arrays = {
        "tokens": np.ones((count, *SHAPE), np.int8),
        "scales": np.ones((count, *SHAPE[:2]), np.float32),
        "records": np.frombuffer(records, np.uint8),
    }
    return save(arrays, {"format": "linkedout-pack", "version": "1", "token_space": SPACE})


_RECORDS = [b"[]", b'[["a.mp4", null, "c"], ["b", "t\\udcff", "d"]]']


def _packs() -> list[bytes]:
    return [_pack(records, 2 * n) for n, records in enumerate(_RECORDS)]


def _read_pack(data: bytes) -> None:
    pack, _ = token_file.read(_file("pack", data), PACK, token_space=SPACE, shape=SHAPE, max_bytes=1 << 20)
    assert len(pack.ids) == len(set(pack.ids)) == len(pack.fingerprints) == len(pack.tokens) == len(pack.scales)
    assert (pack.scales >= 0).all()


def _histories() -> list[bytes]:
    count = 20
    records = json.dumps([[f"{n}.mp4", "t", "c"] for n in range(count)]).encode()
    arrays = {
        "tokens": np.ones((count, *SHAPE), np.int8),
        "scales": np.ones((count, *SHAPE[:2]), np.float32),
        "records": np.frombuffer(records, np.uint8),
        "events": np.array([[0, 0.5, -1, np.nan], [0, 1, 1, 1.7e9]]),
    }
    return [save(arrays, {"format": "linkedout-history", "version": "1", "token_space": SPACE})]


def _read_history(data: bytes) -> None:
    events, videos = read_history(_file("history", data), token_space=SPACE, shape=SHAPE, max_bytes=1 << 20)
    assert {e.id for e in events} <= set(videos.ids)


def _read_records(data: bytes) -> None:
    """What the JSON inside a pack may be, while the rest of the pack is whole."""
    _read_pack(_pack(data, 2))


# -- tokenizer ---------------------------------------------------------------------------------------------------------


@lru_cache
def _vocabulary() -> bytes:
    """The first merges of the embedded bundle: whole, and quickly read."""
    found = json.loads((embedded_folder() / "tokenizer.json").read_bytes())
    vocab = dict(sorted(found["vocab"].items(), key=lambda item: item[1])[:400])
    return json.dumps({"vocab": vocab, "merges": [m for m in found["merges"] if "".join(m) in vocab]}).encode()


def _vocabularies() -> list[bytes]:
    few = {"vocab": {"<pad>": 0, "a": 2, "b": 3, "ab": 4, "\u0120a": 5}, "merges": [["a", "b"], ["\u0120", "a"]]}
    return [json.dumps(few).encode(), _vocabulary()]


def _read_vocabulary(data: bytes) -> None:
    tokenizer = Tokenizer.from_json(data, 512)
    assert all(0 <= i < 512 for i in tokenizer.encode("Two dogs, 3 cats é 狗 abab"))


@lru_cache
def _tokenizer() -> Tokenizer:
    return Tokenizer.from_json(_vocabulary())


def _titles() -> list[bytes]:
    titles = ["Two dogs and 3 cats", "ß é 狗\u3000\x00<pad>\t\v", "\ud800\udc00 \udcff", "ab" * 500, "A" * 900]
    return [t.encode("utf-16-le", "surrogatepass") for t in titles]


def _read_title(data: bytes) -> None:
    """Any str is a title, so nothing may be raised."""
    units = "".join(map(chr, memoryview(data[: len(data) & ~1]).cast("H")))  # surrogates in any order
    for title in (units, data.decode("utf-8", "surrogateescape")):
        ids = _tokenizer().encode(title)
        assert all(type(i) is int and 0 <= i < 400 for i in ids)
        assert _tokenizer().encode(title, 7) == ids[:7]


# -- what is kept ------------------------------------------------------------------------------------------------------


def _events() -> list[bytes]:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    events = [Event("a.mp4"), Event(Video("b\udcff", id="b", title="t"), 0.5, False, at), Event("c", liked=True)]
    return [pack_event(e, at, auto_encoded) for e in events for auto_encoded in (False, True)]


def _read_event(data: bytes) -> None:
    kept = unpack_event(1, data)
    pack_event(kept.event, kept.added_at, kept.auto_encoded)
    assert kept.added_at.tzinfo is not None
    assert kept.event.at is None or kept.event.at.tzinfo is not None


def _records() -> list[bytes]:
    tokens, scales = np.ones(SHAPE, np.int8), np.ones(SHAPE[:2], np.float32)
    records = [VideoRecord(b"a", "c"), VideoRecord(b"\xed\xb2\x80", "c", b"t", 1 << 40, 1 << 60)]
    return [pack_video(tokens, scales, r) for r in records]


def _read_record(data: bytes) -> None:
    payload, _ = unpack_video(data, PAYLOAD)
    assert len(payload) == PAYLOAD


def _reports() -> list[bytes]:
    spread = results.LatencyStats.of([[1.0, 2.0], [3.0, 2.0], [2.0, 2.5], [1.0, 4.0]])
    agreement = results.Agreement(source="measured", ndcg=0.5, ndcg_ratio=1.0, kendall_tau=0.9, top10_overlap=0.9)
    configurations = [
        results.Configuration(
            precision=p, backend="onnxruntime", device="cpu", runs_on={"encoder": "CPU"}, notices=["so"], bytes=1 << 20,
            load_s=0.1, warmup_s=0.1, encode=spread, rank=spread, rank_changed=spread, rss_mb=99, peak_mb=100,
            energy_mj=3, agreement=agreement,
        )
        for p in ("int8", "int4", "fp32")
    ]  # fmt: skip
    window = results.Window(at_s=1, encode_ms=2, celsius=50, megahertz=2000)
    whole = results.Report(
        created="2026-01-02T03:04:05", command="bench", bundle="base", token_space=SPACE, configurations=configurations,
        machine=results.Machine(system="Linux", processor="x", cpus=2, threads=2, versions={"numpy": "2"}),
        against=[results.Baseline(name="torch", encode=spread), results.Baseline(name="y", error="absent")],
        sustained=[
            results.Sustained(configuration="x", seconds=1, windows=[window] * 6, slowdown=1.1, verdict="steady")
        ],
    )  # fmt: skip
    return [msgspec.json.encode(whole)]


def _read_report(data: bytes) -> None:
    found = results.read_report(_file("report.json", data))
    assert report.markdown(found)
    whole = msgspec.json.decode(_reports()[0], type=results.Report)
    for pair in ((found, whole), (whole, found)):
        assert report.compared_markdown(compare.compare(*pair))


@lru_cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None)


def _file(name: str, data: bytes) -> Path:
    path = Path(_folder().name) / name
    path.write_bytes(data)
    return path


TARGETS = {
    "container": Target(_read_head, _videos, VideoUnreadableError),
    "manifest": Target(_read_manifest, _manifests, BundleError),
    "zip": Target(_read_zip, _zips, BundleError),
    "pack": Target(_read_pack, _packs, PackError),
    "history": Target(_read_history, _histories, PackError),
    "records": Target(_read_records, lambda: _RECORDS[1:], PackError),
    "vocabulary": Target(_read_vocabulary, _vocabularies, BundleError),
    "title": Target(_read_title, _titles, ()),
    "event": Target(_read_event, _events, DamagedRecordError),
    "video": Target(_read_record, _records, DamagedRecordError),
    "report": Target(_read_report, _reports, ArgumentError),
}

# -- breaking ----------------------------------------------------------------------------------------------------------

_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e-320, 1e308, 2**16, 2**31, 2**32, 2**63, 2**64, 10**400, float("nan"),
    float("inf"), "", "a", "\0", "../x", "/x", "C:/x", "\ud800", "é" * 300, "x" * 70_000, [], {}, [[]], {"a": 1},
)  # fmt: skip
_SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1)


def mutate(data: bytes, rng: Random, most: int = 1 << 17) -> bytes:
    """Break `data` in one to four places; at most `most` bytes come back."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice((_break_bytes, _break_json))(data, rng)[:most]
    return data


def _break_bytes(data: bytes, rng: Random) -> bytes:
    at = min(rng.randrange(len(data) + 1), rng.randrange(len(data) + 1))  # more often near the start, where headers are
    end = min(len(data), at + rng.choice((1, 2, 4, 8, 64, 1024)))
    match rng.randrange(7):
        case 0:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        case 1:
            width = rng.choice((1, 2, 4, 8))
            size = (rng.choice(_SIZES) & (256**width - 1)).to_bytes(width, rng.choice(("little", "big")))
            return data[:at] + size + data[at + width :]
        case 2:
            return data[:at] + rng.randbytes(rng.choice((1, 3, 8, 100))) + data[at:]
        case 3:
            return data[:at] + data[end:]
        case 4:
            return data[:end] + data[at:]
        case 5:
            return data[:at] + data[at:end] * rng.choice((2, 10, 1000)) + data[end:]
        case _:
            return data[:at]


def _break_json(data: bytes, rng: Random) -> bytes:
    """Change what some JSON in `data` says; the 8 bytes before it stay its length where they were that."""
    text = data.decode("latin-1")
    starts = [at for at, c in enumerate(text[:4096]) if c in "{["]
    try:
        start = rng.choice(starts[:2] + rng.sample(starts, min(len(starts), 1)))
        value, end = json.JSONDecoder().raw_decode(text, start)
    except (IndexError, ValueError, RecursionError):  # none
        return _break_bytes(data, rng)
    changed = json.dumps(_break_value(value, rng)).encode()
    size = (end - start).to_bytes(8, "little")
    before = data[:start]
    if before.endswith(size):
        before = before[:-8] + len(changed).to_bytes(8, "little")
    return before + changed + data[end:]


def _break_value(root: Any, rng: Random) -> Any:
    places = list(_places(root))
    if not places:
        return rng.choice(_ODD)
    where, key = rng.choice(places)
    match rng.randrange(6):
        case 0:
            del where[key]
        case 1:
            where[key] = [where[key]]
        case 2:
            other, name = rng.choice(places)
            where[key] = copy.deepcopy(other[name])
        case 3 if isinstance(where, dict):
            where[rng.choice(("", "a", "encoder", "\ud800", "x" * 300))] = where.pop(key)
        case _:
            where[key] = rng.choice(_ODD)
    return root


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every dict or list in a JSON value, with each of its keys."""
    if isinstance(value, dict | list):
        for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from _places(inner)
