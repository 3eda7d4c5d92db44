"""The Jetson kit as far as it goes without a Jetson: files, command lines and scripts, with tools replaced."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from linkedout_edge.backends.base import INPUTS
from linkedout_edge.backends.examples import example_feeds
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError

onnx = pytest.importorskip("onnx", reason="the workstation half is not installed")

import onnxruntime  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from linkedout_export.jetson import write_kit  # noqa: E402
from linkedout_export.jetson.__main__ import main  # noqa: E402
from linkedout_export.jetson.calibration import cache_text, tensor_scales  # noqa: E402
from linkedout_export.jetson.engines import Engine, build_script, trtexec_arguments  # noqa: E402
from linkedout_export.jetson.kit import static_encoder  # noqa: E402

KIT = Path(__file__).parents[1] / "export" / "jetson"
CONFIG = ModelConfig.tiny()


def feeds(config: ModelConfig, count: int = 8) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        feed = dict(example_feeds(config))
        feed["frames"] = rng.integers(0, 256, feed["frames"].shape, dtype=np.uint8)
        feed["frame_mask"] = np.ones_like(feed["frame_mask"])
        found.append(feed)
    return found


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def tool(folder: Path, name: str, script: str) -> None:
    """A stand-in for a program of JetPack."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
    (folder / name).chmod(0o755)


def run(command: list[str], tools: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "LOG": str(tools / "log")}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)


# -- graphs and calibration --------------------------------------------------------------------------------------------


