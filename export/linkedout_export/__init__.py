"""Workstation half: torch → ONNX → quantised graphs → bundle."""
