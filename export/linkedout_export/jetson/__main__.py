"""``python -m linkedout_export.jetson BUNDLE --out KIT``."""

from __future__ import annotations

from pathlib import Path

import click

from linkedout_edge.cli import terminal
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import LinkedOutError
from linkedout_export.jetson.kit import TENSORRT, write_kit
from linkedout_export.quantization import Feeds


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the kit.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=("fp16", "int8"),
    show_default=True,
    help="fp16 or int8; repeatable.",
)
@click.option("--calibrate", is_flag=True, help="int8 by a calibration cache in place of QDQ nodes.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder whose photos calibrate, beside micro-videos.",
)
@click.option("--clips", default=96, show_default=True, help="Clips to calibrate with.")
@click.option("--tensorrt", default=TENSORRT, show_default=True, help="Version of TensorRT on the device.")
def main(
    bundle: Path, out: Path, precisions: tuple[str, ...], calibrate: bool, data: Path | None, clips: int, tensorrt: str
) -> None:
    """Write what a Jetson needs to build TensorRT engines of BUNDLE's encoder (docs/jetson.md)."""

    def feeds(config: ModelConfig) -> list[Feeds]:
        from linkedout_export.build import calibration_feeds

        return calibration_feeds(config, data, clips)

    try:
        kit = write_kit(bundle, out, precisions, calibration=feeds if calibrate else None, tensorrt=tensorrt)
    except LinkedOutError as error:
        raise click.ClickException(str(error)) from error
    for note in kit.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"written: {out} ({', '.join(e.name for e in kit.engines)}); on the Jetson run ./build_engines.sh there")


if __name__ == "__main__":
    terminal.prepare()
    main()
