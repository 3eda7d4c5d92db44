"""The interface of a teacher: frames, a prompt and perhaps a title in; features of each layer out.

The student learns from these features alone, so a teacher may be anything: a video LLM, an image network joined with a
sentence encoder, or one that another program ran and whose features lie in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from linkedout_edge.errors import LinkedOutError


class TeacherError(LinkedOutError, RuntimeError):
    """A teacher cannot be loaded or cannot do what is asked; the message says how to fix it."""


@dataclass(frozen=True)
class TeacherFeatures:
    """Features of a batch of clips."""

    layers: tuple[np.ndarray, ...]
    """Per layer, shallow first, float32 [B, K, W]: K tokens of that layer's own width. A square K is a grid of cells,
    row by row, which the student matches place by place; of any other K the mean is matched."""
    pooled: np.ndarray
    """float32 [B, P]: the whole clip as the teacher sees it."""
    language: np.ndarray
    """float32 [B, Q]: what it would say about the clip; inner products of these follow meaning more than looks."""


ALIKE = ("pooled", "language")
"""Features whose cosines, averaged, say which clips are alike, where a teacher has no attribute `alike` of its own."""


class Teacher(Protocol):
    """A frozen model that extracts features of clips. One forward pass per batch, no generation."""

    name: str
    """For people: progress, model card."""
    fingerprint: str
    """Sha256 hex over everything that decides the features (weights, chosen layers, prompt): the key of caches."""
    layer_names: tuple[str, ...]
    """One name for each of `TeacherFeatures.layers`."""

    def extract_features(
        self, clips: Sequence[np.ndarray], titles: Sequence[str | None] | None = None
    ) -> TeacherFeatures:
        """Features of clips.

        Args:
            clips: uint8 [F, H, W, 3] RGB each; sizes may differ. A still image is a clip of one frame.
            titles: One a clip, None where there is none; a teacher without a tokenizer ignores them.

        Raises:
            TeacherError: The model cannot take the clips.
        """
        ...


def check_clips(clips: Sequence[np.ndarray], titles: Sequence[str | None]) -> None:
    """Check what `Teacher.extract_features` was given.

    Raises:
        TeacherError: No clips, another number of titles, or a clip that is not uint8 [F, H, W, 3].
    """
    if not len(clips):
        raise TeacherError("there are no clips: pass at least one")
    if len(titles) != len(clips):
        raise TeacherError(f"{len(titles)} titles for {len(clips)} clips: expected one each, None where there is none")
    for i, clip in enumerate(clips):
        shape = getattr(clip, "shape", None)
        fits = isinstance(clip, np.ndarray) and clip.ndim == 4 and clip.shape[-1] == 3 and clip.size
        if not fits or clip.dtype != np.uint8:
            raise TeacherError(
                f"clip {i} is {type(clip).__name__} {getattr(clip, 'dtype', '')} {shape}: "
                "expected uint8 [F, H, W, 3] RGB"
            )


def square(image: np.ndarray, side: int) -> np.ndarray:
    """A picture of any shape as uint8 [side, side, 3], squashed as the device's decoders do."""
    if image.shape[:2] == (side, side):
        return np.ascontiguousarray(image)
    shrinks = min(image.shape[:2]) > side
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
