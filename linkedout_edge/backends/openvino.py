"""OpenVINO. It reads ONNX graphs and its own IR; float stays float32, so that answers agree with the other backends."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linkedout_edge import install
from linkedout_edge._telemetry import import_openvino
from linkedout_edge._version import __version__
from linkedout_edge.backends import cpu, drivers
from linkedout_edge.backends.base import Arrays, Port, Session, check_contract, contiguous, fall_back
from linkedout_edge.backends.cache import EngineCache, digest
from linkedout_edge.backends.fixed import FixedSession
from linkedout_edge.backends.notices import Notices, announced
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import (
    ArgumentError,
    BackendError,
    BundleCorruptError,
    ClosedError,
    DeviceError,
    MissingDependencyError,
    unknown,
)
from linkedout_edge.lifetime import OneProcess, native

DEVICES = {"auto": "CPU", "cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
VIRTUAL = ("AUTO", "MULTI", "HETERO", "BATCH")
"""OpenVINO's own ways to join devices: ``AUTO:GPU,CPU``."""
DESCRIBES = (
    "FULL_DEVICE_NAME",
    "DEVICE_ARCHITECTURE",
    "NPU_DRIVER_VERSION",
    "NPU_COMPILER_VERSION",
    "GPU_UARCH_VERSION",
)
"""Properties of a device that its compiled engines depend on; each device has some of them."""
_NO_INTEGERS = {"LP_TRANSFORMS_MODE": "NO"}
"""OpenVINO's switch for its low-precision rewriting; weights stay as they are, arithmetic is float's."""

_DTYPES = {
    "u8": "uint8",
    "i8": "int8",
    "i32": "int32",
    "i64": "int64",
    "f32": "float32",
    "f16": "float16",
    "boolean": "bool",
}


class OpenVinoBackend(OneProcess):
    """See `linkedout_edge.backends.base.Backend`, and `create_backend` for the arguments."""

    name = "openvino"

    def __init__(
        self,
        device: str,
        providers: list[tuple[str, dict[str, Any]]] | None,
        threads: int,
        cache_dir: str | os.PathLike[str] | None,
        strict: bool,
        static: bool | None,
        notices: Notices,
    ) -> None:
        if device not in DEVICES:
            raise ArgumentError(
                f"the backend 'openvino' has no device {device!r}: expected one of {', '.join(DEVICES)}. "
                f"For {device} use backend='onnxruntime'"
            )
        try:
            openvino = import_openvino()
        except ImportError as e:
            raise MissingDependencyError(
                f"the backend openvino cannot be imported ({e}): {install.library('openvino')}"
            ) from e
        self.version = str(openvino.__version__)
        self.threads = threads
        self.notices = notices
        self._strict = strict or providers is not None
        self._cache = EngineCache(cache_dir, notices)
        self._core = openvino.Core()
        self._given: dict[str, Any] = {}
        available: list[str] = list(self._core.available_devices)
        if providers is not None:
            self._device, self._given = _joined(providers, available)
        else:
            self._device = DEVICES[device]
            if self._device not in {d.split(".")[0] for d in available}:
                fall_back(f"device {device!r}", available, strict, f"OpenVINO finds no {self._device}", notices)
                self._device = "CPU"
        self._static = "NPU" in self._device if static is None else static
        super().__init__()

    def devices(self) -> list[str]:
        """Devices that OpenVINO finds here."""
        found = {d.split(".")[0] for d in self._core.available_devices}
        return [name for name, kind in DEVICES.items() if name != "auto" and kind in found]

    def fingerprint(self) -> dict[str, str]:
        """Library, device, options and what lies below."""
        found = {
            "linkedout-edge": __version__,
            "openvino": self.version,
            "device": self._device,
            "options": repr(sorted(self._options().items())),
        }
        for part in _parts(self._device):
            if part in VIRTUAL:
                continue
            for name in DESCRIBES:
                try:
                    found[f"{part} {name}"] = str(self._core.get_property(part, name))
                except Exception:  # noqa: PERF203 (OpenVINO has its own, and each device other properties)
                    continue
        if self._device != "CPU":
            found["kernel"] = drivers.kernel()
        return found

    def load(
        self, model: bytes, config: ModelConfig, precision: str = "", *, full_range: bool = False, weights: bytes = b""
    ) -> Session:
        """Load the encoder graph from ONNX bytes, or from IR.

        Raises:
            BundleCorruptError: The bytes are no graph of the contract.
            DeviceError: In strict mode, when the device cannot run it; with `full_range`, when this CPU may run any of
                it and gets it wrong.
        """
        on_cpu = not self._strict or not {"CPU", *VIRTUAL}.isdisjoint(_parts(self._device))
        if full_range and on_cpu and cpu.instruction_set().overflows:
            raise cpu.refusal()
        session = self._load(model, config, weights)
        return FixedSession(session) if self._static else session

    @native
    def _load(self, model: bytes, config: ModelConfig, weights: bytes) -> OpenVinoSession:
        try:
            network = self._core.read_model(model, weights)
        except Exception as e:
            raise BundleCorruptError(f"OpenVINO {self.version} cannot read the encoder graph: {_first_line(e)}") from e
        check_contract([_port(p) for p in network.inputs], [_port(p) for p in network.outputs], config)
        if self._static:
            _fix(network)
        name = f"openvino-{self._device}-{digest(model, weights)}"
        try:
            return self._kept(network, name.replace(":", "_").replace(",", "_"))
        except Exception as e:
            if self._device == "CPU":
                return self._in_float(network, e)
            why = f"the encoder graph does not compile there ({_first_line(e)})"
            fall_back(self._device, ["CPU"], self._strict, why, self.notices)
        try:
            return self._compile(network, "CPU", self._cpu_options())
        except Exception as e:
            return self._in_float(network, e)

    def _in_float(self, network: Any, error: Exception) -> OpenVinoSession:
        """Compile for the CPU with integer weights and float arithmetic, after integer arithmetic failed.

        On ARM, OpenVINO 2026.4 fails in its own rewriting of a quantized graph's matrix products (docs/aarch64.md).
        """
        options = {**self._cpu_options(), **(self._given if self._device == "CPU" else {}), **_NO_INTEGERS}
        try:
            session = self._compile(network, "CPU", options)
        except Exception:  # the first error says more
            raise BackendError(f"OpenVINO cannot compile the encoder graph: {_first_line(error)}") from error
        self.notices.say(
            f"OpenVINO computes the encoder graph in float: it failed to compile it with integer arithmetic "
            f"({_first_line(error)}); backend='onnxruntime' computes in integers here"
        )
        return session

    def _kept(self, network: Any, name: str) -> OpenVinoSession:
        """Compile, or take what was compiled from the cache; a damaged engine is removed and built again."""
        folder = self._cache.engines(name, self.fingerprint()) if self._cache.keeps else None
        options = self._options()
        if folder is None:
            return self._compile(network, self._device, options)
        try:
            return self._compile(network, self._device, {**options, "CACHE_DIR": str(folder)})
        except Exception:
            if not self._cache.discard(name, folder):
                raise
            return self._compile(network, self._device, options)

    def _options(self) -> dict[str, Any]:
        if self._device == "CPU":
            return {**self._cpu_options(), **self._given}
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if "NPU" not in self._device:  # an NPU has no float32
            options["INFERENCE_PRECISION_HINT"] = "f32"
        return {**options, **self._given}

    def _cpu_options(self) -> dict[str, Any]:
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self.threads,
            # By default, whatever meets weights stored in 8 or 4 bit is rounded to 8 bit too: scores were 0.02 off.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }

    def _compile(self, network: Any, device: str, options: dict[str, Any]) -> OpenVinoSession:
        quiet = (
            nullcontext() if device == "CPU" else announced(device, slow="NPU" in device, cached="CACHE_DIR" in options)
        )
        with quiet:
            return OpenVinoSession(self._core.compile_model(network, device, options))

    def _native(self) -> tuple[object, ...]:
        return (self._core,)


