"""Baselines: other models, timed in turns with our encoder for comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from linkedout_edge import install
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError, MissingDependencyError

BASELINES = {
    "torch": "the same model in eager torch, float32",
    "mobilenet": "eight images through MobileNetV2-int8, LiteRT",
}
IMAGES, SIDE = 8, 224


def baseline(kind: str, **spec: Any) -> Callable[[], object]:
    """What to call once for one video."""
    return _torch(**spec) if kind == "torch" else _mobilenet(**spec)


def baseline_spec(kind: str, config: ModelConfig, threads: int, data: Path | None) -> dict[str, Any]:
    """Arguments that turn a worker into that baseline.

    Raises:
        ArgumentError: The model is not where it should be.
    """
    if kind == "torch":
        return {"kind": kind, "config": msgspec.to_builtins(config), "threads": threads}
    return {"kind": kind, "model": str(find_mobilenet(data)), "threads": threads}


def find_mobilenet(data: Path | None, wanted: str = "--against mobilenet") -> Path:
    """The one ``.tflite`` below a data folder; `wanted` is the option that needs it.

    Raises:
        ArgumentError: No folder, or no model in it.
    """
    if data is None:
        raise ArgumentError(f"{wanted} needs --data FOLDER, with the model in FOLDER/teacher/*.tflite")
    found = sorted([*data.glob("*.tflite"), *data.glob("teacher/*.tflite")])
    if not found:
        raise ArgumentError(f"{data} holds no *.tflite, and neither does its folder teacher: see --data")
    return found[0].absolute()


def _torch(config: dict[str, Any], threads: int) -> Callable[[], object]:
    try:
        import torch
        from linkedout_quant.model import Student
    except ImportError as e:
        raise MissingDependencyError(f"--against torch needs {e.name}: {install.extra('tools')}") from e
    import statistics
    import time

    c = msgspec.convert(config, ModelConfig)
    encoder = Student(c).eval().encoder
    frames = torch.randint(0, 256, (1, c.frames, c.frame_size, c.frame_size, 3), dtype=torch.uint8)
    seen = torch.ones(1, c.frames, dtype=torch.bool)
    ids = torch.zeros(1, c.title_tokens, dtype=torch.int32)
    title = torch.zeros(1, c.title_tokens, dtype=torch.bool)

    @torch.inference_mode()
    def run() -> object:
        return encoder(frames, seen, ids, title)

    def median(count: int) -> float:
        torch.set_num_threads(count)
        took = []
        for _ in range(5):
            start = time.perf_counter()
            run()
            took.append(time.perf_counter() - start)
        return statistics.median(took)

    torch.set_num_threads(
        min((1, threads), key=median)
    )  # more threads lose on a busy machine: take what is best for it
    return run


def _mobilenet(model: str, threads: int) -> Callable[[], object]:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as e:
        raise MissingDependencyError(f"--against mobilenet needs ai-edge-litert: {install.extra('tools')}") from e
    net = Interpreter(model, num_threads=threads)
    net.allocate_tensors()
    target = net.get_input_details()[0]["index"]
    found = net.get_output_details()[0]["index"]
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 1, SIDE, SIDE, 3), dtype=np.uint8)

    def run() -> object:
        for image in images:
            net.set_tensor(target, image)
            net.invoke()
        return net.get_tensor(found)

    return run
