"""Devices: fixed shapes, what `auto` measures, engine caches, and what is said when a device cannot be used.

There is no accelerator here. OpenVINO's CPU stands in for an NPU, and where a provider has to be listed that does not
work, only the library's own list is replaced.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import tempfile
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from linkedout_edge import Recommender, Video, loading
from linkedout_edge.backends import Backend, Session, create_backend, drivers
from linkedout_edge.backends.auto import AutoBackend
from linkedout_edge.backends.cache import MAX_ENGINES, Choice, EngineCache
from linkedout_edge.backends.examples import distance, example_feeds
from linkedout_edge.backends.notices import Notices
from linkedout_edge.backends.placement import described
from linkedout_edge.bundle import open_bundle, reader
from linkedout_edge.cli.accelerators import onnxruntime_providers, openvino_devices
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import BackendError, BundleCorruptError, ClosedError, DeviceError
from linkedout_edge.rank.scorer import Scorer

CONFIG = ModelConfig.tiny()
CPU, CUDA, AZURE = "CPUExecutionProvider", "CUDAExecutionProvider", "AzureExecutionProvider"
ON_THE_CPU = {"encoder": CPU, "scorer": Scorer(ModelConfig.tiny()).device}
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")


@pytest.fixture
def encoder(tiny_bundle: Path) -> bytes:
    with open_bundle(tiny_bundle, "int8") as bundle:
        return bundle.encoder()


@pytest.fixture
def cuda_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's list names CUDA, as a wheel with a broken CUDA does."""
    real = onnxruntime.get_available_providers()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, *real])


@pytest.fixture(autouse=True)
def nothing_measured() -> Iterator[None]:
    AutoBackend._measured.clear()
    yield
    AutoBackend._measured.clear()


# Fixed dimensions.


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_a_static_graph_answers_as_the_dynamic_one(library: str, encoder: bytes) -> None:
    pytest.importorskip(library)
    dynamic, fixed = (
        create_backend(library, device="cpu", threads=1, static=s).load(encoder, CONFIG) for s in (False, True)
    )
    for videos in (1, 3):
        feeds = example_feeds(CONFIG, videos, seed=videos)
        wanted, found = dynamic.run(feeds), fixed.run(feeds)
        assert {k: (v.shape, v.dtype) for k, v in found.items()} == {k: (v.shape, v.dtype) for k, v in wanted.items()}
        # A value on the edge may fall to either side.
        assert np.abs(found["tokens"].astype(int) - wanted["tokens"]).max() <= 1
        np.testing.assert_allclose(found["scales"], wanted["scales"], rtol=0, atol=1e-4)
    with pytest.raises(BackendError, match="different lengths"):
        fixed.run({**feeds, "frame_mask": feeds["frame_mask"][:1]})
    with pytest.raises(BackendError, match=r"the encoder graph takes frames, .*: got frames"):
        fixed.run({"frames": feeds["frames"]})
    fixed.close()
    dynamic.close()
    with pytest.raises(ClosedError):
        fixed.run(feeds)


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", reader.embedded_precisions())
def test_the_graphs_that_ship_answer_the_same_with_fixed_dimensions(library: str, precision: str) -> None:
    pytest.importorskip(library)
    dynamic, fixed = (create_backend(library, device="cpu", threads=1, static=s) for s in (False, True))
    with open_bundle(precision) as bundle:
        config = bundle.manifest.config
        feeds = example_feeds(config)
        wanted, found = (b.load(bundle.encoder(), config).run(feeds) for b in (dynamic, fixed))
    # Kernels for fixed shapes round the seventh digit otherwise, and where activations are int8, values on the edge
    # between two steps fall to the other side. Graphs whose activations are floats have no such edges.
    assert distance(found, wanted) < (0.03 if precision == "int8" else 1e-4)


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_rankings_through_static_graphs_are_the_same(
    library: str, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way of an NPU, with the CPU in its place."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (12, 8, 32, 32, 3), dtype=np.uint8)
    videos = [Video(frames=f, id=f"v{n}", title="a red ball" if n % 2 else None) for n, f in enumerate(frames)]
    scores = []
    for static in (False, True):
        monkeypatch.setattr(loading, "create_backend", partial(create_backend, static=static))
        with Recommender.load(tiny_bundle, precision="fp32", backend=library, device="cpu", threads=1) as rec:
            rec.warmup()
            scores.append({r.id: r.score for r in rec.rank(videos[:4], videos[4:])})
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)
    assert len(set(scores[0].values())) > 1


