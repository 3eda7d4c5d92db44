"""`make kernel-check`: the scoring kernel for other processors, under emulation, and with sanitizers.

Each build (compiler, processor) gets the same random and extreme cases, rows out of bounds among them, and has to
answer with the bits that NumPy gives. What is not installed is left out and said:

    gcc, clang, gcc-aarch64-linux-gnu, qemu-user, libsimde-dev (AVX512-VNNI in plain C: QEMU 7.2 does not know it)

What needs Python is the whole extension, built with sanitizers: the tests of scores, the fit's equations and the index
of rows run on it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from linkedout_edge.rank.scorer import LARGEST, score_with_numpy

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_scorer import example

DRIVER = Path(__file__).with_name("driver.c")
ROOT = Path(__file__).parents[2]
FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]
SANITIZERS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
ARM = ("aarch64-linux-gnu-gcc", ["-O3", "-static"])


class Build(NamedTuple):
    """What is compiled, what runs it, and the paths that it has to have."""

    name: str
    compiler: str
    flags: list[str]
    runner: list[str]
    paths: list[str] | None  # None: all that this machine has
    file: str = ""  # that has to be there


BUILDS = [
    Build("gcc, this processor", "gcc", ["-O3"], [], None),
    Build("gcc, not optimised", "gcc", ["-O0"], [], None),
    Build("clang, this processor", "clang", ["-O3"], [], None),
    Build("gcc, sanitizers", "gcc", SANITIZERS, [], None),
    Build("clang, sanitizers", "clang", SANITIZERS, [], None),
    Build("x86-64 without AVX", "gcc", ["-O3"], ["qemu-x86_64", "-cpu", "Nehalem"], ["C"]),
    Build("Haswell", "gcc", ["-O3"], ["qemu-x86_64", "-cpu", "Haswell"], ["AVX2", "C"]),
    Build("Cortex-A57", *ARM, ["qemu-aarch64", "-cpu", "cortex-a57"], ["NEON", "C"]),
    Build("Neoverse N1", *ARM, ["qemu-aarch64", "-cpu", "neoverse-n1"], ["NEON-dotprod", "NEON", "C"]),
    Build(
        "AVX512-VNNI in plain C (SIMDe)",
        "gcc",
        ["-O3", "-DIN_PLAIN_C", "-w", "-Wno-psabi"],
        [],
        ["AVX512-VNNI"],
        "/usr/include/simde/x86/avx512.h",
    ),
]


def cases(count: int) -> Iterator[tuple[list[Any], bool]]:
    """Arguments of `score_with_numpy` and whether contributions are wanted."""
    rng = np.random.default_rng(0)
    for seed in range(count):
        layers, per_layer, stored = (int(rng.integers(1, most)) for most in (8, 6, 30))
        width = int(rng.choice([1, 3, 15, 16, 17, 31, 32, 33, 48, 64, 64, 64, 65, 100, 512, 513, 1024]))
        total = int(rng.choice([0, 1, 2, 17, 60]))
        arrays = example(seed, layers, per_layer, width, stored, total, extreme=seed % 3 == 0)
        if total and seed % 5 == 0:  # some row that is not there, anywhere
            odd = [-1, stored, -(2**63), 2**63 - 1, stored + 1, -stored, 2**32, 2**40 + 1]
            arrays[5][rng.integers(total)] = odd[int(rng.integers(len(odd)))]
        if seed % 11 == 0:
            arrays[0].flat[rng.integers(arrays[0].size)] = -32768
        if width == 1024 and seed % 2:  # each digit is fine, their sum is not
            arrays[0][...] = LARGEST
        yield arrays, seed % 2 == 0


def asked(arrays: list[Any], split: bool) -> bytes:
    """A case as the driver reads it."""
    digits, tokens, rows = arrays[0], arrays[3], arrays[5]
    head = np.array([*digits.shape, len(tokens), len(rows), split], np.int64)
    return b"".join(a.tobytes() for a in (head, *arrays[:6]))


def expected(arrays: list[Any], split: bool) -> tuple[int, np.ndarray]:
    """What the driver has to answer: a number as there, and scores with contributions behind them."""
    arrays = [*arrays[:7], arrays[7] if split else None]
    none = np.zeros(0, np.float32)
    try:
        with np.errstate(all="ignore"):
            score_with_numpy(*arrays)
    except ValueError:
        return -3, none
    except IndexError:
        rows, stored = arrays[5], len(arrays[3])
        return int(np.flatnonzero((rows < 0) | (rows >= stored))[0]), none
    return -1, np.concatenate([arrays[6], arrays[7].ravel() if split else none])


def bits(array: np.ndarray) -> np.ndarray:
    """Which of the many NaN it is differs between processors, and does not matter."""
    return np.where(np.isnan(array), np.float32(np.nan), array).view(np.int32)


def check(driver: list[str], path: str, given: bytes, answers: list[tuple[int, np.ndarray]]) -> None:
    done = subprocess.run([*driver, path], input=given, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{path}: exit {done.returncode}\n{done.stderr.decode(errors='replace')[-3000:]}")
    at = 0
    for n, (number, floats) in enumerate(answers):
        got = int(np.frombuffer(done.stdout, np.int64, 1, at)[0])
        at += 8
        if got != number:
            raise SystemExit(f"{path}: case {n}: {got} instead of {number}")
        found = np.frombuffer(done.stdout, np.float32, len(floats), at)
        at += found.nbytes
        if not np.array_equal(bits(found), bits(floats)):
            raise SystemExit(f"{path}: case {n}: {int((bits(found) != bits(floats)).sum())} of {len(floats)} differ")
    if at != len(done.stdout):
        raise SystemExit(f"{path}: {len(done.stdout) - at} bytes too many")


# Takes the place of the extension that is installed, then runs the tests.
TESTED = """
import importlib.util, sys, pytest
spec = importlib.util.spec_from_file_location("linkedout_edge._kernel", sys.argv[1])
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
from linkedout_edge import extension
assert extension.kernel.__file__ == sys.argv[1]
# What a sanitizer says goes to file descriptor 2, which is not captured then.
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--strict-markers", "--capture=sys", *sys.argv[2:]]))
"""


def check_extension(folder: str) -> None:
    """The extension's own tests, with sanitizers."""
    include, built = sysconfig.get_paths()["include"], str(Path(folder, "_kernel.so"))
    if not shutil.which("gcc") or not Path(include, "Python.h").exists():
        print("the extension, sanitizers: left out, there is no gcc or no Python.h")
        return
    sources = [str(ROOT / "linkedout_edge" / name) for name in ("_kernel.c", "_row_index.c")]
    extension = ["-shared", "-fPIC", f"-I{include}"]
    extension += ["-DPy_LIMITED_API=0x030B0000"] if sys.version_info >= (3, 11) else []  # as setup.py
    subprocess.run(["gcc", *FLAGS, *SANITIZERS, *extension, *sources, "-o", built], check=True)
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    # Python itself leaves memory behind at its end, and its own allocator would hide what is read beside a string.
    settings = {"LD_PRELOAD": library.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    tests = [str(ROOT / "tests" / f"test_{name}.py") for name in ("scorer", "solver", "row_index")]
    command = [sys.executable, "-c", TESTED, built, *tests]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, **settings})
    print("the extension, sanitizers: its tests pass")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    arguments = parser.parse_args()
    every = list(cases(arguments.cases))
    given, answers = b"".join(asked(*c) for c in every), [expected(*c) for c in every]
    print(f"{len(every)} cases, {sum(n >= 0 for n, _ in answers)} with a row that is not there")
    ran = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, build in enumerate(BUILDS):
            needed = [build.compiler, *build.runner[:1]]
            missing = [n for n in needed if not shutil.which(n)]
            missing += [f for f in [build.file] if f and not Path(f).exists()]
            if missing:
                print(f"{build.name}: left out, there is no {' and no '.join(missing)}")
                continue
            driver = [*build.runner, str(Path(folder, f"driver{number}"))]
            subprocess.run([build.compiler, *FLAGS, *build.flags, str(DRIVER), "-o", driver[-1]], check=True)
            here = subprocess.run(driver, capture_output=True, text=True, check=True).stdout.split()
            if build.paths is not None and [p for p in build.paths if p not in here]:
                raise SystemExit(f"{build.name}: has {here} instead of {build.paths}")
            for path in build.paths or here:
                check(driver, path, given, answers)
                ran += 1
            print(f"{build.name}: {', '.join(build.paths or here)}: the bits that NumPy gives")
        check_extension(folder)
    if not ran:
        raise SystemExit("nothing was checked: there is no compiler")


if __name__ == "__main__":
    main()