class OpenVinoSession(OneProcess):
    """See `linkedout_edge.backends.base.Session`. One request at a time: a request keeps its own buffers."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._inputs = {i.get_any_name() for i in compiled.inputs}
        self._names = [o.get_any_name() for o in compiled.outputs]
        self._lock = threading.Lock()
        self._ran_on = ""
        super().__init__()

    @property
    def device(self) -> str:
        """What runs the graph at present: with ``AUTO`` that changes when an accelerator is ready."""
        compiled = self._compiled
        if compiled is not None:
            running = compiled.get_property("EXECUTION_DEVICES")
            self._ran_on = ", ".join(map(str, running)) if isinstance(running, list | tuple) else str(running)
        return self._ran_on

    @native
    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Outputs by name.

        Raises:
            BackendError: The library failed.
        """
        self._check_process()
        with self._lock:
            request = self._request
            if request is None:
                raise ClosedError("the encoder graph was closed")
            if set(feeds) != self._inputs:  # OpenVINO would take what is missing from the last request
                raise BackendError(f"the encoder graph takes {', '.join(sorted(self._inputs))}: got {', '.join(feeds)}")
            try:
                request.infer(contiguous(feeds), share_inputs=True)
                return {n: np.array(request.get_tensor(n).data) for n in self._names}
            except Exception as e:
                raise BackendError(f"OpenVINO failed in the encoder graph: {_first_line(e)}") from e

    def close(self) -> None:
        """Release the graph's memory."""
        with self._lock:
            self._request = self._compiled = None

    def _native(self) -> tuple[object, ...]:
        return self._compiled, self._request


def _joined(providers: list[tuple[str, dict[str, Any]]], available: list[str]) -> tuple[str, dict[str, Any]]:
    """One device text for OpenVINO, several joined in order of preference, and its options."""
    known = [*available, *VIRTUAL, *{d.split(".")[0] for d in available}]
    for name, _ in providers:
        for part in _parts(name):
            if part not in known:
                raise DeviceError(unknown("device of OpenVINO", part, dict.fromkeys(known)))
    names = [name for name, _ in providers]
    if len(names) == 1:
        return providers[0]
    if any(part in VIRTUAL for name in names for part in _parts(name)) or any(options for _, options in providers):
        raise ArgumentError(
            f"providers={names}: name one that joins devices, such as 'AUTO:{','.join(available)}', or plain devices"
        )
    return f"AUTO:{','.join(names)}", {}


def _parts(device: str) -> list[str]:
    """``AUTO:GPU.1,CPU`` → AUTO, GPU.1, CPU."""
    return [p for p in device.replace(":", ",").split(",") if p]


def _fix(network: Any) -> None:
    """Let the graph take one video and no other number of them."""
    shapes = {port.get_any_name(): port.get_partial_shape() for port in network.inputs}
    for shape in shapes.values():
        shape[0] = 1
    network.reshape(shapes)


def _port(port: Any) -> Port:
    shape = tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())
    kind = port.get_element_type().get_type_name()
    return Port(port.get_any_name(), _DTYPES.get(kind, kind), shape)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
