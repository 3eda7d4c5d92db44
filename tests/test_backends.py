from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from linkedout_edge.backends import create_backend
from linkedout_edge.backends.base import Port, check_contract
from linkedout_edge.backends.examples import example_feeds
from linkedout_edge.bundle import open_bundle
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import (
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    BundleCorruptError,
    ClosedError,
    DeviceError,
    MissingDependencyError,
)
from linkedout_edge.threads import available_cpus, cgroup_quota

CONFIG = ModelConfig.tiny()
BACKENDS = ["onnxruntime", "openvino"]


@pytest.fixture(params=BACKENDS)
def backend_name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


def test_results_are_the_callers_own_and_wrong_feeds_are_refused(tiny_bundle: Path, backend_name: str) -> None:
    backend = create_backend(backend_name, threads=1)
    with open_bundle(tiny_bundle, "int8") as bundle:
        session = backend.load(bundle.encoder(), CONFIG)
    assert "CPU" in session.device
    feeds = example_feeds(CONFIG, 2)
    out = session.run(feeds)
    kept = {name: array.copy() for name, array in out.items()}
    assert {n: (a.shape, a.dtype.name) for n, a in out.items()} == {
        "tokens": ((2, 3, 2, 16), "int8"),
        "scales": ((2, 3, 2), "float32"),
    }
    again = session.run(example_feeds(CONFIG, 3, seed=1))
    assert again["tokens"].shape == (3, 3, 2, 16)
    for name, array in kept.items():
        np.testing.assert_array_equal(out[name], array)
    with pytest.raises(BackendError, match="encoder"):
        session.run({"frames": feeds["frames"]})
    session.close()
    with pytest.raises(ClosedError):
        session.run(feeds)


