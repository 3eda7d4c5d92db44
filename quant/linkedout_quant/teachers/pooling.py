"""A teacher's hidden states, thousands of positions, → the few vectors that a student learns from."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d

Layout = tuple[int, int, int]
"""Steps in time, height and width of a clip's visual tokens."""


def square_layout(tokens: int, steps: int) -> Layout | None:
    """The layout of visual tokens that come as `steps` equal squares, or None if they do not.

    A single token behind a square (LLaVA-OneVision ends images with a line break) is tolerated, and not part of it.
    """
    each = tokens // steps
    side = math.isqrt(each)
    return (steps, side, side) if each and each - side * side in (0, 1) else None


def pool_visual(tokens: Tensor, layout: Layout | None, grid: int) -> Tensor:
    """Mean of visual tokens in grid × grid cells of the picture, over all of the clip.

    Args:
        tokens: float [V, W], frame after frame, row after row.
        layout: Where they stand; None if they form no rectangle: then they are pooled in their order.
        grid: Cells on a side.

    Returns:
        float [grid², W].
    """
    if layout is None:
        return adaptive_avg_pool1d(tokens.T, grid * grid).T
    steps, height, width = layout
    each = len(tokens) // steps
    picture = tokens[: steps * each].unflatten(0, (steps, each))[:, : height * width].mean(0)  # [h·w, W]
    cells = adaptive_avg_pool2d(picture.T.unflatten(1, (height, width)), grid)  # [W, grid, grid]
    return cells.flatten(1).T


def prompt_positions(visual: Tensor, valid: Tensor) -> Tensor:
    """The positions behind the last visual token: title, prompt, and the opening of the answer.

    Args:
        visual: bool [S], True at visual tokens.
        valid: bool [S], False at padding, on whichever side.

    Returns:
        bool [S].
    """
    index = torch.arange(len(visual), device=visual.device)
    return valid & (index > torch.where(visual, index, -1).max())


def last_position(valid: Tensor) -> int:
    """Index of the last position that is not padding.

    Args:
        valid: bool [S].
    """
    return int(valid.nonzero()[-1])
