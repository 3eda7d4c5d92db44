"""The interface to an inference library, and the contract for a bundle's graph."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.backends.notices import Notices, callers_level
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError, ArgumentTypeError, BundleCorruptError, DeviceError, unknown

BACKENDS = ("onnxruntime", "openvino")
DEVICES = ("auto", "cpu", "cuda", "tensorrt", "gpu", "npu")

Arrays: TypeAlias = "dict[str, NDArray[Any]]"
Providers: TypeAlias = "Sequence[str | tuple[str, dict[str, Any]]]"


class Port(NamedTuple):
    """One input or output of the graph: NumPy dtype name ("" if not known) and dimensions, None where dynamic."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Session(Protocol):
    """The loaded encoder graph. Safe to run from several threads."""

    @property
    def device(self) -> str:
        """What really runs the graph, such as ``CPUExecutionProvider`` or ``CPU``, the one with most of it first."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Outputs by name, as arrays that the caller owns."""

    def close(self) -> None:
        """Release the graph's memory."""


class Backend(Protocol):
    """One inference library on one device."""

    @property
    def name(self) -> str:
        """Such as ``onnxruntime``."""

    @property
    def version(self) -> str:
        """The library's version."""

    @property
    def threads(self) -> int:
        """Threads that the graph may use on the CPU."""

    @property
    def notices(self) -> Notices:
        """What was worth saying about devices and caches."""

    def fingerprint(self) -> dict[str, str]:
        """All that a compiled engine or a measured time depends on, apart from the model: library, device, driver."""

    def load(
        self, model: bytes, config: ModelConfig, precision: str = "", *, full_range: bool = False, weights: bytes = b""
    ) -> Session:
        """Load the encoder graph and check it against the contract.

        Args:
            model: ONNX bytes, or the .xml of OpenVINO IR.
            config: The model's shapes.
            precision: The bundle's precision; some devices need it.
            full_range: Its int8 weights use all eight bits (see `linkedout_edge.backends.cpu`).
            weights: Of OpenVINO IR; empty for ONNX.

        Raises:
            ArgumentError: This library does not read OpenVINO IR.
            DeviceError: With `full_range`, where this CPU would run the graph and gets it wrong.
        """


_Ports: TypeAlias = "dict[str, tuple[str, tuple[str | int, ...]]]"

INPUTS: _Ports = {
    "frames": ("uint8", ("B", "F", "H", "W", 3)),
    "frame_mask": ("bool", ("B", "F")),
    "title_ids": ("int32", ("B", "T")),
    "title_mask": ("bool", ("B", "T")),
}
"""Of the encoder graph: name → dtype and dimensions, as `linkedout_edge.config` names them. B is free."""
OUTPUTS: _Ports = {"tokens": ("int8", ("B", "L", "M", "D")), "scales": ("float32", ("B", "L", "M"))}


def check_contract(inputs: Sequence[Port], outputs: Sequence[Port], config: ModelConfig) -> None:
    """Compare the loaded graph with what docs/architecture.md promises.

    Raises:
        BundleCorruptError: A name, type, number of dimensions or fixed dimension differs.
    """
    sizes = {
        "F": config.frames,
        "H": config.frame_size,
        "W": config.frame_size,
        "T": config.title_tokens,
        "L": config.layers,
        "M": config.tokens_per_layer,
        "D": config.token_width,
    }
    for kind, ports, wanted in (("input", inputs, INPUTS), ("output", outputs, OUTPUTS)):
        found = {p.name: p for p in ports}
        if set(found) != set(wanted):
            raise BundleCorruptError(
                f"the encoder graph has the {kind}s {', '.join(sorted(found))}: expected {', '.join(sorted(wanted))}. "
                "Export the bundle again."
            )
        for name, (dtype, dims) in wanted.items():
            port = found[name]
            fixed = [sizes.get(d) if isinstance(d, str) else d for d in dims]
            fits = len(port.shape) == len(fixed) and all(
                a is None or b is None or a == b for a, b in zip(port.shape, fixed, strict=True)
            )
            if not fits or port.dtype not in ("", dtype):
                shape = [d if w is None else w for d, w in zip(dims, fixed, strict=True)]
                raise BundleCorruptError(
                    f"the encoder graph's {kind} {name} is {port.dtype} {list(port.shape)}: expected {dtype} "
                    f"[{', '.join(map(str, shape))}]. Export the bundle again."
                )


def fall_back(
    wanted: str, available: Sequence[str], strict: bool, why: str = "", notices: Notices | None = None
) -> None:
    """Warn that `wanted` is unavailable and the CPU is used; with `strict`, raise instead.

    Raises:
        DeviceError: In strict mode.
    """
    reason = f"{wanted} cannot be used" + (f": {why}" if why else "")
    have = f"available here: {', '.join(available)}"
    if strict:
        advice = "To run on the CPU instead, leave strict_device out, or name the CPU among the providers"
        raise DeviceError(f"{reason}; {have}. {advice}.", reason)
    if notices is not None:
        notices.say(f"{reason}; running on the CPU", logging.WARNING)
    warnings.warn(
        f"{reason}; {have}. Running on the CPU; strict_device=True makes this an error.",
        RuntimeWarning,
        stacklevel=callers_level(),
    )


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
    kind = _backend_class(name)

    def create(on: str, strictly: bool, notices: Notices) -> Any:
        return kind(on, chosen, threads, cache_dir, strictly, static, notices)

    notices = Notices()
    if device != "auto" or chosen is not None:
        backend: Backend = create(device, strict, notices)
        return backend
    cpu = create("cpu", strict, notices)
    others = [d for d in cpu.devices() if d != "cpu"]
    if not others:
        return cast("Backend", cpu)
    from linkedout_edge.backends.auto import AutoBackend

    return AutoBackend(cpu, {d: partial(create, d, True, notices) for d in others}, cache_dir, notices)


def _backend_class(name: str) -> Any:
    if name == "onnxruntime":
        from linkedout_edge.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend
    from linkedout_edge.backends.openvino import OpenVinoBackend

    return OpenVinoBackend


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


def contiguous(feeds: Mapping[str, NDArray[Any]]) -> Arrays:
    """Feeds as C-contiguous arrays; a copy only where needed."""
    return {k: np.ascontiguousarray(v) for k, v in feeds.items()}
