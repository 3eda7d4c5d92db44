"""Decoding in hardware, without any: what falls back, what is said, and what is recommended where there is a device."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from linkedout_edge import Recommender
from linkedout_edge.decode import DEFAULT_LIMITS, get_decoder, hardware
from linkedout_edge.decode.pool import DecoderPool, isolated, why_not
from linkedout_edge.errors import ArgumentError, MissingDependencyError, VideoUnreadableError

av = pytest.importorskip("av")
if int(av.__version__.partition(".")[0]) < hardware.PYAV:
    pytest.skip("this PyAV is too old for hardware decoding", allow_module_level=True)

from linkedout_edge.decode.pyav import PyAVDecoder  # noqa: E402

DEVICES = hardware.devices()
ABSENT = [name for name in DEVICES if hardware.trouble(name) is not None]
WANTED: tuple[Any, ...] = (4, 32, DEFAULT_LIMITS)
LIBRARY = Path(__file__).parents[1] / "benchmarks" / "library.py"
a_device = pytest.mark.skipif(not DEVICES, reason="PyAV was built without any device")
absent = pytest.mark.skipif(not ABSENT, reason="every device that PyAV was built with opens here")


@pytest.fixture(autouse=True)
def as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = hardware.trouble
    monkeypatch.setattr(hardware, "_said", {})
    real.cache_clear()
    yield
    real.cache_clear()


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_an_unknown_name_is_refused_and_those_of_this_pyav_are_named() -> None:
    with pytest.raises(ArgumentError, match="unknown hardware 'toaster'") as caught:
        PyAVDecoder(hardware="toaster")
    assert all(repr(name) in str(caught.value) for name in DEVICES)
    with pytest.raises(ArgumentError, match="unknown hardware 'toaster'"):
        Recommender.load("int8", decoder="pyav:toaster")
    with pytest.raises(ArgumentError, match="unknown decoder 'opencv:cuda'"):
        get_decoder("opencv:cuda")


@absent
@pytest.mark.parametrize("device", ABSENT)
def test_without_the_device_frames_are_those_of_software(
    device: str, clips: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    software, decoder = get_decoder("pyav"), get_decoder(f"pyav:{device}")
    assert decoder == PyAVDecoder(hardware=device)
    for clip in clips[:3]:
        np.testing.assert_array_equal(decoder(clip, *WANTED), software(clip, *WANTED))
        for got, want in zip(decoder.quick(clip, *WANTED), software.quick(clip, *WANTED), strict=True):  # type: ignore[attr-defined]
            np.testing.assert_array_equal(got, want)
    (said,) = warned(caplog)
    assert said.startswith(f"{device} cannot be used for decoding")


@a_device
def test_a_codec_that_the_device_does_not_decode(
    clips: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device = next((d for d in ABSENT if hardware.trouble(d) == "the FFmpeg in PyAV decodes no codec with it"), None)
    if device is None:
        pytest.skip("this PyAV has a decoder for each of its devices")
    monkeypatch.setattr(hardware, "trouble", lambda _: None)
    decoder = PyAVDecoder(hardware=device)
    for clip in clips[:2]:
        np.testing.assert_array_equal(decoder(clip, *WANTED), PyAVDecoder()(clip, *WANTED))
    assert warned(caplog) == [f"{device} has no decoder for mpeg4: such videos are decoded in software"]


@a_device
@pytest.mark.parametrize("how", ["does not open", "gives no frames"])
def test_a_device_that_fails_at_a_video(
    how: str, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cut = tmp_path / "cut.mp4"
    data = clips[0].read_bytes()
    at = data.index(b"mdat") + 4
    cut.write_bytes(data[:at] + bytes(data.index(b"moov") - 4 - at) + data[data.index(b"moov") - 4 :])
    with pytest.raises(VideoUnreadableError):
        PyAVDecoder()(cut, *WANTED)
    real = av.open

    def opened(name: str, *, hwaccel: Any = None, **more: Any) -> Any:
        if hwaccel is not None and how == "does not open":
            raise av.error.ExternalError(1, "the device is busy")
        return real(name if hwaccel is None else f"file:{cut}", **more)

    monkeypatch.setattr(hardware, "trouble", lambda _: None)
    monkeypatch.setattr(av, "open", opened)
    decoder = PyAVDecoder(hardware=DEVICES[0])
    for clip in clips[:2]:
        np.testing.assert_array_equal(decoder(clip, *WANTED), PyAVDecoder()(clip, *WANTED))
    assert f"a video that {DEVICES[0]} could not decode was decoded in software" in warned(caplog)
    with pytest.raises(VideoUnreadableError, match=r"cut\.mp4"):  # a file that is to blame itself
        decoder(cut, *WANTED)


@absent
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_decoder_processes_take_the_settings_and_the_app_is_told(
    clips: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    decoder = PyAVDecoder(min_key_frames=1, hardware=ABSENT[0])
    assert pickle.loads(pickle.dumps(decoder)) == decoder
    assert isolated(decoder) == ("pyav", {"min_key_frames": 1, "hardware": ABSENT[0]})
    assert isolated(lambda *_: np.zeros((1, 1, 1, 3), np.uint8)) is None
    name, settings = "pyav", {"min_key_frames": 1, "hardware": ABSENT[0]}
    pool = DecoderPool(name, 1, settings=settings)
    try:
        for clip in clips[:2]:
            got = pool(clip, *WANTED)
            np.testing.assert_array_equal(got, PyAVDecoder(min_key_frames=1)(clip, *WANTED))
            assert len(got) < len(PyAVDecoder()(clip, *WANTED))
    finally:
        pool.close()
    (said,) = warned(caplog)
    assert said.startswith(f"{ABSENT[0]} cannot be used for decoding")


@absent
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_recommender_decodes_beside_with_such_a_decoder(tiny_bundle: Path, clips: list[Path]) -> None:
    with Recommender.load(
        tiny_bundle, precision="fp32", decoder=PyAVDecoder(hardware=ABSENT[0]), decoders=1, threads=1
    ) as rec:
        assert len(rec.encode(clips[:2]).encoded) == 2
        pool = rec._encoding.encoder.pool
        assert pool is not None
        assert len(pool.process_ids()) == 1


def test_a_pyav_without_devices_or_too_old_says_which_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setattr(av, "__version__", "17.1.0")
        with pytest.raises(MissingDependencyError, match=r"17\.1\.0 is installed.*av>=18"):
            PyAVDecoder(hardware="cuda")
        PyAVDecoder()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "av.codec.hwaccel", None)  # type: ignore[arg-type]
        with pytest.raises(MissingDependencyError, match=r"needs PyAV 18.*av>=18"):
            PyAVDecoder(hardware="cuda")
        PyAVDecoder()


# -- a driver that is not one --------------------------------------------------------------------------------------

SCRIPT = """
import json, logging, sys
from pathlib import Path
from linkedout_edge.decode import DEFAULT_LIMITS, get_decoder
from linkedout_edge.decode.hardware import said
from linkedout_edge.decode.pool import DecoderPool