# What a caller sees of a device that is not there.


def test_the_error_is_a_public_one_and_says_why(tiny_bundle: Path) -> None:
    with pytest.raises(DeviceError, match=r"leave strict_device out, or name the CPU") as caught:
        Recommender.load(tiny_bundle, device="npu", strict_device=True)
    assert type(caught.value) is DeviceError
    assert re.fullmatch(r"device 'npu' cannot be used: this onnxruntime has no \S+( or \S+)*", caught.value.reason)
    assert DeviceError("no such device").reason == "no such device"


def test_the_warning_shows_the_callers_line(tiny_bundle: Path) -> None:
    def warned(load: Callable[[], Any]) -> str:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            load().close()
        (warning,) = [w for w in said if "cannot be used" in str(w.message)]
        return warning.filename

    assert warned(lambda: Recommender.load(tiny_bundle, device="npu")) == __file__  # when it is chosen
    if AZURE in onnxruntime.get_available_providers():  # when the graph is loaded
        assert warned(lambda: Recommender.load(tiny_bundle, providers=[AZURE, CPU])) == __file__


# Providers.


def test_a_provider_that_takes_nothing_is_not_said_to_run_anything(tiny_bundle: Path) -> None:
    if AZURE not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no provider that is listed and runs nothing")
    with pytest.raises(DeviceError, match="takes none of the encoder graph's operations"):
        Recommender.load(tiny_bundle, providers=[AZURE])
    with pytest.raises(DeviceError, match="takes none"):
        Recommender.load(tiny_bundle, providers=[AZURE, CPU], strict_device=True)
    with pytest.warns(RuntimeWarning, match=f"{AZURE} cannot be used"):
        rec = Recommender.load(tiny_bundle, providers=[AZURE, CPU])
    with rec:
        info = rec.info()
    assert info.devices == ON_THE_CPU
    assert len(info.notices) == 1
    assert "running on the CPU" in info.notices[0]


