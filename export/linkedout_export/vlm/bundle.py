"""From a checkpoint, or a folder of exported graphs, to a bundle that ranks: fit, export, quantize, check, write."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from linkedout_quant.evaluation.metrics import rank_agreement
from linkedout_quant.model.compressor import Compressor
from linkedout_quant.progress import stage
from linkedout_quant.teachers.checkpoint import locate, read_config
from linkedout_quant.teachers.huggingface import PROMPT

from linkedout_edge.bundle.manifest import Calibration, Manifest, Preprocessing
from linkedout_edge.errors import ArgumentError, BackendError, unknown
from linkedout_export.conversion import openvino_files, openvino_runner
from linkedout_export.graphs import export_encoder, parity
from linkedout_export.quantization import Feeds, quantize_fp16
from linkedout_export.sensitivity import onnx_runner, tokens_of
from linkedout_export.user_model import fit_user_model
from linkedout_export.vlm.encoder import VLMStudent
from linkedout_export.vlm.exported import open_exported
from linkedout_export.vlm.fit import fit
from linkedout_export.vlm.joined import GraphEncoder, GraphStudent, token_space
from linkedout_export.vlm.quantize import Method, as_openvino, onnx_int4, onnx_int8
from linkedout_export.vlm.reference import Reference
from linkedout_export.vlm.sequence import read_reading
from linkedout_export.vlm.through_optimum import LIBRARIES, export_graphs, quantize_graphs
from linkedout_export.writer import IR, versions, write_bundle

PRECISIONS = ("int8", "int4", "fp16", "fp32")
FORMATS = ("onnx", "openvino")
LEAST_COSINE = 0.999
"""Of a float graph's hidden states with torch's, at each tap."""
CALIBRATION = 32
"""Clips by which 4-bit values are chosen."""
LICENSE = "that of the checkpoint"


def write_vlm_bundle(
    student: VLMStudent,
    out: Path,
    feeds: Sequence[Feeds],
    *,
    format: Literal["onnx", "openvino"] = "onnx",
    precisions: Sequence[str] = ("int8", "int4"),
    method: Method = "hqq",
    name: str = "vlm",
    license: str = LICENSE,
    provenance: str = "",
) -> Manifest:
    """Write a bundle folder by way of torch's exporter.

    Args:
        student: As `load_vlm` gives it, in float32; its projections are set from the feeds.
        out: The folder, replaced if it is there.
        feeds: Inputs of the encoder graph: the clips that fit, calibrate and measure.
        format: ``"onnx"``, which both backends read, or ``"openvino"``, its own format.
        precisions: Of `PRECISIONS`, the first one is the bundle's default.
        method: Of the 4-bit weights in ONNX.
        name, license, provenance: For the manifest.

    Returns:
        The manifest, with each precision's agreement with float32 on the feeds.

    Raises:
        ArgumentError: An unknown precision or format, a quantized student, or too few feeds.
        BackendError: The graph does not compute what torch computes.
    """
    check_choices(precisions, format)
    if student.encoder.sequence.fixed.dtype != torch.float32 or any(
        p.dtype != torch.float32 for p in student.encoder.parameters()
    ):
        raise ArgumentError('only a float32 model is exported and then quantized: load_vlm(..., dtype="float32")')
    fit(student, feeds)
    exact = export_encoder(student.encoder)
    worst = parity(student.encoder, exact, 2)
    encoders: dict[str, onnx.ModelProto | IR] = {}
    for precision in precisions:
        if format == "openvino":
            encoders[precision] = _ir(as_openvino(exact, precision, feeds), precision)
        else:
            encoders[precision] = {
                "int8": lambda: onnx_int8(exact),
                "int4": lambda: onnx_int4(exact, method, feeds),
                "fp16": lambda: quantize_fp16(exact),
                "fp32": lambda: exact,
            }[precision]()
    want = tokens_of(onnx_runner(exact), feeds)
    return _write(
        student, out, encoders, want, feeds, name=name, license=license, provenance=provenance, via="torch",
        parity={"encoder": worst}, tools=versions("torch", "transformers", "onnx", "onnxruntime", "openvino", "nncf"),
        pixels=(_channels(student.encoder.pixels.mean), _channels(student.encoder.pixels.std)),
    )  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What a bundle keeps of a clip; see `linkedout_export.vlm.load_vlm`."""

    frames: int = 8
    layers: tuple[int, ...] | None = None
    tokens_per_layer: int = 2
    token_width: int = 64
    title_tokens: int = 16
    prompt: str = PROMPT
    seed: int = 0


