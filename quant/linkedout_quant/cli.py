"""Commands of the training half; `linkedout-edge` finds them through entry points."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with images/ and teacher/.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Run folder; an interrupted run goes on.",
)
@click.option(
    "--smoke",
    is_flag=True,
    help="Seconds long, on a tiny model: shows that every stage runs, teaches nothing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(data: Path | None, out: Path, smoke: bool, as_json: bool) -> None:
    """Train a student: tower, clips, users. Without --data, on the micro-video world alone."""
    from linkedout_edge.config import ModelConfig
    from linkedout_quant.training.recipe import Recipe
    from linkedout_quant.training.recipe import train as run_all

    config = ModelConfig.tiny() if smoke else ModelConfig()
    master = run_all(out, data, config, Recipe.smoke() if smoke else Recipe())
    click.echo(json.dumps({"master": str(master)}) if as_json else f"trained: {master}")


@click.command()
@click.option(
    "--bundle",
    default="int8",
    show_default=True,
    help="Precision of the built-in bundle, or a bundle's path.",
)
@click.option("--precision", default=None, help="Precision within a bundle given by path.")
@click.option("--backend", default="onnxruntime", show_default=True, help="onnxruntime or openvino.")
@click.option("--users", default=120, show_default=True, help="Users per length of history.")
@click.option("--json", "as_json", is_flag=True, help="Print all metrics as JSON.")
def evaluate(bundle: str, precision: str | None, backend: str, users: int, as_json: bool) -> None:
    """Take the micro-video exam: unseen combinations, 100 candidates, histories of 2, 8 and 32 events."""
    from rich.console import Console
    from rich.table import Table

    from linkedout_edge import Recommender
    from linkedout_edge.microworld import make_exam
    from linkedout_quant.evaluation.exam import pool_videos, take_exam

    exam = make_exam(users_per_length=users)
    with Recommender.load(bundle, precision=precision, backend=backend) as rec:
        report = take_exam(rec, exam, pool_videos(exam))
    if as_json:
        click.echo(json.dumps(report))
        return
    for length, rows in report.items():
        table = Table(title=f"{length} watched videos, {users} users, 100 candidates")
        for column in ("", "NDCG@10", "95 %", "HR@10", "MRR@10", "AUC", "of the way from random to ceiling"):
            table.add_column(column, justify="left" if not column else "right")
        for name, m in rows.items():
            low, high = m["interval"]
            cells = (
                f"{m['ndcg@10']:.3f}",
                f"{low:.3f} – {high:.3f}",
                f"{m['hr@10']:.3f}",
                f"{m['mrr@10']:.3f}",
                f"{m['auc']:.3f}",
            )
            table.add_row(name, *cells, f"{m['normalised']:.2f}", style="bold" if name == "product" else None)
        Console().print(table)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def cost(as_json: bool) -> None:
    """Count parameters and multiply-accumulates of the default student on one clip of 8 frames."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from linkedout_edge.config import ModelConfig
    from linkedout_quant.model import Student

    config = ModelConfig()
    student = Student(config).eval()
    side = config.frame_size
    frames = torch.zeros(1, config.frames, side, side, 3, dtype=torch.uint8)
    title = torch.zeros(1, config.title_tokens, dtype=torch.int32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        student.encoder(frames, torch.ones(1, config.frames, dtype=torch.bool), title, title.bool())
    counts = {
        "parameters": sum(p.numel() for p in student.parameters()),
        "macs": counter.get_total_flops() // 2,
        "payload_bytes": config.payload_bytes,
    }
    if as_json:
        click.echo(json.dumps(counts))
    else:
        click.echo(
            f"{counts['parameters'] / 1e6:.2f} M parameters, "
            f"{counts['macs'] / 1e9:.2f} GMAC a clip of {config.frames} frames"
        )
        click.echo(f"{counts['payload_bytes']} bytes stored per video")
