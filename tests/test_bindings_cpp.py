"""The C++ core: its own tests, and that it gives what Python gives.

They run where cmake, a compiler and the headers are (`bindings/cpp/tools/fetch.sh build/bindings/dependencies`).
`make test-bindings` fetches them, runs the sanitized, emulated and oldest ones too, and sets LINKEDOUT_BINDINGS=all:
what is not at hand fails then.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bindings_api import python_names
from cpp_core import BUILDS, BUNDLE, HEADER, ROOT, SOURCES, Core, CoreError, built, missing, onnxruntime_library, run
from safetensors.numpy import load_file
from stored import inner, put_tokens, tokens_of

from linkedout_edge import Event, Prior, Recommender, Video, errors
from linkedout_edge.decode import prepare_frames
from linkedout_edge.text import Tokenizer

ALL = os.environ.get("LINKEDOUT_BINDINGS") == "all"
only_all = pytest.mark.skipif(not ALL, reason="a long round: make test-bindings")
VIDEOS = 60
SMALLEST_DIFFERENCE = 1e-4
"""Scores that differ by less may change places: the two add up in another order."""


@pytest.fixture(scope="module")
def build() -> Path:
    return built("cpp", "-DLINKEDOUT_STATIC_RUNTIME=ON")


@pytest.fixture(scope="module")
def library(build: Path) -> Path:
    (found,) = build.glob("liblinkedout_edge.*.*.*") if platform.system() == "Darwin" else build.glob("*.so.*.*.*")
    return found


@pytest.fixture(scope="module")
def rec() -> Iterator[Recommender]:
    """Videos in a few groups, so that there is something to like, to fold and to tell apart."""
    rng = np.random.default_rng(17)
    with Recommender.load("int8", threads=1) as rec:
        groups = rng.normal(0, 30, (6, 6, 2, 64))
        for n in range(VIDEOS):
            near = 0.05 if n % 10 == 9 else 0.8  # some are near copies
            tokens = groups[n % 6] + near * rng.normal(0, 30, groups[0].shape)
            scales = rng.uniform(0.015, 0.04, (6, 2)).astype(np.float32)
            put_tokens(rec.store, f"v{n}", np.clip(np.rint(tokens), -127, 127).astype(np.int8), scales)
        yield rec


@pytest.fixture
def core(library: Path, rec: Recommender) -> Core:
    made = Core(library)
    for i in rec.store:
        made.put(i, features_of(rec, i))
    return made


def features_of(rec: Recommender, id: str) -> bytes:
    tokens, scales = tokens_of(rec.store, [id])
    return tokens[0].tobytes() + scales[0].tobytes()


def histories() -> list[tuple[str, list[Event]]]:
    rng = np.random.default_rng(3)
    now = datetime.now(timezone.utc)

    def event(n: int, watched: float, liked: bool | None = None, days: float | None = None) -> Event:
        return Event(Video(id=f"v{n}", title=f"Title {n}" if n % 4 else None), watched, liked,
                     None if days is None else now - timedelta(days=days))  # fmt: skip

    mixed = [
        event(int(rng.integers(VIDEOS)), round(float(rng.random()), 2), [None, True, False][int(rng.integers(3))],
              float(rng.uniform(0, 900)) if rng.random() < 0.5 else None)
        for _ in range(40)
    ]  # fmt: skip
    return [
        ("none", []),
        ("one", [event(0, 1.0)]),
        ("skips", [event(n, 0.1) for n in (0, 6, 7)]),
        ("two interests", [event(n, 1.0) for n in (0, 1, 6, 7, 12, 13, 18, 19)]),
        ("likes and dislikes", [event(0, 0.2, True), event(1, 1.0, False), event(2, 0.9), event(0, 0.5)]),
        ("mixed", mixed),
        ("more than count", [event(n % 50, 0.3 + 0.01 * (n % 60)) for n in range(230)]),
    ]


WISHES: list[dict[str, Any]] = [
    {},
    {"top_k": 5},
    {"top_k": 1},
    {"exclude_watched": True},
    {"fold_duplicates": True},
    {"fold_duplicates": True, "top_k": 7},
    {"diversity": 0.3},
    {"diversity": 1.0, "top_k": 8},
    {"diversity": 0.5, "fold_duplicates": True},
    {"explore": 0.7},
    {"prior": True},
    {"prior": True, "weight": -0.4, "explore": 0.2, "top_k": 9},
]


@pytest.mark.parametrize("history", histories(), ids=lambda h: h[0])
@pytest.mark.parametrize("wish", WISHES, ids=lambda w: "-".join(w) or "plain")
def test_rankings_are_those_of_python(core: Core, rec: Recommender, history: tuple[str, Any], wish: dict) -> None:
    _, events = history
    core.clear()
    for e in events:
        core.add(e, features_of(rec, e.id))
    candidates = [f"v{n}" for n in range(0, VIDEOS, 1)] + ["v3", "nobody"]
    options = dict(wish)
    if options.pop("prior", False):
        prior = [float("nan") if n % 7 == 3 else float(n * n % 31) for n in range(len(candidates))]
        theirs = rec.rank(events, candidates, prior=Prior(prior, options.pop("weight", 1.0)), **options)
        ours = core.rank(candidates, **(wish | {"prior": prior}))
    else:
        theirs, ours = rec.rank(events, candidates, **options), core.rank(candidates, **wish)
    assert ours.failed == ["nobody"]
    assert {f.id for f in theirs.failed} == {"nobody"}
    assert len(ours.ids) == len(theirs)
    scores = {r.id: r.score for r in rec.rank(events, candidates[:VIDEOS], explore=0)}
    changed = 0
    for n, r in enumerate(theirs):
        if ours.ids[n] != r.id:  # only where nothing is between them
            assert abs(scores[ours.ids[n]] - scores[r.id]) < SMALLEST_DIFFERENCE
            changed += 1
            continue
        assert ours.scores[n] == pytest.approx(r.score, abs=1e-3)
        assert ours.sources[n] == r.source
        np.testing.assert_allclose(ours.layers[n], r.layers, atol=1e-3)
        why = r.explain()
        np.testing.assert_allclose(ours.matrices[n], why.matrix, atol=1e-3)
        assert ours.priors[n] == pytest.approx(why.prior, abs=1e-4)
        assert ours.explored[n] == pytest.approx(why.explored, abs=1e-3)
        assert ours.sentences[n] == why.sentence
    assert changed <= 2
    if not wish:
        assert core.sentence() == rec.taste(events).sentence


def test_all_of_the_store(core: Core, rec: Recommender) -> None:
    events = [Event("v1"), Event("v2", watched=0.1)]
    core.clear()
    for e in events:
        core.add(e, features_of(rec, e.id))
    assert core.rank(None).ids == rec.rank(events).ids


def test_titles_are_those_of_python(core: Core) -> None:
    tokenizer = Tokenizer.from_json((BUNDLE / "tokenizer.json").read_bytes())
    rng = np.random.default_rng(5)
    alphabet = [*"abcdefgh 0189ABZ  \t\n\v\f\r!?.,-_<>'\"", "ä", "é", "ß", "中", "🎈", "\u200d", "\0", "the ", "ing"]
    for _ in range(2000):
        title = "".join(rng.choice(alphabet, int(rng.integers(0, 40))))
        assert core.token_ids(title) == tokenizer.encode(title), ascii(title)


def test_frames_are_resized_to_the_same_bytes(core: Core) -> None:
    rng = np.random.default_rng(8)
    sizes = [
        (97, 173),
        (256, 256),
        (384, 128),
        (128, 300),
        (64, 64),
        (1, 1),
        (50, 500),
        (127, 129),
        (720, 1280),
        (3, 200),
    ]
    for height, width in sizes:
        frames = rng.integers(0, 256, (int(rng.integers(1, 13)), height, width, 3), dtype=np.uint8)
        difference = core.prepared(frames).astype(int) - prepare_frames(frames, 7, 144)
        assert np.abs(difference).max() <= 1, (height, width)


def test_encoded_as_in_python(library: Path) -> None:
    core = Core(library, with_encoder=True)
    frames = np.random.default_rng(2).integers(0, 256, (11, 90, 160, 3), dtype=np.uint8)
    with Recommender.load("int8", threads=1) as rec:
        rec.encode([Video(frames=frames, id="a", title="Two cats at the sea")])
        assert core.features_of(frames, "Two cats at the sea") == features_of(rec, "a")  # the same library and CPU
        assert core.features_of(frames) != features_of(rec, "a")
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_packs_travel_both_ways(core: Core, rec: Recommender, library: Path, tmp_path: Path) -> None:
    ours = tmp_path / "ours.safetensors"
    rec.store.export_pack(ours)
    data, fresh = ours.read_bytes(), Core(library)
    fresh.call("store_read_pack", fresh.store, data, len(data), None)
    for n, i in enumerate(rec.store):
        assert fresh.text("store_text", fresh.store, n, 0) == i
    theirs = tmp_path / "theirs.safetensors"
    core.put("ü/“x”", features_of(rec, "v0"), "Tïtle")
    theirs.write_bytes(core.bytes_of("store_write_pack", core.store, None, 0))
    with Recommender.load("int8", threads=1) as other:
        assert set(other.store.import_pack(theirs)) == {*rec.store, "ü/“x”"}
        for i in rec.store:
            assert features_of(other, i) == features_of(rec, i)
        fingerprint = inner(other.store).fingerprint("ü/“x”")
        assert fingerprint is not None
        assert fingerprint.title == "Tïtle"


def test_a_saved_history_is_what_is_documented(core: Core, rec: Recommender, tmp_path: Path) -> None:
    core.clear()
    at = datetime(2026, 5, 1, tzinfo=timezone.utc)
    events = [Event(Video(id="v1", title="One"), 0.25, True, at), Event("v2"), Event("v1", liked=False)]
    for e in events:
        core.add(e, features_of(rec, e.id))
    path = tmp_path / "history.safetensors"
    path.write_bytes(core.bytes_of("history_save", core.history))
    arrays = load_file(path)
    nan = float("nan")
    np.testing.assert_array_equal(arrays["events"], [[0, 0.25, 1, at.timestamp()], [1, 1, -1, nan], [0, 1, 0, nan]])
    assert json.loads(arrays["records"].tobytes()) == [["v1", "One", ""], ["v2", None, ""]]
    for n, i in enumerate(("v1", "v2")):
        tokens, scales = tokens_of(rec.store, [i])
        np.testing.assert_array_equal(arrays["tokens"][n], tokens[0])
        np.testing.assert_array_equal(arrays["scales"][n], scales[0])


def test_errors_say_what_is_wrong(core: Core) -> None:
    with pytest.raises(CoreError, match="top_k must be at least 1, not 0"):
        core.rank(["v0"], top_k=0)
    with pytest.raises(CoreError, match="diversity must be from 0 to 1; divide percent by 100"):
        core.rank(["v0"], diversity=30)


NAMED = {
    "ArgumentError": "ARGUMENT",
    "ClosedError": "CLOSED",
    "BundleNotFoundError": "BUNDLE_NOT_FOUND",
    "BundleCorruptError": "BUNDLE_CORRUPT",
    "BundleVersionError": "BUNDLE_VERSION",
    "BackendError": "BACKEND",
    "DeviceError": "DEVICE",
    "MissingDependencyError": "MISSING_DEPENDENCY",
    "PackError": "PACK",
    "TokenSpaceError": "TOKEN_SPACE",
    "VideoNotFoundError": "NOT_FOUND",
    "InvalidFramesError": "INVALID_FRAMES",
}
"""Error of Python → status, of those that can occur."""


def test_each_error_of_python_that_can_occur_has_a_status() -> None:
    page = (ROOT / "docs" / "bindings-cpp.md").read_text()
    for python, status in NAMED.items():
        assert issubclass(getattr(errors, python), errors.LinkedOutError)
        assert f"    LINKEDOUT_{status} =" in HEADER.read_text()
        assert f"| `{python}` | `LINKEDOUT_{status}` |" in page


def test_the_library_shows_nothing_but_its_interface_and_is_small(library: Path, tmp_path: Path) -> None:
    if shutil.which("nm") is None or shutil.which("strip") is None:
        missing("there is no nm or strip: apt install binutils")
    shown = {line.split()[-1].partition("@")[0] for line in run("nm", "-D", "--defined-only", library).splitlines()}
    assert shown - {"LINKEDOUT_0"} == declared() - {"linkedout_string"}  # which the header defines
    run("strip", "-o", tmp_path / "stripped.so", library)
    assert (tmp_path / "stripped.so").stat().st_size <= 700_000


@pytest.mark.parametrize("name", ["conformance", "misuse", "formats", "plain_c"])
def test_its_own_tests(build: Path, name: str) -> None:
    run("ctest", "--test-dir", build, "--output-on-failure", "-R", f"^{name}$")


def test_an_app_finds_it_installed(build: Path, tmp_path: Path) -> None:
    run("cmake", "--install", build, "--prefix", tmp_path / "usr")
    run(
        "cmake",
        "-S",
        ROOT / "examples" / "simple-cpp",
        "-B",
        tmp_path / "app",
        f"-DCMAKE_PREFIX_PATH={tmp_path / 'usr'}",
    )
    run("cmake", "--build", tmp_path / "app")
    rng = np.random.default_rng(0)
    files = []
    for n in range(3):
        files.append(tmp_path / f"{n}.rgb")
        files[-1].write_bytes(rng.integers(0, 256, (7, 144, 144, 3), dtype=np.uint8).tobytes())
    said = run(tmp_path / "app" / "simple", BUNDLE, onnxruntime_library(), *files)
    assert {line.split()[2] for line in said.splitlines()} == {str(f) for f in files[1:]}
    assert "because you watched “0.rgb”" in said or "is unlike “0.rgb”" in said
    if shutil.which("pkg-config"):
        (config,) = tmp_path.glob("usr/**/pkgconfig")
        flags = run("pkg-config", "--cflags", "--libs", "linkedout-edge", PKG_CONFIG_PATH=str(config))
        assert "-llinkedout_edge" in flags


SANITIZED = (
    "-DLINKEDOUT_SANITIZE=address,undefined",
    "-DCMAKE_BUILD_TYPE=Debug",
    "-DCMAKE_C_FLAGS_DEBUG=-O1 -g1",
    "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1",
)


@only_all
def test_sanitized() -> None:
    build = built("cpp-sanitized", *SANITIZED)
    run("ctest", "--test-dir", build, "--output-on-failure")


def wheel_library(version: str, *platforms: str) -> Path:
    """ONNX Runtime's library out of a wheel of that version, fetched if it is not there yet."""
    folder = BUILDS / "onnxruntime" / f"{version}-{platforms[0]}"
    if not any(folder.glob("lib*")):
        import sys
        import zipfile

        where = [f"--platform={p}" for p in platforms]
        fetch = ["-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version=3.11"]
        run(sys.executable, *fetch, *where, "-d", folder, f"onnxruntime=={version}")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as z:
            (name,) = [n for n in z.namelist() if "/libonnxruntime.so." in n]
            (folder / Path(name).name).write_bytes(z.read(name))
    (found,) = folder.glob("lib*")
    return found