def load_graphs(folder: Path, shape: Shape = Shape()) -> GraphStudent:
    """A folder of exported graphs with fresh compressors.

    Args:
        folder: As Optimum writes it; see `linkedout_export.vlm.exported`.
        shape: Frames, taps, and what else is chosen.

    Raises:
        GraphError: The graphs are those of another task, incomplete, or not built as expected.
        TeacherError: Configuration, tokenizer or processor are missing, or a layer does not exist.
        ArgumentError: A shape makes no sense.
    """
    exported = open_exported(folder)
    found = read_reading(
        folder, exported.raw, frames=shape.frames, layers=shape.layers, tokens_per_layer=shape.tokens_per_layer,
        token_width=shape.token_width, title_tokens=shape.title_tokens, prompt=shape.prompt,
    )  # fmt: skip
    torch.manual_seed(shape.seed)
    compressors = [Compressor(found.config) for _ in found.config.taps]
    return GraphStudent(GraphEncoder(exported, found, compressors)).eval().requires_grad_(False)


def write_optimum_bundle(
    checkpoint: str | Path,
    out: Path,
    feeds_of: Callable[[Any], Sequence[Feeds]],
    *,
    shape: Shape = Shape(),
    precisions: Sequence[str] = ("int8", "int4"),
    data_aware: bool = True,
    name: str = "vlm",
    license: str = LICENSE,
    provenance: str = "",
) -> Manifest:
    """Write a bundle folder of OpenVINO graphs that Optimum exports and quantizes.

    Args:
        checkpoint: Folder or name on the hub.
        out: The folder, replaced if it is there.
        feeds_of: `ModelConfig` → inputs of the encoder graph: the clips that fit, calibrate and measure.
        shape: Frames, taps, and what else is chosen.
        precisions: Of `PRECISIONS`, the first one is the bundle's default.
        data_aware: Choose 4-bit values by the clips (AWQ and scale estimation), not by the weights alone.
        name, license, provenance: For the manifest.

    Returns:
        The manifest, with each precision's agreement with float32 on the feeds, and its hidden states' with torch.

    Raises:
        NotInRegistryError: Optimum does not export this architecture, or not with these versions.
        MissingDependencyError: Optimum is not installed here.
        ArgumentError: An unknown precision, or too few feeds.
        BackendError: Optimum failed, or a tap does not compute what torch computes.
    """
    check_choices(precisions, "openvino")
    source = locate(checkpoint)
    with tempfile.TemporaryDirectory() as work:
        floats = Path(work) / "float"
        stage("Optimum exports the graphs")
        export_graphs(source, floats)
        student = load_graphs(floats, shape)
        feeds = feeds_of(student.config)
        stage("comparing hidden states with torch")
        reference = Reference.of(source, read_config(source), student.encoder.found, feeds[0]["frames"][0])
        cosines = {"fp32": reference.cosines(student.encoder)}
        if min(cosines["fp32"].values()) < LEAST_COSINE:
            raise BackendError(
                f"the exported graphs do not compute what torch computes: cosines of hidden states {cosines['fp32']}, "
                f"expected at least {LEAST_COSINE}"
            )
        stage("fitting compressors")
        fit(student, feeds)
        exact = graph_of(student.encoder, "fp32")
        want = tokens_of(openvino_runner(exact.xml, exact.weights), feeds)
        data = student.encoder.language_inputs(feeds[:CALIBRATION]) if data_aware and "int4" in precisions else []
        student.encoder.forget()
        encoders: dict[str, onnx.ModelProto | IR] = {}
        for precision in precisions:
            if precision == "fp32":
                encoders[precision] = exact
                continue
            stage(f"{precision}: quantizing and measuring")
            quantize_graphs(floats, Path(work) / precision, precision, data)
            small = student.encoder.over(open_exported(Path(work) / precision))
            cosines[precision] = reference.cosines(small)
            encoders[precision] = graph_of(small, precision)
        return _write(
            student, out, encoders, want, feeds, name=name, license=license, provenance=provenance, via="optimum",
            tap_cosine={p: cosines[p] for p in precisions}, tools=versions(*LIBRARIES), space=token_space(student),
            pixels=_pixels(student),
        )  # fmt: skip


