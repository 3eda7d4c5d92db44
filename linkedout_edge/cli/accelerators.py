"""Accelerators in `doctor`: which are listed, whether they really run the model, and how to fix the rest."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from linkedout_edge import install
from linkedout_edge.backends import create_backend, drivers
from linkedout_edge.backends.examples import distance, example_feeds
from linkedout_edge.bundle import open_bundle
from linkedout_edge.cli.output import announcements, duration
from linkedout_edge.errors import LinkedOutError

CPU = "CPUExecutionProvider"
_GUIDES = {
    "NPU": (
        "dev/accel/accel*",
        "this machine has an NPU that OpenVINO does not find",
        "install Intel's NPU driver (github.com/intel/linux-npu-driver), and join the group that owns /dev/accel: "
        "usually render",
    ),
    "GPU": (
        "dev/dri/renderD*",
        "this machine has a GPU that OpenVINO does not find",
        "for an Intel GPU: apt install intel-opencl-icd, and join the group render; others are not OpenVINO's",
    ),
}


def onnxruntime_providers(ort: Any, bundle: str, root: Path = Path("/")) -> Iterator[tuple[str, bool, str, str]]:
    """Try each listed provider but the CPU's on the encoder. TensorRT compiles it for minutes, which is said on stderr.

    Yields:
        Name, whether all is well, what was found, and what to do about it.
    """
    listed: Sequence[str] = ort.get_available_providers()
    for provider in listed:
        if provider == CPU:
            continue
        name = f"provider {provider.removesuffix('ExecutionProvider')}"
        if provider == "AzureExecutionProvider":
            yield name, True, "listed; it calls an online service and is never used", ""
            continue
        try:
            found = _try("onnxruntime", [provider], bundle)
        except LinkedOutError as e:
            said = drivers.diagnose(ort, provider)
            yield name, False, f"listed, but {said.why}", said.fix or f"leave it out; it said: {e}"
        else:
            yield name, True, found, ""
    gpu = drivers.nvidia(root)
    if gpu and not {"CUDAExecutionProvider", "TensorrtExecutionProvider"} & set(listed):
        found = f"driver {gpu.get('driver', 'unknown')} is here, but this onnxruntime is built without CUDA"
        fix = (
            f"pip uninstall onnxruntime; {install.library('onnxruntime-gpu[cuda,cudnn]')} "
            "(on a Jetson: its JetPack's wheel)"
        )
        yield "NVIDIA GPU", False, found, fix


def openvino_devices(
    devices: Sequence[str], bundle: str, root: Path = Path("/")
) -> Iterator[tuple[str, bool, str, str]]:
    """The same for OpenVINO's devices, and those that the system has but OpenVINO does not find."""
    for device in devices:
        if device == "CPU":
            continue
        name = f"OpenVINO {device}"
        try:
            yield name, True, _try("openvino", [device], bundle), ""
        except LinkedOutError as e:
            yield name, False, f"found, but {e}", "update its driver, or leave it out with --device cpu"
    kinds = {d.split(".")[0] for d in devices}
    for kind, (pattern, found, fix) in _GUIDES.items():
        nvidia_only = kind == "GPU" and drivers.nvidia(root)  # its render node is no use to OpenVINO
        if kind not in kinds and not nvidia_only and any(root.glob(pattern)):
            yield f"OpenVINO {kind}", False, found, fix


def _try(backend: str, providers: list[str], bundle: str) -> str:
    """Run the encoder there and on the CPU, and say what ran it, how long it took and how far the answers are apart."""
    with open_bundle(bundle) as opened, announcements(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = opened.manifest.config
        feeds = example_feeds(config)
        answers = []
        for on in (None, providers):
            device = "cpu" if on is None else "auto"
            library = create_backend(backend, device=device, providers=on, threads=1, strict=True)
            session = library.load(opened.encoder(), config, opened.precision, weights=opened.weights())
            session.run(feeds)
            start = time.perf_counter()
            answers.append(session.run(feeds))
            took, ran = time.perf_counter() - start, session.device
            session.close()
    return f"runs on {ran}, a video in {duration(took)}, {distance(answers[1], answers[0]):.1e} from the CPU's answer"
