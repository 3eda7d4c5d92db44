"""MobileNetV2 (ImageNet, uint8, LiteRT): what its layers say of one image."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from linkedout_edge import install
from linkedout_edge.errors import MissingDependencyError

SIDE = 224
WIDTH = 1280


@dataclass(frozen=True)
class Seen:
    """Layers of one image, dequantized to float32."""

    middle: np.ndarray  # [14, 14, 96], the output of block 12
    last: np.ndarray  # [7, 7, 1280], the last convolution
    pooled: np.ndarray  # [1280], its mean
    logits: np.ndarray  # [1001], class 0 is "background"


class MobileNet:
    """MobileNetV2 with its inner layers readable.

    Args:
        model: the ``.tflite`` file (Coral's ``mobilenet_v2_1.0_224_quant``).
        threads: threads of the interpreter.

    Raises:
        MissingDependencyError: ``ai-edge-litert`` is not installed.
    """

    def __init__(self, model: Path, threads: int = 1) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as e:
            raise MissingDependencyError(f"the teacher needs LiteRT: {install.extra('tools')}") from e
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that inner layers take memory is what is asked for
            self._net = Interpreter(str(model), num_threads=threads, experimental_preserve_all_tensors=True)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        details = self._net.get_tensor_details()
        self._pool = next(d for d in details if "AvgPool" in d["name"])
        self._last = next(d for d in details if tuple(d["shape"]) == (1, 7, 7, WIDTH))
        self._middle = next(d for d in details if d["name"].endswith("expanded_conv_12/add"))
        self._logits = next(d for d in details if d["name"].endswith("Logits/Squeeze1"))
        weights = next(d for d in details if tuple(d["shape"]) == (1001, 1, 1, WIDTH))
        self.classifier = self._read(weights).reshape(1001, WIDTH)

    def __call__(self, image: np.ndarray) -> Seen:
        """Layers of one image, uint8 [224, 224, 3] RGB."""
        self._net.set_tensor(self._input, image[None])
        self._net.invoke()
        return Seen(
            self._read(self._middle)[0],
            self._read(self._last)[0],
            self._read(self._pool).reshape(WIDTH),
            self._read(self._logits).reshape(1001),
        )

    def _read(self, detail: dict) -> np.ndarray:
        scale, zero = detail["quantization"]
        return (self._net.get_tensor(detail["index"]).astype(np.float32) - zero) * np.float32(scale)