def conformance(*command: str | Path, library: Path) -> str:
    return run(
        *command,
        LINKEDOUT_BUNDLE=str(BUNDLE),
        LINKEDOUT_GOLDEN=str(ROOT / "bindings" / "conformance"),
        LINKEDOUT_ONNXRUNTIME=str(library),
    )


@only_all
@pytest.mark.skipif(platform.machine() != "x86_64", reason="its wheel is fetched for x86-64")
def test_with_the_oldest_onnxruntime(build: Path) -> None:
    library = wheel_library("1.20.1", "manylinux_2_28_x86_64", "manylinux_2_27_x86_64")
    said = conformance(build / "tests" / "conformance", library=library)
    assert "from frames, onnxruntime 1.20.1" in said


CPU = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""
"""Of a Neoverse N1: without such a file ONNX Runtime crashes under emulation."""


@only_all
def test_on_emulated_aarch64(tmp_path: Path) -> None:
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if qemu is None or shutil.which("aarch64-linux-gnu-g++") is None:
        missing("there is no aarch64: apt install qemu-user-static g++-aarch64-linux-gnu")
    assert qemu is not None
    chain = f"-DCMAKE_TOOLCHAIN_FILE={SOURCES / 'cmake' / 'aarch64.cmake'}"
    build = built("aarch64", chain, targets=("conformance",))
    system = tmp_path / "system"
    (system / "proc").mkdir(parents=True)
    (system / "proc" / "cpuinfo").write_text(CPU)
    (system / "lib").symlink_to("/usr/aarch64-linux-gnu/lib")
    library = wheel_library(re.findall(r"so\.(\d.*)$", onnxruntime_library().name)[0], "manylinux_2_28_aarch64")
    emulated = [qemu, "-cpu", "neoverse-n1", "-L", system]
    said = conformance(*emulated, build / "tests" / "conformance", library=library)
    assert "from tokens, NEON-dotprod kernel" in said
    here = conformance(built("cpp") / "tests" / "conformance", library=onnxruntime_library())
    (bits,) = re.findall(r"bits (\w+)", here)
    assert f"bits {bits}" in said, "scores from the same tokens differ in some bit"
    assert "from frames, onnxruntime" in said


