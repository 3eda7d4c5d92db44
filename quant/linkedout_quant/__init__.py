"""Workstation half: the student model in torch, its training and its evaluation."""

import linkedout_edge as _device_half  # noqa: F401 - first of all: it stops onnxruntime from sending usage events
