"""The C++ core for the tests: where it is built, and its C interface through ctypes."""

from __future__ import annotations

import ctypes as c
import json
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from bindings_api import missing, run
from filelock import FileLock

from linkedout_edge import Event
from linkedout_edge.bundle.reader import embedded_folder

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "bindings" / "cpp"
BUILDS = ROOT / "build" / "bindings"
DEPENDENCIES = BUILDS / "dependencies"
HEADER = SOURCES / "include" / "linkedout_edge.h"
BUNDLE = embedded_folder()
SOURCES_OF_PLACES = ("content", "cold_start", "prior")


def onnxruntime_library() -> Path:
    """The library in the wheel, found without importing it."""
    from importlib.util import find_spec

    spec = find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    (found,) = (Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*")
    return found


@lru_cache
def built(name: str = "cpp", *options: str, targets: Sequence[str] = (), sources: Path = SOURCES) -> Path:
    """A build's folder, as the sources make it now; skips where something is not at hand."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            missing(f"there is no {tool}: apt install cmake g++")
    if not (DEPENDENCIES / "onnxruntime").is_dir():
        missing(f"there are no headers: bindings/cpp/tools/fetch.sh {DEPENDENCIES.relative_to(ROOT)}")
    folder = BUILDS / name
    where = [f"-DLINKEDOUT_DEPENDENCIES={DEPENDENCIES}", f"-DLINKEDOUT_ONNXRUNTIME={onnxruntime_library()}"]
    make = ["-G", "Ninja"] if shutil.which("ninja") and not (folder / "Makefile").exists() else []
    with FileLock(BUILDS / f"{name}.lock"):  # several processes run the tests, and one builds
        run("cmake", "-S", sources, "-B", folder, *make, *where, "-DLINKEDOUT_TESTS=ON", *options)
        run("cmake", "--build", folder, "--parallel", "2", *(f"--target={t}" for t in targets))
    return folder


class _Text(c.Structure):
    _fields_ = (("data", c.c_char_p), ("length", c.c_size_t))


def text(value: str | None) -> _Text:
    data = None if value is None else value.encode()
    return _Text(data, 0 if data is None else len(data))


class _LoadOptions(c.Structure):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("bundle", _Text),
        ("precision", _Text),
        ("onnxruntime", _Text),
        ("threads", c.c_int32),
        ("without_encoder", c.c_int32),
    )


class _Video(c.Structure):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("id", _Text),
        ("title", _Text),
        ("content", _Text),
        ("features", c.c_char_p),
        ("features_size", c.c_size_t),
    )


class _Event(c.Structure):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("video", c.POINTER(_Video)),
        ("watched", c.c_double),
        ("liked", c.c_int32),
        ("has_at", c.c_int32),
        ("at", c.c_double),
    )


class _RankOptions(c.Structure):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("top_k", c.c_int64),
        ("diversity", c.c_double),
        ("explore", c.c_double),
        ("exclude_watched", c.c_int32),
        ("fold_duplicates", c.c_int32),
        ("prior", c.POINTER(c.c_double)),
        ("prior_count", c.c_size_t),
        ("prior_ids", c.c_void_p),
        ("prior_weight", c.c_double),
        ("now", c.c_double),
    )


class _Sizes(c.Structure):
    _fields_ = tuple((n, c.c_size_t) for n in ("struct_size", "places", "failed", "events", "layers"))


class _Explanation(c.Structure):
    _fields_ = (("struct_size", c.c_size_t), ("score", c.c_double), ("prior", c.c_double), ("explored", c.c_double))


class _Frames(c.Structure):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("data", c.c_void_p),
        ("size", c.c_size_t),
        *((n, c.c_int64) for n in ("count", "height", "width", "channels")),
    )


class CoreError(Exception):
    """What the core refused."""


class Core:
    """The library with one bundle, one store and one history."""

    def __init__(self, library: Path, *, with_encoder: bool = False) -> None:
        self.lib = c.CDLL(str(library))
        self.lib.linkedout_last_error.restype = c.c_char_p
        self.lib.linkedout_status_name.restype = c.c_char_p
        where = text(str(onnxruntime_library()) if with_encoder else None)
        options = _LoadOptions(c.sizeof(_LoadOptions), text(str(BUNDLE)), text(None), where, 1, not with_encoder)
        self.rec, self.store, self.history = c.c_void_p(), c.c_void_p(), c.c_void_p()
        self.call("load", c.byref(options), c.byref(self.rec))
        self.call("store_create", self.rec, c.byref(self.store))
        self.call("history_create", self.rec, c.byref(self.history))

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.lib, f"linkedout_{name}")(*arguments)
        if status:
            raise CoreError(self.lib.linkedout_status_name(status).decode(), self.lib.linkedout_last_error().decode())

    def text(self, name: str, *arguments: Any) -> str:
        length = c.c_size_t()
        self.call(name, *arguments, None, c.c_size_t(0), c.byref(length))
        to = c.create_string_buffer(length.value + 1)
        self.call(name, *arguments, to, c.c_size_t(len(to)), c.byref(length))
        return to.raw[: length.value].decode()

    def bytes_of(self, name: str, *arguments: Any) -> bytes:
        handle, data, size = c.c_void_p(), c.c_void_p(), c.c_size_t()
        self.call(name, *arguments, c.byref(handle))
        self.call("bytes_get", handle, c.byref(data), c.byref(size))
        out = c.string_at(data, size.value)
        self.call("bytes_close", handle)
        return out

    def put(self, id: str, features: bytes, title: str | None = None) -> None:
        video = _Video(c.sizeof(_Video), text(id), text(title), text(None), features, len(features))
        self.call("store_put", self.store, c.byref(video))

    def add(self, event: Event, features: bytes) -> None:
        video = _Video(c.sizeof(_Video), text(event.id), text(event.video.title), text(None), features, len(features))
        liked = {None: -1, False: 0, True: 1}[event.liked]
        at = 0.0 if event.at is None else event.at.timestamp()
        given = _Event(c.sizeof(_Event), c.pointer(video), event.watched, liked, event.at is not None, at)
        self.call("history_add", self.history, c.byref(given))

    def clear(self) -> None:
        self.call("history_clear", self.history, None)

    def features_of(self, frames: np.ndarray, title: str | None = None) -> bytes:
        given = _frames(frames)
        out = c.create_string_buffer(816)
        self.call("encode", self.rec, c.byref(given), text(title), out, c.c_size_t(816))
        return out.raw

    def prepared(self, frames: np.ndarray) -> np.ndarray:
        given, count = _frames(frames), c.c_size_t()
        out = np.zeros((7, 144, 144, 3), np.uint8)  # frames and frame_size of the built-in bundle
        at = out.ctypes.data_as(c.c_void_p)
        self.call("prepare_frames", self.rec, c.byref(given), at, c.c_size_t(out.size), c.byref(count))
        return out[: count.value]

    def token_ids(self, title: str) -> list[int]:
        out, count = (c.c_int32 * 4096)(), c.c_size_t()
        self.call("tokenize", self.rec, text(title), out, c.c_size_t(len(out)), c.byref(count))
        return out[: count.value]

    def rank(self, candidates: Sequence[str] | None, **options: Any) -> CoreRanking:
        """Options as of `Recommender.rank`; `prior` is aligned with the candidates, `weight` its weight."""
        how = _RankOptions(c.sizeof(_RankOptions), options.get("top_k", -1), options.get("diversity", 0.0))
        how.explore = options.get("explore", 0.0)
        how.exclude_watched = options.get("exclude_watched", False)
        how.fold_duplicates = options.get("fold_duplicates", False)
        how.prior_weight = options.get("weight", 1.0)
        prior = options.get("prior")
        if prior is not None:
            how.prior, how.prior_count = (c.c_double * max(1, len(prior)))(*prior), len(prior)
        ids = None if candidates is None else (_Text * max(1, len(candidates)))(*(text(i) for i in candidates))
        handle = c.c_void_p()
        count = c.c_size_t(len(candidates or ()))
        self.call("rank", self.rec, self.store, self.history, ids, count, c.byref(how), c.byref(handle))
        return CoreRanking(self, handle)

    def sentence(self) -> str:
        """What is believed of the user."""
        handle = c.c_void_p()
        self.call("taste_of", self.rec, self.store, self.history, c.c_double(0), c.byref(handle))
        said = self.text("taste_sentence", handle)
        self.call("taste_close", handle)
        return said


class CoreRanking:
    """A ranking, read whole."""

    def __init__(self, core: Core, handle: c.c_void_p) -> None:
        sizes = _Sizes(c.sizeof(_Sizes))
        core.call("ranking_sizes", handle, c.byref(sizes))
        count, layers, events = sizes.places, sizes.layers, sizes.events
        self.scores, self.layers = np.zeros(count, np.float32), np.zeros((count, layers), np.float32)
        sources, positions = np.zeros(count, np.int32), np.zeros(count, np.int64)
        core.call(
            "ranking_places",
            handle,
            c.c_size_t(0),
            c.c_size_t(count),
            *(a.ctypes.data_as(c.c_void_p) for a in (positions, self.scores, sources, self.layers)),
        )
        self.ids = [core.text("ranking_id", handle, c.c_size_t(n)) for n in range(count)]
        self.sources = [SOURCES_OF_PLACES[s] for s in sources]
        self.sentences = [core.text("ranking_sentence", handle, c.c_size_t(n)) for n in range(count)]
        self.matrices, self.priors, self.explored = [], list[float](), list[float]()
        for n in range(count):
            matrix, why = np.zeros((events, layers), np.float32), _Explanation(c.sizeof(_Explanation))
            at = matrix.ctypes.data_as(c.c_void_p)
            core.call("ranking_explain", handle, c.c_size_t(n), c.byref(why), at, c.c_size_t(matrix.size))
            self.matrices.append(matrix)
            self.priors.append(why.prior)
            self.explored.append(why.explored)
        self.failed = [core.text("ranking_failed", handle, c.c_size_t(n), None, None) for n in range(sizes.failed)]
        core.call("ranking_close", handle)


def _frames(frames: np.ndarray) -> _Frames:
    return _Frames(c.sizeof(_Frames), frames.ctypes.data, frames.nbytes, *frames.shape)


def golden_features() -> dict[str, bytes]:
    """Id → tokens and scales of the golden videos."""
    golden = json.loads((ROOT / "bindings" / "conformance" / "golden.json").read_text())
    return {
        v["id"]: np.array(v["tokens"], np.int8).tobytes() + np.array(v["scales"], "<f4").tobytes()
        for v in golden["videos"]
    }
