"""Writes a bundle: the graph in each precision, tokenizer and a manifest with measured agreement."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec
import onnx
import torch
from linkedout_quant.model import Student

from linkedout_edge.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Calibration,
    FileEntry,
    Manifest,
    Precision,
    Preprocessing,
    UserModel,
)
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError
from linkedout_export.quantisation import full_range_weights


def token_space(student: Student) -> str:
    """Sha256 of config and weights as the master stores them: equal exactly where layer tokens are interchangeable."""
    digest = hashlib.sha256(msgspec.json.encode(student.config, order="sorted"))
    for name, value in sorted(student.encoder.state_dict().items()):
        stored = value.half() if value.is_floating_point() else value
        digest.update(name.encode() + str(tuple(stored.shape)).encode())
        digest.update(stored.contiguous().numpy().tobytes())
    return digest.hexdigest()


def layer_names(config: ModelConfig) -> list[str]:
    """Readable names of the tapped layers."""
    return ["input" if tap == 0 else f"layer {tap}" for tap in config.taps]


def _file(root: Path, path: Path, data: bytes) -> FileEntry:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return FileEntry(path=path.relative_to(root).as_posix(), sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def write_bundle(
    out: Path,
    student: Student,
    precisions: Mapping[str, onnx.ModelProto],
    tokenizer: bytes,
    user_model: UserModel,
    *,
    name: str,
    prompt: str,
    calibration: Calibration,
    licence: str,
    provenance: str,
    agreement: Mapping[str, Mapping[str, float]] | None = None,
    preprocessing: Preprocessing = Preprocessing(resize="area", mean=(128.0,) * 3, std=(64.0,) * 3),  # noqa: B008
    parity: Mapping[str, float] | None = None,
) -> Manifest:
    """Write a bundle folder, replacing a bundle that lies there.

    Args:
        out: the folder.
        student: whose weights they are; gives config and token space.
        precisions: precision → encoder graph; the first precision is the default.
        tokenizer: content of ``tokenizer.json``.
        user_model: as `linkedout_export.user_model` measures it on the calibration clips.
        agreement: precision → measure → value, as measured against float32.
        preprocessing: for the manifest; by default the student's.
        parity: ``encoder`` → largest difference of the float32 graph from torch.

    Returns:
        The manifest as written.
    """
    check_replaceable(out)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    written = {
        precision: Precision(
            files={
                "encoder": _file(partial, partial / "onnx" / precision / "encoder.onnx", encoder.SerializeToString())
            },
            agreement=dict((agreement or {}).get(precision, {})),
            full_range_weights=full_range_weights(encoder),
        )
        for precision, encoder in precisions.items()
    }
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        token_space=token_space(student),
        config=student.config,
        precisions=written,
        tokenizer=_file(partial, partial / "tokenizer.json", tokenizer),
        user_model=user_model,
        prompt=prompt,
        preprocessing=preprocessing,
        calibration=calibration,
        licence=licence,
        provenance=provenance,
        tools={
            "torch": torch.__version__.split("+")[0],
            "onnx": version("onnx"),
            "onnxruntime": version("onnxruntime"),
        },
        layer_names=layer_names(student.config),
        parity=dict(parity or {}),
    )
    write_manifest(partial, manifest)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return manifest


def check_replaceable(out: Path) -> None:
    """Refuse to write a bundle over a folder of other things, which would be lost.

    Raises:
        ArgumentError: `out` is there, not empty, and no bundle.
    """
    if out.exists() and not (out / MANIFEST).exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArgumentError(f"{out} is there and is no bundle: its contents would be lost. Name another --out")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, readable by people."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    # Lists of numbers in one line each: the average video alone has hundreds. (No string of JSON has a line break.)
    text = re.sub(rb"\[\s*\n([^\[\]{}\"]*)\]", lambda found: b"[" + b" ".join(found[1].split()) + b"]", text)
    (folder / MANIFEST).write_bytes(text + b"\n")
