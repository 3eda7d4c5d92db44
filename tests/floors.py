"""Runs the runtime's own tests with the oldest version of each library that we allow, and with each later one.

    python tests/floors.py [PACKAGE | PACKAGE==VERSION | oldest ...]      (make test-floors)

Each row of the table is an environment of its own, without torch, that uv makes in seconds; everything but the named
library is the newest that goes with it. In the row "oldest" everything is as old as pyproject.toml allows. Which tests
those are says tests/runtime.txt; their tiny bundle is made once, by this Python, which has torch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from linkedout_export.tiny import write_tiny_bundle

ROOT = Path(__file__).parents[1]
# The last of each version that counts as another: for these libraries the major one, or the minor where that is it.
VERSIONS = {
    "av": "14.2.0 15.1.0 16.1.0 17.0.1 17.1.0 18.1.0",
    "onnxruntime": "1.20.1 1.21.1 1.22.1 1.23.2 1.24.4 1.25.1 1.26.0 1.27.0 1.28.0 1.29.0 1.30.0 1.31.1 1.32.0",
    "numpy": "1.26.4 2.0.2 2.1.3 2.2.6 2.3.5 2.4.6",
    "opencv-python-headless": "4.11.0.86 4.12.0.88 4.13.0.92 4.14.0.94 5.0.0.93",
}
OLDEST = "oldest"
TESTS = ["pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "hypothesis>=6.100", "psutil>=5.9"]


def run(row: str, bundle: Path) -> bool:
    """Print one row; whether all passed."""
    uv = [sys.executable, "-m", "uv", "run", "--quiet", "--isolated", "--no-project", "--python", sys.executable]
    wanted = ["--resolution", "lowest-direct"] if row == OLDEST else ["--with", row]
    wanted += [word for package in TESTS for word in ("--with", package)]
    versions = (
        "from importlib.metadata import version as v; "
        "print('versions', *(f'{p}=' + v(p) for p in ('numpy', 'onnxruntime', 'opencv-python-headless', 'av')))"
    )
    tests = (ROOT / "tests/runtime.txt").read_text().split()
    pytest = f"python -m pytest -q -m 'not slow' -p no:cacheprovider -n 2 {' '.join(tests)}"
    command = [
        *uv,
        "--with-editable",
        f"{ROOT}[encryption]",
        *wanted,
        "bash",
        "-c",
        f'python -c "{versions}"; {pytest}',
    ]
    environment = {**os.environ, "LINKEDOUT_TINY_BUNDLE": str(bundle), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    log = ROOT / "build/floors" / f"{row}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(done.stdout)
    found = re.findall(r"^versions (.*)$", done.stdout, re.MULTILINE)
    closing = re.findall(r"^(?:=+ )?((?:\d+ \w+,? ?)+) in ", done.stdout, re.MULTILINE)
    said = closing[-1] if closing else next(iter(done.stdout.strip().splitlines()[-1:]), "nothing was printed")
    print(f"| {row} | {found[0] if found else 'cannot be installed'} | {said} |", flush=True)
    return done.returncode == 0


def main() -> int:
    """Run the rows asked for, or all; 1 if one failed."""
    asked = sys.argv[1:] or [*VERSIONS, OLDEST]
    rows = [r for a in asked for r in ([f"{a}=={v}" for v in VERSIONS[a].split()] if a in VERSIONS else [a])]
    print("| row | versions | tests |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_tiny_bundle(Path(folder) / "tiny")
        failed = [row for row in rows if not run(row, bundle)]
    if failed:
        print(f"\nnot passed: {', '.join(failed)}; logs in build/floors")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
