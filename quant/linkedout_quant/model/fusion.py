"""Cross-layer fusion and scorer: a mixture of experts with one expert a layer.

LinkedOut (arXiv 2512.16891) fuses the layers' knowledge with gates; here the gate also depends on the candidate, and
both the gate and the score are inner products with stored tokens, so one matrix product over the store serves both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from linkedout_quant.model.tokens import dequantise


def fuse(query: Tensor, bias: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of candidates for a batch of users, from float tokens.

    Args:
        query: float32 [B, 2, L, M·D]; bias: float32 [B, L].
        values: float32 [B, C, L, M·D].

    Returns:
        score float32 [B, C] and contributions float32 [B, C, L].
    """
    products = torch.einsum("bklf,bclf->kbcl", query, values)
    gates = torch.softmax(products[1] + bias.unsqueeze(1), -1)
    contributions = gates * products[0]
    return contributions.sum(-1), contributions


def scorer_reference(
    query: Tensor, bias: Tensor, tokens: Tensor, scales: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """What the scorer graph computes, in float: the reference that the integer graph is checked against."""
    score, contributions = fuse(query, bias, dequantise(tokens, scales).unsqueeze(0))
    lowest = torch.full_like(score[0], torch.finfo(torch.float32).min)
    return torch.where(mask, score[0], lowest), contributions[0]
