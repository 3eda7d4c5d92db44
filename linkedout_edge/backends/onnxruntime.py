"""ONNX Runtime.

Chosen so that memory stays flat on a device: no arena that keeps the largest request for ever, no memory patterns for
every shape; and no spinning, because threads that burn power while they wait have no place on a phone.

The library would fall back to the CPU by itself, with no more than a line on stderr. Here that is switched off, and
after loading we ask what the graph's operations were really given to.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from linkedout_edge import _telemetry, install
from linkedout_edge._version import __version__
from linkedout_edge.backends import cpu, drivers
from linkedout_edge.backends.base import Arrays, Port, Session, check_contract, contiguous, fall_back
from linkedout_edge.backends.cache import EngineCache, digest
from linkedout_edge.backends.examples import example_feeds
from linkedout_edge.backends.fixed import FixedSession
from linkedout_edge.backends.notices import Notices, announced
from linkedout_edge.backends.placement import Record, described
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

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
EXECUTION_PROVIDERS: dict[str, tuple[str, ...]] = {
    "cpu": (CPU,),
    "cuda": (CUDA,),
    "tensorrt": (TENSORRT, "NvTensorRTRTXExecutionProvider"),
    "gpu": (
        CUDA,
        "MIGraphXExecutionProvider",
        "ROCMExecutionProvider",
        "DmlExecutionProvider",
        "CoreMLExecutionProvider",
        "WebGpuExecutionProvider",
    ),
    "npu": ("QNNExecutionProvider", "VitisAIExecutionProvider", "CoreMLExecutionProvider", "OpenVINOExecutionProvider"),
}
"""Device → execution providers that serve it, best first."""
STATIC = (*EXECUTION_PROVIDERS["tensorrt"], "QNNExecutionProvider", "VitisAIExecutionProvider")
"""Providers that get graphs of fixed dimensions, however they were asked for."""
SLOW = STATIC
"""Providers that may compile for minutes."""

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
    """See `linkedout_edge.backends.base.Backend`, and `create_backend` for the arguments."""

    name = "onnxruntime"

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
        try:
            import onnxruntime
        except ImportError as e:
            raise MissingDependencyError(
                f"the backend onnxruntime cannot be imported ({e}): {install.library('onnxruntime')}"
            ) from e
        self._ort = onnxruntime
        self.version = str(onnxruntime.__version__)
        self.threads = threads
        self.notices = notices
        self._device = device
        self._cache = EngineCache(cache_dir, notices)
        # Who names providers without the CPU does not want it; with it, it is a fall-back like any other.
        self._strict = strict or (providers is not None and CPU not in {p for p, _ in providers})
        self._providers = self._choose(device, strict) if providers is None else self._check(providers)
        first = self._providers[0][0]
        self._static = (first in STATIC or (device == "npu" and first != CPU)) if static is None else static
        disable = getattr(onnxruntime, "disable_telemetry_events", None)
        if disable is not None:  # for builds that know no variable, and for when it came too late
            disable()
        if _telemetry.TOO_LATE:
            notices.say(f"onnxruntime's telemetry was on before we could stop it: {_telemetry.ADVICE}", logging.WARNING)

    def devices(self) -> list[str]:
        """Devices that this onnxruntime lists a provider for; ``gpu`` only where it is not CUDA's."""
        available = self._available()
        found = {d: next((p for p in ps if p in available), "") for d, ps in EXECUTION_PROVIDERS.items()}
        return [d for d, p in found.items() if p and not (d == "gpu" and p == CUDA)]

    def fingerprint(self) -> dict[str, str]:
        """Library, provider, options and, for NVIDIA's, what lies below."""
        found = {
            "linkedout-edge": __version__,
            "onnxruntime": self.version,
            "providers": json.dumps(self._providers, sort_keys=True, default=str),
        }
        names = {p for p, _ in self._providers}
        if names & {CUDA, *EXECUTION_PROVIDERS["tensorrt"]}:
            found |= drivers.nvidia()
        if TENSORRT in names:
            found["tensorrt"] = drivers.tensorrt() or "unknown"
        return found

    def load(
        self, model: bytes, config: ModelConfig, precision: str = "", *, full_range: bool = False, weights: bytes = b""
    ) -> Session:
        """Load the encoder graph from ONNX bytes.

        Raises:
            ArgumentError: It is OpenVINO IR.
            BundleCorruptError: The bytes are no graph of the contract.
            DeviceError: In strict mode, when another provider than the chosen one would run it; with `full_range`, when
                this CPU would run any of it and gets it wrong.
        """
        if weights:
            raise ArgumentError(
                "the bundle's graph is OpenVINO IR, which onnxruntime does not read: leave backend out, or give "
                "backend='openvino'"
            )
        off_cpu = full_range and cpu.instruction_set().overflows
        if off_cpu and (self._providers[0][0] == CPU or not self._strict):
            raise cpu.refusal()
        session = self._load(model, config, precision, off_cpu)
        return FixedSession(session) if self._static else session

    def _available(self) -> list[str]:
        """What is built in, and what an app has registered as a plug-in."""
        built_in: list[str] = self._ort.get_available_providers()
        plugins = (d.ep_name for d in getattr(self._ort, "get_ep_devices", list)())
        return list(dict.fromkeys([*built_in, *plugins]))

    def _check(self, providers: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
        available = self._available()
        for name, _ in providers:
            if name not in available:
                full = next((p for p in available if p.lower() == f"{name}ExecutionProvider".lower()), name)
                hint = f" Did you mean {full!r}?" if full != name else ""
                raise DeviceError(unknown("execution provider", name, available) + hint)
        return [(name, {**tuned(name, "auto"), **options}) for name, options in providers]

    def _choose(self, device: str, strict: bool) -> list[tuple[str, dict[str, Any]]]:
        available = self._available()
        wanted = next((p for p in EXECUTION_PROVIDERS[device] if p in available), None)
        if wanted is None:
            names = " or ".join(EXECUTION_PROVIDERS[device])
            why = f"this onnxruntime has no {names}"
            fall_back(f"device {device!r}", available, strict, why, self.notices)
            return [(CPU, {})]
        chosen = [wanted]
        if device == "tensorrt" and CUDA in available:  # for what TensorRT does not take
            chosen.append(CUDA)
        return [(p, tuned(p, device)) for p in dict.fromkeys([*chosen, CPU])]

    def _load(self, model: bytes, config: ModelConfig, precision: str, off_cpu: bool) -> OnnxRuntimeSession:
        first = self._providers[0][0]
        if first == CPU:
            try:
                session, placed = self._create(model, [(CPU, {})]), Counter({CPU: 1})
            except Exception as e:
                raise BundleCorruptError(f"onnxruntime {self.version} cannot load the encoder graph: {e}") from e
        else:
            session, placed = self._accelerated(model, config, precision)
        ports = [_port(p) for p in session.get_inputs()], [_port(p) for p in session.get_outputs()]
        check_contract(*ports, config)
        running: Sequence[str] = session.get_providers()
        if first not in running:
            why = f"onnxruntime could not start it: {drivers.diagnose(self._ort, first)}"
            fall_back(first, list(running), self._strict, why, self.notices)
        elif placed and first not in placed:
            why = "it takes none of the encoder graph's operations"
            fall_back(first, list(running), self._strict, why, self.notices)
        elif off_cpu and CPU in placed:
            raise cpu.refusal()
        return OnnxRuntimeSession(session, described(placed) or str(running[0]))

    def _accelerated(self, model: bytes, config: ModelConfig, precision: str) -> tuple[Any, Counter[str]]:
        """A session on the chosen providers, or on the CPU where they fail and that is allowed, and what runs it."""
        first = self._providers[0][0]
        name = f"onnxruntime-{self._device if self._device != 'auto' else first}-{digest(model)}"
        caches = first in EXECUTION_PROVIDERS["tensorrt"] and self._cache.keeps
        for attempt in range(2):
            folder = self._cache.engines(name, {**self.fingerprint(), "precision": precision}) if caches else None
            providers = [
                (p, {**_engine_options(p, precision, None if folder is None else str(folder)), **options})
                for p, options in self._providers
            ]
            try:
                with announced(first, slow=first in SLOW, cached=folder is not None):
                    return self._recorded(model, providers, config)
            except Exception as e:
                error = e
            if attempt or folder is None or not self._cache.discard(name, folder):
                break
        try:
            session = self._create(model, [(CPU, {})])
        except Exception as e:
            raise BundleCorruptError(f"onnxruntime {self.version} cannot load the encoder graph: {e}") from e
        why = f"it failed to load the encoder graph ({' '.join(str(error).split())})"
        fall_back(first, [CPU], self._strict, why, self.notices)
        return session, Counter({CPU: 1})

    def _recorded(
        self, model: bytes, providers: list[tuple[str, dict[str, Any]]], config: ModelConfig
    ) -> tuple[Any, Counter[str]]:
        options = self._ort.SessionOptions()
        record = Record(self._ort, options)
        try:
            session = self._create(model, providers, options)
            return session, record.read(session, example_feeds(config))
        finally:
            record.close()

    @native
    def _create(self, model: bytes, providers: list[tuple[str, dict[str, Any]]], options: Any = None) -> Any:
        ort = self._ort
        options = options or ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_mem_pattern = False
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._static:
            options.add_free_dimension_override_by_name("B", 1)
        built_in = ort.get_available_providers()
        if any(p not in built_in for p, _ in providers):  # a plug-in: it is chosen by its devices
            for name, given in providers:
                found = [d for d in ort.get_ep_devices() if d.ep_name == name]
                options.add_provider_for_devices(found, {k: str(v) for k, v in given.items()})
            return ort.InferenceSession(model, options, enable_fallback=0)
        return ort.InferenceSession(
            model,
            options,
            providers=[p for p, _ in providers],
            provider_options=[o for _, o in providers],
            enable_fallback=0,
        )


class OnnxRuntimeSession(OneProcess):
    """See `linkedout_edge.backends.base.Session`."""

    def __init__(self, session: Any, device: str) -> None:
        self._session = session
        self._outputs = [o.name for o in session.get_outputs()]
        self.device = device
        super().__init__()

    @native
    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Outputs by name.

        Raises:
            BackendError: The library failed.
        """
        self._check_process()
        session = self._session
        if session is None:
            raise ClosedError("the encoder graph was closed")
        try:
            return dict(zip(self._outputs, session.run(self._outputs, contiguous(feeds)), strict=True))
        except Exception as e:
            raise BackendError(f"onnxruntime failed in the encoder graph: {e}") from e

    def close(self) -> None:
        """Release the graph's memory."""
        self._session = None

    def _native(self) -> tuple[object, ...]:
        return (self._session,)


def tuned(provider: str, device: str) -> dict[str, Any]:
    """Options that suit one small model that is asked now and then; `providers` of the caller override them."""
    if provider == CUDA:
        return {
            "arena_extend_strategy": "kSameAsRequested",  # doubling would hold twice of what is needed
            "cudnn_conv_algo_search": "HEURISTIC",  # trying all takes seconds at the first run
            "use_tf32": "0",  # scores agree with the other backends
        }
    if provider == TENSORRT:
        return {"trt_timing_cache_enable": "1", "trt_context_memory_sharing_enable": "1"}
    if provider == "QNNExecutionProvider":
        return {"backend_path": "QnnHtp.dll" if os.name == "nt" else "libQnnHtp.so"}
    if provider == "CoreMLExecutionProvider" and device in ("gpu", "npu"):
        return {"MLComputeUnits": "CPUAndGPU" if device == "gpu" else "CPUAndNeuralEngine", "ModelFormat": "MLProgram"}
    if provider == "OpenVINOExecutionProvider" and device == "npu":
        return {"device_type": "NPU"}
    return {}


def _engine_options(provider: str, precision: str, folder: str | None) -> dict[str, Any]:
    """TensorRT's options for a model, and where it keeps its engines."""
    if provider != TENSORRT:
        return {}
    options = (
        {"trt_int8_enable": "1"} if precision == "int8" else {"trt_fp16_enable": "1"} if precision == "fp16" else {}
    )
    if folder is None:
        return options
    return {
        **options,
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_path": folder,
    }


def _port(node: Any) -> Port:
    shape = tuple(d if isinstance(d, int) else None for d in node.shape)
    return Port(node.name, _DTYPES.get(node.type, node.type), shape)
