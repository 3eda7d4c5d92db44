"""What the runtime needs of an inference library, and the contract that a bundle's graphs must meet."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.config import EVENT_FEATURES, ModelConfig
from linkedout_edge.errors import ArgumentError, ArgumentTypeError, BundleCorruptError, DeviceError, unknown

BACKENDS = ("onnxruntime", "openvino")
DEVICES = ("auto", "cpu", "cuda", "tensorrt", "gpu", "npu")

Arrays: TypeAlias = "dict[str, NDArray[Any]]"
Providers: TypeAlias = "Sequence[str | tuple[str, dict[str, Any]]]"


class Port(NamedTuple):
    """One input or output of a graph: NumPy dtype name ("" if not known) and dimensions, None where dynamic."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Session(Protocol):
    """One loaded graph. Safe to run from several threads."""

    @property
    def device(self) -> str:
        """What really runs the graph, such as ``CPUExecutionProvider`` or ``CPU``."""

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
        """Threads that a graph may use on the CPU."""

    def load(self, graph: str, model: bytes, config: ModelConfig) -> Session:
        """Load a graph from ONNX bytes and check it against the contract."""


_Dims: TypeAlias = "tuple[str | int, ...]"

CONTRACT: dict[str, tuple[dict[str, tuple[str, _Dims]], dict[str, tuple[str, _Dims]]]] = {
    "encoder": (
        {
            "frames": ("uint8", ("B", "F", "H", "W", 3)),
            "frame_mask": ("bool", ("B", "F")),
            "title_ids": ("int32", ("B", "T")),
            "title_mask": ("bool", ("B", "T")),
        },
        {"tokens": ("int8", ("B", "L", "M", "D")), "scales": ("float32", ("B", "L", "M"))},
    ),
    "user": (
        {
            "tokens": ("int8", (1, "N", "L", "M", "D")),
            "scales": ("float32", (1, "N", "L", "M")),
            "events": ("float32", (1, "N", "E")),
            "mask": ("bool", (1, "N")),
        },
        {
            "query": ("float32", (1, 2, "L", "MD")),
            "bias": ("float32", (1, "L")),
            "event_weights": ("float32", (1, "N", "L")),
        },
    ),
    "scorer": (
        {
            "query": ("float32", (1, 2, "L", "MD")),
            "bias": ("float32", (1, "L")),
            "tokens": ("int8", ("C", "L", "M", "D")),
            "scales": ("float32", ("C", "L", "M")),
            "mask": ("bool", ("C",)),
        },
        {"score": ("float32", ("C",)), "contributions": ("float32", ("C", "L"))},
    ),
}


def check_contract(graph: str, inputs: Sequence[Port], outputs: Sequence[Port], config: ModelConfig) -> None:
    """Compare a loaded graph with what docs/architecture.md promises.

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
        "MD": config.tokens_per_layer * config.token_width,
        "E": len(EVENT_FEATURES),
    }
    for kind, ports, wanted in zip(("input", "output"), (inputs, outputs), CONTRACT[graph], strict=True):
        found = {p.name: p for p in ports}
        if set(found) != set(wanted):
            raise BundleCorruptError(
                f"the {graph} graph has the {kind}s {', '.join(sorted(found))}: expected {', '.join(sorted(wanted))}. "
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
                    f"the {graph} graph's {kind} {name} is {port.dtype} {list(port.shape)}: expected {dtype} "
                    f"[{', '.join(map(str, shape))}]. Export the bundle again."
                )


def fall_back(wanted: str, available: Sequence[str], strict: bool, why: str = "") -> None:
    """Say that `wanted` is not there and the CPU takes over; with `strict`, raise instead.

    Raises:
        DeviceError: In strict mode.
    """
    reason = f": {why}" if why else ""
    have = f"available here: {', '.join(available)}"
    if strict:
        raise DeviceError(f"{wanted} cannot be used{reason}; {have}. Leave strict_device out to fall back to the CPU.")
    warnings.warn(
        f"{wanted} cannot be used{reason}; {have}. Running on the CPU; strict_device=True makes this an error.",
        RuntimeWarning,
        stacklevel=2,
    )


def create_backend(
    name: str = "onnxruntime",
    *,
    device: str = "auto",
    providers: Providers | None = None,
    threads: int,
    cache_dir: str | os.PathLike[str] | None = None,
    strict: bool = False,
) -> Backend:
    """The backend of that name on that device.

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
    if providers is not None:
        if isinstance(providers, str | bytes) or not isinstance(providers, Sequence):
            raise ArgumentTypeError("providers must be a list, such as ['CPUExecutionProvider']")
        if name != "onnxruntime":
            raise ArgumentError(f"providers belong to the backend 'onnxruntime': with {name!r} use device=")
        if device != "auto":
            raise ArgumentError(f"providers and device={device!r} contradict each other: leave one out")
        if not providers:
            raise ArgumentError("providers is empty: leave it out, or name at least one")
    if name == "onnxruntime":
        from linkedout_edge.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(device, providers, threads, cache_dir, strict)
    from linkedout_edge.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(device, threads, cache_dir, strict)


def contiguous(feeds: Mapping[str, NDArray[Any]]) -> Arrays:
    """Feeds as C-contiguous arrays; a copy only where needed."""
    return {k: np.ascontiguousarray(v) for k, v in feeds.items()}