def test_the_static_graph_is_the_dynamic_one_with_its_dimensions_fixed(tiny_bundle: Path) -> None:
    model, exported = static_encoder(tiny_bundle, "fp16")
    assert not exported
    static = session(model)
    assert all(isinstance(d, int) for port in [*static.get_inputs(), *static.get_outputs()] for d in port.shape)
    assert {p.name for p in static.get_inputs()} == set(INPUTS)
    dynamic = session(onnx.load(tiny_bundle / "onnx" / "fp32" / "encoder.onnx"))
    for feed in feeds(CONFIG, 3):
        for a, b in zip(static.run(None, feed), dynamic.run(None, feed), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_scales_cover_what_int8_layers_read_and_write(tiny_bundle: Path) -> None:
    model, _ = static_encoder(tiny_bundle, "fp16")
    given = feeds(CONFIG)
    scales = tensor_scales(model, given)
    weights = {i.name for i in model.graph.initializer}
    convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
    assert convolutions
    # Not all outputs: a new student's residual branches end in zeros, and zeros have no range.
    assert {n.input[0] for n in convolutions} <= set(scales)
    assert not weights & set(scales)
    assert max(scales.values()) < 1e4, "a mask's lowest float is no range of an activation"
    name = convolutions[1].input[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    probe = session(model)
    largest = max(float(np.abs(probe.run([name], feed)[0]).max()) for feed in given)
    assert scales[name] == pytest.approx(largest / 127, rel=1e-5)


def test_the_cache_is_in_tensorrts_format() -> None:
    # The value of TensorRT's own example.
    assert cache_text({"data": struct.unpack(">f", bytes.fromhex("3c008912"))[0]}, "10.3.0") == (
        "TRT-100300-EntropyCalibration2\ndata: 3c008912\n"
    )
    assert cache_text({}, "8.6.2").startswith("TRT-8602-")
    for scales, version in (({}, "10.3"), ({}, "ten"), ({"a: b": 1.0}, "10.3.0")):
        with pytest.raises(ArgumentError):
            cache_text(scales, version)


def test_too_little_to_calibrate_with_or_a_quantized_graph(tiny_bundle: Path) -> None:
    model, _ = static_encoder(tiny_bundle, "fp16")
    with pytest.raises(ArgumentError, match="at least 8"):
        tensor_scales(model, feeds(CONFIG, 3))
    with pytest.raises(ArgumentError, match="QDQ"):
        tensor_scales(onnx.load(tiny_bundle / "onnx" / "int8" / "encoder.onnx"), feeds(CONFIG))


# -- the kit -----------------------------------------------------------------------------------------------------------


def test_trtexec_gets_no_shapes_and_what_the_precision_needs() -> None:
    int8 = trtexec_arguments(Engine("int8", "a b.onnx", "calibration.cache"), workspace_mb=256)
    assert int8 == [
        "--onnx=a b.onnx",
        "--fp16",
        "--int8",
        "--calib=calibration.cache",
        "--memPoolSize=workspace:256M",
        "--skipInference",
    ]
    assert "--int8" not in trtexec_arguments(Engine("fp16", "a.onnx"))
    with pytest.raises(ArgumentError, match="'fp16' or 'int8'"):
        trtexec_arguments(Engine("int4", "a.onnx"))


def test_a_kit_with_calibration(tiny_bundle: Path, tmp_path: Path) -> None:
    kit = write_kit(tiny_bundle, tmp_path / "kit", calibration=feeds)
    assert {p.name for p in kit.folder.iterdir()} == {
        "build_engines.sh",
        "calibration.cache",
        "encoder-fp16.onnx",
        "kit.json",
    }
    about = json.loads((kit.folder / "kit.json").read_text())
    assert about["engines"]["encoder-int8"] == {"onnx": "encoder-fp16.onnx", "calibration": "calibration.cache"}
    assert about["inputs"]["frames"] == [1, CONFIG.frames, CONFIG.frame_size, CONFIG.frame_size, 3]
    assert "export" in kit.notes[0]


def test_what_was_exported_for_tensorrt_is_taken_as_it_is(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"export .* --format tensorrt"):
        write_kit(tiny_bundle, tmp_path / "kit", ("int8",))
    model, _ = static_encoder(tiny_bundle, "fp16")
    exported = tiny_bundle / "static" / "tensorrt" / "int8" / "encoder.onnx"
    exported.parent.mkdir(parents=True)
    try:
        onnx.save(model, exported)
        kit = write_kit(tiny_bundle, tmp_path / "kit", ("int8",))
        assert (kit.folder / "encoder-int8.onnx").read_bytes() == exported.read_bytes()
        assert kit.notes == ()
    finally:
        exported.unlink()


def test_bad_calls_of_the_command_say_why(tiny_bundle: Path, tmp_path: Path) -> None:
    def call(*arguments: str) -> str:
        done = CliRunner().invoke(main, [str(tiny_bundle), "--out", str(tmp_path), *arguments])
        assert done.exit_code == 1, done.output
        return done.output

    assert "'fp16' or 'int8'" in call("--precision", "int4")
    (tmp_path / "mine").touch()
    assert "not empty" in call("--precision", "fp16")
    done = CliRunner().invoke(main, [str(tiny_bundle), "--out", str(tmp_path / "kit"), "--precision", "fp16"])
    assert done.exit_code == 0, done.output
    assert "build_engines.sh" in done.output


def test_the_script_builds_keeps_and_fails_with_trtexecs_last_lines(tmp_path: Path) -> None:
    kit, tools = tmp_path / "kit", tmp_path / "tools"
    kit.mkdir()
    script = kit / "build_engines.sh"
    script.write_text(build_script([Engine("int8", "a b.onnx"), Engine("fp16", "b.onnx")]))
    script.chmod(0o755)
    tool(tools, "dpkg-query", "echo 10.3.0.30-1+cuda12.5")
    tool(
        tools,
        "trtexec",
        'echo "$*" >>"$LOG"; for a; do [[ $a != --saveEngine=* ]] || echo engine >"${a#*=}"; done',
    )
    done = run([str(script)], tools)
    assert done.returncode == 0, done.stderr
    calls = (tools / "log").read_text().splitlines()
    assert len(calls) == 2
    assert calls[0].startswith("--onnx=a b.onnx --fp16 --int8 ")
    engines = sorted(p.name for p in (kit / "engines").glob("*.engine"))
    assert [e.split("-trt10.3.0.30-")[0] for e in engines] == ["encoder-fp16", "encoder-int8"]
    again = run([str(script)], tools)
    assert again.stdout.count("kept:") == 2
    assert len((tools / "log").read_text().splitlines()) == 2

    tool(tools, "trtexec", "echo Unsupported data type UINT8; exit 1")
    failed = run([str(script), "other"], tools)
    assert failed.returncode == 1
    assert "Unsupported data type UINT8" in failed.stderr
    assert not list((kit / "other").glob("*.engine*[!g]"))


# -- scripts for the device --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_modes_are_put_back(tmp_path: Path, fails: bool) -> None:
    tools, out = tmp_path / "tools", tmp_path / "out"
    tool(tools, "nvpmodel", 'echo "nvpmodel $*" >>"$LOG"; [[ $1 != -q ]] || printf "NV Power Mode: 15W\\n2\\n"')
    tool(tools, "jetson_clocks", 'echo "jetson_clocks ${1-}" >>"$LOG"')
    tool(tools, "linkedout-edge", f'echo "bench $*" >>"$LOG"; exit {int(fails)}')
    done = run([str(KIT / "modes.sh"), str(out), "0", "1", "--", "--device", "tensorrt"], tools)
    log = (tools / "log").read_text().splitlines()
    assert done.returncode == int(fails)
    assert log[:2] == ["nvpmodel -q", "jetson_clocks --store"]
    assert log[-2:] == ["jetson_clocks --restore", "nvpmodel -m 2"]
    assert f"bench bench --save {out}/mode-0.json --device tensorrt" in log
    if not fails:
        assert f"bench bench --compare {out}/mode-0.json {out}/mode-1.json" in log
        assert log.index("nvpmodel -m 1") > log.index(f"bench bench --save {out}/mode-0.json --device tensorrt")


@pytest.mark.parametrize("arguments", [[], ["out"], ["out", "MAXN"], ["out", "--", "0"]])
def test_modes_says_what_it_expects(tmp_path: Path, arguments: list[str]) -> None:
    done = run([str(KIT / "modes.sh"), *arguments], tmp_path)
    assert done.returncode == 2
    assert "expected" in done.stderr


def test_warm_up(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("warm_up", KIT / "warm_up.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    options = ["--bundle", str(tiny_bundle), "--precision", "int8", "--cache-dir", str(tmp_path)]
    assert module.main([*options, "--device", "cpu"]) == 0
    assert "CPUExecutionProvider" in capsys.readouterr().out
    if "TensorrtExecutionProvider" not in onnxruntime.get_available_providers():
        assert module.main(options) == 1
        assert "TensorrtExecutionProvider" in capsys.readouterr().err
