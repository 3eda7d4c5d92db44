"""The command that turns a training run into a bundle; `linkedout-edge` finds it through an entry point."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder whose photos calibrate, beside micro-videos.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the new bundle."
)
@click.option("--name", default="base", show_default=True, help="Name of the bundle.")
@click.option(
    "--users",
    default=120,
    show_default=True,
    help="Exam users per length of history for measuring agreement.",
)
@click.option(
    "--embed",
    "embed_into",
    type=click.Path(path_type=Path),
    help="Also write int8 and int4 alone to this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def export(
    run: Path, data: Path | None, out: Path, name: str, users: int, embed_into: Path | None, as_json: bool
) -> None:
    """Export a finished training RUN to ONNX, quantise it to int8 and int4, measure and write the bundle."""
    import msgspec

    from linkedout_export.build import build, embed

    manifest = build(run, data, out, name=name, users=users)
    if embed_into:
        embed(out, embed_into)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(manifest)))
        return
    for precision, entry in manifest.precisions.items():
        size = sum(f.bytes for f in entry.files.values())
        click.echo(
            f"{precision:5} {size / 1e6:6.2f} MB  " + "  ".join(f"{k} {v:.4f}" for k, v in entry.agreement.items())
        )
    click.echo(f"written: {out}")
