"""The command line, on a tiny bundle of random weights: what it prints, and how it ends."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from linkedout_edge import Recommender, __version__, install
from linkedout_edge.bundle import reader
from linkedout_edge.cli import main as cli_main
from linkedout_edge.cli.library import find_videos
from linkedout_edge.cli.main import cli
from linkedout_edge.cli.options import expand_videos, parse_watched, spread
from linkedout_edge.cli.output import layer_bars, printable, short_names
from linkedout_edge.errors import ArgumentError


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in args])


def result(*args: object, code: int = 0) -> dict:
    """What a command prints with --json, which has to be one JSON document and nothing else."""
    done = run(*args, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


@pytest.fixture
def builtin(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> Path:
    """The tiny bundle in place of the one inside the package."""
    monkeypatch.setattr(reader, "embedded_folder", lambda: tiny_bundle)
    return tiny_bundle


# Arguments.


def test_options_take_all_values_up_to_the_next_option():
    args = ["--history", "a", "b", "--json", "--candidates=c", "d", "--top-k", "2"]
    wanted = ["--history", "a", "--history", "b", "--json", "--candidates=c", "--candidates", "d", "--top-k", "2"]
    assert list(spread(args, ["--history", "--candidates"])) == wanted


def test_after_two_dashes_nothing_is_an_option():
    args = ["--history", "a", "--", "--candidates", "b"]
    assert list(spread(args, ["--history", "--candidates"])) == ["--history", "a", "--", "--candidates", "b"]


@pytest.mark.parametrize("args", [["--history"], ["--history", "--candidates", "x"]])
def test_an_option_without_values_is_an_error(args: list[str]):
    with pytest.raises(click.BadOptionUsage, match="needs at least one value"):
        list(spread(args, ["--history", "--candidates"]))


def test_folders_and_patterns_become_sorted_videos(tmp_path: Path, clips: list[Path]):
    (tmp_path / "inner").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("b.mp4", "a.MOV", "no suffix", ".hidden.mp4", "inner/c.mp4"):
        shutil.copy(clips[0], tmp_path / name)
    for name in ("fake.mp4", "notes.txt"):
        (tmp_path / name).write_text("no video")
    a, b = str(tmp_path / "a.MOV"), str(tmp_path / "b.mp4")
    inside = [a, b, str(tmp_path / "no suffix"), str(tmp_path / "inner" / "c.mp4")]
    assert expand_videos([str(tmp_path)]) == inside == find_videos(str(tmp_path))
    assert expand_videos([str(tmp_path / "b*.mp4"), b]) == [b]
    stays = [str(tmp_path / "empty"), str(tmp_path / "*.webm"), "gone.mp4"]
    assert expand_videos(stays) == stays


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path):
    for name in ("clip[1].mp4", "clip1.mp4"):
        (tmp_path / name).touch()
    assert expand_videos([str(tmp_path / "clip[1].mp4")]) == [str(tmp_path / "clip[1].mp4")]


def test_watched_fraction_behind_an_at(tmp_path: Path):
    assert parse_watched("a.mp4@0.2") == ("a.mp4", 0.2)
    assert parse_watched("a.mp4@20%") == ("a.mp4", 0.2)
    assert parse_watched("me@home.mp4") == ("me@home.mp4", None)
    real = tmp_path / "a@0.5"
    real.touch()
    assert parse_watched(str(real)) == (str(real), None)
    with pytest.raises(ArgumentError, match="from 0 to 1"):
        parse_watched("a.mp4@20")


# rank


def test_rank_is_what_python_ranks(tiny_bundle: Path, clips: list[Path]):
    args = ("rank", "--bundle", tiny_bundle, "--history", *clips[:2], "--candidates", *clips[2:])
    first, second = result(*args, "--effort", "full"), result(*args, "--effort", "full")
    with Recommender.load(tiny_bundle) as rec:
        ranking = rec.rank([str(c) for c in clips[:2]], [str(c) for c in clips[2:]])
    assert [r["id"] for r in first["ranked"]] == ranking.ids
    assert first["ranked"] == second["ranked"] == ranking.to_dict()["ranked"]
    assert first["failed"] == []
    assert first["timing"]["total"] > 0
    quick = result(*args)
    with Recommender.load(tiny_bundle) as rec:
        rec.encode(clips, effort="quick")
        assert quick["ranked"] == rec.rank([str(c) for c in clips[:2]], [str(c) for c in clips[2:]]).to_dict()["ranked"]
    assert {r["source"] for r in quick["ranked"]} <= {"quick", "content"}  # OpenCV takes no quick looks


def test_rank_on_openvino_gives_the_same_order(tiny_bundle: Path, clips: list[Path]):
    pytest.importorskip("openvino")
    args = ("rank", "--bundle", tiny_bundle, "--precision", "fp32", "--history", *clips[:2], "--candidates", *clips[2:])
    ours, theirs = result(*args), result(*args, "--backend", "openvino")
    scores = {r["id"]: r["score"] for r in theirs["ranked"]}
    for r in ours["ranked"]:
        assert scores[r["id"]] == pytest.approx(r["score"], abs=1e-3)


def test_rank_names_videos_as_the_history_does(
    tiny_bundle: Path, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(clips[0].parent)
    args = ("rank", "--bundle", tiny_bundle, "--history", "clip0.mp4", "--candidates", "clip1.mp4", "gone.mp4")
    for more in ((), ("--data-dir", tmp_path)):
        found = result(*args, *more)
        assert [r["id"] for r in found["ranked"]] == [str(clips[1])]
        assert [f["id"] for f in found["failed"]] == [str(clips[0].parent / "gone.mp4")]


def test_rank_takes_folders(tiny_bundle: Path, clips: list[Path]):
    found = result("rank", "--bundle", tiny_bundle, "--history", clips[0], "--candidates", clips[0].parent)
    assert sorted(r["id"] for r in found["ranked"]) == sorted(map(str, clips[1:]))  # without what was watched
    found = result(
        "rank", "--bundle", tiny_bundle, "--history", clips[0], "--candidates", clips[0].parent, "--include-watched"
    )
    assert sorted(r["id"] for r in found["ranked"]) == sorted(map(str, clips))


def test_rank_takes_the_options_of_the_api(tiny_bundle: Path, clips: list[Path], tmp_path: Path):
    copy = shutil.copy(clips[1], tmp_path / "copy.mp4")
    given = ("rank", "--bundle", tiny_bundle, "--history", clips[0], "--candidates", *clips[1:], copy)
    assert len(result(*given)["ranked"]) == 6
    assert len(result(*given, "--fold-duplicates")["ranked"]) < 6
    explored = result(*given, "--explore", 0.5, "--explain")["ranked"]
    assert any(r["explanation"]["explored"] for r in explored)
    assert not any(r["explanation"]["explored"] for r in result(*given, "--explain")["ranked"])
    with Recommender.load(tiny_bundle) as rec:
        ids = [str(c) for c in [*clips[1:], copy]]
        rec.encode([clips[0], *ids], effort="quick")
        assert [r["id"] for r in result(*given, "--diversity", 0.9)["ranked"]] == rec.rank(
            [str(clips[0])], ids, diversity=0.9
        ).ids
    late = result(*given, "--deadline", 0)
    assert {r["source"] for r in late["ranked"]} == {"pending"}
    assert [(f["role"], f["code"]) for f in late["failed"]] == [("history", "pending")]


def test_a_history_of_which_nothing_is_usable_is_an_error(tiny_bundle: Path, clips: list[Path], tmp_path: Path):
    given = ("rank", "--bundle", tiny_bundle, "--history", tmp_path / "a.mp4", tmp_path / "b.mp4", "--candidates")
    done = run(*given, *clips)
    assert done.exit_code == 1
    assert "None of the 2 watched videos can be used" in done.stderr
    assert "a.mp4" in done.stdout
    assert clips[0].name not in done.stdout
    assert "ranked by" not in done.stdout
    assert [f["role"] for f in result(*given, clips[0], code=1)["failed"]] == ["history", "history"]


def test_rank_shows_a_table_with_reasons(tiny_bundle: Path, clips: list[Path], tmp_path: Path):
    gone = tmp_path / "gone.mp4"
    done = run("rank", "--bundle", tiny_bundle, "--history", clips[0], "--candidates", clips[1], gone, "--explain")
    assert done.exit_code == 0
    assert "clip1.mp4" in done.stdout
    assert "clip0.mp4" in done.stdout  # in the sentence
    assert "1 could not be used" in done.stdout
    assert "not_found" in done.stdout


def test_rank_explains_in_json(tiny_bundle: Path, clips: list[Path]):
    args = ("--history", *clips[:2], "--candidates", clips[3], "--explain")
    ranked = result("rank", "--bundle", tiny_bundle, *args)["ranked"][0]
    why = ranked["explanation"]
    assert why["history"] == [str(c) for c in clips[:2]]
    assert sum(map(sum, why["matrix"])) == pytest.approx(ranked["score"], abs=1e-3)


def test_a_broken_video_fails_in_each_of_its_roles(tiny_bundle: Path, clips: list[Path], tmp_path: Path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    args = ("--history", clips[0], bad, "--candidates", bad, clips[1])
    found = result("rank", "--bundle", tiny_bundle, *args)
    assert [r["id"] for r in found["ranked"]] == [str(clips[1])]
    assert sorted(f["role"] for f in found["failed"]) == ["candidate", "history"]


def test_rank_ends_with_1_if_every_candidate_failed(tiny_bundle: Path, clips: list[Path]):
    found = result("rank", "--bundle", tiny_bundle, "--history", clips[0], "--candidates", "gone.mp4", code=1)
    assert found["ranked"] == []
    assert found["failed"][0]["code"] == "not_found"


def test_rank_top_k(tiny_bundle: Path, clips: list[Path]):
    args = ("--history", clips[0], "--candidates", *clips[1:], "--top-k", 2)
    assert len(result("rank", "--bundle", tiny_bundle, *args)["ranked"]) == 2


def test_without_candidates_rank_takes_all_that_is_stored(tiny_bundle: Path, clips: list[Path], tmp_path: Path):
    here = ("--data-dir", tmp_path / "data", "--bundle", tiny_bundle, "--decoder", "opencv")
    there = shutil.copytree(clips[0].parent, tmp_path / "clips")
    watched = there / clips[0].name
    assert "nothing is stored that could be ranked" in result("rank", *here, code=2)["error"]["message"]
    assert run("history", "add", watched, *here).exit_code == 0
    done = run("rank", *here)
    assert done.exit_code == 1
    assert "All of these videos were watched: --include-watched" in done.stderr
    assert run("encode", there, *here).exit_code == 0
    shutil.rmtree(there)  # what is stored needs no file
    rest = [str(there / c.name) for c in clips[1:]]
    with Recommender.load(tiny_bundle, data_dir=tmp_path / "data") as rec:
        assert result("rank", *here)["ranked"] == rec.rank().to_dict()["ranked"]
    found = result("rank", *here)
    assert sorted(r["id"] for r in found["ranked"]) == sorted(rest)
    assert found["failed"] == []
    assert result("rank", *here, "--history", watched)["ranked"] == found["ranked"]
    in_time = result("rank", *here, "--deadline", 60_000)
    assert [r["id"] for r in in_time["ranked"]] == [r["id"] for r in found["ranked"]]
    every = result("rank", *here, "--include-watched")
    assert sorted(r["id"] for r in every["ranked"]) == sorted([str(watched), *rest])
    assert len(result("rank", *here, "--top-k", 2)["ranked"]) == 2


def test_without_candidates_the_users_own_store_is_ranked(
    tiny_bundle: Path, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    model = ("--bundle", tiny_bundle, "--decoder", "opencv")
    given = ("rank", *model, "--history", clips[0])
    assert "nothing is stored" in result(*given, code=2)["error"]["message"]
    assert list(tmp_path.iterdir()) == []
    assert run("encode", *clips[1:3], *model).exit_code == 0
    assert sorted(r["id"] for r in result(*given)["ranked"]) == sorted(map(str, clips[1:3]))


def test_without_history_it_is_a_cold_start(tiny_bundle: Path, clips: list[Path]):
    done = run("rank", "--bundle", tiny_bundle, "--candidates", clips[2], clips[1])
    assert done.exit_code == 0
    assert "Nothing was watched" in done.stderr
    assert done.stdout.count("cold start") == 2


def test_what_is_stored_is_listed_exported_and_removed(tiny_bundle: Path, clips: list[Path], tmp_path: Path):
    here = ("--bundle", tiny_bundle, "--data-dir", tmp_path / "data")
    assert run("encode", *clips[:2], *here, "--effort", "quick").exit_code == 0
    result("history", "add", clips[0], *here)
    first, second = sorted(map(str, clips[:2]))
    listed = result("store", "list", *here)
    assert [v["id"] for v in listed["videos"]] == [first, second]
    assert {v["id"]: v["watched"] for v in listed["videos"]} == {str(clips[0]): True, str(clips[1]): False}
    assert listed["disk_bytes"] > 0
    said = run("store", "list", *here).stdout
    assert "2 videos · " in said
    assert clips[0].name in said
    pack = tmp_path / "pack.safetensors"
    assert result("store", "export", pack, clips[1], *here) == {"exported": 1}
    assert result("store", "remove", clips[1], "nope", *here, code=1) == {"removed": 1, "unknown": ["nope"]}
    assert [v["id"] for v in result("store", "list", *here)["videos"]] == [str(clips[0])]
    assert result("store", "import", pack, *here)["stored"] == 2
    assert result("store", "export", pack, *here) == {"exported": 2}
    assert "no-such.mp4" in result("store", "export", pack, "no-such.mp4", *here, code=2)["error"]["message"]
    assert "No video is stored." in run("store", "list", "--bundle", tiny_bundle, "--data-dir", tmp_path / "n").stdout
    assert not (tmp_path / "n").exists()


# Errors.


def test_an_error_is_one_line_and_ends_with_2(tmp_path: Path):
    done = run("rank", "--bundle", tmp_path / "none", "--candidates", "x.mp4")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["rank", "--candidates"], ["encode"], ["history", "add"], ["store", "import"]])
def test_a_url_is_refused_before_anything_is_loaded(command: list[str], tmp_path: Path):
    data = [] if command[0] == "rank" else ["--data-dir", str(tmp_path / "data")]
    done = run(*command, "https://example.org/a.mp4", *data)
    assert done.exit_code == 2
    assert "https://example.org/a.mp4 is a URL, and this command reads files alone" in done.stderr


def test_an_error_in_json_is_an_object(tiny_bundle: Path):
    args = ("rank", "--bundle", tiny_bundle, "--candidates", "x.mp4")
    assert result(*args, "--precision", "int9", code=2)["error"]["type"] == "ArgumentError"
    assert "openvino" in result(*args, "--backend", "openvin", code=2)["error"]["message"]
    assert result("rank", "--candidates", code=2)["error"]["message"].startswith("option --candidates needs")


def test_debug_shows_the_traceback(tmp_path: Path):
    done = run("rank", "--bundle", tmp_path / "none", "--candidates", "x.mp4", "--debug")
    assert isinstance(done.exception, FileNotFoundError)


def test_unknown_commands_are_told_what_there_is():
    done = run("rnak")
    assert done.exit_code == 2
    assert "Did you mean 'rank'?" in done.stderr


@pytest.mark.parametrize("group", ["history", "store"])
def test_groups_list_their_commands(group: str):
    command = cli.get_command(click.Context(cli), group)
    assert isinstance(command, click.Group)
    for done in (run(group), run(group, "show"), run(group, "show", "--json"), run(group, "--json")):
        assert done.exit_code == 2
        assert all(name in done.output for name in command.commands)
    assert json.loads(run(group, "show", "--json").stdout)["error"]["message"].startswith("unknown command 'show'")


def test_options_before_the_command_are_told_their_place():
    said = run("--top-k", "3", "rank").stderr
    assert "--top-k is not an option of " in said
    assert "options follow the command (demo, rank, " in said
    assert "(did you mean --version?)" in run("--verison").stderr
    assert json.loads(run("--json", "rank").stdout)["error"]["message"].startswith("--json is not an option of")


def test_a_history_is_saved_into_a_file_not_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Recommender, "load", None)  # it is said before anything is loaded
    done = run("history", "save", tmp_path, "--data-dir", tmp_path / "data")
    assert done.exit_code == 2
    assert f"error: {tmp_path} is a folder: name a file inside it, such as " in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("debug", [False, True])
def test_output_that_cannot_be_written_is_one_line(debug: bool):
    command = [sys.executable, "-m", "linkedout_edge.cli.main", "encode", "--help", *(["--debug"] if debug else [])]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == (1 if debug else 2)
    assert ("Traceback" in done.stderr) == debug
    if not debug:
        assert done.stderr == "error: the output cannot be written: No space left on device\n"


def test_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch):
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recommender, "load", interrupted)
    done = run("rank", "--candidates", "x.mp4")
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")


class FakeEntryPoint:
    """An entry point of another package."""

    def __init__(self, name: str, loads: object) -> None:
        self.name, self.value, self.module = name, f"other.cli:{name}", "other.cli"
        self._loads = loads

    def load(self) -> object:
        if isinstance(self._loads, Exception):
            raise self._loads
        return self._loads


def with_plugin(monkeypatch: pytest.MonkeyPatch, loads: object) -> None:
    monkeypatch.setattr(cli_main, "_plugins", lambda: [FakeEntryPoint("extra", loads)])


def test_commands_plug_in(monkeypatch: pytest.MonkeyPatch):
    with_plugin(monkeypatch, click.Command("extra", callback=lambda: click.echo("hello"), short_help="Says hello."))
    assert run("extra").stdout == "hello\n"
    assert "Says hello." in run("--help").stdout


@pytest.fixture
def torch_of_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the package declares, where it is run from its source tree alone."""
    monkeypatch.setattr(install, "_requirements", lambda: iter([("torch", "torch>=2.9", "tools")]))


