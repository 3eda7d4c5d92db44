"""`linkedout-edge export` of a vision-language model: which way is taken, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from linkedout_quant.progress import stage
from linkedout_quant.teachers import TeacherError
from linkedout_quant.teachers.checkpoint import locate, read_config

from linkedout_edge.bundle.manifest import Manifest
from linkedout_edge.errors import ArgumentError, MissingDependencyError, unknown
from linkedout_export.build import calibration_feeds
from linkedout_export.quantization import Feeds
from linkedout_export.vlm.bundle import (
    FORMATS,
    Shape,
    check_choices,
    load_graphs,
    write_graphs_bundle,
    write_optimum_bundle,
    write_vlm_bundle,
)
from linkedout_export.vlm.encoder import FAMILIES, load_vlm
from linkedout_export.vlm.exported import is_exported
from linkedout_export.vlm.quantize import METHODS, Method
from linkedout_export.vlm.through_optimum import NotInRegistryError, check_registry
from linkedout_export.writer import check_replaceable

VIA = ("auto", "optimum", "torch")
PRECISIONS = ("int8", "int4")


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        source: Folder of a checkpoint or of exported graphs, or a name on the hub.
        via: One of `VIA`.
        format: ``"onnx"``, ``"openvino"``, or None for what the way taken writes best.
        precisions: Of the bundle; empty for `PRECISIONS`.
        shape: Frames, taps, prompt.
        data: Folder of videos and photos to fit to, beside micro-videos.
        clips: How many clips that makes.
        method: Of 4-bit ONNX weights.
        name: Of the bundle.
    """

    source: str | Path
    via: str = "auto"
    format: str | None = None
    precisions: tuple[str, ...] = ()
    shape: Shape = field(default_factory=Shape)
    data: Path | None = None
    clips: int = 96
    method: str = "hqq"
    name: str = "vlm"


def export_vlm(request: Request, out: Path) -> Manifest:
    """Write the bundle.

    Raises:
        ArgumentError: Choices that do not exist or do not go together.
        LinkedOutError: See `write_optimum_bundle`, `write_vlm_bundle` and `load_graphs`.
    """
    if request.via not in VIA:
        raise ArgumentError(unknown("way to export", request.via, VIA))
    if request.method not in get_args(Method):
        raise ArgumentError(unknown("4-bit method", request.method, METHODS))
    check_choices(request.precisions or PRECISIONS, request.format or FORMATS[0])
    check_replaceable(out)
    ready = Path(request.source)
    if is_exported(ready):
        return _ready_made(request, ready, out)
    folder = locate(request.source)
    source = f"the weights of {Path(request.source).name}"
    told: dict[str, Any] = {
        "name": request.name,
        "provenance": f"{source}, as they are; projections fitted to {request.clips} clips",
    }
    precisions = request.precisions or PRECISIONS
    if chosen_way(request, folder) == "optimum":
        return write_optimum_bundle(folder, out, _feeds(request), shape=request.shape, precisions=precisions, **told)
    shape = request.shape
    student = load_vlm(
        folder, frames=shape.frames, layers=shape.layers, tokens_per_layer=shape.tokens_per_layer,
        token_width=shape.token_width, title_tokens=shape.title_tokens, prompt=shape.prompt, seed=shape.seed,
    )  # fmt: skip
    format: Any = request.format or "onnx"
    method: Any = request.method
    return write_vlm_bundle(
        student, out, _feeds(request)(student.config), format=format, precisions=precisions, method=method, **told
    )


def chosen_way(request: Request, folder: Path) -> str:
    """``"optimum"`` or ``"torch"``; of its own accord Optimum where it has the architecture, else it says why not.

    Raises:
        LinkedOutError: Optimum was asked for and cannot, or neither way has the architecture.
    """
    if request.via == "torch":
        return "torch"
    try:
        check_registry(folder, request.format or "openvino")
    except (NotInRegistryError, MissingDependencyError) as e:
        family = read_config(folder).model_type
        if request.via == "optimum":
            raise
        if family not in FAMILIES:
            raise TeacherError(
                f"no way to export {request.source}: {e}; --via torch has {', '.join(FAMILIES)}, not {family}"
            ) from e
        stage(f"--via torch, because {e}")
        return "torch"
    return "optimum"


def _ready_made(request: Request, folder: Path, out: Path) -> Manifest:
    if request.via == "torch":
        raise ArgumentError(f"{folder} holds exported graphs, not a checkpoint: leave --via out, nothing is exported")
    if request.format == "onnx":
        raise ArgumentError(f"{folder} holds OpenVINO graphs, which stay OpenVINO's: leave --format out")
    student = load_graphs(folder, request.shape)
    has = student.encoder.exported.precision
    if request.precisions not in ((), (has,)):
        raise ArgumentError(
            f"the graphs in {folder} are in {has}, and are taken as they are: leave --precision "
            f"{', '.join(request.precisions)} out"
        )
    provenance = f"the graphs in {folder.resolve().name}, as they are; projections fitted to {request.clips} clips"
    return write_graphs_bundle(student, out, _feeds(request)(student.config), name=request.name, provenance=provenance)


def _feeds(request: Request) -> Callable[[Any], Sequence[Feeds]]:
    return lambda config: calibration_feeds(config, request.data, request.clips)
