"""The offline teacher: MobileNetV2 for sight, a sentence encoder for language, no download.

Sight: an intermediate layer, the last convolution's map and its mean. Language: the class probabilities, softened, and
the mean of the class names' sentence embeddings under those probabilities, so that two breeds of dog are near each
other although they look unlike. With a title, the title's embedding joins in. On the photos of the yardstick, cosines
of pooled and language features together rank better than pooled features alone (docs/experiments.md).

Its weights are read to teach and are not copied into a student.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linkedout_quant.pixels import area_weights
from linkedout_quant.teachers.base import TeacherError, TeacherFeatures, square
from linkedout_quant.teachers.mobilenet import SIDE, MobileNet
from linkedout_quant.teachers.sentences import add_titles, embed_sentences

MIDDLE_GRID, LAST_GRID, LAST_WIDTH = 7, 4, 256
NAMING_TEMPERATURE, CLASS_TEMPERATURE = 2.0, 4.0
CLASS_SHARE = 1.5  # brings softened class probabilities to about the size of sentence embeddings


class CompositeTeacher:
    """MobileNetV2 (ImageNet, LiteRT) joined with all-MiniLM-L6-v2 on the class names and on titles.

    Args:
        data: folder that holds ``teacher/*.tflite`` and ``teacher/imagenet_labels.txt``.
        threads: threads of the image network.

    Raises:
        TeacherError: the folder lacks a file.
        MissingDependencyError: LiteRT or the sentence encoder's package is not installed.
    """

    name = "composite (MobileNetV2 + all-MiniLM-L6-v2)"
    layer_names: tuple[str, ...] = ("block 12", "last convolution")
    single_threaded = True
    classes = 1000
    """Of ImageNet, behind the background."""

    def __init__(self, data: Path, threads: int = 1) -> None:
        model, labels = next(iter(sorted((data / "teacher").glob("*.tflite"))), None), data / "teacher"
        if model is None or not (labels / "imagenet_labels.txt").exists():
            raise TeacherError(
                f"{data} holds no teacher/*.tflite with teacher/imagenet_labels.txt: name the folder that does "
                "(MobileNetV2, uint8, with its labels), or choose a Hugging Face checkpoint as teacher"
            )
        self.names = (labels / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
        self.sight = MobileNet(model, threads)
        digest = hashlib.sha256(model.read_bytes())
        digest.update(repr((self.names, SIDE, NAMING_TEMPERATURE, CLASS_TEMPERATURE, CLASS_SHARE)).encode())
        self.fingerprint = digest.hexdigest()
        # The directions that the classifier reads most from are those worth keeping of every cell.
        _, _, axes = np.linalg.svd(self.sight.classifier - self.sight.classifier.mean(0), full_matrices=False)
        self._axes = np.ascontiguousarray(axes[:LAST_WIDTH].T)  # [1280, 256]
        names = embed_sentences(self.names)
        self._class_names = names - names.mean(0)  # [1001, 384]

    def extract_features(
        self, clips: Sequence[np.ndarray], titles: Sequence[str | None] | None = None
    ) -> TeacherFeatures:
        """See `linkedout_quant.teachers.base.Teacher.extract_features`; a clip has the mean of its frames."""
        middle, last, pooled, logits = [], [], [], []
        for clip in clips:
            frames = [self.sight(square(frame, SIDE)) for frame in clip]
            middle.append(np.mean([pool_cells(f.middle, MIDDLE_GRID) for f in frames], 0))
            last.append(np.mean([pool_cells(f.last, LAST_GRID) @ self._axes for f in frames], 0))
            pooled.append(np.mean([f.pooled for f in frames], 0))
            logits.append(np.mean([f.logits for f in frames], 0))
        said = np.stack(logits)
        named = softmax(said / NAMING_TEMPERATURE) @ self._class_names
        add_titles(named, titles)
        classes = np.sqrt(softmax(said / CLASS_TEMPERATURE)) - np.sqrt(1 / said.shape[1])
        language = np.concatenate([named, CLASS_SHARE * classes], 1)
        return TeacherFeatures((np.stack(middle), np.stack(last)), np.stack(pooled), language.astype(np.float32))


def pool_cells(grid: np.ndarray, side: int) -> np.ndarray:
    """Adaptive average pooling: float32 [h, h, W] → [side², W]."""
    pool = area_weights(len(grid), side)
    return np.einsum("ay,bx,yxc->abc", pool, pool, grid, optimize=True).reshape(side * side, -1)


def softmax(x: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
