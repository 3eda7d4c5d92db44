"""Compressors without training: the directions in which the clips at hand differ.

A fresh compressor is a random map, and what all clips have in common would outweigh what tells them apart. Principal
components of its features over some clips make inner products of layer tokens mean likeness. They are not whitened,
which would raise the weak ones, and with them the noise of quantization (docs/vlm.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from linkedout_edge.backends.base import INPUTS
from linkedout_edge.errors import ArgumentError
from linkedout_export.quantization import MIN_CALIBRATION, Feeds

if TYPE_CHECKING:
    from linkedout_export.vlm.encoder import VLMStudent
    from linkedout_export.vlm.joined import GraphStudent


@torch.no_grad()
def fit(student: VLMStudent | GraphStudent, feeds: Sequence[Feeds]) -> None:
    """Set the compressors' projections, in place.

    Args:
        student: As `load_vlm` or `load_graphs` gives it.
        feeds: Inputs of the encoder graph, one clip or batch each; better a hundred clips than ten.

    Raises:
        ArgumentError: Fewer than `MIN_CALIBRATION` clips.
    """
    rows = []
    for feed in feeds:
        frames, frame_mask, title_ids, title_mask = (torch.from_numpy(feed[n]) for n in INPUTS)
        states = student.encoder.states(frames, frame_mask, title_ids, title_mask)
        rows.append(student.encoder.features(states, frame_mask))
    if sum(map(len, rows)) < MIN_CALIBRATION:
        raise ArgumentError(f"{sum(map(len, rows))} clips are too few: give at least {MIN_CALIBRATION}, better 100")
    features = torch.cat(rows)  # [n, L, M, W]
    compressors: Any = student.encoder.compressors
    for i, compressor in enumerate(compressors):
        weight, bias = _components(features[:, i], student.config.token_width)
        compressor.project.weight.copy_(weight)
        compressor.project.bias.copy_(bias)


def _components(features: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Principal components of features [n, M, W] → weight [width, W], bias [width].

    What only tells the M tokens of a clip apart is the same in all clips: those directions are left out.
    """
    _, m, w = features.shape
    centers = features.mean(0)  # [M, W]
    apart = torch.linalg.qr((centers[1:] - centers[:1]).T).Q if m > 1 else features.new_zeros(w, 0)
    rows = (features - centers).flatten(0, 1)
    rows = rows - rows @ apart @ apart.T
    _, strength, axes = torch.linalg.svd(rows, full_matrices=False)
    kept = min(width, int((strength > 1e-4 * strength[0].clamp_min(1e-12)).sum()))
    weight = features.new_zeros(width, w)
    weight[:kept] = axes[:kept] * (len(rows) ** 0.5 / strength[0])
    return weight, -weight @ centers.mean(0)