@pytest.mark.usefixtures("torch_of_tools")
def test_a_plug_in_that_lacks_a_library_names_the_pip_line(monkeypatch: pytest.MonkeyPatch):
    with_plugin(monkeypatch, ModuleNotFoundError("No module named 'torch'", name="torch"))
    done = run("extra", "--any", "thing")
    assert done.exit_code == 2
    assert "pip install '.[tools]'" in done.stderr
    assert run("--help").exit_code == 0


@pytest.mark.usefixtures("torch_of_tools")
def test_a_library_that_is_missing_while_running_names_the_pip_line(monkeypatch: pytest.MonkeyPatch):
    def needs_torch() -> None:
        raise ModuleNotFoundError("No module named 'torch.onnx'", name="torch.onnx")

    with_plugin(monkeypatch, click.Command("extra", callback=needs_torch))
    assert "pip install '.[tools]'" in run("extra").stderr


def test_a_broken_plug_in_breaks_nothing_else(monkeypatch: pytest.MonkeyPatch):
    with_plugin(monkeypatch, RuntimeError("boom"))
    assert run("--help").exit_code == 0
    assert "boom" in run("extra").stderr


# Help.


@pytest.mark.parametrize("name", list(cli_main.COMMANDS))
def test_every_command_and_option_has_help(name: str):
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"
    assert run(name, "--help").exit_code == 0


