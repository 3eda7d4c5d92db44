"""``python -m linkedout_export.vlm CHECKPOINT --out BUNDLE``: a vision-language model as it is, as a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from linkedout_edge.cli import terminal
from linkedout_edge.errors import LinkedOutError


@click.command()
@click.argument("checkpoint")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the new bundle."
)
@click.option("--frames", default=8, show_default=True, help="Frames of a video.")
@click.option("--precision", "precisions", multiple=True, default=["int8", "int4"], show_default=True)
@click.option("--method", default="hqq", show_default=True, help="How 4-bit values are chosen: hqq, rtn, gptq.")
@click.option("--clips", default=96, show_default=True, help="Clips that the projections are fitted to.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of videos and photos to fit to, beside micro-videos.",
)
@click.option("--openvino", is_flag=True, help="Also write OpenVINO models, compressed by NNCF.")
@click.option("--prompt", help="The question that is baked in.")
def main(
    checkpoint: str,
    out: Path,
    frames: int,
    precisions: tuple[str, ...],
    method: str,
    clips: int,
    data: Path | None,
    openvino: bool,
    prompt: str | None,
) -> None:
    """Export CHECKPOINT, a SmolVLM2-class folder or name on the hub, with compressors behind it."""
    from linkedout_quant.teachers.huggingface import PROMPT

    from linkedout_export.build import calibration_feeds
    from linkedout_export.vlm import load_vlm, write_vlm_bundle

    try:
        student = load_vlm(checkpoint, frames=frames, prompt=prompt or PROMPT)
        feeds = calibration_feeds(student.config, data, clips)
        manifest = write_vlm_bundle(
            student,
            out,
            feeds,
            precisions=precisions,
            method=method,  # type: ignore[arg-type]
            openvino=openvino,
            provenance=f"the weights of {Path(checkpoint).name}, as they are; projections fitted to {clips} clips",
        )
    except LinkedOutError as e:
        raise click.ClickException(str(e)) from e
    for precision, entry in manifest.precisions.items():
        size = sum(f.bytes for f in entry.files.values())
        measured = "  ".join(f"{k} {v:.4f}" for k, v in entry.agreement.items())
        click.echo(f"{precision:5} {size / 1e6:8.2f} MB  {measured}")
    click.echo(f"written: {out}")


if __name__ == "__main__":
    terminal.prepare()
    main()