def test_openvino_computes_in_float_where_its_integers_fail(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """What happens on ARM (docs/aarch64.md), made to happen here: compiling fails unless the rewriting is off."""
    openvino = pytest.importorskip("openvino")
    compile_model = openvino.Core.compile_model

    def fails(self: Any, model: Any, device: str, options: dict[str, Any]) -> Any:
        if options.get("LP_TRANSFORMS_MODE") != "NO":
            raise RuntimeError("Check 'folded' failed")
        return compile_model(self, model, device, options)

    with open_bundle(tiny_bundle, "int8") as bundle:
        graph = bundle.encoder()
    feeds = example_feeds(CONFIG)
    want = create_backend("openvino", threads=1).load(graph, CONFIG).run(feeds)
    monkeypatch.setattr(openvino.Core, "compile_model", fails)
    backend = create_backend("openvino", threads=1)
    session = backend.load(graph, CONFIG)
    got = session.run(feeds)
    assert "in float" in backend.notices[0]
    assert "Check 'folded' failed" in backend.notices[0]
    assert not recwarn.list, "it runs on the device that was asked for"
    tokens = [o["tokens"] * o["scales"][..., None] for o in (want, got)]
    norms = [np.linalg.norm(t, axis=-1) for t in tokens]
    assert (tokens[0] * tokens[1]).sum(-1) == pytest.approx(norms[0] * norms[1], rel=0.01)
    monkeypatch.setattr(openvino.Core, "compile_model", lambda *_: (_ for _ in ()).throw(RuntimeError("no memory")))
    with pytest.raises(BackendError, match="no memory"):
        backend.load(graph, CONFIG)


def test_a_graph_that_is_none_or_another_is_a_corrupt_bundle(tiny_bundle: Path, backend_name: str) -> None:
    backend = create_backend(backend_name, threads=1)
    with pytest.raises(BundleCorruptError, match="encoder graph"):
        backend.load(b"no graph", CONFIG)
    with open_bundle(tiny_bundle, "int8") as bundle, pytest.raises(BundleCorruptError, match="expected uint8"):
        backend.load(bundle.encoder(), ModelConfig())


def test_the_contract_compares_names_types_and_ranks() -> None:
    outputs = [Port("tokens", "int8", (None, 3, 2, 16)), Port("scales", "float32", (None, 3, 2))]
    inputs = [
        Port("frames", "uint8", (None, 8, 32, 32, 3)),
        Port("frame_mask", "bool", (None, 8)),
        Port("title_ids", "int32", (None, 6)),
        Port("title_mask", "bool", (None, 6)),
    ]
    check_contract(inputs, outputs, CONFIG)
    with pytest.raises(BundleCorruptError, match=r"has the inputs frame_mask, .*: expected frame_mask, frames,"):
        check_contract(inputs[1:], outputs, CONFIG)
    with pytest.raises(BundleCorruptError, match=r"tokens is uint8 .*: expected int8 \[B, 3, 2, 16\]"):
        check_contract(inputs, [Port("tokens", "uint8", (None, 3, 2, 16)), outputs[1]], CONFIG)
    with pytest.raises(BundleCorruptError, match="scales is"):
        check_contract(inputs, [outputs[0], Port("scales", "float32", (None, 3))], CONFIG)


def test_a_device_that_is_not_there_warns_or_raises(backend_name: str) -> None:
    with pytest.warns(RuntimeWarning, match=r"device 'npu' cannot be used.*available here: .*CPU.*strict_device=True"):
        create_backend(backend_name, device="npu", threads=1)
    with pytest.raises(DeviceError, match="available here"):
        create_backend(backend_name, device="npu", threads=1, strict=True)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": "onnxruntim"}, ArgumentError, "Did you mean 'onnxruntime'"),
        ({"device": "cudda"}, ArgumentError, "Did you mean 'cuda'"),
        ({"providers": "CPUExecutionProvider"}, ArgumentTypeError, "must be a list"),
        ({"providers": []}, ArgumentError, "empty"),
        ({"providers": [3]}, ArgumentTypeError, "tuple"),
        ({"providers": ["CPUExecutionProvider"], "device": "cpu"}, ArgumentError, "contradict"),
        ({"providers": ["cpu"]}, DeviceError, "Did you mean 'CPUExecutionProvider'"),
        ({"providers": ["CPUExecutionProvidr"]}, DeviceError, "Did you mean 'CPUExecutionProvider'"),
        ({"name": "openvino", "providers": ["CPUU"]}, DeviceError, "Did you mean 'CPU'"),
        ({"name": "openvino", "providers": ["AUTO:CPUU"]}, DeviceError, "Did you mean 'CPU'"),
        ({"name": "openvino", "providers": ["AUTO:CPU", "CPU"]}, ArgumentError, "joins devices"),
        ({"name": "openvino", "providers": ["CPU"], "device": "cpu"}, ArgumentError, "contradict"),
        ({"name": "openvino", "device": "cuda"}, ArgumentError, "has no device 'cuda'.*backend='onnxruntime'"),
    ],
)
def test_wrong_arguments_list_what_would_be_right(arguments: dict, error: type[Exception], words: str) -> None:  # type: ignore[type-arg]
    if arguments.get("name") == "openvino":
        pytest.importorskip("openvino")
    with pytest.raises(error, match=words):
        create_backend(**{"threads": 1, **arguments})


def test_providers_pass_through(tiny_bundle: Path) -> None:
    backend = create_backend(providers=[("CPUExecutionProvider", {})], threads=1)
    with open_bundle(tiny_bundle, "int8") as bundle:
        assert backend.load(bundle.encoder(), CONFIG).device == "CPUExecutionProvider"


@pytest.mark.parametrize("name", BACKENDS)
def test_a_missing_library_names_the_install_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        create_backend(name, threads=1)


def cgroup(root: Path, line: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": line, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_cgroup_quotas_bound_the_threads(tmp_path: Path) -> None:
    v2 = cgroup(
        tmp_path / "v2",
        "0::/a/b\n",
        {"sys/fs/cgroup/a/cpu.max": "150000 100000\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"},
    )
    assert cgroup_quota(v2) == 1.5
    assert 1 <= available_cpus(v2) <= 2
    here = cgroup(tmp_path / "ns", "0::/../elsewhere\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"})
    assert available_cpus(here) == 1
    quota = {
        "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "300000\n",
        "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
    }
    assert cgroup_quota(cgroup(tmp_path / "v1", "3:memory:/x\n4:cpu,cpuacct:/x\n", quota)) == 3.0
    free = {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}
    assert cgroup_quota(cgroup(tmp_path / "free", "4:cpu:/\n", free)) is None
    assert cgroup_quota(tmp_path / "nothing") is None
