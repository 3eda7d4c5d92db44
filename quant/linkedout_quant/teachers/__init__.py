"""Teachers: models whose features the student learns to predict (docs/teachers.md)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from linkedout_edge.errors import ArgumentError, unknown
from linkedout_quant.teachers.base import Teacher, TeacherError, TeacherFeatures
from linkedout_quant.teachers.cache import CachedTeacher

if TYPE_CHECKING:
    from linkedout_quant.teachers.huggingface import LoadIn

__all__ = ["CachedTeacher", "Teacher", "TeacherError", "TeacherFeatures", "load_teacher"]

COMPOSITE = "composite"
EXAMPLES = (
    "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
    "Qwen/Qwen2.5-VL-3B-Instruct",
    "Qwen/Qwen3-VL-4B-Instruct",
    "OpenGVLab/InternVL3-1B-hf",
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
)
"""Names on the hub, one or two a family: for close matches and help. Any other is as good."""


def load_teacher(
    name_or_path: str | Path,
    *,
    layers: Sequence[int] | None = None,
    prompt: str | None = None,
    load_in: LoadIn | None = None,
    dtype: str | None = None,
    device: str | None = None,
    batch: int = 8,
    data: str | Path | None = None,
) -> Teacher:
    """A teacher by name or folder.

    Args:
        name_or_path: ``"composite"`` (MobileNetV2 and a sentence encoder, offline), the folder of a Hugging Face
            image/video-text-to-text checkpoint, or such a model's name on the hub (``owner/model``).
        layers, prompt, load_in, dtype, device, batch: See
            `linkedout_quant.teachers.huggingface.HuggingFaceTeacher`; the composite teacher takes none of them.
        data: Folder with the composite teacher's networks and captions.

    Raises:
        ArgumentError: An unknown name, or options that contradict each other.
        TeacherError: The checkpoint cannot be had or is none that can teach.
        MissingDependencyError: A library is not installed; the message has the ``pip install`` line.
    """
    if str(name_or_path) == COMPOSITE and not Path(name_or_path).is_dir():
        options = {"layers": layers, "prompt": prompt, "load_in": load_in, "dtype": dtype, "device": device}
        if given := [k for k, v in options.items() if v is not None]:
            raise ArgumentError(
                f"the composite teacher has no {' or '.join(given)}: leave it out, or name a checkpoint"
            )
        if data is None:
            raise ArgumentError('the composite teacher needs data="FOLDER" with its networks and captions')
        from linkedout_quant.teachers.composite import CompositeTeacher  # type: ignore[import-not-found]

        return CompositeTeacher(Path(data))
    from linkedout_quant.teachers.huggingface import HuggingFaceTeacher

    if not Path(name_or_path).is_dir() and not any(c in str(name_or_path) for c in "/\\"):
        raise ArgumentError(
            unknown("teacher", name_or_path, (COMPOSITE, *EXAMPLES)) + " Or pass a checkpoint's folder."
        )
    return HuggingFaceTeacher(
        name_or_path, layers=layers, prompt=prompt, load_in=load_in, dtype=dtype, device=device, batch=batch
    )
