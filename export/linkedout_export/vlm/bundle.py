"""From a checkpoint to a bundle that ranks: fit, export, quantise, check, write."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from linkedout_quant.evaluation.metrics import rank_agreement

from linkedout_edge.bundle.manifest import Calibration, Manifest, Preprocessing
from linkedout_edge.errors import ArgumentError, unknown
from linkedout_export.graphs import export_encoder, parity
from linkedout_export.quantisation import Feeds
from linkedout_export.sensitivity import onnx_runner, tokens_of
from linkedout_export.user_model import fit_user_model
from linkedout_export.vlm.encoder import VLMStudent
from linkedout_export.vlm.fit import fit
from linkedout_export.vlm.quantise import Method, onnx_int4, onnx_int8, openvino_compressed
from linkedout_export.writer import write_bundle

PRECISIONS = ("int8", "int4", "fp32")


def write_vlm_bundle(
    student: VLMStudent,
    out: Path,
    feeds: Sequence[Feeds],
    *,
    precisions: Sequence[str] = ("int8", "int4"),
    method: Method = "hqq",
    openvino: bool = False,
    name: str = "vlm",
    licence: str = "that of the checkpoint",
    provenance: str = "",
) -> Manifest:
    """Write a bundle folder.

    Args:
        student: As `load_vlm` gives it, in float32; its projections are set from the feeds.
        out: The folder, replaced if it is there.
        feeds: Inputs of the encoder graph: the clips that fit, calibrate and measure.
        precisions: Of `PRECISIONS`, the first one is the bundle's default.
        method: Of the 4-bit weights.
        openvino: Also write ``openvino/<precision>/encoder.xml``, compressed by NNCF.
        name, licence, provenance: For the manifest.

    Returns:
        The manifest, with each precision's agreement with float32 on the feeds.

    Raises:
        ArgumentError: An unknown precision, a quantised student, or too few feeds.
        BackendError: The graph does not compute what torch computes.
    """
    if not precisions:
        raise ArgumentError(f"precisions is empty: expected some of {', '.join(PRECISIONS)}")
    for precision in precisions:
        if precision not in PRECISIONS:
            raise ArgumentError(unknown("precision", precision, PRECISIONS))
    if student.encoder.sequence.fixed.dtype != torch.float32 or any(
        p.dtype != torch.float32 for p in student.encoder.parameters()
    ):
        raise ArgumentError('only a float32 model is exported and then quantised: load_vlm(..., dtype="float32")')
    fit(student, feeds)
    exact = export_encoder(student.encoder)
    worst = parity(student.encoder, exact, 2)
    encoders: dict[str, onnx.ModelProto] = {}
    for precision in precisions:
        encoders[precision] = {
            "int8": lambda: onnx_int8(exact),
            "int4": lambda: onnx_int4(exact, method, feeds),
            "fp32": lambda: exact,
        }[precision]()
    want = tokens_of(onnx_runner(exact), feeds)
    manifest = write_bundle(
        out,
        student,
        encoders,
        student.tokenizer,
        fit_user_model(want),
        name=name,
        prompt=student.prompt,
        calibration=Calibration(description="clips that the projections are fitted to", videos=len(want)),
        licence=licence,
        provenance=provenance,
        agreement={p: agreement(want, tokens_of(onnx_runner(e), feeds)) for p, e in encoders.items()},
        preprocessing=Preprocessing(
            resize="area", mean=_channels(student.encoder.pixels.mean), std=_channels(student.encoder.pixels.std)
        ),
        parity={"encoder": worst},
    )
    if openvino:
        _write_openvino(out, exact, [p for p in precisions if p != "fp32"], feeds)
    return manifest


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


def _channels(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(float(v), 3) for v in values.flatten())


def _write_openvino(out: Path, encoder: onnx.ModelProto, precisions: list[str], feeds: Sequence[Feeds]) -> None:
    """IR files beside the ONNX ones, compressed by NNCF. They are not in the manifest: the runtime loads ONNX."""
    import openvino as ov

    for precision in precisions:
        folder = out / "openvino" / precision
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model = openvino_compressed(encoder, 8 if precision == "int8" else 4, feeds)
        ov.save_model(model, folder / "encoder.xml", compress_to_fp16=False)
