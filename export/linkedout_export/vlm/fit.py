"""Compressors and fusion without training: the directions in which the clips at hand differ.

A fresh compressor is a random map, and what all clips have in common would outweigh what tells them apart. Principal
components of its features over some clips make inner products of layer tokens mean likeness. They are not whitened,
which would raise the weak ones, and with them the noise of quantisation (docs/vlm.md).

A fresh fusion counts every event alike. Here its value head is set by hand, to what `VALUE` says: watched to the end
and liked attract, a skip hardly counts, a dislike pushes away. Layers and events weigh alike; learning is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from linkedout_quant.model import fuse
from torch import Tensor

from linkedout_edge.config import EVENT_FEATURES
from linkedout_edge.errors import ArgumentError
from linkedout_export.quantisation import MIN_CALIBRATION, Feeds
from linkedout_export.vlm.encoder import VLMStudent

VALUE = {"watched": 1.0, "liked": 0.5, "disliked": -2.5}
VALUE_OF_NOTHING = -0.2
"""What an event counts, before tanh: a weighted sum of its features."""
EVENTS = 4
"""Length of the histories by which the scale of scores is set."""


@torch.no_grad()
def fit(student: VLMStudent, feeds: Sequence[Feeds]) -> None:
    """Set the compressors' projections and the scale of the scores, in place.

    Args:
        student: As `load_vlm` gives it.
        feeds: Inputs of the encoder graph, one clip or batch each; better a hundred clips than ten.

    Raises:
        ArgumentError: Fewer than `MIN_CALIBRATION` clips.
    """
    rows = []
    for feed in feeds:
        frames, frame_mask, title_ids, title_mask = (torch.from_numpy(feed[n]) for n in NAMES)
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
    _value_events(student.user)
    values = student.encoder.tokens(features).flatten(2)  # [n, L, M·D]
    draw = torch.Generator().manual_seed(0)
    histories = torch.stack([torch.randperm(len(values), generator=draw)[:EVENTS] for _ in range(64)])
    events = torch.zeros(*histories.shape, len(EVENT_FEATURES))
    events[..., EVENT_FEATURES.index("watched")] = 1.0
    query, bias, _ = student.user.from_values(values[histories], events, torch.ones_like(histories, dtype=torch.bool))
    scores, _ = fuse(query, bias, values.expand(len(query), -1, -1, -1))
    student.user.score_scale /= scores.std(1).mean().clamp_min(1e-6)


NAMES = ("frames", "frame_mask", "title_ids", "title_mask")


def _value_events(user: Any) -> None:
    """Set the value head to `VALUE`, through the first hidden units of the network that reads events."""
    first, _, second = user.read_event
    for i, (feature, weight) in enumerate(VALUE.items()):
        first.weight[i].zero_()
        first.bias[i] = 0.0
        first.weight[i, EVENT_FEATURES.index(feature)] = 1.0
        second.weight[i].zero_()  # unit i passes through to place i of the state, where nothing else is written
        second.weight[i, i] = 1.0
        second.bias[i] = 0.0
        user.read_tokens.weight[i].zero_()
        user.read_tokens.bias[i] = 0.0
        user.value.weight[:, i] = weight
    user.value.weight[:, len(VALUE) :].zero_()
    user.value.bias.fill_(VALUE_OF_NOTHING)


def _components(features: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Principal components of features [n, M, W] → weight [width, W], bias [width].

    What only tells the M tokens of a clip apart is the same in all clips: those directions are left out.
    """
    _, m, w = features.shape
    centres = features.mean(0)  # [M, W]
    apart = torch.linalg.qr((centres[1:] - centres[:1]).T).Q if m > 1 else features.new_zeros(w, 0)
    rows = (features - centres).flatten(0, 1)
    rows = rows - rows @ apart @ apart.T
    _, strength, axes = torch.linalg.svd(rows, full_matrices=False)
    kept = min(width, int((strength > 1e-4 * strength[0].clamp_min(1e-12)).sum()))
    weight = features.new_zeros(width, w)
    weight[:kept] = axes[:kept] * (len(rows) ** 0.5 / strength[0])
    return weight, -weight @ centres.mean(0)