software, device, path, wanted = get_decoder("pyav"), get_decoder("pyav:cuda"), sys.argv[1], (4, 32, DEFAULT_LIMITS)
full, (quick, _) = device(path, *wanted), device.quick(path, *wanted)
pool = DecoderPool("pyav", 1, settings={"hardware": "cuda"})
beside = pool(path, *wanted)
limits = Path(f"/proc/{pool.process_ids()[0]}/limits").read_text()
pool.close()
print(json.dumps({
    "software": bool((full == software(path, *wanted)).all() and (quick == software.quick(path, *wanted)[0]).all()),
    "beside": bool((beside == full).all()),
    "flat": float(full.std((1, 2)).max()),
    "grey": full.mean((1, 2, 3)).tolist(),
    "limits": limits,
    "said": said(),
}))
"""


@pytest.fixture(scope="module")
def fake_nvidia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libraries that FFmpeg takes for NVIDIA's."""
    compiler = shutil.which("cc")
    libraries = list((Path(av.__file__).parent.parent / "av.libs").glob("libav[cu]*"))
    if "cuda" not in DEVICES or sys.platform != "linux" or compiler is None or not libraries:
        pytest.skip("needs Linux, a C compiler, and a wheel of PyAV with cuda")
    source = (Path(__file__).parent / "fake_nvidia.c").read_text(encoding="utf-8")
    names = {
        n.decode() for lib in libraries for n in re.findall(rb"\0(cu(?:[A-Z]|vid[A-Z])\w+)(?=\0)", lib.read_bytes())
    }
    names -= {"cuvidGetDecoderCaps"}  # without it FFmpeg continues
    missing = [f"int {name}(void) {{ return 0; }}\n" for name in sorted(names) if f" {name}(" not in source]
    folder = tmp_path_factory.mktemp("nvidia")
    (folder / "all.c").write_text(source + "".join(missing), encoding="utf-8")
    command = [compiler, "-w", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(folder / "all.c")]
    subprocess.run(command, check=True, timeout=60)
    shutil.copy(folder / "libcuda.so.1", folder / "libnvcuvid.so.1")
    return folder


