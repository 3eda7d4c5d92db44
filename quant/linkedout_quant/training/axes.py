"""After the stage "clips": which directions of its features a compressor keeps in its tokens.

A compressor's last projection, from W features to D, is trained on kinds of things that were shown, and drops what told
none of them apart. Of kinds that were never shown, some of that tells. So the trained projection is replaced, in closed
form, by the D directions that keep most of two metrics, half and half: the trained projection's, and the plain inner
product of the features. Nothing else changes, and no label or teacher is asked (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

PLAIN_SHARE = 0.5  # of the features' own inner product, beside the trained metric


class Moments:
    """Mean and covariance of the features of one kind of clip, gathered batch by batch."""

    def __init__(self) -> None:
        self.clips = 0
        self.total: Tensor | float = 0.0  # float64 [L, M, W]
        self.square: Tensor | float = 0.0  # float64 [L, W, W], mean over the M tokens

    def add(self, features: Tensor) -> None:
        """Features [B, L, M, W] of a batch."""
        rows = features.double()
        self.clips += len(rows)
        self.total = self.total + rows.sum(0)
        self.square = self.square + torch.einsum("blmv,blmw->lvw", rows, rows) / rows.shape[2]

    def mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        """Float64 [L, W] and [L, W, W]. What tells a layer's tokens from each other is no covariance.

        Raises:
            ValueError: nothing was added.
        """
        if not isinstance(self.total, Tensor) or not isinstance(self.square, Tensor):
            raise ValueError("nothing has no mean: add features first")
        mean = self.total / self.clips
        return mean.mean(1), self.square / self.clips - torch.einsum("lmv,lmw->lvw", mean, mean) / mean.shape[1]


def kept_axes(weight: Tensor, covariance: Tensor, plain: float = PLAIN_SHARE) -> Tensor:
    """The projection [D, W] that keeps most of a metric of features: `1 - plain` the trained one's, `plain` their own.

    Each metric counts as a share of what it makes of all the features' variance. Tokens get about unit variance.

    Args:
        weight: the trained projection, [D, W].
        covariance: of the features, [W, W].
        plain: 0 keeps the trained metric, 1 gives the principal axes of the features.
    """
    trained = weight - weight.mean(0)  # the norm behind the projection takes the mean of a token away
    own = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    metric = (1 - plain) * trained.T @ trained / torch.trace(trained @ covariance @ trained.T).clamp_min(1e-12)
    metric = metric + plain * own / torch.trace(covariance).clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(metric)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    _, axes = torch.linalg.eigh(root @ covariance @ root)
    kept = axes[:, -len(weight) :].T @ root
    return kept / (kept @ covariance @ kept.T).diagonal().mean().clamp_min(1e-12).sqrt()


@torch.no_grad()
def keep_axes(projections: Iterable[nn.Linear], kinds: Iterable[tuple[float, Moments]]) -> None:
    """Replace the compressors' projections in place; over all clips, what a layer's tokens are made of then has mean 0.

    Args:
        projections: one a layer.
        kinds: of clips, each with what it counts. Variance counts within kinds: what tells micro-videos from photos, or
            prompts from each other, tells nobody's taste.
    """
    shares, found = zip(*((share, m.mean_and_covariance()) for share, m in kinds), strict=True)
    whole = sum(shares)
    mean = sum((share / whole * m for share, (m, _) in zip(shares, found, strict=True)), torch.tensor(0.0))
    covariance = sum((share / whole * c for share, (_, c) in zip(shares, found, strict=True)), torch.tensor(0.0))
    for layer, projection in enumerate(projections):
        weight = kept_axes(projection.weight.double(), covariance[layer])
        projection.weight.copy_(weight)
        projection.bias.copy_(-weight @ mean[layer])
