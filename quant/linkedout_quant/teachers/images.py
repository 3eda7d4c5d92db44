"""Teachers that are torch networks on single images: they can look inside the step that trains the student.

Such a teacher takes a batch of squares on whatever device it lies, so crops never leave that device
(`linkedout_quant.training.live`). It is a `Teacher` like any other besides, and its features can be kept on disk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from linkedout_edge.errors import ArgumentError
from linkedout_quant.pixels import resize
from linkedout_quant.teachers.base import TeacherError, TeacherFeatures, check_clips, square
from linkedout_quant.teachers.sentences import WIDTH, add_titles, embed_sentences

IMAGENET = 1000
MIDDLE_GRID, LAST_GRID = 7, 4
NAMING_TEMPERATURE, CLASS_TEMPERATURE, CLASS_SHARE = 2.0, 4.0, 1.5  # as of the composite teacher
LOOK_BATCH = 32


class Seen(NamedTuple):
    """What an image teacher says of a batch, float32; as `TeacherFeatures`, but tensors on its device."""

    layers: tuple[Tensor, ...]  # [B, K, W] each
    pooled: Tensor  # [B, P]
    language: Tensor  # [B, Q]


class ImageTeacher(nn.Module):
    """A frozen network on squares; subclasses say what it sees."""

    name: str
    fingerprint: str
    layer_names: tuple[str, ...]
    side: int
    """Of the squares that it looks at."""
    words: int = 0
    """How many of the first columns of `Seen.language` are a sentence embedding, in which titles can join."""
    classes: int = 0
    """How many of its last columns are classes; 0: none."""
    alike: tuple[str, ...] = ("language",)
    """Pooled features of these networks rank worse (docs/teachers.md), so they are learned but say nothing of this."""

    def see(self, images: Tensor) -> Seen:
        """Features of a batch.

        Args:
            images: float [B, 3, side, side] RGB in 0 … 255, on the teacher's device.
        """
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return next(self.parameters()).device

    def extract_features(
        self, clips: Sequence[np.ndarray], titles: Sequence[str | None] | None = None
    ) -> TeacherFeatures:
        """See `linkedout_quant.teachers.base.Teacher.extract_features`; a clip has the mean of its frames."""
        titles = [None] * len(clips) if titles is None else titles
        check_clips(clips, titles)
        frames = torch.from_numpy(np.stack([square(frame, self.side) for clip in clips for frame in clip]))
        with torch.no_grad():
            parts = [self.see(x.to(self.device).permute(0, 3, 1, 2).float()) for x in frames.split(LOOK_BATCH)]
        ends = np.cumsum([len(clip) for clip in clips])[:-1]

        def whole(rows: Sequence[Tensor]) -> np.ndarray:
            return np.stack([x.mean(0) for x in np.split(torch.cat(list(rows)).float().cpu().numpy(), ends)])

        layers = tuple(whole(rows) for rows in zip(*(p.layers for p in parts), strict=True))
        pooled, language = whole([p.pooled for p in parts]), whole([p.language for p in parts])
        if not all(np.isfinite(x).all() for x in (*layers, pooled, language)):
            raise TeacherError(f'{self.name} gives features that are not finite: dtype="float32"')
        if self.words:
            add_titles(language[:, : self.words], titles)
        return TeacherFeatures(layers, pooled, language)


class Naming(nn.Module):
    """Class scores → softened class names and classes: two breeds of dog are near each other although they look unlike.

    Args:
        names: sentence embeddings float32 [C, 384] of the classes' names; None: they have no names that mean anything.
    """

    def __init__(self, names: np.ndarray | None) -> None:
        super().__init__()
        self.words = 0 if names is None else WIDTH
        self.names: Tensor | None
        self.register_buffer("names", None if names is None else torch.from_numpy(names - names.mean(0)).float())

    def forward(self, scores: Tensor) -> Tensor:
        """[B, C] → float32 [B, 384 + C], or [B, C] without names."""
        scores = scores.float()
        classes = CLASS_SHARE * (
            (scores / CLASS_TEMPERATURE).softmax(-1).sqrt() - math.sqrt(1 / scores.shape[-1])
        )  # the square root keeps the unlikely ones from vanishing
        if self.names is None:
            return classes
        with torch.autocast(scores.device.type, enabled=False):
            return torch.cat([(scores / NAMING_TEMPERATURE).softmax(-1) @ self.names, classes], 1)


def cells(features: Tensor, grid: int) -> Tensor:
    """A feature map [B, W, h, w] → mean of grid × grid cells (of fewer, where the map has fewer), [B, cells, W]."""
    return resize(features, min(grid, *features.shape[-2:])).flatten(2).transpose(1, 2)


def imagenet_names(data: Path | None) -> np.ndarray:
    """Sentence embeddings float32 [1000, 384] of the names of ImageNet's classes.

    Args:
        data: folder with ``photos/class_names.npy``, or with ``teacher/imagenet_labels.txt`` (one name a line, perhaps
            behind "background"), whose lines are embedded.

    Raises:
        ArgumentError: no folder, or neither file in it.
        TeacherError: a file that holds something else.
        MissingDependencyError: the sentence encoder's package is not installed.
    """
    wanted = "photos/class_names.npy or teacher/imagenet_labels.txt, the names of ImageNet's 1,000 classes"
    if data is None:
        raise ArgumentError(f'this teacher needs data="FOLDER" (--data) that holds {wanted}')
    made, labels = data / "photos" / "class_names.npy", data / "teacher" / "imagenet_labels.txt"
    if made.exists():
        try:
            names = np.load(made, allow_pickle=False)
        except (OSError, ValueError, EOFError) as e:
            raise TeacherError(f"{made} cannot be read ({e}): remove it, the labels are embedded again") from e
    elif labels.exists():
        lines = labels.read_text(encoding="utf-8").splitlines()
        names = embed_sentences(lines[1:] if lines[:1] == ["background"] else lines)
    else:
        raise ArgumentError(f"{data} does not hold {wanted}")
    if names.shape != (IMAGENET, WIDTH):
        raise TeacherError(
            f"{made if made.exists() else labels} holds {names.shape[0]} names: expected [{IMAGENET}, {WIDTH}]"
        )
    return names.astype(np.float32)
