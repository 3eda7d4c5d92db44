"""The Java package: its own tests on the JVM, what its files and its page say, and what Android gets.

They run where a JDK of 11 or newer, cmake, a compiler, the headers (`bindings/cpp/tools/fetch.sh
build/bindings/dependencies`) and the jars of JUnit are. `make test-bindings` installs them, and sets
LINKEDOUT_BINDINGS=all: what is not at hand fails then.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import android_classes
import numpy as np
import pytest
from bindings_api import missing, python_names, run
from cpp_core import BUNDLE, ROOT, built, onnxruntime_library

from linkedout_edge import __version__, errors

FOLDER = ROOT / "bindings" / "java"
MAIN = FOLDER / "src" / "main" / "java" / "linkedout" / "edge"
PAGE = ROOT / "docs" / "bindings-java.md"
JARS = {
    "junit-platform-console.jar": "junit5",
    "gson.jar": "libgoogle-gson-java",
    "org.jetbrains.annotations-java8.jar": "libjetbrains-annotations-java",
}
"""Of those that the build looks for, one of each package."""
only_all = pytest.mark.skipif(
    os.environ.get("LINKEDOUT_BINDINGS") != "all", reason="a long round: make test-bindings-java"
)


@pytest.fixture(scope="module")
def build() -> Path:
    """The build's folder, with both jars and the native library as the sources make them now."""
    if shutil.which("javac") is None or shutil.which("java") is None:
        missing("there is no JDK: apt install default-jdk-headless")
    version = run("javac", "-version").split()[1]
    if int(version.partition(".")[0]) < 11:
        missing(f"the JDK is {version}: 11 or newer is needed")
    lacking = [package for jar, package in JARS.items() if not Path("/usr/share/java", jar).exists()]
    if lacking:
        missing(f"jars are not here: apt install {' '.join(lacking)}")
    return built("java", "-DLINKEDOUT_TESTS=OFF", "-DLINKEDOUT_JAVA_TESTS=ON", sources=FOLDER)


def java(build: Path, *arguments: str | Path, **environment: str) -> str:
    return run(
        "java",
        "-Xcheck:jni",
        "-cp",
        f"{build / 'linkedout-edge.jar'}:{build / 'linkedout-edge-tests.jar'}",
        f"-Djava.library.path={build}",
        *arguments,
        **environment,
    )


def own_tests(build: Path, **environment: str) -> None:
    said = run("ctest", "--test-dir", build, "--verbose", "-R", "^java$", **environment)
    counts = {what: int(n) for n, what in re.findall(r"\[ +(\d+) tests (\w+) +\]", said)}
    assert counts["successful"] == counts["found"] >= 50, said
    assert counts["skipped"] == counts["aborted"] == counts["failed"] == 0, said
    assert "in native method" not in said, said  # how -Xcheck:jni begins each of its complaints


def test_its_own_tests(build: Path) -> None:
    own_tests(build)


@only_all
def test_its_own_tests_with_sanitizers(build: Path) -> None:
    options = ("-DLINKEDOUT_TESTS=OFF", "-DLINKEDOUT_JAVA_TESTS=ON", "-DCMAKE_BUILD_TYPE=Debug")
    sanitized = built("java-sanitized", *options, "-DLINKEDOUT_SANITIZE=address,undefined", sources=FOLDER)
    libraries = [run("c++", f"-print-file-name={name}").strip() for name in ("libasan.so", "libstdc++.so")]
    # The JVM has uses of its own for SIGSEGV, and does not free all that it has when it ends.
    own_tests(sanitized, LD_PRELOAD=" ".join(libraries), ASAN_OPTIONS="handle_segv=0:detect_leaks=0")


