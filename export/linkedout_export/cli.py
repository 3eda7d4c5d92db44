"""The commands that make bundles and what else devices want; `linkedout-edge` finds them through entry points.

Names are checked by the tables in `linkedout_export.formats`, which the help is made from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from linkedout_edge.bundle.manifest import Manifest
    from linkedout_export.quantization import Feeds

BUILT_IN_OUT = Path("linkedout-bundle")
"""Where a copy of the built-in bundle goes, which itself is never changed."""
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_DATA = click.option(
    "--data", type=_FOLDER, help="Folder of photos and videos for calibration, in addition to micro-videos."
)
_USERS = click.option(
    "--users", default=120, show_default=True, help="Exam users per history length, to measure agreement; 0 for none."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")


def _formats_help() -> str:
    from linkedout_export.formats import FORMATS

    return " ".join(f"{f.name}: {f.title} in {', '.join(f.precisions)}." for f in FORMATS.values()) + " Or all."


def _targets_help() -> str:
    from linkedout_export.formats import TARGETS

    return " ".join(f"{t.name} ({', '.join(t.precisions)}): {t.note}." for t in TARGETS.values())


class _Source(click.Path):
    """A folder; or, as text, a precision of the built-in bundle or, beside --via, a model's name on the hub."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from linkedout_edge.bundle.manifest import PRECISIONS

        on_hub = ctx is not None and isinstance(ctx.params.get("via"), str) and not Path(value).exists()
        return value if value in PRECISIONS or on_hub else super().convert(value, param, ctx)


_SOURCE = _Source(exists=True, file_okay=False, path_type=Path)


class _Described(click.Command):
    """A command whose last paragraph of help is made from a table, when it is asked for."""

    describe: Callable[[], str]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.epilog = type(self).describe()
        super().format_epilog(ctx, formatter)


class _Export(_Described):
    describe = staticmethod(_formats_help)


class _Quantize(_Described):
    describe = staticmethod(_targets_help)


def _built_in(precision: str) -> Path:
    """The built-in bundle's folder.

    Raises:
        ArgumentError: It has no such precision.
        BundleNotFoundError: This installation has none.
    """
    from linkedout_edge.bundle import open_bundle

    with open_bundle(precision) as bundle:
        return bundle.path


def _feeds(manifest: Manifest, data: Path | None) -> Callable[[int, int], list[Feeds]]:
    from linkedout_export.build import calibration_feeds

    return lambda clips, seed: calibration_feeds(manifest.config, data, clips, seed)


def _is_vlm(source: Path | str) -> bool:
    """Whether SOURCE is a vision-language model."""
    if isinstance(source, str):
        from linkedout_edge.bundle.manifest import PRECISIONS

        return source not in PRECISIONS
    from linkedout_export.commands import is_run

    if is_run(source) or (source / "manifest.json").exists():
        return False
    return (source / "config.json").is_file() or any(source.glob("openvino_*.xml"))


def _report(manifest: Manifest, out: Path, as_json: bool) -> None:
    import msgspec

    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(manifest)))
        return
    measured = [(p, [*e.files.values()], e.agreement, "") for p, e in manifest.precisions.items()]
    measured += [(folder, [*e.files.values()], e.parity, e.unmeasured) for folder, e in manifest.exports.items()]
    for name, files, values, note in measured:
        size = sum(f.bytes for f in files)
        told = note or "  ".join(f"{k} {v:.4g}" for k, v in values.items())
        click.echo(f"{name:22} {size / 1e6:6.2f} MB  {told}")
    click.echo(f"written: {out}")


