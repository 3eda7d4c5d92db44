"""What is known of the CPU, and that graphs whose int8 weights overflow on it are not run there."""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from linkedout_edge import Recommender, Video
from linkedout_edge.backends import cpu, create_backend
from linkedout_edge.backends.cpu import InstructionSet, detect
from linkedout_edge.backends.onnxruntime import CPU, CUDA, OnnxRuntimeBackend
from linkedout_edge.bundle import open_bundle
from linkedout_edge.cli import doctor
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import DeviceError

AVX2, VNNI = InstructionSet("x86-64", ("avx2",)), InstructionSet("x86-64", ("avx2", "avx512f", "avx512-vnni"))
SSE2, NEON = 3, 100  # numbers in OpenCV's cv::CpuFeatures
NUMBERS = {"avx2": 11, "avx512f": 13, "avx512-vnni": 23, "dotprod": 101}


@pytest.fixture
def opencv(monkeypatch: pytest.MonkeyPatch):
    """Make OpenCV find these features and no others."""

    def find(*numbers: int) -> None:
        monkeypatch.setattr(cv2, "checkHardwareSupport", lambda number: number in numbers)

    return find


def cpuinfo(tmp_path: Path, line: str) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nmodel name\t: Some CPU\n{line}\nbogomips\t: 1\n")
    return path


# What the CPU can do.


def test_of_this_cpu_the_architecture_is_known():
    found = cpu.instruction_set()
    assert found.architecture
    assert str(found).startswith(found.architecture)
    if found.architecture == "x86-64":  # OpenCV answers on every system
        assert bool(cv2.checkHardwareSupport(NUMBERS["avx2"])) == ("avx2" in found.features)


@pytest.mark.parametrize(
    ("machine", "numbers", "line", "features", "overflows"),
    [
        ("x86_64", [SSE2], "flags : sse2 fma", (), True),
        ("x86_64", [SSE2, 11], "flags\t\t: sse2 avx2 fma", ("avx2",), True),
        ("AMD64", [SSE2, 11, 13], "", ("avx2", "avx512f"), True),  # Windows has no such file
        ("x86_64", [SSE2, 11], "flags : avx2 avx_vnni", ("avx2", "avx-vnni"), False),
        (
            "x86_64",
            [SSE2, 11, 13, 23],
            "flags : avx2 avx512f avx512_vnni amx_int8 avx_vnni",
            ("avx2", "avx512f", "avx512-vnni", "avx-vnni", "amx-int8"),
            False,
        ),
        ("x86_64", [SSE2, 11, 13, 23], "", ("avx2", "avx512f", "avx512-vnni"), False),
        ("aarch64", [NEON], "Features : fp asimd", ("neon",), False),
        ("aarch64", [NEON, 101], "Features : asimd asimddp i8mm", ("neon", "dotprod", "i8mm"), False),
        ("arm64", [NEON, 101], "", ("neon", "dotprod"), False),  # macOS
        ("riscv64", [], "isa : rv64imafdcv", (), False),
        ("", [], "", (), False),
    ],
)
def test_features_are_named(opencv, tmp_path, machine, numbers, line, features, overflows):
    opencv(*numbers)
    found = detect(machine, cpuinfo(tmp_path, line))
    assert found.features == features
    assert found.overflows == overflows


def test_under_emulation_the_file_is_about_another_cpu(opencv, tmp_path):
    real = cpuinfo(tmp_path, "flags : avx2 avx512f avx512_vnni avx_vnni amx_int8")
    opencv(SSE2, 11)  # a Haswell, emulated
    assert detect("x86_64", real) == AVX2


def test_the_file_is_all_there_is_where_opencv_does_not_tell(opencv, tmp_path):
    opencv()
    assert detect("x86_64", cpuinfo(tmp_path, "flags : avx2 avx512f avx512_vnni")) == VNNI
    assert detect("x86_64", tmp_path / "none") == InstructionSet("x86-64")
    assert detect("x86_64", tmp_path).overflows  # a folder; of an unknown x86 CPU the worst is assumed


def test_opencv_that_was_told_not_to_optimize_denies_what_every_cpu_has(tmp_path):
    if cpu.instruction_set().architecture not in ("x86-64", "arm64"):
        pytest.skip("OpenCV has no features of this architecture")
    cv2.setUseOptimized(False)
    try:
        assert detect("x86_64", tmp_path / "none").features == ()
    finally:
        cv2.setUseOptimized(True)


# Graphs with full-range weights.