def write_graphs_bundle(
    student: GraphStudent,
    out: Path,
    feeds: Sequence[Feeds],
    *,
    name: str = "vlm",
    license: str = LICENSE,
    provenance: str = "",
) -> Manifest:
    """Write a bundle folder of graphs that somebody exported, in the one precision that they have.

    Args:
        student: As `load_graphs` gives it; its projections are set from the feeds.
        out: The folder, replaced if it is there.
        feeds: Inputs of the encoder graph: the clips that fit.
        name, license, provenance: For the manifest.

    Raises:
        ArgumentError: Too few feeds.
    """
    exported = student.encoder.exported
    stage("fitting compressors")
    fit(student, feeds)
    student.encoder.forget()
    ir = graph_of(student.encoder, exported.precision)
    want = tokens_of(openvino_runner(ir.xml, ir.weights), feeds)
    return _write(
        student, out, {exported.precision: ir}, want, feeds, name=name, license=license, provenance=provenance,
        via="graphs", tools=exported.versions, space=token_space(student), pixels=_pixels(student), measured=False,
    )  # fmt: skip


def _write(
    student: Any,
    out: Path,
    encoders: Mapping[str, onnx.ModelProto | IR],
    want: np.ndarray,
    feeds: Sequence[Feeds],
    *,
    pixels: tuple[tuple[float, ...], tuple[float, ...]],
    measured: bool = True,
    **more: Any,
) -> Manifest:
    """Write a bundle whose float32 tokens of the feeds are `want`; without `measured`, there was no float32 graph."""
    mean, std = pixels
    return write_bundle(
        out,
        student,
        encoders,
        student.tokenizer,
        fit_user_model(want),
        prompt=student.prompt,
        calibration=Calibration(description="clips that the projections are fitted to", videos=len(want)),
        agreement={p: agreement(want, tokens_of(_runner(e), feeds)) for p, e in encoders.items()} if measured else None,
        preprocessing=Preprocessing(resize="area", mean=mean, std=std),
        **more,
    )


def _runner(encoder: onnx.ModelProto | IR) -> Callable[[Feeds], Sequence[np.ndarray]]:
    if isinstance(encoder, IR):
        run: Callable[[Feeds], Sequence[np.ndarray]] = openvino_runner(encoder.xml, encoder.weights)
        return run
    return onnx_runner(encoder)


def check_choices(precisions: Sequence[str], format: str) -> None:
    """Check names before hours of work.

    Raises:
        ArgumentError: An unknown precision or format, or none.
    """
    if not precisions:
        raise ArgumentError(f"precisions is empty: expected some of {', '.join(PRECISIONS)}")
    for precision in precisions:
        if precision not in PRECISIONS:
            raise ArgumentError(unknown("precision", precision, PRECISIONS))
    if format not in FORMATS:
        raise ArgumentError(unknown("format of a vision-language model", format, FORMATS))


def graph_of(encoder: GraphEncoder, precision: str) -> IR:
    """The encoder as a file of a bundle, what is ours stored about as small as the exported graphs are."""
    return _ir(encoder.graph(small=precision in ("int8", "int4")), precision)


def _ir(model: Any, precision: str) -> IR:
    files = openvino_files(model, precision)
    return IR(files["encoder.xml"], files["encoder.bin"])


def agreement(want: np.ndarray, got: np.ndarray) -> dict[str, float]:
    """How well clips' tokens [n, …] agree, and the orders they put the other clips in, by inner product with each.

    Returns:
        ``token_cosine``, ``kendall_tau``, ``top10_overlap``: means over the clips.
    """
    want, got = (x.reshape(len(x), -1) for x in (want, got))
    cosine = (want * got).sum(1) / np.linalg.norm(want, axis=1) / np.linalg.norm(got, axis=1)
    others = ~np.eye(len(want), dtype=bool)
    orders = [rank_agreement((got @ g)[o], (want @ w)[o]) for w, g, o in zip(want, got, others, strict=True)]
    tau, overlap = np.mean(orders, 0)
    return {
        "token_cosine": round(float(cosine.mean()), 4),
        "kendall_tau": round(float(tau), 4),
        "top10_overlap": round(float(overlap), 4),
    }


def _pixels(student: GraphStudent) -> tuple[tuple[float, ...], tuple[float, ...]]:
    found = student.encoder.found
    return _channels(torch.tensor(found.mean) * 255), _channels(torch.tensor(found.std) * 255)


def _channels(values: torch.Tensor | Iterable[float]) -> tuple[float, ...]:
    return tuple(round(float(v), 3) for v in torch.as_tensor(values).flatten())
