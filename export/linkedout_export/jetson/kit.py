"""A bundle → a folder to copy to the Jetson: static encoder graphs, calibration cache, build script."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from linkedout_edge.bundle import open_bundle
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError
from linkedout_export.conversion import with_fixed_size
from linkedout_export.jetson.calibration import cache_text, tensor_scales
from linkedout_export.jetson.engines import Engine, build_script, check_precision, static_shapes
from linkedout_export.quantization import Feeds

TENSORRT = "10.3.0"
"""What JetPack 6.1 and 6.2 bring."""
CACHE = "calibration.cache"


@dataclass(frozen=True)
class Kit:
    """What was written.

    Attributes:
        folder: of the kit.
        engines: what its script builds.
        notes: what the user should know.
    """

    folder: Path
    engines: tuple[Engine, ...]
    notes: tuple[str, ...] = field(default=())


def static_encoder(bundle: Path, precision: str) -> tuple[onnx.ModelProto, bool]:
    """The encoder with its dimensions fixed, for TensorRT: the one seam between this kit and the exporter.

    Args:
        bundle: a bundle's folder.
        precision: "fp16" (a float graph), or "int8" (QDQ nodes, symmetric).

    Returns:
        The graph, and whether it was exported for TensorRT. If not, it is the bundle's fp32 or fp16 graph with its free
        dimension fixed, which TensorRT's rules on uint8 and int8 tensors may refuse.

    Raises:
        ArgumentError: int8 that was not exported, as other int8 graphs are not symmetric, or no float graph.
    """
    exported = bundle / "static" / "tensorrt" / precision / "encoder.onnx"
    if exported.is_file():
        return onnx.load(exported), True
    if precision == "int8":
        raise ArgumentError(
            f"{bundle} holds no symmetric int8 encoder: linkedout-edge export {bundle} --format tensorrt, or build "
            "int8 from the float graph with a calibration cache (--calibrate)"
        )
    with open_bundle(bundle) as opened:
        precisions = opened.manifest.precisions
        source = next((p for p in ("fp16", "fp32") if p in precisions), None)
        if source is None:
            raise ArgumentError(
                f"{bundle} has only {', '.join(precisions)}: TensorRT's fp16 engine is built from fp32 or fp16; name "
                "the bundle that export wrote before it was embedded"
            )
        data = (bundle / opened.manifest.files(source)["encoder"].path).read_bytes()
    return with_fixed_size(onnx.load_from_string(data)), False


def write_kit(
    bundle: Path,
    out: Path,
    precisions: tuple[str, ...] = ("fp16", "int8"),
    *,
    calibration: Callable[[ModelConfig], list[Feeds]] | None = None,
    tensorrt: str = TENSORRT,
) -> Kit:
    """Write the kit.

    Args:
        bundle: a bundle's folder, best one that ``linkedout-edge export --format tensorrt`` has written to.
        out: a folder, new or empty.
        precisions: engines to build.
        calibration: gives encoder inputs of batch 1; with it int8 is the float graph and a calibration cache, without
            it the exported graph with QDQ nodes.
        tensorrt: version on the device; a calibration cache is for one version.

    Raises:
        ArgumentError: a precision that is none, a folder with something in it, or a bundle without what is needed.
    """
    if out.exists() and any(out.iterdir()):
        raise ArgumentError(f"{out} is not empty: name a new folder")
    for precision in precisions:
        check_precision(precision)
    with open_bundle(bundle) as opened:
        config, name, space = opened.manifest.config, opened.manifest.name, opened.manifest.token_space
    engines, notes, files = [], [], {}
    for precision in precisions:
        calibrated = precision == "int8" and calibration is not None
        model, exported = static_encoder(bundle, "fp16" if calibrated else precision)
        shapes = static_shapes(model)
        if shapes.get("frames") != (1, config.frames, config.frame_size, config.frame_size, 3):
            raise ArgumentError(f"the static encoder takes frames {shapes.get('frames')}, the manifest says {config}")
        if not exported:
            notes.append(
                f"{precision}: the bundle has no graph for TensorRT, so dimensions were fixed here; if trtexec refuses "
                f"it, run linkedout-edge export {bundle} --format tensorrt first"
            )
        path = f"encoder-{'fp16' if calibrated else precision}.onnx"
        files[path] = model.SerializeToString()
        if calibrated and calibration is not None:
            files[CACHE] = cache_text(tensor_scales(model, calibration(config)), tensorrt).encode()
        engines.append(Engine(precision, path, CACHE if calibrated else ""))
    files["build_engines.sh"] = build_script(engines).encode()
    about = {
        "bundle": name,
        "token_space": space,
        "tensorrt": tensorrt,
        "engines": {e.name: {"onnx": e.onnx, "calibration": e.calibration} for e in engines},
        "inputs": {k: list(v) for k, v in shapes.items()},
    }
    files["kit.json"] = (json.dumps(about, indent=1) + "\n").encode()
    out.mkdir(parents=True, exist_ok=True)
    for relative, content in files.items():
        (out / relative).write_bytes(content)
    (out / "build_engines.sh").chmod(0o755)
    return Kit(out, tuple(engines), tuple(dict.fromkeys(notes)))
