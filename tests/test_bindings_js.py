"""The JavaScript package: its own tests, and that its page says what differs from Python.

They run where Node 20 and the npm packages are (`npm --prefix bindings/js install`), and for one of them Chromium.
`make test-bindings` installs them, and sets LINKEDOUT_BINDINGS=all: what is not at hand fails then.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import bindings_api
import pytest
from bindings_api import missing, python_names

from linkedout_edge import errors

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "bindings" / "js"
PAGE = ROOT / "docs" / "bindings-js.md"
NEEDED = ("typescript", "esbuild", "onnxruntime-node", "pngjs", "@types/node")


def run(*command: str, **environment: str) -> str:
    return bindings_api.run(*command, cwd=FOLDER, timeout=600, **environment)


@pytest.fixture(scope="module")
def built() -> Path:
    """The package's folder, with dist/ as the sources make it now."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("Node is not here: https://nodejs.org")
    version = run("node", "--version").strip()
    if int(version.lstrip("v").partition(".")[0]) < 20:
        missing(f"Node is {version}: 20 or later is needed")
    lacking = [n for n in NEEDED if not (FOLDER / "node_modules" / n).is_dir()]
    if lacking:
        missing(f"npm packages are not here ({', '.join(lacking)}): npm --prefix bindings/js install")
    from filelock import FileLock

    sources = [*FOLDER.glob("src/*.ts"), FOLDER / "tsconfig.json", FOLDER / "package.json"]
    stamp = FOLDER / "node_modules" / ".built"
    with FileLock(stamp.with_suffix(".lock")):  # several processes run the tests, and one builds
        newest = max(p.stat().st_mtime_ns for p in sources)
        if not stamp.exists() or stamp.stat().st_mtime_ns < newest or not (FOLDER / "dist" / "index.js").exists():
            shutil.rmtree(FOLDER / "dist", ignore_errors=True)  # of sources that are gone
            run("npm", "run", "--silent", "build")
            stamp.touch()
    return FOLDER


@pytest.mark.parametrize("name", ["api", "golden", "hostile", "python", "storage"])
def test_in_node(built: Path, name: str) -> None:
    said = run("node", "--test", "--test-reporter=tap", f"test/{name}.test.mjs", LINKEDOUT_PYTHON=sys.executable)
    assert int(re.search(r"^# pass (\d+)$", said, re.M)[1]) >= 5, said
    assert "# skipped 0" in said, said


@pytest.mark.skipif(
    os.environ.get("LINKEDOUT_BINDINGS") != "all",
    reason="Chromium needs the CPUs for itself, not beside other tests: make test-bindings-js",
)
@pytest.mark.parametrize("name", ["browser", "demo"])
def test_in_chromium(built: Path, name: str) -> None:
    for package in ("playwright-core", "onnxruntime-web"):
        if not (built / "node_modules" / package).is_dir():
            missing(f"{package} is not here: npm --prefix bindings/js install")
    browser = os.environ.get("LINKEDOUT_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        missing("Chromium is not here: sudo apt install chromium")
    environment = {"LINKEDOUT_PYTHON": sys.executable, "LINKEDOUT_CHROMIUM": browser}
    said = run("node", "--test", "--test-reporter=tap", f"test/{name}.test.mjs", **environment)
    assert int(re.search(r"^# pass (\d+)$", said, re.M)[1]) >= 9, said
    assert "# skipped 0" in said, said


# The page.


def table() -> list[tuple[str, str, str]]:
    """Rows of the page's table: in Python, in JavaScript, what differs."""
    rows = re.findall(r"^\| (`[^|]+`) \| ([^|]*) \| ([^|]*) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    return [(a.strip("` "), b.strip("` "), c.strip()) for a, b, c in rows]


def test_the_page_names_all_that_python_offers() -> None:
    listed = [a for a, _, _ in table()]
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == python_names()


def test_the_page_says_why_where_something_is_missing() -> None:
    rows = table()
    assert len(rows) > 50
    assert all(why for _, javascript, why in rows if javascript == "–")


def test_what_the_page_names_is_there(built: Path) -> None:
    offered = run("node", "test/surface.mjs").splitlines()
    named = {name for _, name, _ in table()} - {"–"}
    assert named <= set(offered), named - set(offered)


def test_errors_have_the_names_and_codes_of_python(built: Path) -> None:
    script = """
        import * as all from "./dist/index.js";
        const made = Object.entries(all).filter(([n]) => n.endsWith("Error")).map(([n, E]) => [n, new E("x")]);
        console.log(JSON.stringify(made.map(([n, e]) => [n, e.name, e.code ?? null, e instanceof all.LinkedOutError])));
    """
    for name, own, code, is_ours in json.loads(run("node", "--input-type=module", "-e", script)):
        assert name == own
        assert is_ours
        assert code == getattr(getattr(errors, name), "code", None), name
