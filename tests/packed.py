"""Chosen tokens into a recommender's store and out again, by feature packs: nothing but what apps can do, too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from linkedout_edge import Recommender
from linkedout_edge.config import ModelConfig

TINY = ModelConfig.tiny()
SHAPE = (TINY.layers, TINY.tokens_per_layer, TINY.token_width)


def random_tokens(count: int, seed: int = 0) -> np.ndarray:
    """int8 ``[count, L, M, D]``."""
    return np.random.default_rng(seed).integers(-127, 128, (count, *SHAPE), dtype=np.int8)


def put_tokens(rec: Recommender, folder: Path, ids: Sequence[str], tokens: np.ndarray, scale: float = 0.02) -> None:
    """Store ``tokens[n]`` under ``ids[n]``, in place of what was there.

    Args:
        rec: On the tiny bundle.
        folder: For the pack.
        ids: C of them.
        tokens: int8 ``[C, L, M, D]``.
        scale: Of every token.
    """
    path = folder / "given.pack"
    arrays = {
        "tokens": np.ascontiguousarray(tokens),
        "scales": np.full(tokens.shape[:3], scale, np.float32),
        "records": np.frombuffer(json.dumps([[i, None, f"content of {i}"] for i in ids]).encode(), np.uint8),
    }
    save_file(arrays, path, {"format": "linkedout-pack", "version": "1", "token_space": rec.info().token_space})
    assert rec.store.import_pack(path) == tuple(ids)
    path.unlink()


def values_of(rec: Recommender, folder: Path, ids: Sequence[str]) -> np.ndarray:
    """What is stored under ids, tokens times scales: float32 ``[C, L, M, D]``."""
    path = folder / "asked.pack"
    assert rec.store.export_pack(path, ids) == len(ids)
    arrays = load_file(path)
    path.unlink()
    return np.asarray(arrays["tokens"] * arrays["scales"][..., None])
