"""Pictures of what a training did, for people who would rather look than read."""

from __future__ import annotations

import json
from pathlib import Path


def plot_metrics(log: Path, out: Path) -> None:
    """Draw each loss term of a stage's metrics over its steps; nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    if not rows:
        return
    terms = [k for k in rows[-1] if k not in ("step", "seconds", "lr", "batch", "per_second")]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for term in terms:
        points = [(r["step"], r[term]) for r in rows if term in r]
        axes.plot(*zip(*points, strict=True), label=term, linewidth=1.2)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (weighted, mean of the steps since the last point)")
    axes.set_title(log.stem)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(out, dpi=110)
