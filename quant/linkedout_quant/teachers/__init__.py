"""Teachers: models whose features the student learns to predict (docs/teachers.md)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linkedout_edge.errors import ArgumentError, unknown
from linkedout_quant.teachers.base import Teacher, TeacherError, TeacherFeatures
from linkedout_quant.teachers.cache import CachedTeacher

if TYPE_CHECKING:
    from linkedout_quant.teachers.huggingface import LoadIn

__all__ = ["CachedTeacher", "Teacher", "TeacherError", "TeacherFeatures", "load_teacher"]

COMPOSITE = "composite"
OWN = (COMPOSITE, "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
"""Teachers that are called by a name of ours."""
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
        name_or_path: ``"composite"`` (MobileNetV2 and a sentence encoder, offline), ``"efficientnet-lite0"``, ``1`` or
            ``2`` (weights from packages), the folder of a Hugging Face checkpoint (image/video-text-to-text, image
            classifier or CLIP-like), or such a model's name on the hub (``owner/model``). Several that name ImageNet's
            classes are joined by ``+``: ``"efficientnet-lite2+efficientnet-lite0"`` has the sight of the first and the
            mean of what both say.
        layers, prompt, load_in, dtype, device, batch: See
            `linkedout_quant.teachers.huggingface.HuggingFaceTeacher`; teachers of this package take none of them, and
            image models have no prompt.
        data: Folder with the composite teacher's networks and captions, or with the names of ImageNet's classes
            (`linkedout_quant.teachers.images.imagenet_names`).

    Raises:
        ArgumentError: An unknown name, or options that contradict each other.
        TeacherError: The checkpoint cannot be had or is none that can teach.
        MissingDependencyError: A library is not installed; the message has the ``pip install`` line.
    """
    options = {"layers": layers, "prompt": prompt, "load_in": load_in, "dtype": dtype, "device": device}
    name = str(name_or_path)
    if "+" in name and not Path(name).is_dir():
        from linkedout_quant.teachers.joined import join

        given: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
        return join([load_teacher(part, batch=batch, data=data, **given) for part in name.split("+")])
    if name in OWN and not Path(name).is_dir():
        if name != COMPOSITE or device == "cpu":  # LiteRT computes there anyhow
            options.pop("device")
        if contradicting := [k for k, v in options.items() if v is not None]:
            raise ArgumentError(
                f"the teacher {name} has no {' or '.join(contradicting)}: leave it out, or name a checkpoint"
            )
        if name == COMPOSITE:
            if data is None:
                raise ArgumentError('the composite teacher needs data="FOLDER" with its networks and captions')
            from linkedout_quant.teachers.composite import CompositeTeacher

            return CompositeTeacher(Path(data))
        from linkedout_quant.teachers.efficientnet import EfficientNetTeacher

        return EfficientNetTeacher(name, Path(data) if data is not None else None).to(device)
    if not Path(name).is_dir() and not any(c in name for c in "/\\"):
        raise ArgumentError(unknown("teacher", name, (*OWN, *EXAMPLES)) + " Or pass a checkpoint's folder.")
    from linkedout_quant.teachers.checkpoint import image_kind, locate, require
    from linkedout_quant.teachers.huggingface import HuggingFaceTeacher, check_options

    check_options(load_in, dtype)
    require("transformers", purpose="a Hugging Face teacher")
    folder = locate(name_or_path)
    if (kind := image_kind(folder)) is not None:
        from linkedout_quant.teachers.huggingface_images import HuggingFaceImageTeacher

        if prompt is not None:
            raise ArgumentError(f"{name} looks at images and reads no prompt: leave it out")
        return HuggingFaceImageTeacher(name_or_path, kind, layers=layers, load_in=load_in, dtype=dtype, device=device)
    return HuggingFaceTeacher(
        name_or_path, layers=layers, prompt=prompt, load_in=load_in, dtype=dtype, device=device, batch=batch
    )
