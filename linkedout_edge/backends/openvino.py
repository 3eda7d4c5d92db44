"""OpenVINO. It reads the bundle's ONNX graphs; float stays float32, so that answers agree with the other backends."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.backends.base import Arrays, Port, check_contract, contiguous, fall_back
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError, BackendError, BundleCorruptError, ClosedError, MissingDependencyError

DEVICES = {"auto": "CPU", "cpu": "CPU", "gpu": "GPU", "npu": "NPU"}

_DTYPES = {
    "u8": "uint8",
    "i8": "int8",
    "i32": "int32",
    "i64": "int64",
    "f32": "float32",
    "f16": "float16",
    "boolean": "bool",
}


class OpenVinoBackend:
    """See `linkedout_edge.backends.base.Backend`."""

    name = "openvino"

    def __init__(self, device: str, threads: int, cache_dir: str | os.PathLike[str] | None, strict: bool) -> None:
        if device not in DEVICES:
            raise ArgumentError(
                f"the backend 'openvino' has no device {device!r}: expected one of {', '.join(DEVICES)}"
            )
        try:
            import openvino
        except ImportError as e:
            raise MissingDependencyError(
                f'the backend openvino cannot be imported ({e}): pip install "linkedout-edge[openvino]"'
            ) from e
        self._ov = openvino
        self.version = str(openvino.__version__)
        self.threads = threads
        self._strict = strict
        self._core = openvino.Core()
        if cache_dir is not None:
            self._core.set_property({"CACHE_DIR": str(Path(cache_dir))})
        available: list[str] = list(self._core.available_devices)
        self._device = DEVICES[device]
        if self._device not in {d.split(".")[0] for d in available}:
            fall_back(f"device {device!r}", available, strict, f"OpenVINO finds no {self._device}")
            self._device = "CPU"

    def load(self, graph: str, model: bytes, config: ModelConfig) -> OpenVinoSession:
        """Load a graph from ONNX bytes.

        Raises:
            BundleCorruptError: The bytes are no graph of the contract.
            DeviceError: In strict mode, when the device cannot run it.
        """
        try:
            network = self._core.read_model(model, b"")
        except Exception as e:
            raise BundleCorruptError(f"OpenVINO {self.version} cannot read the {graph} graph: {_first_line(e)}") from e
        check_contract(graph, [_port(p) for p in network.inputs], [_port(p) for p in network.outputs], config)
        try:
            return self._compile(network, graph, self._device)
        except Exception as e:
            if self._device == "CPU":
                raise BackendError(f"OpenVINO cannot compile the {graph} graph: {_first_line(e)}") from e
            fall_back(
                self._device, ["CPU"], self._strict, f"the {graph} graph does not compile there ({_first_line(e)})"
            )
            return self._compile(network, graph, "CPU")

    def _compile(self, network: Any, graph: str, device: str) -> OpenVinoSession:
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if device != "NPU":
            options["INFERENCE_PRECISION_HINT"] = "f32"
        if device == "CPU":
            options["INFERENCE_NUM_THREADS"] = self.threads
        compiled = self._core.compile_model(network, device, options)
        running = compiled.get_property("EXECUTION_DEVICES")
        name = ",".join(running) if isinstance(running, list | tuple) else str(running)
        return OpenVinoSession(compiled, graph, name)


class OpenVinoSession:
    """See `linkedout_edge.backends.base.Session`. One request at a time: a request keeps its own buffers."""

    def __init__(self, compiled: Any, graph: str, device: str) -> None:
        self._request = compiled.create_infer_request()
        self._graph = graph
        self._inputs = {i.get_any_name() for i in compiled.inputs}
        self._names = [o.get_any_name() for o in compiled.outputs]
        self._lock = threading.Lock()
        self.device = device

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Outputs by name.

        Raises:
            BackendError: The library failed.
        """
        with self._lock:
            request = self._request
            if request is None:
                raise ClosedError(f"the {self._graph} graph was closed")
            if set(feeds) != self._inputs:  # OpenVINO would take what is missing from the last request
                raise BackendError(
                    f"the {self._graph} graph takes {', '.join(sorted(self._inputs))}: got {', '.join(feeds)}"
                )
            try:
                request.infer(contiguous(feeds), share_inputs=True)
                return {n: np.array(request.get_tensor(n).data) for n in self._names}
            except Exception as e:
                raise BackendError(f"OpenVINO failed in the {self._graph} graph: {_first_line(e)}") from e

    def close(self) -> None:
        """Release the graph's memory."""
        with self._lock:
            self._request = None


def _port(port: Any) -> Port:
    shape = tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())
    kind = port.get_element_type().get_type_name()
    return Port(port.get_any_name(), _DTYPES.get(kind, kind), shape)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
