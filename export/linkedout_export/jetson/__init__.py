"""The Jetson kit: static graphs, a calibration cache and a script that builds TensorRT engines on the device."""

from linkedout_export.jetson.kit import Kit, write_kit

__all__ = ["Kit", "write_kit"]
