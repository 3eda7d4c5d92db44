"""The interface to an inference library, and the contract for a bundle's graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.backends.notices import Notices, callers_level
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import BundleCorruptError, DeviceError

Arrays: TypeAlias = "dict[str, NDArray[Any]]"


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


def contiguous(feeds: Mapping[str, NDArray[Any]]) -> Arrays:
    """Feeds as C-contiguous arrays; a copy only where needed."""
    return {k: np.ascontiguousarray(v) for k, v in feeds.items()}
