"""ONNX Runtime.

Chosen so that memory stays flat on a device: no arena that keeps the largest request for ever, no memory patterns for
every shape; and no spinning, because threads that burn power while they wait have no place on a phone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from linkedout_edge.backends.base import Arrays, Port, Providers, check_contract, contiguous, fall_back
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import (
    ArgumentTypeError,
    BackendError,
    BundleCorruptError,
    ClosedError,
    DeviceError,
    MissingDependencyError,
    unknown,
)

CPU = "CPUExecutionProvider"
EXECUTION_PROVIDERS: dict[str, tuple[str, ...]] = {
    "auto": (CPU,),
    "cpu": (CPU,),
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider",),
    "gpu": (
        "CUDAExecutionProvider",
        "MIGraphXExecutionProvider",
        "ROCMExecutionProvider",
        "DmlExecutionProvider",
        "CoreMLExecutionProvider",
        "WebGpuExecutionProvider",
    ),
    "npu": ("QNNExecutionProvider", "VitisAIExecutionProvider", "CoreMLExecutionProvider", "OpenVINOExecutionProvider"),
}
"""Device → execution providers that serve it, best first."""

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}


class OnnxRuntimeBackend:
    """See `linkedout_edge.backends.base.Backend`."""

    name = "onnxruntime"

    def __init__(
        self,
        device: str,
        providers: Providers | None,
        threads: int,
        cache_dir: str | os.PathLike[str] | None,
        strict: bool,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as e:
            raise MissingDependencyError(
                f'the backend onnxruntime cannot be imported ({e}): pip install "onnxruntime>=1.20"'
            ) from e
        self._ort = onnxruntime
        self.version = str(onnxruntime.__version__)
        self.threads = threads
        self._strict = strict or providers is not None
        self._warned = False
        self._providers = self._choose(device, providers, cache_dir, strict)
        disable = getattr(onnxruntime, "disable_telemetry_events", None)
        if disable is not None:  # Windows builds have some
            disable()

    def _choose(
        self, device: str, providers: Providers | None, cache_dir: str | os.PathLike[str] | None, strict: bool
    ) -> list[tuple[str, dict[str, Any]]]:
        available: list[str] = self._ort.get_available_providers()
        if providers is not None:
            chosen = []
            for entry in providers:
                name, options = (entry, {}) if isinstance(entry, str) else _pair(entry)
                if name not in available:
                    raise DeviceError(unknown("execution provider", name, available))
                chosen.append((name, dict(options)))
            return chosen
        wanted = [p for p in EXECUTION_PROVIDERS[device] if p in available]
        if not wanted:
            fall_back(
                f"device {device!r}", available, strict, f"this onnxruntime has no {EXECUTION_PROVIDERS[device][0]}"
            )
        chosen = [(p, _options(p, cache_dir)) for p in wanted[:1]]
        if device == "tensorrt" and wanted and "CUDAExecutionProvider" in available:
            chosen.append(("CUDAExecutionProvider", _options("CUDAExecutionProvider", cache_dir)))
        return chosen if any(p == CPU for p, _ in chosen) else [*chosen, (CPU, {})]

    def load(self, graph: str, model: bytes, config: ModelConfig) -> OnnxRuntimeSession:
        """Load a graph from ONNX bytes.

        Raises:
            BundleCorruptError: The bytes are no graph of the contract.
            DeviceError: In strict mode, when another provider than the chosen one would run it.
        """
        ort = self._ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_mem_pattern = False
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        names = [p for p, _ in self._providers]
        try:
            session = ort.InferenceSession(
                model, options, providers=names, provider_options=[o for _, o in self._providers]
            )
        except Exception as e:
            if names != [CPU]:
                raise DeviceError(f"{names[0]} failed to load the {graph} graph: {e}") from e
            raise BundleCorruptError(f"onnxruntime {self.version} cannot load the {graph} graph: {e}") from e
        running: Sequence[str] = session.get_providers()
        if names[0] not in running:  # onnxruntime itself falls back with no more than a line on stderr
            if not self._warned:
                fall_back(
                    names[0],
                    list(running),
                    self._strict,
                    "onnxruntime could not start it (drivers or libraries missing?)",
                )
            self._warned = True
        check_contract(
            graph, [_port(p) for p in session.get_inputs()], [_port(p) for p in session.get_outputs()], config
        )
        return OnnxRuntimeSession(session, graph, str(running[0]))


class OnnxRuntimeSession:
    """See `linkedout_edge.backends.base.Session`."""

    def __init__(self, session: Any, graph: str, device: str) -> None:
        self._session = session
        self._graph = graph
        self._outputs = [o.name for o in session.get_outputs()]
        self.device = device

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Outputs by name.

        Raises:
            BackendError: The library failed.
        """
        session = self._session
        if session is None:
            raise ClosedError(f"the {self._graph} graph was closed")
        try:
            return dict(zip(self._outputs, session.run(self._outputs, contiguous(feeds)), strict=True))
        except Exception as e:
            raise BackendError(f"onnxruntime failed in the {self._graph} graph: {e}") from e

    def close(self) -> None:
        """Release the graph's memory."""
        self._session = None


def _pair(entry: Any) -> tuple[str, dict[str, Any]]:
    if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], dict)):
        raise ArgumentTypeError(f"each of providers must be a name or a (name, options) tuple, not {entry!r}")
    return entry


def _options(provider: str, cache_dir: str | os.PathLike[str] | None) -> dict[str, Any]:
    if provider == "TensorrtExecutionProvider" and cache_dir is not None:
        return {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(Path(cache_dir))}
    if provider == "CUDAExecutionProvider":
        return {"arena_extend_strategy": "kSameAsRequested"}
    return {}


def _port(node: Any) -> Port:
    shape = tuple(d if isinstance(d, int) else None for d in node.shape)
    return Port(node.name, _DTYPES.get(node.type, node.type), shape)