@pytest.fixture
def full_range(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose int8 graphs say that their weights use all eight bits."""
    folder = tmp_path / "full"
    shutil.copytree(tiny_bundle, folder)
    told = json.loads((folder / "manifest.json").read_text())
    told["precisions"]["int8"]["full_range_weights"] = True
    (folder / "manifest.json").write_text(json.dumps(told))
    return folder


def runs_on(found: InstructionSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "instruction_set", lambda: found)


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_runtime_refuses_them_where_they_overflow(backend, device, full_range, frames, monkeypatch):
    pytest.importorskip(backend)
    runs_on(AVX2, monkeypatch)
    with pytest.raises(
        DeviceError, match=r"encoder graph would give wrong answers: .*avx2.*no VNNI.*another precision"
    ):
        Recommender.load(full_range, precision="int8", backend=backend, device=device)
    Recommender.load(full_range, precision="fp32", backend=backend, device=device).close()
    runs_on(VNNI, monkeypatch)
    with Recommender.load(full_range, precision="int8", backend=backend, device=device) as rec:
        assert len(rec.rank([], [Video(frames=frames, id="a")])) == 1


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_cpu_that_would_take_over_is_refused_too(backend, full_range, monkeypatch):
    pytest.importorskip(backend)
    runs_on(AVX2, monkeypatch)
    with (
        pytest.warns(RuntimeWarning, match="Running on the CPU"),
        pytest.raises(DeviceError, match="strict_device=True"),
    ):
        Recommender.load(full_range, precision="int8", backend=backend, device="npu")


def test_openvino_may_not_start_on_the_cpu_either(full_range, monkeypatch):
    pytest.importorskip("openvino")
    runs_on(AVX2, monkeypatch)
    for providers in (["CPU"], ["AUTO:CPU"]):  # the second means: any, and the CPU first
        with pytest.raises(DeviceError, match="no VNNI"):
            Recommender.load(full_range, precision="int8", backend="openvino", providers=providers)


@pytest.mark.parametrize(
    ("found", "placed", "refused"),
    [
        (AVX2, {CUDA: 90}, False),
        (AVX2, {CUDA: 90, CPU: 10}, True),
        (VNNI, {CUDA: 90, CPU: 10}, False),
    ],
)
def test_an_accelerator_runs_them_if_it_runs_all(found, placed, refused, tiny_bundle, monkeypatch):
    runs_on(found, monkeypatch)
    with open_bundle(tiny_bundle, "int8") as bundle:
        graph = bundle.encoder()
    real = onnxruntime.InferenceSession(graph, providers=[CPU])
    on_cuda = types.SimpleNamespace(
        get_inputs=real.get_inputs, get_outputs=real.get_outputs, get_providers=lambda: [CUDA, CPU]
    )
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(OnnxRuntimeBackend, "_accelerated", lambda *_: (on_cuda, Counter(placed)))
    backend = create_backend(device="cuda", threads=1, strict=True)

    def load():
        return backend.load(graph, ModelConfig.tiny(), "int8", full_range=True)

    if refused:
        with pytest.raises(DeviceError, match="no VNNI"):
            load()
    else:
        assert load().device.startswith(CUDA)


def test_auto_refuses_what_the_cpu_cannot_check(tiny_bundle, monkeypatch):
    runs_on(AVX2, monkeypatch)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    with open_bundle(tiny_bundle, "int8") as bundle:
        graph = bundle.encoder()
    with pytest.raises(DeviceError, match="name an accelerator"):
        create_backend(threads=1).load(graph, ModelConfig.tiny(), "int8", full_range=True)


def test_overflow_is_what_happens_where_it_is_expected():
    """The reason for all this, on the machine at hand: 255 · 127 · 2 does not fit 16 bits."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    a = np.full((4, 64), 255, np.uint8)
    wrong = []
    for weight in (64, 127):
        b = np.full((64, 32), weight, np.int8)
        graph = helper.make_graph(
            [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
            "product",
            [helper.make_tensor_value_info("a", onnx.TensorProto.UINT8, a.shape)],
            [helper.make_tensor_value_info("y", onnx.TensorProto.INT32, (4, 32))],
            [numpy_helper.from_array(b, "b")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[CPU])
        (got,) = session.run(None, {"a": a})
        wrong.append(bool((got != a.astype(np.int32) @ b.astype(np.int32)).any()))
    assert not wrong[0], "weights of 7 bits are right on every CPU"
    if not cpu.instruction_set().overflows:
        assert not wrong[1], "this CPU was taken for one that adds up in 32 bits"
    elif "avx2" in cpu.instruction_set().features and sys.platform == "linux":  # elsewhere AVX-VNNI is not seen
        assert wrong[1], "this CPU was taken for one that overflows"


# What doctor says.


@pytest.mark.parametrize(
    ("found", "status", "says"),
    [
        (AVX2, "warn", "would overflow on this CPU without VNNI"),
        (VNNI, "ok", "run on this CPU"),
        (InstructionSet("arm64", ("neon", "dotprod")), "ok", "run on this CPU"),
        (InstructionSet("arm64", ("neon",)), "warn", "run on this CPU"),
        (InstructionSet("riscv64"), "warn", "run on this CPU"),
    ],
)
def test_doctor_names_the_instruction_set_and_what_is_not_run(found, status, says, monkeypatch):
    runs_on(found, monkeypatch)
    checks = {c.name: c for c in doctor._processor()}
    assert checks["int8 instructions"].status == status
    assert str(found) in checks["int8 instructions"].found
    assert says in checks["full-range int8 weights"].found
