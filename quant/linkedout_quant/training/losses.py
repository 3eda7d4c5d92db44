"""Losses that several stages share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def feature_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error and cosine distance: the first fixes sizes, the second is what ranking by similarity uses."""
    cosine = 1 - nn.functional.cosine_similarity(predicted, target, dim=-1).mean()
    return 0.5 * nn.functional.mse_loss(predicted, target) + cosine


def similarity(x: Tensor) -> Tensor:
    """Cosines [..., B, B] of rows [..., B, K]."""
    x = nn.functional.normalize(x, dim=-1)
    return x @ x.transpose(-1, -2)


def relational_loss(tokens: Tensor, *targets: Tensor) -> Tensor:
    """Squared error between cosines of rows of `tokens` [..., B, X] and the mean cosine of `targets` [..., B, Y] each.

    Relational distillation, off the diagonal (Park et al. 2019).
    """
    b = targets[0].shape[-2]
    off = ~torch.eye(b, dtype=torch.bool, device=tokens.device)
    want = torch.stack([similarity(t) for t in targets]).mean(0)
    return (similarity(tokens) - want)[..., off].square().mean()


def center_loss(tokens: Tensor) -> Tensor:
    """Share of the mean in the squared size of rows of `tokens` [..., B, X].

    What all videos have in common says nothing about taste, but in an inner product it favors the common ones: hubs
    (Suzuki et al., "Centering Similarity Measures to Reduce Hubs", EMNLP 2013).
    """
    mean = tokens.mean(-2).square().sum(-1)
    return (mean / tokens.square().sum(-1).mean(-1)).mean()


def alignment_loss(a: Tensor, b: Tensor, temperature: float = 0.07) -> Tensor:
    """Contrastive alignment of row i of `a` [B, K] with row i of `b` [B, K], both ways (InfoNCE, as in CLIP)."""
    logits = nn.functional.normalize(a, dim=-1) @ nn.functional.normalize(b, dim=-1).T / temperature
    right = torch.arange(len(a), device=a.device)
    return 0.5 * (nn.functional.cross_entropy(logits, right) + nn.functional.cross_entropy(logits.T, right))
