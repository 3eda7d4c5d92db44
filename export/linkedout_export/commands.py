"""The commands `quantize` and `export`: plan, check, convert, measure, and only then write.

A bundle is never half changed: the new one is built beside the old one and replaces it at the end.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
from linkedout_quant.progress import stage

from linkedout_edge.backends import cpu
from linkedout_edge.bundle.manifest import MANIFEST, Export, FileEntry, Manifest, Precision
from linkedout_edge.bundle.reader import open_bundle
from linkedout_edge.errors import ArgumentError, StorageFullError
from linkedout_export.conversion import (
    for_tensorrt,
    openvino_files,
    openvino_runner,
    to_openvino,
    with_fixed_size,
)
from linkedout_export.formats import ExportFormat, check_pair, check_target, chosen_formats, require, toolkits
from linkedout_export.operators import check_operators
from linkedout_export.packing import halve_constants
from linkedout_export.quantization import (
    Feeds,
    full_range_weights,
    quantize_fp16,
    quantize_int4,
    quantize_int8,
    quantize_int8_dynamic,
)
from linkedout_export.sensitivity import choose_int8, cosine, onnx_runner, token_agreement, tokens_of
from linkedout_export.writer import check_replaceable, write_manifest

MIN_FREE = 1 << 20


@dataclass
class Source:
    """A bundle folder, opened for reading: its manifest, and its graph when it is needed."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Source:
        """Check and open a bundle.

        Raises:
            ArgumentError: it is a .zip, which cannot be added to.
            BundleError: it is no bundle.
        """
        if path.is_file():
            raise ArgumentError(f"{path} is a file: unpack the bundle into a folder first, files are added to it")
        with open_bundle(path) as bundle:
            return cls(path, bundle.manifest)

    def encoder(self, precision: str) -> onnx.ModelProto:
        """The ONNX graph in one of its precisions, checked against its SHA-256.

        Raises:
            ArgumentError: it is OpenVINO IR, of which nothing else is made.
        """
        if self.manifest.precisions[precision].is_ir:
            raise ArgumentError(
                f"{self.path} holds OpenVINO IR in {precision}, of which nothing else is made: export the "
                "vision-language model again, --via torch --format onnx for ONNX"
            )
        with open_bundle(self.path, precision) as bundle:
            return onnx.load_from_string(bundle.encoder())

    def float_encoder(self, purpose: str) -> onnx.ModelProto:
        """The float32 graph.

        Raises:
            ArgumentError: the bundle has none, because it was quantized already.
        """
        if "fp32" not in self.manifest.precisions:
            raise ArgumentError(
                f"{self.path} is quantized already (it has {', '.join(self.manifest.precisions)}) and {purpose} is "
                "made from fp32, not from rounded weights: give a bundle with fp32, or the training run's folder (of "
                "the built-in bundle that is models/base in a clone)"
            )
        return self.encoder("fp32")


