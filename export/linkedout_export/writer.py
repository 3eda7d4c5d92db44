"""Writes a bundle: the graph in each precision, tokenizer and a manifest with measured agreement."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import onnx
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
from linkedout_export.quantization import full_range_weights


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


@dataclass(frozen=True)
class IR:
    """An encoder graph in OpenVINO's own format, its two files."""

    xml: bytes
    weights: bytes


def versions(*libraries: str) -> dict[str, str]:
    """Library → its installed version, of those that are installed, without the name of a build."""
    found = {}
    for name in libraries:
        with suppress(PackageNotFoundError):
            found[name] = version(name).split("+")[0]
    return found


def _graph(root: Path, precision: str, encoder: onnx.ModelProto | IR) -> dict[Any, FileEntry]:
    if isinstance(encoder, IR):
        folder = root / "openvino" / precision
        return {
            "encoder": _file(root, folder / "encoder.xml", encoder.xml),
            "weights": _file(root, folder / "encoder.bin", encoder.weights),
        }
    return {"encoder": _file(root, root / "onnx" / precision / "encoder.onnx", encoder.SerializeToString())}


def write_bundle(
    out: Path,
    student: Student,
    precisions: Mapping[str, onnx.ModelProto | IR],
    tokenizer: bytes,
    user_model: UserModel,
    *,
    name: str,
    prompt: str,
    calibration: Calibration,
    license: str,
    provenance: str,
    agreement: Mapping[str, Mapping[str, float]] | None = None,
    tap_cosine: Mapping[str, Mapping[str, float]] | None = None,
    preprocessing: Preprocessing = Preprocessing(resize="area", mean=(128.0,) * 3, std=(64.0,) * 3),  # noqa: B008
    parity: Mapping[str, float] | None = None,
    space: str | None = None,
    via: str = "",
    tools: Mapping[str, str] | None = None,
) -> Manifest:
    """Write a bundle folder, replacing a bundle that lies there.

    Args:
        out: the folder.
        student: whose weights they are; gives config and token space.
        precisions: precision → encoder graph, ONNX or OpenVINO IR; the first precision is the default.
        tokenizer: content of ``tokenizer.json``.
        user_model: as `linkedout_export.user_model` measures it on the calibration clips.
        agreement: precision → measure → value, as measured against float32.
        tap_cosine: precision → layer name → cosine of hidden states with torch's.
        preprocessing: for the manifest; by default the student's.
        parity: ``encoder`` → largest difference of the float32 graph from torch.
        space: the token space; by default `token_space` of the student.
        via: for the manifest.
        tools: libraries and their versions, for the manifest; by default those that make ONNX graphs.

    Returns:
        The manifest as written.
    """
    check_replaceable(out)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    written = {
        precision: Precision(
            files=_graph(partial, precision, encoder),
            agreement=dict((agreement or {}).get(precision, {})),
            tap_cosine=dict((tap_cosine or {}).get(precision, {})),
            # OpenVINO computes in float with weights that are stored in 8 bit: nothing overflows.
            full_range_weights=not isinstance(encoder, IR) and full_range_weights(encoder),
        )
        for precision, encoder in precisions.items()
    }
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        token_space=space or token_space(student),
        config=student.config,
        precisions=written,
        tokenizer=_file(partial, partial / "tokenizer.json", tokenizer),
        user_model=user_model,
        prompt=prompt,
        preprocessing=preprocessing,
        calibration=calibration,
        license=license,
        provenance=provenance,
        via=via,
        tools=dict(tools or versions("torch", "onnx", "onnxruntime")),
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
