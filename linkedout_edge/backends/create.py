"""Which inference library on which device: a name, a device and options → a backend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

from linkedout_edge.backends.auto import AutoBackend
from linkedout_edge.backends.base import Backend
from linkedout_edge.backends.notices import Notices
from linkedout_edge.backends.onnxruntime import OnnxRuntimeBackend
from linkedout_edge.backends.openvino import OpenVinoBackend
from linkedout_edge.errors import ArgumentError, ArgumentTypeError, unknown

BACKENDS: dict[str, type[OnnxRuntimeBackend | OpenVinoBackend]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "openvino": OpenVinoBackend,
}
"""By name; each imports its library when it is made."""
DEVICES = ("auto", "cpu", "cuda", "tensorrt", "gpu", "npu")

Providers: TypeAlias = "Sequence[str | tuple[str, dict[str, Any]]]"


def create_backend(
    name: str = "onnxruntime",
    *,
    device: str = "auto",
    providers: Providers | None = None,
    threads: int,
    cache_dir: str | os.PathLike[str] | None = None,
    strict: bool = False,
    static: bool | None = None,
) -> Backend:
    """The backend of that name on that device.

    Args:
        name: One of `BACKENDS`.
        device: One of `DEVICES`; ``auto`` measures the graph on what is there, if that is more than the CPU.
        providers: Execution providers of ONNX Runtime, or device names of OpenVINO, instead of `device`.
        threads: Of the CPU.
        cache_dir: Where engines and measurements are kept.
        strict: Raise instead of using the CPU.
        static: Fix the graph's dimensions; None does where the device needs it. True on a CPU stands in for an NPU.

    Raises:
        ArgumentError: An unknown name or device, or `providers` together with something that contradicts them.
        ArgumentTypeError: `providers` is no list.
        DeviceError: The device is not available and `strict` is set, or a provider is not available.
        MissingDependencyError: The library is not installed.
    """
    if name not in BACKENDS:
        raise ArgumentError(unknown("backend", name, BACKENDS))
    if device not in DEVICES:
        raise ArgumentError(unknown("device", device, DEVICES))
    chosen = None if providers is None else _pairs(providers)
    if chosen is not None and device != "auto":
        raise ArgumentError(f"providers and device={device!r} contradict each other: leave one out")

    notices = Notices()

    def create(on: str, strictly: bool = True) -> OnnxRuntimeBackend | OpenVinoBackend:
        return BACKENDS[name](on, chosen, threads, cache_dir, strictly, static, notices)

    if device != "auto" or chosen is not None:
        return create(device, strict)
    cpu = create("cpu", strict)
    others = [d for d in cpu.devices() if d != "cpu"]
    return AutoBackend(cpu, {d: partial(create, d) for d in others}, cache_dir, notices) if others else cpu


def _pairs(providers: Providers) -> list[tuple[str, dict[str, Any]]]:
    """Each provider with its options."""
    if isinstance(providers, str | bytes) or not isinstance(providers, Sequence):
        raise ArgumentTypeError("providers must be a list, such as ['CPUExecutionProvider']")
    if not providers:
        raise ArgumentError("providers is empty: leave it out, or name at least one")
    pairs: list[tuple[str, dict[str, Any]]] = []
    for entry in providers:
        pair: Any = (entry, {}) if isinstance(entry, str) else entry
        fits = isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], dict)
        if not fits:
            raise ArgumentTypeError(f"each of providers must be a name or a (name, options) tuple, not {entry!r}")
        pairs.append((pair[0], dict(pair[1])))
    return pairs
