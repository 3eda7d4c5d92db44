"""MobileNetV2 (ImageNet, uint8, LiteRT) as an image teacher: what its last layers say of one photo crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from linkedout_edge.errors import MissingDependencyError

SIDE = 224
WIDTH = 1280


class MobileNetTeacher:
    """Pooled and spatial features of MobileNetV2's last convolution.

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
            raise MissingDependencyError('the teacher needs LiteRT: pip install "linkedout-edge[tools]"') from e
        self._net = Interpreter(str(model), num_threads=threads, experimental_preserve_all_tensors=True)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        details = self._net.get_tensor_details()
        self._pool = next(d for d in details if "AvgPool" in d["name"])
        self._map = next(d for d in details if tuple(d["shape"]) == (1, 7, 7, WIDTH))

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of one image.

        Args:
            image: uint8 [224, 224, 3] RGB.

        Returns:
            pooled float32 [1280] and the map it is the mean of, float32 [7, 7, 1280].
        """
        self._net.set_tensor(self._input, image[None])
        self._net.invoke()
        return self._dequantised(self._pool).reshape(WIDTH), self._dequantised(self._map)[0]

    def _dequantised(self, detail: dict) -> np.ndarray:
        scale, zero = detail["quantization"]
        return (self._net.get_tensor(detail["index"]).astype(np.float32) - zero) * np.float32(scale)