@click.command(cls=_Export)
@click.argument("source", type=_SOURCE)
@click.option("--format", "formats", help="onnx, openvino, tensorrt or all.  [default: onnx; through Optimum openvino]")
@click.option("--precision", "precisions", multiple=True, help="Precision to export. May be repeated.  [default: all]")
@_DATA
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the bundle.  [default: SOURCE if it is a bundle, SOURCE/bundle if it is a run, "
    "linkedout-bundle if it is anything else]",
)
@click.option("--name", help="Name of the bundle.  [default: base; for a vision-language model its folder's name]")
@click.option(
    "--prompt",
    default=None,
    help="Prompt: general, objects, looks, or a sentence; for a vision-language model always a sentence."
    " Baked in; each has its own tokens.  [default: general]",
)
@click.option(
    "--via",
    is_eager=True,
    help="Export of a vision-language model: optimum, torch, or auto, which is Optimum if it knows the architecture."
    "  [default: auto]",
)
@click.option("--frames", type=click.IntRange(min=1), help="Frames per video of a vision-language model.  [default: 8]")
@click.option(
    "--layer",
    "layers",
    type=int,
    multiple=True,
    help="Tapped layer of a vision-language model; may be repeated.  [default: six, evenly spread]",
)
@click.option(
    "--clips",
    type=click.IntRange(min=1),
    help="Clips to which its compressors are fitted.  [default: 96]",
)
@click.option("--method", help="4-bit values of --via torch --format onnx: hqq, rtn or gptq.  [default: hqq]")
@_USERS
@click.option(
    "--embed",
    "embed_into",
    type=click.Path(path_type=Path),
    help="Also write a bundle with only int8 and int4 to this folder.",
)
@_JSON
def export(
    source: Path | str,
    formats: str | None,
    precisions: tuple[str, ...],
    data: Path | None,
    out: Path | None,
    name: str | None,
    prompt: str | None,
    via: str | None,
    frames: int | None,
    layers: tuple[int, ...],
    clips: int | None,
    method: str | None,
    users: int,
    embed_into: Path | None,
    as_json: bool,
) -> None:
    """Export a training run, a bundle or a vision-language model for its target devices.

    SOURCE is a run's or a bundle's folder, or a precision of the built-in bundle: int8. A run becomes a bundle with
    int8, int4 and fp32, its agreement measured; then, and for a bundle at once, the graphs of the format are added.
    `onnx` adds the static twins of the graphs that a bundle has in any case.

    Or SOURCE is a vision-language model: a Hugging Face checkpoint's folder, with --via also its name on the hub, or
    a folder that `optimum-cli export openvino` wrote. It becomes a bundle with int8 and int4, compressors added and
    fitted (docs/vlm.md).
    """
    from linkedout_edge.errors import ArgumentError
    from linkedout_export.commands import Source, export_bundle, is_run
    from linkedout_export.formats import check_pair, chosen_formats, require, toolkits
    from linkedout_export.writer import check_replaceable

    asked = {"--via": via, "--frames": frames, "--layer": layers, "--clips": clips, "--method": method}
    if _is_vlm(source):
        from linkedout_export.vlm.bundle import Shape
        from linkedout_export.vlm.command import Request, export_vlm

        given: dict[str, Any] = {"frames": frames, "layers": layers, "prompt": prompt}
        shape = Shape(**{k: v for k, v in given.items() if v})
        request = Request(
            source, via or "auto", formats, precisions, shape, data, clips or 96, method or "hqq",
            name or Path(source).resolve().name,
        )  # fmt: skip
        out = out or BUILT_IN_OUT
        _report(export_vlm(request, out), out, as_json)
        return
    if wrong := [option for option, value in asked.items() if value]:
        raise ArgumentError(
            f"{source} is no vision-language model (a checkpoint has config.json, an exported one openvino_*.xml), "
            f"which {', '.join(wrong)} is for: leave it out"
        )
    formats, name = formats or "onnx", name or "base"
    chosen = chosen_formats(formats)  # before hours of work
    if len(chosen) == 1:
        for precision in precisions:
            check_pair(chosen[0], precision)
    if isinstance(source, str):
        if precisions not in ((), (source,)):
            raise ArgumentError(f"{source} is already a precision: leave --precision {', '.join(precisions)} out")
        precisions, out, source = (source,), out or BUILT_IN_OUT, _built_in(source)
    if out is not None:
        check_replaceable(out)
    require(t for f in chosen for p in precisions or f.precisions for t in toolkits(f, p))
    if is_run(source):
        from linkedout_export.build import build

        out = out or source / "bundle"
        manifest = build(source, data, out, name=name, users=users, prompt=prompt)
        source = out
    elif prompt is not None:
        raise ArgumentError(f"{source} is a bundle, whose prompt is baked in: export the training run with --prompt")
    else:
        manifest = Source.open(source).manifest
        out = out or source
    manifest = export_bundle(source, out, formats, precisions, _feeds(manifest, data))
    if embed_into:
        from linkedout_export.build import embed

        embed(out, embed_into)
    _report(manifest, out, as_json)


@click.command(cls=_Quantize)
@click.argument("source", type=_SOURCE)
@click.option("--precision", required=True, help="int8, int4 or fp16.")
@click.option("--target", default="cpu", show_default=True, help="cpu, npu or jetson.")
@_DATA
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the bundle.  [default: SOURCE if it is a bundle, else SOURCE/bundle]",
)
@click.option(
    "--method",
    default="auto",
    show_default=True,
    help="Ranges of int8: minmax, entropy, percentile, or auto (measured).",
)
@click.option("--dynamic", is_flag=True, help="int8 with activations scaled at run time, without calibration.")
@click.option("--overwrite", is_flag=True, help="Replace a precision that the bundle already has.")
@_USERS
@_JSON
def quantize(
    source: Path | str,
    precision: str,
    target: str,
    data: Path | None,
    out: Path | None,
    method: str,
    dynamic: bool,
    overwrite: bool,
    users: int,
    as_json: bool,
) -> None:
    """Add a precision to a bundle that has fp32, or to a training run's, for one kind of device.

    SOURCE is a folder. The built-in bundle has no fp32; in a clone, models/base is the run that it was made from.
    """
    from linkedout_edge.errors import ArgumentError, unknown
    from linkedout_export.commands import Source, is_run, quantize_bundle
    from linkedout_export.formats import check_target
    from linkedout_export.quantization import METHODS

    check_target(target, precision)
    if method not in ("auto", *METHODS):
        raise ArgumentError(unknown("calibration method", method, ("auto", *METHODS)))
    if isinstance(source, str):
        source, out = _built_in(source), out or BUILT_IN_OUT
    if is_run(source):
        from linkedout_export.build import write_float_bundle

        out = out or source / "bundle"
        if not (out / "manifest.json").exists():
            write_float_bundle(source, out, data=data)
        source = out
    out = out or source
    manifest = Source.open(source).manifest
    manifest = quantize_bundle(
        source, out, precision, target, _feeds(manifest, data),
        method=method, dynamic=dynamic, users=users, overwrite=overwrite,
    )  # fmt: skip
    _report(manifest, out, as_json)
