"""Several teachers that name ImageNet's classes, joined: the sight of the first, and the mean of what all say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from linkedout_edge.errors import ArgumentError
from linkedout_quant.pixels import resize
from linkedout_quant.teachers.base import Teacher, TeacherFeatures
from linkedout_quant.teachers.images import IMAGENET, ImageTeacher, Seen
from linkedout_quant.teachers.sentences import WIDTH


def join(teachers: Sequence[Teacher]) -> Teacher:
    """One teacher of several; it can look inside the training's step if all of them can.

    Args:
        teachers: at least two, whose language features are sentence embeddings of class names followed by ImageNet's
            1,000 classes in their usual order, perhaps with a background class between the two.

    Raises:
        ArgumentError: one of them names other classes, or none.
    """
    for teacher in teachers:
        if getattr(teacher, "classes", 0) != IMAGENET:
            raise ArgumentError(f"{teacher.name} does not name ImageNet's {IMAGENET} classes, so it cannot be joined")
    networks = [t for t in teachers if isinstance(t, ImageTeacher)]
    return JoinedImages(networks) if len(networks) == len(teachers) else Joined(teachers)


def _about(teachers: Sequence[Teacher]) -> tuple[str, str]:
    """Name and fingerprint of several together."""
    digest = hashlib.sha256("".join(t.fingerprint for t in teachers).encode())
    return " and ".join(t.name for t in teachers), digest.hexdigest()


class Joined:
    """Teachers of any kind, each of which looks by itself."""

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        self.teachers = tuple(teachers)
        self.name, self.fingerprint = _about(teachers)
        self.layer_names, self.classes = tuple(teachers[0].layer_names), IMAGENET
        self.alike = ("language",)

    def extract_features(
        self, clips: Sequence[np.ndarray], titles: Sequence[str | None] | None = None
    ) -> TeacherFeatures:
        """See `linkedout_quant.teachers.base.Teacher.extract_features`."""
        seen = [t.extract_features(clips, titles) for t in self.teachers]
        said = [np.concatenate([s.language[:, :WIDTH], s.language[:, -IMAGENET:]], 1) for s in seen]
        return TeacherFeatures(seen[0].layers, seen[0].pooled, np.stack(said).mean(0, dtype=np.float32))


class JoinedImages(ImageTeacher):
    """Image teachers, one after the other on the same squares."""

    words, classes = WIDTH, IMAGENET

    def __init__(self, teachers: Sequence[ImageTeacher]) -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)
        self.name, self.fingerprint = _about(teachers)
        self.layer_names, self.side = tuple(teachers[0].layer_names), teachers[0].side

    def see(self, images: Tensor) -> Seen:
        """See `ImageTeacher.see`."""
        seen = [t.see(resize(images, t.side)) for t in self.teachers]  # type: ignore[operator, arg-type]
        said = [torch.cat([s.language[:, :WIDTH], s.language[:, -IMAGENET:]], 1) for s in seen]
        return Seen(seen[0].layers, seen[0].pooled, torch.stack(said).mean(0))
