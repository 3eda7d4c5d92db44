"""Versions of drivers and libraries below an inference library, and why a listed provider does not start."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

_NVIDIA_MODULES = ("nvidia", "nvgpu")
_TENSORRT = ("libnvinfer.so.10", "libnvinfer.so.8", "nvinfer_10.dll", "nvinfer.dll")


def nvidia(root: Path = Path("/")) -> dict[str, str]:
    """Driver, GPUs and, on a Jetson, its L4T release, as the system states them; empty without any.

    Args:
        root: Where ``proc``, ``sys`` and ``etc`` lie; another folder in tests.
    """
    found = {
        "driver": next((v for m in _NVIDIA_MODULES if (v := _text(root / f"sys/module/{m}/version"))), ""),
        "gpu": ", ".join(
            model[1]
            for p in sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
            if (model := re.search(r"Model:\s*(.+)", _text(p)))
        ),
        "l4t": _text(root / "etc/nv_tegra_release").partition(", GCID")[0].lstrip("# "),
    }
    if not found["driver"] and os.name == "nt":
        found["driver"] = _nvidia_smi()
    return {k: v for k, v in found.items() if v}


@lru_cache(maxsize=1)
def tensorrt() -> str:
    """TensorRT's version, from its own library; "" if there is none."""
    for name in _TENSORRT:
        try:
            version = int(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
        # 10.3.0 is 100300, 8.6.1 is 8601: from version 10 on each part has two digits.
        large, small = (10000, 100) if version >= 100000 else (1000, 100)
        return f"{version // large}.{version % large // small}.{version % small}"
    return ""


def kernel() -> str:
    """Release of the operating system, which brings the drivers of Intel's GPUs and NPUs."""
    return f"{platform.system()} {platform.release()}"


class Diagnosis(NamedTuple):
    """Why something does not work, and what to do about it ("" where nothing is known)."""

    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.why}; {self.fix}" if self.fix else self.why


_CUDA = (
    'pip install "onnxruntime-gpu[cuda,cudnn]", or install CUDA 12 and cuDNN 9 where the loader finds them '
    "(LD_LIBRARY_PATH); on a Jetson use the onnxruntime-gpu wheel made for its JetPack"
)
_FIXES = {
    "libcuda.so": "install the NVIDIA driver; in a container start it with --gpus all (Jetson: --runtime nvidia)",
    "libnvinfer": "pip install tensorrt, or install TensorRT where the loader finds it (LD_LIBRARY_PATH)",
    "libcu": _CUDA,
    "libnv": _CUDA,
}
_DRIVER_FIRST = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


def diagnose(ort: Any, provider: str) -> Diagnosis:
    """Why an execution provider that `onnxruntime` lists does not start.

    onnxruntime itself only writes a line on stderr. So what it tried is tried again: to load the provider's library.

    Args:
        ort: The module `onnxruntime`.
        provider: Such as ``CUDAExecutionProvider``.
    """
    stem = provider.removesuffix("ExecutionProvider").lower()
    folder = Path(ort.__file__).parent / "capi"
    library = next((p for n in (f"lib*_providers_{stem}.so", f"*_providers_{stem}.dll") for p in folder.glob(n)), None)
    if provider in _DRIVER_FIRST and os.name != "nt" and (error := _cannot_load("libcuda.so.1")):
        return Diagnosis(error, _FIXES["libcuda.so"])
    if library is None:
        return Diagnosis(
            f"this onnxruntime {ort.__version__} has no library for it",
            f"install the build of onnxruntime that brings {provider} (only one may be installed: pip list)",
        )
    error = _cannot_load(str(library))
    if not error:
        return Diagnosis(f"its library loads, but it found no device, or not all that it needs{_stated(ort)}", "")
    fix = next((fix for part, fix in _FIXES.items() if part in error), "install what is missing")
    return Diagnosis(error.replace(f"{folder}{os.sep}", ""), fix)


def _cannot_load(library: str) -> str:
    try:
        ctypes.CDLL(library)
    except OSError as e:
        return str(e)
    return ""


def _stated(ort: Any) -> str:
    """What the library was built for, where it says so."""
    cuda = str(getattr(ort, "cuda_version", "") or "")
    return f" (built for CUDA {cuda})" if cuda else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _nvidia_smi() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.split("\n")[0].strip()
