"""The table of formats and targets. Help, validation, messages and docs/export.md follow from it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass

from linkedout_edge import install
from linkedout_edge.errors import ArgumentError, MissingDependencyError, unknown
from linkedout_export.operators import ONNXRUNTIME, OPENVINO, TENSORRT, OperatorSet


@dataclass(frozen=True)
class ExportFormat:
    """One row of the table.

    Attributes:
        name: what `--format` takes.
        title: for people.
        suffix: of the files that are written.
        devices: where the graphs are meant to run.
        precisions: what they can be written in.
        layouts: "dynamic" graphs take any size, "static" ones have their dimensions fixed.
        operators: what its reader takes; checked before anything is written.
        note: what an engineer should know.
        toolkits: modules that writing it needs.
    """

    name: str
    title: str
    suffix: str
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    layouts: tuple[str, ...]
    operators: OperatorSet
    note: str
    toolkits: tuple[str, ...] = ()

    def folder(self, precision: str, static: bool) -> str:
        """Where the graphs lie in a bundle; the dynamic ONNX graphs are the bundle's own."""
        return f"{'static/' if static else ''}{self.name}/{precision}"


FORMATS: dict[str, ExportFormat] = {
    f.name: f
    for f in (
        ExportFormat(
            name="onnx",
            title="ONNX",
            suffix=".onnx",
            devices=("cpu", "cuda", "gpu", "npu"),
            precisions=("int8", "int4", "fp16", "fp32"),
            layouts=("dynamic", "static"),
            operators=ONNXRUNTIME,
            note="what the runtime reads, on ONNX Runtime and OpenVINO",
        ),
        ExportFormat(
            name="openvino",
            title="OpenVINO IR",
            suffix=".xml + .bin",
            devices=("cpu", "gpu", "npu"),
            precisions=("int8", "int4", "fp16", "fp32"),
            layouts=("dynamic", "static"),
            operators=OPENVINO,
            note="int4 is NNCF's symmetric weight compression; the NPU takes the static layout",
            toolkits=("openvino", "nncf"),
        ),
        ExportFormat(
            name="tensorrt",
            title="ONNX for TensorRT",
            suffix=".onnx",
            devices=("jetson", "tensorrt"),
            precisions=("int8", "fp16"),
            layouts=("static",),
            operators=TENSORRT,
            note="symmetric QDQ; engines are built on the device",
        ),
    )
}


@dataclass(frozen=True)
class Target:
    """A kind of device, and what `quantize --target` writes for it.

    Attributes:
        precisions: what makes sense there, with the format that is written beside the bundle's ONNX graphs (None: no
            other).
        note: why.
    """

    name: str
    precisions: dict[str, str | None]
    note: str


TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target(
            "cpu",
            {"int8": None, "int4": None, "fp16": None},
            "dynamic ONNX graphs; 7-bit weights for CPUs without VNNI",
        ),
        Target(
            "npu", {"int8": "openvino", "int4": "openvino", "fp16": "openvino"}, "static OpenVINO IR, 4 bit symmetric"
        ),
        Target(
            "jetson", {"int8": "tensorrt", "fp16": "tensorrt"}, "static ONNX, symmetric; TensorRT has no 4 bit there"
        ),
    )
}

QUANTIZED = ("int8", "int4", "fp16")
"""What `quantize --precision` takes."""


def chosen_formats(name: str) -> list[ExportFormat]:
    """The formats of a name, or of ``"all"``.

    Raises:
        ArgumentError: no such format; the closest match is named.
    """
    if name == "all":
        return list(FORMATS.values())
    if name not in FORMATS:
        raise ArgumentError(unknown("format", name, [*FORMATS, "all"]))
    return [FORMATS[name]]


def check_pair(format: ExportFormat, precision: str) -> None:
    """Refuse a precision that a format cannot be written in.

    Raises:
        ArgumentError: says which precisions the format has, and which formats the precision.
    """
    known = {p for f in FORMATS.values() for p in f.precisions}
    if precision not in known:
        raise ArgumentError(unknown("precision", precision, sorted(known)))
    if precision not in format.precisions:
        others = [f.name for f in FORMATS.values() if precision in f.precisions]
        raise ArgumentError(
            f"{format.title} is not written in {precision}: it has {', '.join(format.precisions)}; "
            f"{precision} exists for {', '.join(others)}"
        )


def check_target(target: str, precision: str) -> Target:
    """The target, if the precision makes sense there.

    Raises:
        ArgumentError: an unknown name, or an impossible pair; says what would work.
    """
    if precision not in QUANTIZED:
        raise ArgumentError(unknown("precision", precision, QUANTIZED))
    if target not in TARGETS:
        raise ArgumentError(unknown("target", target, TARGETS))
    found = TARGETS[target]
    if precision not in found.precisions:
        others = [t.name for t in TARGETS.values() if precision in t.precisions]
        raise ArgumentError(
            f"{precision} is nothing for the target {target!r} ({found.note}): use --precision "
            f"{' or '.join(found.precisions)} there, or {precision} on {', '.join(others)}"
        )
    return found


def require(modules: Iterable[str]) -> None:
    """Check that toolkits are installed, before any work is done.

    Args:
        modules: their names, as one imports them.

    Raises:
        MissingDependencyError: one is absent; the message has its line.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            line = install.library(module)
            raise MissingDependencyError(f"this export needs {module}, which is not installed: {line}")


def toolkits(format: ExportFormat, precision: str) -> list[str]:
    """What writing one format in one precision needs: NNCF only compresses to 4 bit."""
    return [m for m in format.toolkits if m != "nncf" or precision == "int4"]


def markdown_table() -> str:
    """The table of docs/export.md."""

    def row(*cells: str | Iterable[str]) -> str:
        return "| " + " | ".join(c if isinstance(c, str) else ", ".join(c) or "–" for c in cells) + " |"

    formats = [row(f"`{f.name}`", f.suffix, f.layouts, f.precisions, f.devices, f.note) for f in FORMATS.values()]
    targets = [
        row(f"`{t.name}`", t.precisions, sorted({x for x in t.precisions.values() if x}), t.note)
        for t in TARGETS.values()
    ]
    rows = [
        row("`--format`", "files", "layouts", "precisions", "devices", ""),
        "|---|---|---|---|---|---|",
        *formats,
        "",
        row("`--target`", "precisions", "written beside the ONNX graphs", ""),
        "|---|---|---|---|",
        *targets,
    ]
    return "\n".join(rows) + "\n"