def test_the_example(build: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{n}.rgb" for n in range(3)]
    for file in files:
        file.write_bytes(rng.integers(0, 256, (7, 144, 144, 3), dtype=np.uint8).tobytes())
    example = ROOT / "examples" / "simple-java" / "Simple.java"
    said = java(build, example, BUNDLE, onnxruntime_library(), *files)
    assert {line.split()[2] for line in said.splitlines()} == {str(f) for f in files[1:]}
    assert "because you watched “0.rgb”" in said or "is unlike “0.rgb”" in said


def test_without_the_library_it_says_what_to_do(build: Path, tmp_path: Path) -> None:
    example = ROOT / "examples" / "simple-java" / "Simple.java"
    done = subprocess.run(
        [
            "java",
            "-cp",
            build / "linkedout-edge.jar",
            f"-Djava.library.path={tmp_path}",
            example,
            BUNDLE,
            "none",
            *"ab",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("MISSING_DEPENDENCY: the native library cannot be loaded")
    assert "java.library.path" in done.stderr


def declared() -> set[str]:
    """Native functions of the Java side."""
    return set(re.findall(r"static native \S+ (\w+)\(", (MAIN / "Native.java").read_text()))


def test_the_library_shows_nothing_but_its_interface_and_is_small(build: Path, tmp_path: Path) -> None:
    if shutil.which("nm") is None or shutil.which("strip") is None:
        missing("there is no nm or strip: apt install binutils")
    library = build / "liblinkedout_edge_jni.so"
    shown = {line.split()[-1].partition("@")[0] for line in run("nm", "-D", "--defined-only", library).splitlines()}
    functions = {f"Java_linkedout_edge_Native_{name}" for name in declared()}
    assert shown - {"LINKEDOUT_JNI_0"} == functions | {"JNI_OnLoad"}
    run("strip", "-o", tmp_path / "stripped.so", library)
    assert (tmp_path / "stripped.so").stat().st_size <= 700_000
    if shutil.which("readelf"):
        needed = set(re.findall(r"NEEDED.*\[(\w+)", run("readelf", "-d", library)))
        assert needed <= {"libc", "libm", "ld", "libdl", "libpthread"}, needed


# What the sources say.


def test_each_type_says_whether_it_may_be_null() -> None:
    signatures = 0
    for file in MAIN.glob("*.java"):
        source = re.sub(r"/\*.*?\*/|//[^\n]*", "", file.read_text(), flags=re.S)
        if not re.search(r"^public ", source, re.M):
            continue
        found = re.findall(r"^    public (?!final class|enum)([^=;{]*?)\(([^{;]*)\)[^{;()]*\{", source, re.M)
        for before, parameters in found:
            *kinds, name = before.split()
            if name in ("toString", "equals", "hashCode"):
                continue
            if name != file.stem:  # not a constructor
                kind = " ".join(k for k in kinds if k not in ("static", "synchronized"))
                assert is_told(kind), f"{file.name}: {kind} {name}"
            for parameter in re.split(r",(?![^<]*>)", parameters):
                kind = parameter.strip().rpartition(" ")[0]
                assert not kind or is_told(kind), f"{file.name}: {name}({parameter.strip()})"
            signatures += 1
    assert signatures > 90, signatures


def is_told(kind: str) -> bool:
    return kind in ("void", "int", "long", "double", "float", "boolean") or kind.startswith(("@NotNull", "@Nullable"))


def kotlin(build: Path, out: Path, *sources: Path, classes: Path | None = None) -> str:
    """What the compiler says: nothing of errors, if the sources are right."""
    if shutil.which("kotlinc") is None:
        missing("there is no kotlinc: apt install kotlin")
    class_path = [build / "linkedout-edge.jar", Path("/usr/share/java/org.jetbrains.annotations-java8.jar")]
    class_path += [classes] if classes else []
    command = ["kotlinc", "-jvm-target", "1.8", "-cp", ":".join(map(str, class_path)), *map(str, sources)]
    done = subprocess.run([*command, "-d", str(out)], capture_output=True, text=True, timeout=300, check=False)
    return done.stdout + done.stderr


def test_kotlin_knows_what_may_be_null(build: Path, tmp_path: Path) -> None:
    source = tmp_path / "nulls.kt"
    right = ["val title: String? = store.get(0).title()", "val size: Int = store.get(0).features().size",
             "rec.rank(store, null, null, RankOptions().withTopK(2)).use { for (r in it) println(r.id().length) }",
             "val matrix: Array<FloatArray> = ranked.explain().matrix()"]  # fmt: skip
    wrong = ["val title: String = store.get(0).title()", 'val liked: Boolean = Event("a").liked()',
             'val features: ByteArray = Event("a").features()', "store.find(null)", "rec.rank(null, null)",
             "rec.tokenize(null)", "History.load(rec, null)"]  # fmt: skip
    body = "\n".join(f"fun f{n}(rec: Recommender, store: Store, ranked: Ranked) {{ {line} }}"
                     for n, line in enumerate(right + wrong))  # fmt: skip
    source.write_text("import linkedout.edge.*\n" + body)
    lines = {int(n) for n in re.findall(r"nulls\.kt:(\d+):\d+: error", kotlin(build, tmp_path / "out", source))}
    assert lines == {2 + len(right) + n for n in range(len(wrong))}


# Android: what can be checked without its SDK.

ANDROID = ROOT / "bindings" / "android"


def test_the_android_example_compiles_against_stand_ins(build: Path, tmp_path: Path) -> None:
    sources = android_classes.write(tmp_path / "android")
    run("javac", "-nowarn", "--release", "8", "-d", tmp_path / "classes", *sources)
    example = sorted((ANDROID / "example" / "src" / "main" / "kotlin").rglob("*.kt"))
    assert len(example) == 3
    said = kotlin(build, tmp_path / "out", *example, classes=tmp_path / "classes")
    assert ": error:" not in said, said
    assert (tmp_path / "out" / "linkedout" / "edge" / "example" / "MainActivity.class").exists(), said


NAMESPACES = {
    "android": "{http://schemas.android.com/apk/res/android}",
    "tools": "{http://schemas.android.com/tools}",
}


def removed(manifest: Path) -> set[str]:
    """Names of what a manifest takes out of what libraries bring."""
    return {
        element.attrib[NAMESPACES["android"] + "name"]
        for element in ElementTree.parse(manifest).iter()
        if element.attrib.get(NAMESPACES["tools"] + "node") == "remove"
    }


def test_manifests_remove_telemetry_and_network() -> None:
    provider = "ai.onnxruntime.TelemetryInitializer"
    assert removed(ANDROID / "linkedout-edge" / "src" / "main" / "AndroidManifest.xml") == {provider}
    network = {f"android.permission.{p}" for p in ("INTERNET", "ACCESS_NETWORK_STATE")}
    example = ANDROID / "example" / "src" / "main" / "AndroidManifest.xml"
    assert removed(example) == {provider} | network
    asked = {e.attrib[NAMESPACES["android"] + "name"] for e in ElementTree.parse(example).iter("uses-permission")}
    assert asked == network


def test_what_is_found_by_name_survives_shrinking() -> None:
    rules = (ANDROID / "linkedout-edge" / "consumer-rules.pro").read_text()
    native = (FOLDER / "src" / "main" / "native" / "jni.cpp").read_text()
    classes = {name.replace("/", ".") for name in re.findall(r'FindClass\("([^"]+)"\)', native)}
    assert classes == {"linkedout.edge.Handle", "linkedout.edge.LinkedOutException"}
    kept = set(re.findall(r"-keep class ([\w.]+)", rules))
    assert kept == classes | {"linkedout.edge.Native"}
    assert 'GetFieldID(handle, "handle", "J")' in native
    assert "linkedout.edge.Handle { long handle; }" in rules
    assert '"<init>", "(I[B)V"' in native
    assert "LinkedOutException { <init>(int, byte[]); }" in rules


@only_all
def test_for_arm64_as_android_links_it(build: Path) -> None:
    if shutil.which("aarch64-linux-gnu-g++") is None or shutil.which("readelf") is None:
        missing("there is no cross compiler: apt install g++-aarch64-linux-gnu binutils")
    headers = re.search(r"^jni_headers:PATH=(.*)$", (build / "CMakeCache.txt").read_text(), re.M)
    assert headers is not None
    made = built(
        "java-android",
        "-DLINKEDOUT_TESTS=OFF",
        "-DANDROID=ON",
        f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'bindings' / 'cpp' / 'cmake' / 'aarch64.cmake'}",
        f"-DCMAKE_CXX_FLAGS=-isystem {headers[1]} -isystem {headers[1]}/linux",
        targets=("linkedout_edge_jni",),
        sources=FOLDER,
    )
    loaded = re.findall(r"^ *LOAD.* (0x\w+)$", run("readelf", "-lW", made / "liblinkedout_edge_jni.so"), re.M)
    assert loaded
    assert {int(alignment, 16) for alignment in loaded} == {16 * 1024}


def test_one_version_for_the_whole_product() -> None:
    pom = ElementTree.parse(FOLDER / "pom.xml").getroot()
    assert pom.findtext("{*}version") == __version__
    assert pom.findtext("{*}properties/{*}maven.compiler.release") == "11"


# The page.


def table() -> list[tuple[str, str, str]]:
    """Rows of the page's table: in Python, in Java, what differs."""
    rows = re.findall(r"^\| (`[^|]+`) \| ([^|]*) \| ([^|]*) \|$", PAGE.read_text(), re.M)
    return [(a.strip("` "), b.strip(), c.strip()) for a, b, c in rows]


def test_the_page_names_all_that_python_offers() -> None:
    listed = [python for python, _, _ in table()]
    assert len(listed) == len(set(listed))
    assert set(listed) == python_names()


def test_its_five_lines_compile(build: Path, tmp_path: Path) -> None:
    (code,) = re.findall(r"```java\n(.*?)```", PAGE.read_text(), re.S)
    given = "byte[] rgb, byte[] featuresOfSeen"
    source = f"import linkedout.edge.*;\nclass Five {{ static void f({given}) {{ {code} }} }}"
    (tmp_path / "Five.java").write_text(source)
    class_path = f"{build / 'linkedout-edge.jar'}:/usr/share/java/org.jetbrains.annotations-java8.jar"
    run("javac", "--release", "11", "-d", tmp_path, "-cp", class_path, tmp_path / "Five.java")


def test_the_page_says_why_where_something_is_missing() -> None:
    assert all(why for _, name, why in table() if name == "–")


def test_the_page_names_what_is_there(build: Path) -> None:
    offered = set(java(build, "linkedout.edge.Surface").splitlines())
    named = {name for _, names, _ in table() for name in re.findall(r"`([^`]+)`", names)}
    assert named <= offered, named - offered
    unnamed = {n for n in offered if n.partition(".")[0] in ("Recommender", "Store", "History", "Ranking")} - named
    page = PAGE.read_text()
    assert {n for n in unnamed if f"`{n}`" not in page} <= ADDED, unnamed


ADDED = {f"Ranking.{n}" for n in ("get", "size")} | {f"{n}.close" for n in ("Store", "History", "Ranking")}
"""What each list and each closeable thing has."""


@pytest.mark.parametrize(
    ("python", "status"),
    [
        ("ArgumentError", "ARGUMENT"),
        ("ClosedError", "CLOSED"),
        ("BundleNotFoundError", "BUNDLE_NOT_FOUND"),
        ("BundleCorruptError", "BUNDLE_CORRUPT"),
        ("BundleVersionError", "BUNDLE_VERSION"),
        ("BackendError", "BACKEND"),
        ("DeviceError", "DEVICE"),
        ("MissingDependencyError", "MISSING_DEPENDENCY"),
        ("PackError", "PACK"),
        ("TokenSpaceError", "TOKEN_SPACE"),
        ("VideoNotFoundError", "NOT_FOUND"),
        ("InvalidFramesError", "INVALID_FRAMES"),
    ],
)
def test_each_error_of_python_that_can_occur_has_a_status(python: str, status: str) -> None:
    assert issubclass(getattr(errors, python), errors.LinkedOutError)
    assert f"| `{python}` | `Status.{status}` |" in PAGE.read_text()


def test_statuses_are_those_of_the_header_in_order() -> None:
    header = (ROOT / "bindings" / "cpp" / "include" / "linkedout_edge.h").read_text()
    block = header[header.index("LINKEDOUT_OK = 0") : header.index("LINKEDOUT_INTERNAL = ") + 30]
    in_c = [name for name, _ in sorted(re.findall(r"LINKEDOUT_(\w+) = (\d+)", block), key=lambda pair: int(pair[1]))]
    in_java = re.findall(r"^    ([A-Z_]+)[,;]$", (MAIN / "Status.java").read_text(), re.M)
    assert in_java == in_c
