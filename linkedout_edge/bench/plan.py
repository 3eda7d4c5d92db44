"""Which configurations to measure: precision × backend × device, as far as they exist here."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence
from pathlib import Path

from linkedout_edge import install
from linkedout_edge.backends import BACKENDS, DEVICES, create_backend
from linkedout_edge.backends.openvino import DEVICES as OPENVINO_DEVICES
from linkedout_edge.bench.results import Configuration
from linkedout_edge.bundle.manifest import Manifest
from linkedout_edge.errors import ArgumentError, MissingDependencyError, unknown


def plan(
    manifest: Manifest, precisions: Sequence[str], backends: Sequence[str], devices: Sequence[str]
) -> list[Configuration]:
    """Configurations to measure; an empty list means all that exist here.

    Raises:
        ArgumentError: An unknown name (with the closest match), or no backend has any of the devices.
        MissingDependencyError: A backend that was named is not installed.
    """
    _check("precision of this bundle:", precisions, list(manifest.precisions))
    _check("backend", backends, BACKENDS)
    _check("device", devices, DEVICES)
    for backend in backends:
        if importlib.util.find_spec(backend) is None:
            raise MissingDependencyError(f"the backend {backend} is not installed: {install.library(backend)}")
    used = backends or [b for b in BACKENDS if importlib.util.find_spec(b) is not None]
    pairs = [(b, d) for b in used for d in (devices or found_devices(b)) if b != "openvino" or d in OPENVINO_DEVICES]
    if not pairs:
        raise ArgumentError(
            f"the backend openvino has no device {', '.join(devices)}: expected {', '.join(OPENVINO_DEVICES)}. "
            "cuda and tensorrt go with --backend onnxruntime"
        )
    return [
        Configuration(precision=p, backend=b, device=d, bytes=sum(f.bytes for f in manifest.files(p).values()))
        for p in precisions or manifest.precisions
        for b, d in pairs
        if b == "openvino" or not manifest.precisions[p].is_ir
    ]


def found_devices(backend: str) -> list[str]:
    """Devices that a library says it finds here."""
    devices: list[str] = create_backend(backend, device="cpu", threads=1).devices()  # type: ignore[attr-defined]
    return devices


def model_arguments(bundle: str | None, precision: str) -> dict[str, str | None]:
    """`Recommender.load`'s arguments for a precision; without a bundle, of the built-in one."""
    if bundle is None:
        return {"bundle": precision, "precision": None}
    return {"bundle": str(Path(bundle).absolute()), "precision": precision}


def _check(what: str, values: Sequence[str], known: Collection[str]) -> None:
    for value in values:
        if value not in known:
            raise ArgumentError(unknown(what, value, known))
