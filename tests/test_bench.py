"""`linkedout-edge bench`: processes of their own, agreement, energy, comparing, and what is printed."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from linkedout_edge.bench import energy, exam, machine
from linkedout_edge.bench import plan as planning
from linkedout_edge.bench import report as shown
from linkedout_edge.bench.against import baseline_spec, find_mobilenet
from linkedout_edge.bench.compare import compare
from linkedout_edge.bench.plan import plan
from linkedout_edge.bench.results import (
    Agreement,
    Baseline,
    Configuration,
    LatencyStats,
    Machine,
    Report,
    Window,
    read_report,
)
from linkedout_edge.bench.run import Settings, agreement, measure
from linkedout_edge.bench.sustained import judge, parse_duration
from linkedout_edge.bench.workers import Worker
from linkedout_edge.bundle import open_bundle, reader
from linkedout_edge.bundle.manifest import Manifest
from linkedout_edge.cli.main import cli
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError, BackendError, MissingDependencyError
from linkedout_edge.microworld import make_exam
from linkedout_edge.rank.scorer import Scorer


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["bench", *map(str, args)])


@pytest.fixture
def manifest(tiny_bundle: Path) -> Manifest:
    with open_bundle(tiny_bundle) as bundle:
        return bundle.manifest


@pytest.fixture
def short_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rankings of twelve, in place of two hundred of a hundred."""
    small = make_exam(users_per_length=1, n_candidates=12, pool_size=60)
    for name in exam.SETS:
        monkeypatch.setitem(exam.SETS, name, lambda rankings: small)


def spread(*rounds: float) -> LatencyStats:
    return LatencyStats.of([[r] for r in rounds])


def made_up(name: str = "int8", ms: float = 10.0, **more: object) -> Report:
    configuration = {"precision": name, "backend": "onnxruntime", "device": "cpu", "bytes": 9_000_000, "load_s": 0.2}
    configuration |= {"encode": spread(*[ms] * 5), "rank": spread(*[0.5] * 5), "peak_mb": 100.0, "rss_mb": 90.0}
    agreement = Agreement(source="measured", ndcg=0.6, ndcg_ratio=0.999, kendall_tau=0.95, rankings=200)
    configuration |= {"agreement": agreement}
    return Report(
        created="2026-01-02T03:04:05+00:00",
        command="linkedout-edge bench",
        bundle="base",
        token_space="0" * 64,
        set="micro-video exam",
        energy="this platform reports none",
        machine=Machine(system="Linux x86_64", processor="a CPU", cpus=2, threads=2),
        configurations=[Configuration(**{**configuration, **more})],  # type: ignore[arg-type]
    )


def write(report: Report, path: Path) -> Path:
    path.write_bytes(msgspec.json.encode(report))
    return path


# The whole of it.