@contextmanager
def staged(source: Path, out: Path, added: int) -> Iterator[Path]:
    """A copy of the folder `source` to change; it becomes `out` if nothing fails.

    Args:
        source: a bundle's folder.
        out: what is replaced, or made; may be `source`.
        added: bytes that will be added.

    Raises:
        ArgumentError: `out` is a folder of other things.
        StorageFullError: the disk has no room; nothing was changed.
    """
    check_replaceable(out)
    needed = added + sum(p.stat().st_size for p in source.rglob("*") if p.is_file()) + MIN_FREE
    out.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out.parent).free
    full = f"writing {out} takes about {needed / 1e6:.0f} MB, {out.parent} has {free / 1e6:.0f} MB free"
    if free < needed:
        raise StorageFullError(errno.ENOSPC, f"{full}: make room, or choose another --out")
    partial, old = out.with_name(out.name + ".partial"), out.with_name(out.name + ".old")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(source, partial)
        yield partial
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        partial.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT) and not isinstance(e, StorageFullError):
            raise StorageFullError(errno.ENOSPC, f"{full}: make room, or choose another --out") from e
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(root: Path, folder: str, files: dict[str, bytes]) -> dict[str, FileEntry]:
    shutil.rmtree(root / folder, ignore_errors=True)
    (root / folder).mkdir(parents=True)
    entries = {}
    for name, data in files.items():
        (root / folder / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        entries[name] = FileEntry(path=f"{folder}/{name}", sha256=digest, bytes=len(data))
    return entries


def static_difference(dynamic: onnx.ModelProto, static: onnx.ModelProto) -> float:
    """Largest difference of the outputs of a dynamic graph and its static twin on the same random video.

    Relative to the output's largest magnitude where that is above 1.
    """
    rng = np.random.default_rng(0)
    feeds = {}
    for value in static.graph.input:
        kind = value.type.tensor_type
        shape, dtype = [d.dim_value for d in kind.shape.dim], onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if dtype.kind == "b":  # the last quarter is masked
            feeds[value.name] = np.broadcast_to(np.arange(shape[-1]) < max(1, shape[-1] * 3 // 4), shape).copy()
        else:
            feeds[value.name] = rng.integers(0, 200, shape).astype(dtype)
    worst = 0.0
    for a, b in zip(onnx_runner(static)(feeds), onnx_runner(dynamic)(feeds), strict=True):
        wanted = b.astype(np.float64)
        worst = max(worst, float(np.abs(a - wanted).max() / max(1.0, np.abs(wanted).max())))
    return worst


@dataclass
class ExportResult:
    """One exported graph, in memory."""

    format: ExportFormat
    precision: str
    static: bool
    files: dict[str, bytes]
    opset: dict[str, int]
    parity: dict[str, float]
    full_range_weights: bool = False

    @property
    def folder(self) -> str:
        """Where it lies in the bundle."""
        return self.format.folder(self.precision, self.static)

    @property
    def unmeasured(self) -> str:
        """Why there is no parity; "" where there is."""
        overflows = self.full_range_weights and cpu.instruction_set().overflows
        return f"not measured here: {cpu.overflow()}" if overflows else ""


@dataclass
class Exporter:
    """Exports one bundle. `calibration` is called at most once, and only if TensorRT's int8 needs it."""

    source: Source
    calibration: Callable[[], list[Feeds]]
    held_out: list[Feeds]

    def __post_init__(self) -> None:
        self._want: np.ndarray | None = None

    def parity(self, run: Callable[[Feeds], Sequence[np.ndarray]]) -> dict[str, float]:
        """Token cosine against the float32 graph, where the bundle has it."""
        if "fp32" not in self.source.manifest.precisions:
            return {}
        if self._want is None:
            self._want = tokens_of(onnx_runner(self.source.encoder("fp32")), self.held_out)
        return {"token_cosine": round(cosine(self._want, tokens_of(run, self.held_out)), 6)}

    def export(self, format: ExportFormat, precision: str) -> list[ExportResult]:
        """All layouts of one format in one precision, checked and measured. Nothing is written."""
        convert = {"onnx": self._onnx, "openvino": self._openvino, "tensorrt": self._tensorrt}[format.name]
        return convert(format, precision)

    def _static(self, format: ExportFormat, precision: str, dynamic: onnx.ModelProto) -> ExportResult:
        encoder = with_fixed_size(dynamic)
        check_operators(encoder, format.operators)
        opset = {o.domain or "ai.onnx": o.version for o in encoder.opset_import}
        files = {"encoder.onnx": encoder.SerializeToString()}
        result = ExportResult(format, precision, True, files, opset, {}, full_range_weights(encoder))
        if not result.unmeasured:
            result.parity = {
                **self.parity(onnx_runner(encoder)),
                "static_difference": static_difference(dynamic, encoder),
            }
        return result

    def _onnx(self, format: ExportFormat, precision: str) -> list[ExportResult]:
        return [self._static(format, precision, self.source.encoder(precision))]

    def _tensorrt(self, format: ExportFormat, precision: str) -> list[ExportResult]:
        encoder = self.source.float_encoder(f"TensorRT's {precision}")
        if precision == "int8":
            encoder = quantize_int8(encoder, self.calibration(), symmetric=True, reduce_range=False)
        else:
            # Engines are built with --fp16 from float32 operators, so that TensorRT picks what stays float32 itself.
            halve_constants(encoder)
        return [self._static(format, precision, for_tensorrt(encoder))]

    def _openvino(self, format: ExportFormat, precision: str) -> list[ExportResult]:
        if precision == "int8":
            encoder = self.source.encoder("int8")
        else:
            encoder = self.source.float_encoder(f"OpenVINO's {precision}")
        check_operators(encoder, format.operators)
        results = []
        for static in (False, True):
            files = openvino_files(to_openvino(encoder, precision, static=static), precision)
            results.append(ExportResult(format, precision, static, files, {}, {}, full_range_weights(encoder)))
            if not results[-1].unmeasured:
                results[-1].parity = self.parity(openvino_runner(files["encoder.xml"], files["encoder.bin"]))
        return results


def add_exports(out: Path, source: Path, results: list[ExportResult]) -> Manifest:
    """Write exports into a copy of the bundle `source`, which becomes `out`."""
    with staged(source, out, sum(len(d) for m in results for d in m.files.values())) as stage:
        manifest = open_bundle(stage).manifest
        exports = dict(manifest.exports)
        for m in results:
            exports[m.folder] = Export(
                format=m.format.name,
                precision=m.precision,
                static=m.static,
                files=_write(stage, m.folder, m.files),
                sizes={"encoder": 1} if m.static else {},
                opset=m.opset,
                parity=m.parity,
                unmeasured=m.unmeasured,
                full_range_weights=m.full_range_weights,
            )
        manifest = msgspec.structs.replace(manifest, exports=exports)
        write_manifest(stage, manifest)
    return manifest


def export_bundle(
    bundle: Path,
    out: Path,
    formats: str,
    precisions: Sequence[str],
    calibration: Callable[[int, int], list[Feeds]],
) -> Manifest:
    """Add exports to a bundle.

    Args:
        bundle: folder of the bundle.
        out: folder of the new bundle; may be the same.
        formats: a name of `FORMATS`, or ``"all"``.
        precisions: which; empty: all that the bundle has and the format takes.
        calibration: (clips, seed) → feeds of the encoder graph.

    Raises:
        ArgumentError: unknown names, a pair that does not exist, or a bundle without the weights that are needed.
        MissingDependencyError: a toolkit is not installed.
        BackendError: an operator or opset that the target does not list.
        StorageFullError: no room.
    """
    source = Source.open(bundle)
    plan = []
    for format in chosen_formats(formats):
        for precision in precisions:
            if formats != "all" or not any(precision in f.precisions for f in chosen_formats("all")):
                check_pair(format, precision)
        has = source.manifest.precisions
        default = [p for p in format.precisions if p in has and p != "fp32"]
        if format.name == "tensorrt":
            default = list(format.precisions)
        plan += [(format, p) for p in precisions or default if p in format.precisions]
    require(dict.fromkeys(t for format, p in plan for t in toolkits(format, p)))
    for format, p in plan:
        if format.name == "onnx" or (format.name == "openvino" and p == "int8"):
            if p not in source.manifest.precisions:
                raise ArgumentError(
                    f"{bundle} has no {p} (it has {', '.join(source.manifest.precisions)}): "
                    f"make it first with linkedout-edge quantize {bundle} --precision {p}"
                )
        elif "fp32" not in source.manifest.precisions:
            source.float_encoder(f"{format.title} {p}")
    exporter = Exporter(source, lambda: calibration(96, 77), calibration(16, 78))
    results: list[ExportResult] = []
    for format, p in plan:
        stage(f"{format.title}, {p}: converting and measuring")
        results += exporter.export(format, p)
    return add_exports(out, bundle, results)


def quantized(
    encoder: onnx.ModelProto,
    precision: str,
    calibration: list[Feeds],
    held_out: list[Feeds],
    *,
    method: str,
    dynamic: bool,
) -> onnx.ModelProto:
    """The encoder graph in a lower precision.

    Args:
        encoder: in float32.
        precision: "int8", "int4" or "fp16".
        calibration: encoder feeds; unused for "fp16" and with `dynamic`.
        held_out: other feeds, to choose the method by.
        method: a calibration method, or "auto": the one with the best token cosine.
        dynamic: int8 without calibration.
    """
    if precision == "fp16":
        return quantize_fp16(encoder)
    if precision == "int8" and dynamic:
        return quantize_int8_dynamic(encoder)
    choice = choose_int8(encoder, calibration, held_out, method)
    quantize = quantize_int4 if precision == "int4" else quantize_int8
    return quantize(encoder, calibration, method=choice.method, keep=choice.keep)


def quantize_bundle(
    bundle: Path,
    out: Path,
    precision: str,
    target: str,
    calibration: Callable[[int, int], list[Feeds]],
    *,
    method: str = "auto",
    dynamic: bool = False,
    users: int = 120,
    overwrite: bool = False,
) -> Manifest:
    """Add a precision to a bundle that has fp32, and what the target wants beside it.

    Args:
        bundle: folder of the bundle.
        out: folder of the new bundle; may be the same.
        precision, target: see `linkedout_export.formats.TARGETS`.
        calibration: (clips, seed) → feeds of the encoder graph.
        method: a calibration method, or "auto".
        dynamic: int8 without calibration.
        users: exam users per length of history for the agreement; 0 leaves it out.
        overwrite: make a precision again that the bundle has.

    Raises:
        ArgumentError: unknown names, an impossible pair, a bundle that is quantized already.
        MissingDependencyError: a toolkit is not installed.
        StorageFullError: no room.
    """
    found = check_target(target, precision)
    if dynamic and (precision, target) != ("int8", "cpu"):
        raise ArgumentError(f"--dynamic is for int8 on the cpu, not {precision} on {target}: leave it out")
    formats = [chosen_formats(name)[0] for name in [found.precisions[precision]] if name]
    require(t for f in formats for t in toolkits(f, precision))
    source = Source.open(bundle)
    if precision in source.manifest.precisions and target == "cpu" and not overwrite:
        raise ArgumentError(
            f"{bundle} is quantized to {precision} already: use it as it is, or make it again with --overwrite"
        )
    exact = source.float_encoder(precision)
    held_out = calibration(16, 78)
    manifest = source.manifest
    if precision not in manifest.precisions or overwrite:
        stage(f"quantizing to {precision}")
        feeds = [] if dynamic or precision == "fp16" else calibration(96, 77)
        encoder = quantized(exact, precision, feeds, held_out, method=method, dynamic=dynamic)
        check_operators(encoder, chosen_formats("onnx")[0].operators)
        agreement = token_agreement(tokens_of(onnx_runner(exact), held_out), encoder, held_out)
        manifest = _add_precision(bundle, out, precision, encoder, agreement)
        if users:
            from linkedout_export.build import add_agreement

            manifest = add_agreement(out, [precision], users)
    elif out != bundle:
        with staged(bundle, out, 0):
            pass
    if formats:
        stage(f"converting for {target}")
        exporter = Exporter(Source.open(out), lambda: calibration(96, 77), held_out)
        results = [m for f in formats for m in exporter.export(f, precision) if m.static]
        manifest = add_exports(out, out, results)
    return manifest


def _add_precision(
    bundle: Path, out: Path, precision: str, encoder: onnx.ModelProto, agreement: dict[str, float]
) -> Manifest:
    data = encoder.SerializeToString()
    with staged(bundle, out, len(data)) as stage:
        manifest = open_bundle(stage).manifest
        entry = _write(stage, f"onnx/{precision}", {"encoder.onnx": data})["encoder.onnx"]
        added = Precision(files={"encoder": entry}, agreement=agreement, full_range_weights=full_range_weights(encoder))
        # fp32 stays last: the first precision is what a bundle is loaded in.
        kept = {p: e for p, e in manifest.precisions.items() if p not in (precision, "fp32")}
        order = {**kept, precision: added, **{p: e for p, e in manifest.precisions.items() if p == "fp32"}}
        # Exports that were made from the old graph of this precision are out of date.
        exports = {k: e for k, e in manifest.exports.items() if e.precision != precision}
        manifest = msgspec.structs.replace(manifest, precisions=order, exports=exports)
        write_manifest(stage, manifest)
    return manifest


def is_run(path: Path) -> bool:
    """Whether a folder is a training run, finished or not, and not a bundle."""
    from linkedout_quant.master import MASTER, RUN

    return ((path / MASTER).exists() or (path / RUN).exists()) and not (path / MANIFEST).exists()
