"""Workstation half: torch → ONNX → quantized graphs → bundle."""

import linkedout_edge as _device_half  # noqa: F401 - first of all: it stops onnxruntime from sending usage events