@pytest.mark.usefixtures("short_set")
def test_a_run_measures_every_configuration(tiny_bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    done = run("--bundle", tiny_bundle, "--backend", "onnxruntime", "--seconds", 0.2, "--threads", 1, "--json",
               "--save", target, "--sustained", "1s", "--precision", "int8", "fp32")  # fmt: skip
    assert done.exit_code == 0, done.output
    report = msgspec.json.decode(done.stdout, type=Report)
    assert report == read_report(target)
    for line in (
        "loading int8, onnxruntime, cpu",
        "timing all in turns",
        "ranking the set with fp32, onnxruntime, cpu",
    ):
        assert f"s] {line}" in done.stderr  # nobody watches: a line a stage and row
    assert [c.name for c in report.configurations] == ["int8, onnxruntime, cpu", "fp32, onnxruntime, cpu"]
    for configuration in report.configurations:
        assert not configuration.error
        assert configuration.runs_on == {"encoder": "CPUExecutionProvider", "scorer": Scorer(ModelConfig.tiny()).device}
        assert configuration.bytes > 10_000
        for timed in (configuration.encode, configuration.rank, configuration.rank_changed):
            assert timed is not None
            assert 0 < timed.median <= timed.p95
            assert timed.samples >= 2 * len(timed.rounds) >= 10
        assert configuration.load_s is not None
        assert 0.01 < configuration.load_s < 60
        assert configuration.agreement is not None
        assert configuration.agreement.source == "measured"
        assert configuration.agreement.rankings == 3
    if sys.platform == "linux":
        # A process that has loaded torch, as this one may have, would be far above.
        assert all(20 < (c.rss_mb or 0) <= (c.peak_mb or 0) < 400 for c in report.configurations)
    eight, full = (c.agreement for c in report.configurations)
    assert eight is not None
    assert full is not None
    assert (full.kendall_tau, full.top10_overlap, full.ndcg_ratio) == (1.0, 1.0, 1.0)
    assert eight.kendall_tau is not None
    assert eight.kendall_tau < 1
    assert report.machine.versions["onnxruntime"]
    assert [s.configuration for s in report.sustained] == [c.name for c in report.configurations]
    assert report.sustained[0].windows
    assert "--threads 1" in report.command
    assert str(tiny_bundle) not in done.stdout  # a report names no folder
    assert "encodes" in run("--from", target).stdout


@pytest.mark.usefixtures("short_set")
def test_libraries_agree_and_a_bundle_without_fp32_says_whose_figures_it_shows(
    tiny_bundle: Path, tmp_path: Path, manifest: Manifest
) -> None:
    pytest.importorskip("openvino")
    without = tmp_path / "int8"
    stated = {"kendall_tau": 0.9, "top10_overlap": 0.8, "exam_ndcg@10_ratio": 0.99}
    eight = msgspec.structs.replace(manifest.precisions["int8"], agreement=stated)
    for entry in (manifest.tokenizer, *eight.files.values()):
        (without / entry.path).parent.mkdir(parents=True, exist_ok=True)
        (without / entry.path).write_bytes((tiny_bundle / entry.path).read_bytes())
    kept = msgspec.structs.replace(manifest, precisions={"int8": eight})
    (without / "manifest.json").write_bytes(msgspec.json.encode(kept))
    report = measure(Settings(bundle=str(without), seconds=0.1, threads=1, cache_dir=str(tmp_path / "cache")))
    assert [c.error for c in report.configurations] == ["", ""]
    onnx, vino = (c.agreement for c in report.configurations)
    assert onnx is not None
    assert vino is not None
    assert (onnx.source, onnx.kendall_tau, onnx.top10_overlap) == ("manifest", 0.9, 0.8)
    assert onnx.onnxruntime_tau is None
    assert vino.onnxruntime_tau is not None
    assert vino.onnxruntime_tau > 0.9
    text = shown.markdown(report)
    assert "0.900*" in text
    assert "as the exporter measured it" in text


@pytest.mark.usefixtures("short_set")
def test_the_reference_is_measured_even_if_it_is_no_row(tiny_bundle: Path, tmp_path: Path) -> None:
    settings = Settings(
        bundle=str(tiny_bundle), precisions=("int8",), backends=("onnxruntime",), seconds=0.1, threads=1
    )
    report = measure(settings)
    found = report.configurations[0].agreement
    assert found is not None
    assert found.source == "measured"
    assert found.kendall_tau is not None
    assert 0 < found.kendall_tau < 1


def test_a_device_that_is_not_there_is_a_row_that_says_so(tiny_bundle: Path, tmp_path: Path) -> None:
    done = run("--bundle", tiny_bundle, "--backend", "onnxruntime", "--precision", "int8", "--device", "cpu", "cuda",
               "--seconds", 0.1, "--rankings", 0, "--markdown")  # fmt: skip
    assert done.exit_code == 1
    assert "| int8, onnxruntime, cuda | not measured: DeviceError: device 'cuda' cannot be used" in done.stdout
    assert "| int8, onnxruntime, cpu | 0." in done.stdout


# What is asked for.


def test_the_plan_is_what_there_is(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "found_devices", lambda b: ["cpu", "npu"] if b == "openvino" else ["cpu", "cuda"])
    monkeypatch.setattr(planning.importlib.util, "find_spec", lambda name: object())
    names = [c.name for c in plan(manifest, [], [], [])]
    assert names[:4] == [
        "int8, onnxruntime, cpu",
        "int8, onnxruntime, cuda",
        "int8, openvino, cpu",
        "int8, openvino, npu",
    ]
    assert [c.name for c in plan(manifest, ["fp32"], [], ["cuda"])] == ["fp32, onnxruntime, cuda"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "int9"], "unknown precision of this bundle: 'int9'.*Did you mean 'int8'"),
        (["--backend", "openvion"], "Did you mean 'openvino'"),
        (["--device", "cuba"], "Did you mean 'cuda'"),
        (["--backend", "openvino", "--device", "tensorrt"], "go with --backend onnxruntime"),
        (["--against", "pytorch"], "Did you mean 'torch'"),
        (["--against", "mobilenet"], "needs --data"),
        (["--against", "mobilenet", "--data", "."], r"holds no \*.tflite"),
        (["--set", "micro video exam"], "Did you mean 'micro-video exam'"),
        (["--sustained", "10 parsecs"], "write 90s, 10m or 1h"),
        (["--sustained", "0s"], "too short"),
        (["--json", "--markdown"], "contradict"),
        (["--plot", "x.bmp"], "--plot writes .png"),
        (["--compare", "a", "b", "--plot", "x.png"], "only reads two reports"),
        (["--compare", "a", "b"], "cannot be read"),
        (["--from", "no.json"], "cannot be read"),
    ],
)
def test_wrong_arguments_say_what_would_be_right(
    arguments: list[str], words: str, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    done = run("--bundle", tiny_bundle, *arguments)
    assert done.exit_code == 2
    assert re.search(words, done.output.replace("\n", " ")), done.output


def test_a_backend_or_library_that_is_absent_names_the_install_line(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(planning.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install '?openvino"):
        plan(manifest, [], ["openvino"], [])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run("--from", write(made_up(), tmp_path / "a.json"), "--plot", tmp_path / "a.png")
    assert done.exit_code == 2
    assert re.search("pip install '?matplotlib", done.output)


def test_without_a_builtin_bundle_it_says_what_to_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reader, "embedded_folder", lambda: tmp_path)
    done = run("--seconds", 0.1)
    assert done.exit_code == 2
    assert "name one with --bundle" in done.output


# Workers.


def test_a_worker_says_why_it_failed_or_died(tiny_bundle: Path) -> None:
    spec = {"kind": "configuration", "model": {"bundle": "nowhere"}, "config": msgspec.to_builtins(ModelConfig.tiny())}
    with Worker(spec) as worker:
        worker.start()
        with pytest.raises(BackendError, match="BundleNotFoundError: unknown bundle 'nowhere'"):
            worker.ask("load")
        with pytest.raises(BackendError, match="KeyError"):
            worker.ask("dance")
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(BackendError, match="the process ended with -9"):
            worker.ask("load")


def test_baselines_run(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with Worker(baseline_spec("torch", ModelConfig.tiny(), 1, None)) as worker:
        worker.start()
        assert len(worker.ask("encode", count=3)["ms"]) == 3
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "m.tflite").write_bytes(b"")
    assert find_mobilenet(tmp_path).name == "m.tflite"


# Measures.


def test_measures_are_those_of_the_field() -> None:
    torch = pytest.importorskip("torch")
    tau = pytest.importorskip("torchmetrics.functional.regression").kendall_rank_corrcoef
    ndcg = pytest.importorskip("torchmetrics.functional.retrieval").retrieval_normalized_dcg
    rng = np.random.default_rng(0)
    for ties in (False, True):
        a, b = rng.normal(size=40), rng.normal(size=40)
        if ties:
            a, b = a.round(), b.round()
        wanted = tau(torch.from_numpy(a), torch.from_numpy(b))
        assert exam.kendall_tau(a, b) == pytest.approx(float(wanted), abs=1e-6)
    relevant = rng.random(40) < 0.2
    scores = rng.random(40)
    wanted = ndcg(torch.from_numpy(scores), torch.from_numpy(relevant), top_k=10)
    assert exam.ndcg(scores, relevant) == pytest.approx(float(wanted), abs=1e-6)
    assert exam.top_overlap(scores, scores) == 1.0
    assert exam.top_overlap(scores, -scores) == 0.0
    assert exam.kendall_tau(scores, -scores) == -1.0


def test_agreement_is_with_fp32(manifest: Manifest) -> None:
    configuration = Configuration(precision="int8", backend="openvino", device="cpu")
    rng = np.random.default_rng(0)
    scores, relevant = rng.random((5, 20)), [rng.random(20) < 0.3 for _ in range(5)]
    same = agreement(configuration, manifest, scores, relevant, scores, scores)
    assert (same.source, same.ndcg_ratio, same.kendall_tau, same.onnxruntime_tau) == ("measured", 1.0, 1.0, 1.0)
    turned = agreement(configuration, manifest, scores, relevant, -scores, None)
    assert turned.kendall_tau == -1.0
    assert turned.onnxruntime_tau is None


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that is busy now and then slows both, and their ratio stays."""
    busy = [1, 1, 9, 1, 7]
    a, b = spread(*[2.0 * x for x in busy]), spread(*[1.0 * x for x in busy])
    assert a.over(b) == 2.0
    assert LatencyStats.of([[1.0, 2.0], [3.0, 100.0]]).p95 == 100.0
    assert spread(1, 1, 1, 1).noise == 0
    assert spread(1, 2, 3, 4, 5).noise > 0.2


# Machine and energy.


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_rapl_counts_over_its_end(tmp_path: Path) -> None:
    zone = "sys/class/powercap/intel-rapl:0"
    root = tree(
        tmp_path,
        {
            f"{zone}/name": "package-0\n",
            f"{zone}/energy_uj": "900000\n",
            f"{zone}/max_energy_range_uj": "999999\n",
            "sys/class/powercap/intel-rapl:0:0/name": "core\n",  # a part of the package: not counted again
            "sys/class/powercap/intel-rapl:0:0/energy_uj": "5\n",
        },
    )
    meter, source = energy.open_meter(root)
    assert meter is not None
    assert "RAPL, 1 package" in source
    (root / zone / "energy_uj").write_text("950000")
    assert meter.joules() == pytest.approx(0.05)
    (root / zone / "energy_uj").write_text("50000")
    assert meter.joules() == pytest.approx(0.15)


def watts(meter: energy.Meter, expected: float) -> float:
    """What a meter shows, over as long as it takes to be near what is expected: samples come late on a busy machine."""
    before, start, found = meter.joules(), time.monotonic(), 0.0
    while abs(found - expected) > 0.1 * expected and time.monotonic() - start < 30:
        time.sleep(0.25)
        found = (meter.joules() - before) / (time.monotonic() - start)
    return found


def test_a_jetson_tells_the_power_of_its_board(tmp_path: Path) -> None:
    sensor = "sys/class/hwmon/hwmon1"
    root = tree(
        tmp_path,
        {
            f"{sensor}/in2_label": "VDD_CPU\n",
            f"{sensor}/in1_label": "VDD_IN\n",
            f"{sensor}/in1_input": "5000\n",
            f"{sensor}/curr1_input": "2000\n",
        },
    )
    meter, source = energy.open_meter(root)
    assert meter is not None
    assert "VDD_IN" in source
    assert watts(meter, 10) == pytest.approx(10, rel=0.1)
    meter.close()


def test_tegrastats_is_read_where_there_is_no_sensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "bin" / "tegrastats"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nwhile true; do echo 'RAM 2/7 CPU [1%@729] VDD_IN 4000mW/4100mW'; sleep 0.1; done\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    meter, source = energy.open_meter(tmp_path)
    assert meter is not None
    assert "tegrastats" in source
    assert watts(meter, 4) == pytest.approx(4, rel=0.1)
    meter.close()
    tool.write_text("#!/bin/sh\necho nothing\n")
    assert energy.open_meter(tmp_path) == (None, "tegrastats is here, but does not report the power of the board")


def test_no_energy_is_said_to_be_none(tmp_path: Path) -> None:
    assert energy.open_meter(tmp_path) == (None, "this platform reports none")


def test_the_machine_is_described_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: A Chip 9000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
            "sys/class/thermal/thermal_zone0/temp": "-273000\n",
            "sys/class/thermal/thermal_zone1/temp": "61500\n",
        },
    )
    found = machine.describe(3, {}, root)
    assert (found.processor, found.threads, found.power_mode) == ("A Chip 9000", 3, "governor: powersave")
    assert machine.celsius(root) == 61.5
    assert machine.megahertz(root) == 1800
    tool = tree(tmp_path, {"bin/nvpmodel": "#!/bin/sh\necho 'NV Power Mode: 15W'\necho 0\n"}) / "bin/nvpmodel"
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    tree(tmp_path, {"proc/device-tree/model": "NVIDIA Jetson Orin Nano\0"})
    found = machine.describe(None, {}, root)
    assert (found.processor, found.power_mode) == ("NVIDIA Jetson Orin Nano", "nvpmodel: 15W 0")


# Sustained.


def test_durations() -> None:
    assert [parse_duration(t) for t in ("90", "90s", "10m", "1.5 h")] == [90, 90, 600, 5400]


def test_slowing_down_is_told_from_steady() -> None:
    steady = [Window(at_s=float(n), encode_ms=10 + n % 2) for n in range(20)]
    assert judge(steady)[1].startswith("steady")
    hot = [Window(at_s=float(n), encode_ms=10.0 if n < 8 else 15.0, celsius=40.0 + n) for n in range(20)]
    slowdown, verdict = judge(hot)
    assert slowdown == 1.5
    assert verdict == "slows down: 1.50 × the first fifth's time at the end, first seen after 8 s, 40 → 59 °C"


# Showing and comparing.


def test_reports_are_compared_with_a_verdict(tmp_path: Path) -> None:
    a, b = made_up(ms=10.0), made_up(ms=5.0, peak_mb=150.0)
    b.machine.power_mode = "nvpmodel: 7W"
    found = {d.measure: d for d in compare(a, b).differences}
    assert (found["encode ms"].ratio, found["encode ms"].verdict) == (0.5, "2.00 × faster")
    assert found["rank ms"].verdict == "about the same"
    assert found["peak RSS MB"].verdict == "50% larger"
    assert compare(a, b).notes == ["power mode: unknown → nvpmodel: 7W"]
    noisy = made_up(ms=5.0)
    noisy.configurations[0].encode = spread(4, 8, 12, 16, 20)
    assert {d.measure: d.verdict for d in compare(a, noisy).differences}["encode ms"] == "about the same"
    files = write(a, tmp_path / "a.json"), write(b, tmp_path / "b.json")
    assert "2.00 × faster" in run("--compare", *files).stdout
    assert "| 2.00 × faster |" in run("--compare", *files, "--markdown").stdout
    assert json.loads(run("--compare", *files, "--json").stdout)["differences"][0]["ratio"] == 0.5
    with pytest.raises(ArgumentError, match="no configuration in common"):
        compare(a, made_up("int4"))


def test_a_damaged_or_newer_report_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"{}", b"\xff", b"[" * 100_000):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(ArgumentError, match="is no report"):
            read_report(tmp_path / "a.json")
    newer = made_up()
    newer.format = 99
    with pytest.raises(ArgumentError, match="newer linkedout-edge"):
        read_report(write(newer, tmp_path / "a.json"))


def test_the_table_says_what_is_faster_than_what() -> None:
    report = made_up()
    report.configurations.append(
        msgspec.structs.replace(
            report.configurations[0], precision="fp32", bytes=30_000_000, encode=spread(*[20.0] * 5)
        )
    )
    report.against = [Baseline(name="eager torch", encode=spread(*[25.0] * 5)), Baseline(name="x", error="no | x")]
    text = shown.markdown(report)
    assert "- int8, onnxruntime, cpu: encodes 2.00 × as fast as fp32, 30% of its size" in text
    assert "- eager torch: 25.0 ms (p95 25.0); the fastest configuration (int8, onnxruntime, cpu) takes 0.40 of" in text
    assert "- x: not measured: no | x" in text
    head, line, *body = text.splitlines()
    assert "energy" not in head  # no configuration has any
    assert all(row.count("|") == head.count("|") for row in (line, *body[:2]))
    report.configurations[0].error = "a | b"
    assert "not measured: a \\| b" in shown.markdown(report)


def test_a_readme_is_updated_between_its_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{shown.START}\nold\n{shown.END}\nafter\n")
    saved = write(made_up(), tmp_path / "a.json")
    for _ in range(2):
        assert run("--from", saved, "--update", readme).exit_code == 0
    text = readme.read_text()
    assert text.startswith(f"before\n{shown.START}\n| precision")
    assert text.endswith(f"{shown.END}\nafter\n")
    assert "old" not in text
    assert text.count("int8, onnxruntime, cpu") == 1
    for bad in ("none", f"{shown.END}{shown.START}", f"{shown.START}{shown.END}" * 2):
        readme.write_text(bad)
        done = run("--from", saved, "--update", readme)
        assert done.exit_code == 2
        assert "each once" in done.output.replace("\n", " ")
        assert readme.read_text() == bad


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = made_up()
    report.against = [Baseline(name="eager torch", encode=spread(25.0, 25.0))]
    saved = write(report, tmp_path / "a.json")
    assert run("--from", saved, "--plot", tmp_path / "a.png").exit_code == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    report.configurations[0].agreement = None
    done = run("--from", write(report, saved), "--plot", tmp_path / "b.png")
    assert done.exit_code == 2
    assert "nothing to draw" in done.output


def test_the_set_is_the_exam() -> None:
    chosen = exam.SETS["micro-video exam"](200)
    assert len(chosen.users) == 201
    assert Settings().rankings == 200
    sample = exam.SETS["micro-video sample"](30)
    assert len(sample.users) == 30
    assert len(sample.pool) < 60  # rendered and encoded in seconds


def test_a_quick_run_is_the_default_and_full_is_the_readmes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Settings] = []

    def record(settings: Settings, progress: object) -> Report:
        asked.append(settings)
        return made_up()

    monkeypatch.setattr("linkedout_edge.bench.measure", record)
    for arguments in ((), ("--full",), ("--full", "--seconds", 2, "--rankings", 0)):
        assert run(*arguments).exit_code == 0
    assert [(s.seconds, s.rankings, s.set) for s in asked] == [
        (1.0, 30, "micro-video sample"),
        (6.0, 200, "micro-video exam"),
        (2.0, 0, "micro-video exam"),
    ]
    assert asked[1].command == "linkedout-edge bench --full"


def test_the_built_in_bundle_is_named_by_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[tuple[object, object]] = []

    def stop(manifest: Manifest, precisions: object, *rest: object) -> list[Configuration]:
        planned.append((manifest.name, precisions))
        raise ArgumentError("enough")

    monkeypatch.setattr("linkedout_edge.bench.run.plan", stop)
    assert "enough" in run("--bundle", "int8").stderr
    assert planned == [("base", ("int8",))]
    assert "is already a precision" in run("--bundle", "int8", "--precision", "int4").stderr