# The page.

PAGE = ROOT / "docs" / "bindings-cpp.md"


def declared() -> set[str]:
    """Functions of the header."""
    return set(re.findall(r"\b(linkedout_\w+)\(", re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)))


def table() -> list[list[str]]:
    """Rows of the page's table: in Python, C++, C, what differs."""
    return [
        [cell.strip() for cell in row]
        for row in re.findall(r"^\| (`[^|]+`) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", PAGE.read_text(), re.M)
    ]


def test_the_page_names_all_that_python_offers() -> None:
    listed = [row[0].strip("`") for row in table()]
    assert len(listed) == len(set(listed))
    assert set(listed) == python_names()
    assert all(why for _, cpp, c, why in table() if "–" in (cpp, c))


def test_the_page_names_every_function_and_no_other() -> None:
    page = PAGE.read_text()
    named = set(re.findall(r"`(linkedout_\w+)`", page))
    assert declared() <= named, declared() - named
    words = set(re.findall(r"\w+", HEADER.read_text() + (HEADER.parent / "linkedout_edge.hpp").read_text()))
    assert {n for n in named if "linkedout_edge" not in n} <= words
    of_cpp = {n for _, cpp, _, _ in table() for n in re.findall(r"`(\w+)`", cpp)}
    assert of_cpp <= words, of_cpp - words
