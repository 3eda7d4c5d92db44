"""The CPU features that int8 arithmetic depends on.

They decide two things. Int8 encoders round by instruction set (the float steps between their integer products do), so
tokens that are to agree closely must come from the same one. And x86 CPUs without VNNI add pairs of products in 16
bits, which overflows without a word where weights use all eight bits: such graphs must not run there. The built-in
bundle's graphs have 7-bit weights, which fit.

OpenCV says what the CPU can do, on every system and under emulation too. What OpenCV does not look for is read from
Linux's ``/proc/cpuinfo``. Elsewhere it counts as absent, which is the careful side.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from linkedout_edge.errors import DeviceError

_ARCHITECTURES = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "arm64", "arm64": "arm64"}
_FEATURES: dict[str, dict[str, tuple[int | None, str]]] = {
    "x86-64": {
        "avx2": (11, "avx2"),
        "avx512f": (13, "avx512f"),
        "avx512-vnni": (23, "avx512_vnni"),
        "avx-vnni": (None, "avx_vnni"),
        "amx-int8": (None, "amx_int8"),
    },
    "arm64": {
        "neon": (100, "asimd"),
        "dotprod": (101, "asimddp"),
        "i8mm": (None, "i8mm"),
    },
}
"""Architecture → our name → number in OpenCV's enum `cv::CpuFeatures`, which Python has no names for (None: not among
them), and Linux's name."""
_ALWAYS = {"x86-64": 3, "arm64": 100}
"""SSE2, NEON: every such CPU has it, so if OpenCV denies it, it was disabled (``cv2.setUseOptimized(False)``)."""


@dataclass(frozen=True)
class InstructionSet:
    """What a CPU can do, as far as int8 arithmetic depends on it.

    Attributes:
        architecture: ``x86-64``, ``arm64``, or what Python calls another.
        features: Of x86-64 ``avx2``, ``avx512f``, ``avx512-vnni``, ``avx-vnni`` and ``amx-int8``; of arm64 ``neon``,
            ``dotprod`` and ``i8mm``; in this order. Empty if nothing is known.
    """

    architecture: str
    features: tuple[str, ...] = ()

    @property
    def overflows(self) -> bool:
        """Whether integer products with full-range int8 weights may overflow here.

        Either VNNI will do: ONNX Runtime (from 1.20, the oldest that is supported) and OpenVINO have kernels for both.
        Of an x86 CPU that nothing is known of the worst is assumed.
        """
        return self.architecture == "x86-64" and not {"avx512-vnni", "avx-vnni"} & set(self.features)

    @property
    def fast_int8(self) -> bool:
        """Whether there are instructions that multiply and add int8 in one step."""
        return bool(set(self.features) - {"avx2", "avx512f", "neon"})

    def __str__(self) -> str:
        return f"{self.architecture} ({', '.join(self.features) or 'unknown instruction set'})"


@lru_cache(maxsize=1)
def instruction_set() -> InstructionSet:
    """This CPU's. Never raises: what cannot be found out is unknown."""
    return detect(platform.machine())


def detect(machine: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> InstructionSet:
    """The instruction set of a machine.

    Args:
        machine: As `platform.machine` calls it.
        cpuinfo: Linux's description of the CPU; need not exist.
    """
    architecture = _ARCHITECTURES.get(machine.lower(), machine.lower() or "unknown")
    table = _FEATURES.get(architecture, {})
    listed = _listed(cpuinfo)
    by_file = {name for name, (_, linux) in table.items() if linux in listed}
    reported = _reported(architecture)
    found = {name for name, there in reported.items() if there}
    # Under emulation of another CPU the file may describe the real one: then they differ in what both know.
    if all((name in by_file) == there for name, there in reported.items()):
        found |= by_file
    return InstructionSet(architecture, tuple(name for name in table if name in found))


def _reported(architecture: str) -> dict[str, bool]:
    """What OpenCV finds and what it misses; nothing where it does not tell."""
    try:
        import cv2
    except ImportError:
        return {}
    if architecture not in _FEATURES or not cv2.checkHardwareSupport(_ALWAYS[architecture]):
        return {}
    return {
        name: bool(cv2.checkHardwareSupport(number))
        for name, (number, _) in _FEATURES[architecture].items()
        if number is not None
    }


def _listed(cpuinfo: Path) -> frozenset[str]:
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    line = next((x for x in lines if x.lower().startswith(("flags", "features"))), "")
    return frozenset(line.partition(":")[2].split())


def overflow() -> str:
    """Why a graph with full-range int8 weights is neither run nor compared on this CPU."""
    return f"full-range int8 weights overflow in the integer arithmetic of this CPU: {instruction_set()}, no VNNI"


def refusal() -> DeviceError:
    """The error of a graph with full-range int8 weights that this CPU would run, or part of it."""
    return DeviceError(
        f"the encoder graph would give wrong answers: {overflow()}. Load another precision, make one with "
        "linkedout-edge quantize, or name an accelerator with strict_device=True"
    )
