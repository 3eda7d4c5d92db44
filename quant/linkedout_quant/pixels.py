"""Resizing as OpenCV's INTER_AREA does it, as two small matrix products: the same in NumPy and on any torch device."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def area_weights(length: int, cells: int) -> np.ndarray:
    """Share of each of `length` pixels in each of `cells` equal cells: float32 [cells, length], rows sum to 1."""
    edges, pixels = np.linspace(0, length, cells + 1), np.arange(length)
    overlap = np.clip(np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels), 0, None)
    return (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=32)
def _weights(length: int, cells: int, device: torch.device) -> Tensor:
    return torch.from_numpy(area_weights(length, cells)).to(device)


def resize(images: Tensor, side: int) -> Tensor:
    """Squares of another size: by area where they shrink, as devices do before the encoder, else bilinear.

    Args:
        images: float [B, C, H, W].
        side: of the result.

    Returns:
        float32 [B, C, side, side].
    """
    height, width = images.shape[-2:]
    images = images.float()
    if (height, width) == (side, side):
        return images
    if min(height, width) < side:
        return torch.nn.functional.interpolate(images, (side, side), mode="bilinear", align_corners=False)
    with torch.autocast(images.device.type, enabled=False):  # gray levels need more than bfloat16's eight bits
        rows, columns = _weights(height, side, images.device), _weights(width, side, images.device)
        return rows @ images @ columns.T