@pytest.mark.parametrize("how", ["decodes", "refuse", "fail"])
def test_a_device_that_ffmpeg_takes_for_a_gpu(how: str, fake_nvidia: Path, tmp_path: Path) -> None:
    import media

    video = media.write(tmp_path / "a.mp4", media.scenes(50), gop=50)
    found = json.loads(
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(video)],
            env={**os.environ, "LD_LIBRARY_PATH": str(fake_nvidia), "FAKE_NVIDIA": how},
            stdout=subprocess.PIPE,
            check=True,
            timeout=120,
        ).stdout
    )
    assert found["beside"]
    assert re.search(r"Max address space +unlimited", found["limits"])
    if how == "decodes":  # pictures come from the device, in order, at the right times
        assert found["flat"] < 1
        assert all(a < b for a, b in zip(found["grey"], found["grey"][1:], strict=False))
        assert found["said"] == []
    else:
        assert found["software"]
        told = ["a video that cuda could not decode was decoded in software"] if how == "fail" else []
        assert found["said"] == told


# -- the command that decides --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_library", LIBRARY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@absent
def test_the_command_without_a_device(clips: list[Path]) -> None:
    if len(ABSENT) < len(DEVICES):
        pytest.skip("there is a device here")
    command = [sys.executable, str(LIBRARY), "hardware", str(clips[0].parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "No device decodes here." in done.stdout
    assert all(f"{name}: " in done.stdout for name in DEVICES)


@a_device
def test_the_command_compares_what_opens(
    library: ModuleType, clips: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "devices", lambda: DEVICES[:1])
    monkeypatch.setattr(library, "trouble", lambda _: None)  # and falls back to software, which stands in for it
    found = library.hardware(clips[0].parent, 1)
    row = found[DEVICES[0]]["mpeg4 48p"]
    assert row["cosine"] == pytest.approx(1)
    assert row["device"] > 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(DEVICES[0]) and "mpeg4 48p" in line for line in lines)


def test_hardware_is_recommended_where_it_wins_with_the_same_frames(library: ModuleType) -> None:
    def kinds(*pairs: tuple[float, float]) -> dict[str, Any]:
        return {str(n): {"share": share, "cosine": cosine} for n, (share, cosine) in enumerate(pairs)}

    which = library.which_hardware
    assert 'decoder="pyav:b"' in which({"a": kinds((0.9, 1)), "b": kinds((0.3, 1), (1.2, 0.996))})
    for found in ({"a": kinds((0.3, 1), (0.3, 0.99))}, {"a": kinds((0.98, 1))}, {"a": kinds((0.3, 1), (9, 1))}):
        assert which(found).startswith("Decode in software")


def test_a_precision_is_recommended_by_time_and_agreement(library: ModuleType) -> None:
    def row(cosine: float, *times: float) -> dict[str, float]:
        return {"cosine": cosine, **{f"share {b}": t for b, t in zip((1, 8, 32), times, strict=True)}}

    which = library.which_precision
    fast = {
        "fp32": row(1, 9, 9, 9),
        "fp16": row(0.9999, 5, 2, 1),
        "int8": row(0.99, 5, 2, 1),
        "int4": row(0.9, 1, 1, 1),
    }
    assert which(fast, "cuda") == "On cuda use fp16."
    mixed = {"fp32": row(1, 9, 9, 9), "int8": row(0.99, 8, 8.9, 4)}
    assert which(mixed, "cpu") == "On cpu use int8 for batches of 1, fp32 for batches of 8, int8 for batches of 32."
