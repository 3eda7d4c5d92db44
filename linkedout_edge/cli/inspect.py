"""`linkedout-edge inspect`: a bundle's manifest and graph, or what the decoder sees of a video."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linkedout_edge import install
from linkedout_edge._telemetry import import_openvino
from linkedout_edge.cli.options import VIDEO_SUFFIXES
from linkedout_edge.errors import BundleError

if TYPE_CHECKING:
    from linkedout_edge.bundle import Bundle


@click.command()
@click.argument("what", metavar="[BUNDLE|VIDEO]", default="int8")
@click.option("--decoder", default="auto", show_default=True, help="For a video: auto, pyav or opencv.")
@click.option(
    "--frames",
    "frames_out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="For a video: write what is seen as a JPEG or PNG.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def inspect(ctx: click.Context, what: str, decoder: str, frames_out: Path | None, as_json: bool) -> None:
    """Show what is in a bundle and check it, or what the model sees of a video.

    BUNDLE is a precision of the built-in bundle (int8 if left out), a folder or a .zip; every file is compared with its
    checksum. VIDEO is a file: its frames are chosen and shrunk as they are for the model.

    Exit code: 0, or 1 if a file of the bundle is missing or was changed, or 2 if bundle or video cannot be used at all.
    """
    from linkedout_edge.cli.output import print_json

    if _is_video(what):
        seen = inspect_video(what, decoder, frames_out)
        if as_json:
            print_json(seen)
        else:
            _show_video(seen)
        return
    from linkedout_edge.bundle import open_bundle

    if frames_out is not None:
        raise click.UsageError(f"--frames shows what the model sees of a video, and {what} is none")
    with open_bundle(what) as bundle:
        found = inspect_bundle(bundle)
    if as_json:
        print_json(found)
    else:
        _show_bundle(found)
    if not found["verified"]:
        ctx.exit(1)


def _is_video(what: str) -> bool:
    path = Path(what)
    if not path.is_file():
        return path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()
    return path.suffix.lower() in VIDEO_SUFFIXES or not (path.suffix.lower() == ".zip" or zipfile.is_zipfile(path))


def inspect_bundle(bundle: Bundle) -> dict[str, Any]:
    """Manifest, checksums and graph of an open bundle, as plain JSON values."""
    import msgspec

    manifest = bundle.manifest
    problems: list[str] = []
    entries = {"tokenizer": manifest.tokenizer}
    for name in manifest.precisions:
        entries |= {f"{name}/{graph}": entry for graph, entry in manifest.files(name).items()}
    for entry in entries.values():
        try:
            bundle.read(entry)
        except BundleError as e:  # noqa: PERF203
            problems.append(str(e))
    described: dict[str, Any] = msgspec.to_builtins(manifest)
    return {
        "path": str(bundle.path),
        "embedded": bundle.embedded,
        "precision": bundle.precision,
        "verified": not problems,
        "problems": list(dict.fromkeys(problems)),
        "manifest": described,
        "payload_bytes": manifest.config.payload_bytes,
        "graphs": {} if problems else {"encoder": _encoder(bundle)},
    }


def _encoder(bundle: Bundle) -> dict[str, Any]:
    """Inputs and outputs as the graph itself states them."""
    if bundle.backend == "openvino":
        return _ir(bundle)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Nothing is run: planning and optimising would only cost time.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    graph = bundle.encoder()
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime has its own
        return {"error": f"onnxruntime cannot load it: {e}"}
    ports = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {
        kind: [{"name": p.name, "type": p.type.removeprefix("tensor(").rstrip(")"), "shape": p.shape} for p in each]
        for kind, each in ports.items()
    }


def _ir(bundle: Bundle) -> dict[str, Any]:
    """The same of OpenVINO IR."""
    try:
        core = import_openvino().Core()
    except ImportError:
        return {"error": f"it is OpenVINO IR: {install.library('openvino')}"}
    try:
        model = core.read_model(bundle.encoder(), bundle.weights())
    except Exception as e:  # OpenVINO has its own
        return {"error": f"OpenVINO cannot load it: {e}"}
    return {
        kind: [
            {
                "name": p.get_any_name(),
                "type": p.get_element_type().get_type_name(),
                "shape": [d.get_length() if d.is_static else "B" for d in p.get_partial_shape()],
            }
            for p in each
        ]
        for kind, each in {"inputs": model.inputs, "outputs": model.outputs}.items()
    }


def inspect_video(path: str, decoder: str, frames_out: Path | None) -> dict[str, Any]:
    """What a decoder gives the built-in model of a file, as plain JSON values.

    Raises:
        VideoError: The file cannot be used.
    """
    from linkedout_edge.bundle import open_bundle
    from linkedout_edge.decode import Limits, get_decoder

    if frames_out is not None:
        _check_strip(frames_out)
    with open_bundle("int8", None) as bundle:
        config = bundle.manifest.config
    decode = get_decoder(decoder)
    start = time.perf_counter()
    frames = decode(path, config.frames, config.frame_size, Limits())
    took = time.perf_counter() - start
    if frames_out is not None:
        _write_strip(frames, frames_out)
    return {
        "video": path,
        "bytes": Path(path).stat().st_size,
        "decoder": decode.name,
        "decode_seconds": took,
        "frames": list(frames.shape),
        "wanted_frames": config.frames,
        "mean_brightness": [round(float(f.mean()), 1) for f in frames],
        "container": container(path),
        "written": None if frames_out is None else str(frames_out),
    }


def container(path: str) -> dict[str, Any]:
    """What OpenCV reads from the container; empty where it cannot."""
    import cv2

    try:
        path.encode()
    except UnicodeEncodeError:  # OpenCV crashes on a name that is no UTF-8
        return {}
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            return {}
        fps, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        return {
            "width": int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            "height": int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            "frames_per_second": round(fps, 3),
            "seconds": round(count / fps, 3) if fps > 0 and count > 0 else None,
            "codec": "".join(chr((code >> 8 * i) & 0xFF) for i in range(4)),
        }
    finally:
        capture.release()


def _check_strip(target: Path) -> None:
    """Refuse a picture that cannot be written."""
    from linkedout_edge.errors import ArgumentError
    from linkedout_edge.options import new_file

    new_file(target, "frames.png")
    if target.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise ArgumentError(f"--frames writes .jpg or .png, not {target.name!r}")


def _write_strip(frames: Any, target: Path) -> None:
    import cv2
    import numpy as np

    from linkedout_edge.errors import ArgumentError

    strip = cv2.cvtColor(np.concatenate(list(frames), axis=1), cv2.COLOR_RGB2BGR)
    suffix = target.suffix.lower()
    ok, data = cv2.imencode(suffix, strip)
    if not ok:
        raise ArgumentError(f"OpenCV cannot write {suffix}: use .png")
    try:
        target.write_bytes(data.tobytes())
    except OSError as e:
        raise ArgumentError(f"{target} cannot be written: {e.strerror}") from e


def _show_video(seen: dict[str, Any]) -> None:
    from linkedout_edge.cli.output import console, duration, plain, size

    out, c = console(), seen["container"]
    out.print(plain(seen["video"], "bold"))
    if c:
        length = "of unknown length" if c["seconds"] is None else f"{c['seconds']} s"
        out.print(plain(f"  {c['codec']} · {c['width']} × {c['height']} · {length} · {size(seen['bytes'])}"))
    f, h, w, _ = seen["frames"]
    took = duration(seen["decode_seconds"])
    out.print(
        plain(
            f"  the model sees {f} of {seen['wanted_frames']} frames, {w} × {h}, decoded by {seen['decoder']} in {took}"
        )
    )
    out.print(plain(f"  their mean brightness: {', '.join(map(str, seen['mean_brightness']))}"))
    if seen["written"]:
        out.print(plain(f"  written to {seen['written']}"))


def _show_bundle(found: dict[str, Any]) -> None:
    from rich.table import Table

    from linkedout_edge.cli.output import console, plain, size

    out, m = console(), found["manifest"]
    config = m["config"]
    kind = "built in" if found["embedded"] else found["path"]
    out.print(plain(f"{m['name']} ({kind})", "bold"))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    side, taps = config["frame_size"], config["taps"]
    per_video = f"{len(taps)} layers × {config['tokens_per_layer']} tokens × {config['token_width']}"
    rows = {
        "format": str(m["format_version"]),
        "token space": m["token_space"],
        "looks at": f"{config['frames']} frames of {side} × {side}, {config['title_tokens']} title tokens",
        "layers": ", ".join(m["layer_names"]) or f"blocks {', '.join(map(str, taps))}",
        "stores": f"{found['payload_bytes']} bytes per video: {per_video}",
        "prompt": m["prompt"] or "none",
        "calibrated on": f"{m['calibration']['videos']} videos. {m['calibration']['description']}".strip(),
        "licence": m["licence"] or "not stated",
        "provenance": m["provenance"] or "not stated",
        "made with": ", ".join(f"{k} {v}" for k, v in m["tools"].items()) or "not stated",
    }
    for key, value in rows.items():
        facts.add_row(key, plain(value))
    out.print(facts)

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("precision", "encoder", "agreement with fp32"):
        table.add_column(column)
    for name, p in m["precisions"].items():
        agreement = ", ".join(f"{k} {v:.4g}" for k, v in p["agreement"].items()) or "not measured"
        bold = "bold" if name == found["precision"] else ""
        table.add_row(plain(name, bold), size(p["files"]["encoder"]["bytes"]), plain(agreement))
    out.print()
    out.print(table)

    for graph, ports in found["graphs"].items():
        out.print()
        if "error" in ports:
            out.print(plain(f"{graph}: {ports['error']}", "red"))
            continue
        out.print(plain(graph, "bold"))
        for arrow, side in (("→ ", "inputs"), ("← ", "outputs")):
            listed = [f"{p['name']} {p['type']} [{', '.join(map(str, p['shape']))}]" for p in ports[side]]
            out.print(plain(f"  {arrow}{' · '.join(listed)}"))
    out.print()
    for problem in found["problems"]:
        out.print(plain(problem, "red"))
    if found["verified"]:
        out.print(plain("Every file has the size and SHA-256 of the manifest.", "green"))