def test_the_script_starts_without_heavy_libraries():
    code = (
        "import sys\nfrom linkedout_edge.cli.main import main\nsys.argv = ['linkedout-edge', '--help']\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code\n"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'openvino', 'av', 'rich'}\n"
        "print('loaded:', *sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert "rank" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_the_entry_point_runs():
    try:
        entries = importlib.metadata.distribution("linkedout-edge").entry_points
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("linkedout-edge is not installed: pip install -e .")
    assert [e.value for e in entries if e.name == "linkedout-edge"] == ["linkedout_edge.cli.main:main"]
    command = [sys.executable, "-m", "linkedout_edge.cli.main", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert __version__ in done.stdout


# inspect


def test_inspect_a_bundle(tiny_bundle: Path):
    found = result("inspect", tiny_bundle)
    assert found["verified"]
    assert set(found["manifest"]["precisions"]) == {"fp32", "int8"}
    inputs = {p["name"]: p["shape"] for p in found["graphs"]["encoder"]["inputs"]}
    assert inputs["frames"][1:] == [8, 32, 32, 3]
    shown = run("inspect", tiny_bundle).stdout
    assert "token space" in shown
    assert "SHA-256" in shown


def test_inspect_finds_a_changed_byte(tiny_bundle: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    graph = copy / "onnx" / "fp32" / "encoder.onnx"
    data = bytearray(graph.read_bytes())
    data[100] ^= 1
    graph.write_bytes(data)
    found = result("inspect", copy, code=1)
    assert not found["verified"]
    assert "encoder.onnx was changed" in found["problems"][0]
    assert run("inspect", copy).exit_code == 1


def test_inspect_a_video(clips: list[Path], tmp_path: Path):
    picture = tmp_path / "seen.png"
    seen = result("inspect", clips[0], "--decoder", "opencv", "--frames", picture)
    assert seen["decoder"] == "opencv"
    assert seen["frames"][0] == seen["wanted_frames"] == 7
    assert (seen["container"]["width"], seen["container"]["height"]) == (64, 48)
    assert picture.stat().st_size > 0
    assert "the model sees 7 of 7 frames" in run("inspect", clips[0]).stdout
    assert run("inspect", tmp_path / "gone.mp4").exit_code == 2


# doctor


def test_doctor_on_a_healthy_machine(builtin: Path):
    found = result("doctor")
    assert found["ok"], found
    checks = {c["name"]: c for c in found["checks"]}
    assert checks["built-in bundle"]["status"] == "ok"
    assert checks["ranking with onnxruntime"]["status"] == "ok"
    assert all(c["fix"] for c in found["checks"] if c["status"] == "fail")
    assert "Ready." in run("doctor").stdout


def test_doctor_without_a_bundle_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(reader, "embedded_folder", lambda: tmp_path / "none")
    found = result("doctor", code=1)
    assert not found["ok"]
    failed = [c for c in found["checks"] if c["status"] == "fail"]
    assert [c["name"] for c in failed] == ["built-in bundle"]
    assert failed[0]["fix"].startswith("pip install")


def test_doctor_names_the_library_that_is_missing(monkeypatch: pytest.MonkeyPatch, builtin: Path):
    monkeypatch.setitem(sys.modules, "av", None)
    checks = {c["name"]: c for c in result("doctor")["checks"]}
    assert checks["PyAV"]["status"] == "warn"
    assert "pip install" in checks["PyAV"]["fix"]


# demo


def test_demo_renders_ranks_and_writes_a_page(tiny_bundle: Path, tmp_path: Path):
    out = tmp_path / "out"
    found = result("demo", "--bundle", tiny_bundle, "--out", out, "--seed", 5)
    assert (len(found["history"]), len(found["ranked"]), found["failed"]) == (6, 24, [])
    assert len(list((out / "clips").glob("*.mp4"))) == 30
    assert found["page"] == str(out / "index.html")
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") >= 30
    for entry in found["ranked"]:
        assert len(entry["explanation"]["matrix"]) == 6


def test_demo_on_a_folder(tiny_bundle: Path, clips: list[Path], tmp_path: Path):
    folder = clips[0].parent
    args = ("demo", folder, "--bundle", tiny_bundle, "--out", tmp_path / "out")
    found = result(*args, "--history", "clip0.mp4", "clip1.mp4@0.1")
    assert [e["watched"] for e in found["history"]] == [1.0, 0.1]
    assert sorted(r["id"] for r in found["ranked"]) == [str(c) for c in clips[2:]]
    done = run(*args)
    assert done.exit_code == 0
    assert "drawn by chance" in done.stdout
    assert "index.html" in done.stdout


def test_demo_mistakes(tiny_bundle: Path, clips: list[Path], tmp_path: Path):
    args = ("demo", "--bundle", tiny_bundle, "--out", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "has no videos" in run(*args, tmp_path / "empty").stderr
    assert "needs a FOLDER" in run(*args, "--history", clips[0]).stderr
    assert "was watched" in run(*args, clips[0].parent, "--history", clips[0].parent).stderr


# Output.


def test_names_cannot_steer_the_terminal():
    assert printable("a\x1b[2Jb\nc") == "a\ufffd[2Jb\ufffdc"


def test_names_are_short_where_that_is_clear():
    assert short_names(["x/a.mp4", "y/b.mp4"]) == {"x/a.mp4": "a.mp4", "y/b.mp4": "b.mp4"}
    assert short_names(["x/a.mp4", "y/a.mp4"]) == {"x/a.mp4": "x/a.mp4", "y/a.mp4": "y/a.mp4"}


def test_bars_are_as_high_as_the_contribution_is_large():
    bars = layer_bars([1.0, -0.5, 0.0], 1.0)
    assert bars.plain == "█▅▁"
    assert [str(s.style) for s in bars.spans] == ["green", "red", "dim"]
    assert layer_bars([0.0], 0.0).plain == "▁"
