"""A plot of accuracy, latency and size."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

from linkedout_edge import install
from linkedout_edge.bench.results import Report
from linkedout_edge.errors import ArgumentError, MissingDependencyError

SUFFIXES = (".png", ".svg", ".pdf")
LEAST_RANGE = 0.05
"""The least range of NDCG that is shown, so that small differences do not look large."""
_COLOURS = {"onnxruntime": "#0068b5", "openvino": "#d95f02"}


def check_target(target: Path) -> None:
    """Refuse before anything is measured what could not be drawn after it.

    Raises:
        ArgumentError: A suffix that is not drawn.
        MissingDependencyError: matplotlib is not installed.
    """
    if target.suffix.lower() not in SUFFIXES:
        raise ArgumentError(f"--plot writes {', '.join(SUFFIXES)}, not {target.name!r}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as e:
        raise MissingDependencyError(f"--plot needs matplotlib: {install.library('matplotlib')}") from e


def plot(report: Report, target: Path) -> None:
    """Draw each configuration as a bubble: encode time across, NDCG@10 up, size as area.

    Raises:
        ArgumentError: Nothing to draw, or as `check_target`.
        MissingDependencyError: As `check_target`.
    """
    check_target(target)
    from matplotlib.figure import Figure

    points = []
    for c in report.configurations:
        quality = None if c.agreement is None else c.agreement.ndcg
        if c.encode is not None and quality is not None:
            points.append((c, c.encode.median, quality))
    if not points:
        raise ArgumentError("nothing to draw: no configuration has an agreement (--rankings 0 measures none)")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    largest = max(c.bytes for c, *_ in points)
    heights = cycle((28, -28, 42, -42))  # neighbors often lie at the same height
    for c, ms, quality in sorted(points, key=lambda p: p[1]):
        axes.scatter(
            ms, quality, 900 * c.bytes / largest, color=_COLOURS.get(c.backend, "#555"), alpha=0.55, linewidth=0
        )
        near = next(heights)
        axes.annotate(
            f"{c.precision} {c.device}, {c.bytes / 1e6:.1f} MB",
            (ms, quality),
            (0, near),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "color": "#999", "linewidth": 0.5},
        )
    for baseline in report.against:
        if baseline.encode is not None:
            axes.axvline(baseline.encode.median, color="#999", linestyle=":", linewidth=1)
            upright: Any = {"rotation": 90, "fontsize": 7, "color": "#666", "transform": axes.get_xaxis_transform()}
            axes.text(baseline.encode.median, 0.02, f" {baseline.name}", **upright)
    used = {c.backend for c, *_ in points}
    for backend in sorted(used):
        axes.scatter([], [], 60, color=_COLOURS.get(backend, "#555"), alpha=0.55, label=backend)
    axes.legend(loc="best", frameon=False)
    axes.set_xlabel("encode one video, its frames decoded, ms (median)")
    axes.set_ylabel(f"NDCG@10, {report.set}")
    axes.set_title(
        f"{report.bundle}: area is size; {report.machine.processor}, {report.machine.threads} threads", fontsize=9
    )
    axes.margins(0.2)
    axes.set_xlim(left=0)
    low, high = axes.get_ylim()
    spare = max(0.0, LEAST_RANGE - (high - low)) / 2
    axes.set_ylim(low - spare, high + spare)
    figure.savefig(target, dpi=150)
