"""What somebody meets who has a clone and nothing else: hints, help, terminals, pipes, and the README's commands."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from linkedout_edge import install
from linkedout_edge.bundle import reader
from linkedout_edge.cli import output, terminal
from linkedout_edge.cli.data import ENCODING_FIX
from linkedout_edge.cli.doctor import _python
from linkedout_edge.cli.main import missing

ROOT = Path(__file__).parents[1]
BINDINGS = [p for p in (ROOT / "bindings").rglob("*.md") if "node_modules" not in p.parts]
TEXTS = [ROOT / "README.md", ROOT / "Makefile", *(ROOT / "docs").glob("*.md"), *BINDINGS]
FOLDERS = ("linkedout_edge", "quant", "export", "benchmarks", "examples")
SOURCES = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")]
ASCII = [
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C"},
]
MAIN = [sys.executable, "-m", "linkedout_edge.cli.main"]


def command(*arguments: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[bytes]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "PYTHONIOENCODING")}
    done = subprocess.run(
        [*MAIN, *map(str, arguments)], capture_output=True, timeout=120, check=False, env={**kept, **environment}
    )
    assert done.returncode == code, done.stderr.decode(errors="replace")
    assert b"Traceback" not in done.stderr
    return done


# Hints.


def found(pattern: str, paths: list[Path]) -> list[str]:
    """``file: match`` for each match."""
    texts = ((p, p.read_text(encoding="utf-8")) for p in paths)
    return [f"{p.relative_to(ROOT)}: {m}" for p, text in texts for m in re.findall(pattern, text)]


def test_no_hint_names_a_package_that_is_on_no_index() -> None:
    assert found(r"pip install[^\n.]*?['\" ]linkedout.*", [*TEXTS, *SOURCES, ROOT / "CHANGELOG.md"]) == []


def test_what_hints_say_can_be_typed_in_a_clone() -> None:
    assert install.extra("tools").startswith("pip install '.[tools]' -c constraints.txt (in the folder of your clone")
    assert install.again().startswith("pip install --force-reinstall --no-deps . (in")
    assert (ROOT / "constraints.txt").is_file()
    assert install.library("onnxruntime-gpu[cuda,cudnn]") == "pip install 'onnxruntime-gpu[cuda,cudnn]'"


def test_libraries_are_named_in_the_versions_that_are_declared() -> None:
    try:
        lines = metadata.requires("linkedout-edge") or []
    except metadata.PackageNotFoundError:
        pytest.skip("linkedout-edge is not installed: pip install -e .")
    for name in ("av", "onnxruntime", "cryptography"):
        wanted = next(x.partition(";")[0].strip() for x in lines if re.match(rf"{name}\W", x))
        assert install.library(name) == f"pip install '{wanted}'"
    assert missing("torch.onnx").endswith(install.extra("tools"))
    assert missing("yaml").endswith(install.extra("tools"))  # pip install yaml would find nothing
    assert "pip install 'opencv-python-headless" in missing("cv2")
    assert missing("somebody.elses").endswith("pip install somebody")


def test_extras_that_readers_are_told_of_are_declared() -> None:
    declared = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE))
    named = {match.rpartition(": ")[2] for match in found(r"pip install [^\n`]*?'?\.\[([\w,]+)\]", TEXTS)}
    assert {name for names in named for name in names.split(",")} <= declared
    for page in ("README.md", "docs/api.md", "docs/privacy.md"):  # wherever a key is offered
        assert found(r"pip install '\.\[encryption\]'", [ROOT / page])


# Commands of README and docs.


def test_readers_are_sent_to_nothing_outside_the_repository() -> None:
    assert found(r".*\.\./shared.*", [p for p in [*TEXTS, *SOURCES] if p.name != "Makefile"]) == []


def test_the_readmes_example_says_what_could_not_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    monkeypatch.chdir(tmp_path)
    exec(example[1], {})
    printed = capsys.readouterr().out
    assert printed.count("not ranked: ") == 4
    assert "not ranked: new/c.mp4 " in printed


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_does_without_data_or_says_what_is_missing() -> None:
    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        call = ["make", "--no-print-directory", "-C", str(ROOT), "DATA=", *arguments]
        return subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)

    planned = make("-n", "bench", "table", "student", "bundle").stdout
    assert "benchmarks/latency.py" in planned
    assert "bench --full" in planned
    assert not re.search(r"--(data|videos)|mobilenet", planned)
    for target in ("train", "refine", "finish"):
        assert make("-n", target).stdout.startswith('test -d ""')  # before anything is installed or fetched
    refused = make("needs-data")
    assert refused.returncode != 0
    assert "DATA=FOLDER" in refused.stderr


# Without the workstation half.

BLOCKED = """
import sys
from importlib.metadata import EntryPoint

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "transformers", "accelerate", "tokenizers", "openvino", "yaml"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from linkedout_edge.cli import main
entry = EntryPoint(sys.argv[1], sys.argv.pop(), main.ENTRY_POINTS)
main._plugins = lambda: [entry]
main.main()
"""


def blocked(value: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    name = value.partition(":")[2]
    call = [sys.executable, "-c", BLOCKED, name, *arguments, value]
    return subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        ("linkedout_export.cli:export", ["int8"]),
        ("linkedout_export.cli:quantize", ["int8", "--precision", "int4"]),
        ("linkedout_quant.cli:distill", ["--teacher", "none", "--out", "x"]),
        ("linkedout_quant.cli:cost", []),
        ("linkedout_quant.cli:evaluate", []),
        ("linkedout_quant.cli:evaluate", ["--taste", "one"]),
    ],
)
def test_help_needs_no_extra_and_running_names_its_line(value: str, arguments: list[str]) -> None:
    help = blocked(value, "--help")
    assert help.returncode == 0, help.stderr
    assert "--json" in help.stdout
    done = blocked(value, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: this command needs ")
    assert "pip install" in done.stderr
    assert done.stderr.count("\n") == 1


# The built-in bundle, and trainings that are not finished.


@pytest.fixture
def builtin(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> Path:
    monkeypatch.setattr(reader, "embedded_folder", lambda: tiny_bundle)
    return tiny_bundle


def exported(*arguments: object, code: int = 0) -> str:
    pytest.importorskip("torch")
    from linkedout_export.cli import export, quantize

    from linkedout_edge.cli.main import Commands

    group = Commands("test")
    group.get_command = lambda ctx, name: {"export": export, "quantize": quantize}[name]  # type: ignore[method-assign]
    done = CliRunner().invoke(group, [str(a) for a in arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_export_takes_the_built_in_bundle_and_leaves_it_as_it_is(
    builtin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = (builtin / "manifest.json").read_bytes()
    assert "written: linkedout-bundle" in exported("export", "int8")
    assert (tmp_path / "linkedout-bundle/static/onnx/int8/encoder.onnx").is_file()
    assert not (tmp_path / "linkedout-bundle/static/onnx/fp32").exists()
    assert (builtin / "manifest.json").read_bytes() == before
    assert "is already a precision" in exported("export", "int8", "--precision", "fp32", code=2)
    assert "expected one of" in exported("export", "fp16", code=2)


def test_a_folder_of_other_things_is_not_written_over(builtin: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    assert "is no bundle" in exported("export", "int8", "--out", tmp_path, code=2)
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_a_training_that_is_not_finished_says_how_far_it_came(tmp_path: Path) -> None:
    recipe = {name: {"steps": 40} for name in ("tower", "language", "clips")}
    (tmp_path / "run.json").write_text(json.dumps({"recipe": recipe}))
    words = (
        f"{tmp_path}: training not finished: last stage crops; continue with linkedout-edge distill --out {tmp_path}"
    )
    assert words in exported("export", tmp_path, code=2)
    (tmp_path / "tower.jsonl").write_text('{"step": 40}\n')
    (tmp_path / "language.jsonl").write_text('{"step": 25}\n{"step": 30}\n')
    for call in (("export", tmp_path), ("quantize", tmp_path, "--precision", "int8")):
        assert "last stage language, step 30 of 40; continue" in exported(*call, code=2)
    assert not (tmp_path / "bundle").exists()


# Terminals.


@pytest.mark.parametrize("environment", ASCII, ids=["encoding", "locale", "LC_ALL"])
def test_a_terminal_without_utf8_gets_what_it_can_show(
    environment: dict[str, str], tiny_bundle: Path, clips: list[Path], tmp_path: Path
) -> None:
    named = tmp_path / "café.mp4"
    shutil.copy(clips[1], named)
    calls: list[tuple[object, ...]] = [
        ("--help",),
        ("bench", "--help"),
        ("inspect", tiny_bundle),
        ("rank", "--bundle", tiny_bundle, "--history", clips[0], "--candidates", named, *clips[2:], "--explain"),
        ("history", "list", "--data-dir", tmp_path),
        ("doctor", "--privacy"),
    ]
    printed = b"".join(command(*call, **environment).stdout for call in calls)
    refused = command("ränk", code=2, **environment).stderr
    if environment.keys() != {"LC_ALL"}:  # Python makes UTF-8 of that one by itself, where the system has C.UTF-8
        assert (printed + refused).isascii()
        assert b"precision x backend x device" in b" ".join(printed.split())
        assert b"-> frames uint8" in printed
        assert b"\\u" not in printed.replace(b"\\u0301", b"")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, file names are always UTF-8")
def test_ids_are_the_same_in_the_c_locale_and_where_not_a_warning_says_so(
    tiny_bundle: Path, clips: list[Path], tmp_path: Path
) -> None:
    named = tmp_path / "café.mp4"
    shutil.copy(clips[0], named)
    here = ("--bundle", tiny_bundle, "--data-dir", tmp_path / "d")
    told = b"warning: file names are read as ascii, so those that are not ASCII get other ids"
    utf8_mode_off = ASCII[1]
    for environment in ({"PYTHONUTF8": "1"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "LANG": "POSIX"}, utf8_mode_off):
        done = command("encode", tmp_path, *here, "--json", **environment)
        is_same = json.loads(done.stdout.splitlines()[0])["id"] == str(named)
        assert is_same == (environment is not utf8_mode_off)
        assert done.stderr.count(told) == (0 if is_same else 1)


def test_doctor_warns_where_file_names_are_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [c.status for c in _python()] == ["ok", "ok"]
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    check = list(_python())[-1]
    assert (check.status, check.fix) == ("warn", ENCODING_FIX)
    assert "file names are read as iso8859-1" in check.found


def test_every_character_that_is_printed_has_one_in_ascii() -> None:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    used = set()
    for path in SOURCES:
        if path.parent.name in ("text", "microworld") or path.name == "golden.py":
            continue  # those are read, not printed
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docs = {ast.get_docstring(n, clean=False) for n in nodes if isinstance(n, documented)}
        strings = (n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))
        used |= {c for s in strings if s not in docs for c in s if not c.isascii()}
    assert {"→", "·", "█"} < used
    assert used <= set(terminal._PLAIN)


def on_a_terminal(*arguments: object, **environment: str) -> bytes:
    pty = pytest.importorskip("pty")
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*MAIN, *map(str, arguments)], stdout=theirs, stderr=theirs, env={**kept, "TERM": "xterm", **environment}
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                more = os.read(ours, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
            if not more:
                break
            shown += more
        process.wait(60)
    os.close(ours)
    return shown


STYLE = re.compile(rb"\x1b\[[\d;]*m")


def test_no_color_is_honoured_by_tables_bars_and_errors(tiny_bundle: Path, clips: list[Path]) -> None:
    ranked = ("rank", "--bundle", tiny_bundle, "--history", clips[0], "--candidates", *clips[1:], "gone.mp4")
    for call in (ranked, ("inspect", "nowhere")):
        assert STYLE.search(on_a_terminal(*call))
        for environment in ({"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}):
            shown = on_a_terminal(*call, **environment)
            assert not STYLE.search(shown)
            assert b"error:" in shown or b"clip1.mp4" in shown


def test_in_a_pipe_progress_is_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """FORCE_COLOR asks for colours, not for a bar that is drawn over and over into a log."""
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("FORCE_COLOR", "1")
    now = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    with output.stages() as report:
        for now[0] in range(25):
            report("encoding", now[0], 25)
        report("ranking", 0, 1)
    assert [line.strip() for line in err.getvalue().splitlines()] == [
        "[   0 s] encoding: 0 of 25",
        "[  10 s] encoding: 10 of 25, about 15 s left",
        "[  20 s] encoding: 20 of 25, about 5 s left",
        "[  24 s] ranking",
    ]


def test_short_work_in_a_pipe_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("Encoding", 3) as advance:
        advance(3, 3)
    assert capsys.readouterr().err == ""
