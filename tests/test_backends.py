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


def scorer_feeds(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    layers, m, d = CONFIG.layers, CONFIG.tokens_per_layer, CONFIG.token_width
    return {
        "query": rng.normal(size=(1, 2, layers, m * d)).astype(np.float32),
        "bias": rng.normal(size=(1, layers)).astype(np.float32),
        "tokens": rng.integers(-127, 128, (count, layers, m, d)).astype(np.int8),
        "scales": rng.uniform(0.005, 0.02, (count, layers, m)).astype(np.float32),
        "mask": np.arange(count) != 1,
    }


def test_the_scorer_is_gated_inner_products_and_masks(tiny_bundle: Path, backend_name: str) -> None:
    backend = create_backend(backend_name, threads=1)
    with open_bundle(tiny_bundle, "int8") as bundle:
        session = backend.load("scorer", bundle.graph("scorer"), CONFIG)
    assert "CPU" in session.device
    feeds = scorer_feeds(5)
    out = session.run(feeds)
    values = (feeds["tokens"] * feeds["scales"][..., None]).reshape(5, CONFIG.layers, -1)
    s, q = np.einsum("klf,clf->kcl", feeds["query"][0], values)
    gates = np.exp(q + feeds["bias"])
    gates /= gates.sum(1, keepdims=True)
    np.testing.assert_allclose(out["contributions"], gates * s, atol=1e-3)
    np.testing.assert_allclose(np.delete(out["score"], 1), np.delete((gates * s).sum(1), 1), atol=1e-3)
    assert out["score"][1] == np.finfo(np.float32).min
    again = session.run(scorer_feeds(7, seed=1))
    assert again["score"].shape == (7,)
    np.testing.assert_allclose(out["contributions"], gates * s, atol=1e-3)  # results are the caller's own
    with pytest.raises(BackendError, match="scorer"):
        session.run({"query": feeds["query"]})
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
        graph = bundle.graph("encoder")
    feeds = example_feeds("encoder", CONFIG, 1)
    want = create_backend("openvino", threads=1).load("encoder", graph, CONFIG).run(feeds)
    monkeypatch.setattr(openvino.Core, "compile_model", fails)
    backend = create_backend("openvino", threads=1)
    session = backend.load("encoder", graph, CONFIG)
    got = session.run(feeds)
    assert "in float" in backend.notices[0]
    assert "Check 'folded' failed" in backend.notices[0]
    assert not recwarn.list, "it runs on the device that was asked for"
    tokens = [o["tokens"] * o["scales"][..., None] for o in (want, got)]
    norms = [np.linalg.norm(t, axis=-1) for t in tokens]
    assert (tokens[0] * tokens[1]).sum(-1) == pytest.approx(norms[0] * norms[1], rel=0.01)
    monkeypatch.setattr(openvino.Core, "compile_model", lambda *_: (_ for _ in ()).throw(RuntimeError("no memory")))
    with pytest.raises(BackendError, match="no memory"):
        backend.load("encoder", graph, CONFIG)


def test_a_graph_that_is_none_or_another_is_a_corrupt_bundle(tiny_bundle: Path, backend_name: str) -> None:
    backend = create_backend(backend_name, threads=1)
    with pytest.raises(BundleCorruptError, match="user graph"):
        backend.load("user", b"no graph", CONFIG)
    with open_bundle(tiny_bundle, "int8") as bundle:
        with pytest.raises(BundleCorruptError, match=r"the user graph has the inputs .*: expected events"):
            backend.load("user", bundle.graph("scorer"), CONFIG)
        with pytest.raises(BundleCorruptError, match="expected float32"):
            backend.load("scorer", bundle.graph("scorer"), ModelConfig())


def test_the_contract_compares_types_and_ranks() -> None:
    outputs = [Port("score", "float32", (None,)), Port("contributions", "float32", (None, CONFIG.layers))]
    inputs = [
        Port("query", "float32", (1, 2, 3, 32)),
        Port("bias", "float32", (1, 3)),
        Port("tokens", "int8", (None, 3, 2, 16)),
        Port("scales", "float32", (None, 3, 2)),
        Port("mask", "bool", (None,)),
    ]
    check_contract("scorer", inputs, outputs, CONFIG)
    with pytest.raises(BundleCorruptError, match=r"tokens is uint8 .*: expected int8 \[C, 3, 2, 16\]"):
        check_contract("scorer", [*inputs[:2], Port("tokens", "uint8", (None, 3, 2, 16)), *inputs[3:]], outputs, CONFIG)
    with pytest.raises(BundleCorruptError, match="score is"):
        check_contract("scorer", inputs, [Port("score", "float32", (None, 1)), outputs[1]], CONFIG)


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
        assert backend.load("scorer", bundle.graph("scorer"), CONFIG).device == "CPUExecutionProvider"


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
