"""Evaluation core: metrics from torchmetrics, baselines, and the micro-video exam through the public API."""