def test_what_runs_a_graph_is_read_from_a_profile_where_the_library_does_not_tell(
    encoder: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As with the onnxruntime of a Jetson."""
    if AZURE not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no provider that is listed and runs nothing")
    name = "get_provider_graph_assignment_info"
    for kind in onnxruntime.InferenceSession.__mro__:
        if name in vars(kind):
            monkeypatch.delattr(kind, name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DeviceError, match="takes none of the encoder graph's operations"):
        create_backend(providers=[AZURE], threads=1).load(encoder, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_in_parts_says_how_large_they_are() -> None:
    assert described(Counter()) == ""
    assert described(Counter({CPU: 3})) == CPU
    assert described(Counter({CPU: 12, CUDA: 640})) == f"{CUDA} (640 of 652 operations), {CPU} (12)"


@pytest.mark.usefixtures("cuda_is_listed")
def test_a_listed_provider_that_does_not_start_says_why_and_what_ran(tiny_bundle: Path) -> None:
    with pytest.raises(DeviceError, match=r"could not start it: .*lib.*;"):
        Recommender.load(tiny_bundle, device="cuda", strict_device=True)
    with pytest.warns(RuntimeWarning, match="CUDAExecutionProvider cannot be used"):
        rec = Recommender.load(tiny_bundle, device="cuda")
    with rec:
        assert rec.info().devices == ON_THE_CPU
        assert "running on the CPU" in " ".join(rec.info().notices)
        assert len(rec.rank([], [Video(frames=np.zeros((1, 8, 8, 3), np.uint8), id="a")])) == 1


@pytest.mark.usefixtures("cuda_is_listed")
def test_auto_leaves_out_what_does_not_start_and_says_so(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), Recommender.load(tiny_bundle, cache_dir=tmp_path) as rec:
        info = rec.info()
    assert info.devices == ON_THE_CPU
    assert any("auto leaves cuda out" in n and "cannot be used" in n for n in info.notices)
    assert any("auto leaves cuda out" in r.message for r in caplog.records)
    assert str(tmp_path) not in caplog.text


@pytest.mark.usefixtures("cuda_is_listed")
def test_a_corrupt_graph_is_no_fault_of_the_device() -> None:
    with pytest.raises(BundleCorruptError, match="cannot load the encoder graph"):
        create_backend(device="cuda", threads=1).load(b"no graph", CONFIG)


def test_a_plugin_provider_is_chosen_by_its_devices(encoder: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(onnxruntime, "get_ep_devices"):
        pytest.skip("this onnxruntime knows no plug-ins")
    monkeypatch.setattr(onnxruntime, "get_available_providers", list)  # so that the CPU's looks like a plug-in
    backend = create_backend(providers=[CPU], threads=1)
    session = backend.load(encoder, CONFIG)
    assert session.device == CPU
    assert session.run(example_feeds(CONFIG))["tokens"].shape == (1, 3, 2, 16)


@needs_openvino
def test_openvino_takes_its_own_device_names(encoder: bytes) -> None:
    for providers in (["CPU"], ["AUTO:CPU"], [("CPU", {"NUM_STREAMS": 1})]):
        session = create_backend("openvino", providers=providers, threads=1).load(encoder, CONFIG)
        assert "CPU" in session.device
        session.run(example_feeds(CONFIG))
        session.close()
        assert "CPU" in session.device


# What auto measures.


class Wrong:
    """A device that is quick and wrong."""

    device = "WRONG"

    def __init__(self, inner: Session) -> None:
        self.inner = inner

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return {k: np.flip(v, 0) if v.shape[0] > 1 else v[..., ::-1].copy() for k, v in self.inner.run(feeds).items()}

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def two_devices() -> Callable[..., AutoBackend]:
    """ONNX Runtime as the CPU, and OpenVINO with static graphs as an NPU."""
    pytest.importorskip("openvino")

    def make(cache_dir: Path | None, spoil: Callable[[Backend], None] = lambda _: None) -> AutoBackend:
        npu = create_backend("openvino", device="cpu", threads=1, static=True)
        spoil(npu)
        return AutoBackend(create_backend(device="cpu", threads=1), {"npu": lambda: npu}, cache_dir, Notices())

    return make


def test_auto_measures_once_and_remembers(
    two_devices: Callable[..., AutoBackend], encoder: bytes, tmp_path: Path
) -> None:
    first = two_devices(tmp_path)
    session = first.load(encoder, CONFIG, "int8")
    assert any("encoder graph on" in n and "measured: cpu" in n and "npu" in n for n in first.notices)
    (kept,) = (tmp_path / "choices").iterdir()
    choice = json.loads(kept.read_text())
    assert set(choice["milliseconds"]) == {"cpu", "npu"}
    assert ("Execution" in session.device) == (choice["device"] == "cpu")

    AutoBackend._measured.clear()  # as in another process
    choice |= {"device": "npu", "milliseconds": {"cpu": 2.0, "npu": 1.0}}
    kept.write_text(json.dumps(choice))
    second = two_devices(tmp_path)
    assert second.load(encoder, CONFIG).device == "CPU"  # OpenVINO's, as was remembered
    assert any("remembered: cpu 2 ms, npu 1 ms" in n for n in second.notices)

    other = dict(choice["key"], **{"npu openvino": "2020.1"})  # another library: another key, measured again
    kept.write_text(json.dumps({**choice, "key": other}))
    AutoBackend._measured.clear()
    third = two_devices(tmp_path)
    third.load(encoder, CONFIG)
    assert any("measured:" in n for n in third.notices)


def test_auto_without_a_folder_remembers_while_the_process_lasts(
    two_devices: Callable[..., AutoBackend], encoder: bytes
) -> None:
    two_devices(None).load(encoder, CONFIG)
    again = two_devices(None)
    again.load(encoder, CONFIG)
    assert any("remembered:" in n for n in again.notices)


def test_a_damaged_choice_is_measured_again_and_said(
    two_devices: Callable[..., AutoBackend], encoder: bytes, tmp_path: Path
) -> None:
    two_devices(tmp_path).load(encoder, CONFIG)
    (kept,) = (tmp_path / "choices").iterdir()
    for bad in (b"{", b"\xff\xfe", b'{"device": 3}', b"[" * 100_000):
        kept.write_bytes(bad)
        AutoBackend._measured.clear()
        again = two_devices(tmp_path)
        again.load(encoder, CONFIG)
        assert any("damaged: measuring again" in n for n in again.notices)
        assert json.loads(kept.read_text())["device"] in ("cpu", "npu")


def test_auto_does_not_choose_a_device_that_answers_wrongly_or_fails(
    two_devices: Callable[..., AutoBackend], encoder: bytes
) -> None:
    def wrong(backend: Any) -> None:
        load = backend.load
        backend.load = lambda *a, **k: Wrong(load(*a, **k))

    spoiled = two_devices(None, wrong)
    assert spoiled.load(encoder, CONFIG).device == CPU
    assert any("its answers are wrong by" in n for n in spoiled.notices)

    def fails(backend: Any) -> None:
        def load(*args: Any, **kwargs: Any) -> Session:
            raise DeviceError("no. Leave strict_device out.", "the driver is too old")

        backend.load = load

    AutoBackend._measured.clear()
    failing = two_devices(None, fails)
    assert failing.load(encoder, CONFIG).device == CPU
    assert "auto leaves npu out: the driver is too old" in failing.notices


def test_auto_does_not_compile_for_minutes_at_every_start() -> None:
    notices = Notices()
    cpu = create_backend(device="cpu", threads=1)

    def never() -> Backend:
        raise AssertionError("TensorRT was started")

    backend = AutoBackend(cpu, {"tensorrt": never}, None, notices)
    assert list(backend._backends) == ["cpu"]
    assert "without cache_dir" in notices[0]


# Caches.


@needs_openvino
def test_engines_are_kept_and_built_again_for_another_driver(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def load() -> tuple[str, ...]:
        with Recommender.load(tiny_bundle, backend="openvino", device="cpu", threads=1, cache_dir=tmp_path) as rec:
            rec.warmup()
            return rec.info().notices

    assert load() == ()
    folders = sorted((tmp_path / "engines").iterdir())
    assert [f.name.split("-")[:2] for f in folders] == [["openvino", "CPU"]]
    blobs = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.blob")}
    assert len(blobs) == 1
    assert load() == ()
    assert {p: p.stat().st_mtime_ns for p in blobs} == blobs  # taken as they were

    key = folders[0] / "key.json"
    key.write_text(key.read_text().replace('"openvino":"', '"openvino":"2020.1-'))
    with caplog.at_level(logging.INFO):
        (notice,) = load()
    assert "engines for openvino-CPU are built again: openvino was '2020.1-" in notice
    assert notice in caplog.text
    assert str(tmp_path) not in caplog.text
    assert load() == ()

    for spoil in (lambda f: f.write_bytes(b"garbage"), lambda f: f.write_text("[]")):
        spoil(key)
        (notice,) = load()
        assert "damaged or not ours" in notice


@needs_openvino
def test_damaged_engines_and_foreign_files_are_built_again(tiny_bundle: Path, tmp_path: Path) -> None:
    def scores() -> list[float]:
        rng = np.random.default_rng(0)
        frames = [Video(frames=rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8), id=str(n)) for n in range(4)]
        with Recommender.load(tiny_bundle, backend="openvino", device="cpu", threads=1, cache_dir=tmp_path) as rec:
            return [r.score for r in rec.rank(frames[:2], frames[2:])]

    wanted = scores()
    for blob in tmp_path.rglob("*.blob"):
        blob.chmod(0o600)  # OpenVINO writes them read-only, which stops all but root
        blob.write_bytes(blob.read_bytes()[: blob.stat().st_size // 2])
    assert scores() == pytest.approx(wanted, abs=1e-4)
    for blob in tmp_path.rglob("*.blob"):
        blob.chmod(0o600)
        blob.write_bytes(b"garbage" * 100)
    assert scores() == pytest.approx(wanted, abs=1e-4)
    folder = next((tmp_path / "engines").iterdir())
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_text("a file in its place")
    assert scores() == pytest.approx(wanted, abs=1e-4)


def test_a_cache_folder_that_cannot_be_written_costs_time_only(tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    blocked = tmp_path / "file"
    blocked.write_text("")
    folder = blocked / "cache"  # below a file: not even root can write there
    with Recommender.load(tiny_bundle, backend="openvino", device="cpu", threads=1, cache_dir=folder) as rec:
        rec.warmup()
        (notice,) = rec.info().notices
    assert "cache_dir cannot be written" in notice
    assert str(tmp_path) not in notice
    cache = EngineCache(folder, Notices())
    cache.remember(Choice(device="cpu", milliseconds={}, key={"a": "b"}))
    assert cache.recall({"a": "b"}) is None


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, Notices())
    for n in range(MAX_ENGINES + 5):
        assert cache.engines(f"library-device-{n:02}", {"n": str(n)}) is not None
    assert len(list((tmp_path / "engines").iterdir())) == MAX_ENGINES


def test_choices_are_kept_by_their_whole_key(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, Notices())
    choice = Choice(device="gpu", milliseconds={"cpu": 2.0, "gpu": 1.0}, key={"driver": "1"})
    cache.remember(choice)
    assert cache.recall({"driver": "1"}) == choice
    assert cache.recall({"driver": "2"}) is None


# Drivers, and what doctor says.


def test_drivers_are_read_from_the_system(tmp_path: Path) -> None:
    assert drivers.nvidia(tmp_path) == {}
    for name, text in {
        "sys/module/nvidia/version": "550.54.14\n",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA A2\nIRQ: 3\n",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 3.0, GCID: 36191598, BOARD: generic\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert drivers.nvidia(tmp_path) == {
        "driver": "550.54.14",
        "gpu": "NVIDIA A2",
        "l4t": "R36 (release), REVISION: 3.0",
    }


def test_why_a_provider_does_not_start_is_found_by_loading_it(tmp_path: Path) -> None:
    (tmp_path / "capi").mkdir()
    library = tmp_path / "capi" / "libonnxruntime_providers_migraphx.so"
    ort = types.SimpleNamespace(__file__=str(tmp_path / "__init__.py"), __version__="1.32.0")
    said = drivers.diagnose(ort, "MIGraphXExecutionProvider")
    assert "has no library for it" in said.why
    assert "only one may be installed" in said.fix
    library.write_bytes(b"not a library")
    said = drivers.diagnose(ort, "MIGraphXExecutionProvider")
    assert "libonnxruntime_providers_migraphx.so" in said.why
    assert str(tmp_path) not in said.why
    assert said.fix


@pytest.mark.usefixtures("cuda_is_listed")
def test_doctor_explains_a_provider_that_is_listed_and_fails(tiny_bundle: Path) -> None:
    checks = {name: rest for name, *rest in onnxruntime_providers(onnxruntime, str(tiny_bundle))}
    well, found, fix = checks["provider CUDA"]
    assert not well
    assert found.startswith("listed, but ")
    assert "install" in fix
    if AZURE in onnxruntime.get_available_providers():
        assert checks["provider Azure"][0]


def test_doctor_sees_devices_that_the_libraries_do_not_use(tiny_bundle: Path, tmp_path: Path) -> None:
    assert list(openvino_devices(["CPU"], str(tiny_bundle), tmp_path)) == []
    for node in ("dev/accel/accel0", "dev/dri/renderD128", "sys/module/nvidia/version"):
        (tmp_path / node).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / node).write_text("550.1")
    assert [name for name, *_ in openvino_devices(["CPU"], str(tiny_bundle), tmp_path)] == ["OpenVINO NPU"]
    (tmp_path / "sys/module/nvidia/version").unlink()
    names = [name for name, *_ in openvino_devices(["CPU"], str(tiny_bundle), tmp_path)]
    assert names == ["OpenVINO NPU", "OpenVINO GPU"]
    (tmp_path / "sys/module/nvidia/version").write_text("550.1")
    found = {name: rest for name, *rest in onnxruntime_providers(onnxruntime, str(tiny_bundle), tmp_path)}
    assert "onnxruntime-gpu" in found["NVIDIA GPU"][2]


def test_answers_are_compared_as_they_are_used() -> None:
    a = {"tokens": np.array([[1, 2]], np.int8), "scales": np.array([0.5], np.float32)}
    assert distance(a, a) == 0
    assert distance({**a, "scales": np.array([np.nan], np.float32)}, a) == np.inf
    assert distance({**a, "scales": np.array([0.55], np.float32)}, a) == pytest.approx(0.1, abs=1e-6)


def test_what_the_commands_cache_is_listed_as_kept(tmp_path: Path) -> None:
    from linkedout_edge.cli.privacy import kept_engines

    assert list(kept_engines(tmp_path / "none")) == []
    EngineCache(tmp_path, Notices()).engines("openvino-GPU-0", {"driver": "1"})
    (file,) = kept_engines(tmp_path)
    assert file.path.endswith("key.json")
    assert "nothing of yours" in file.holds
