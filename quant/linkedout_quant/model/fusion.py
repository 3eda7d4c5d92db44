"""Cross-layer fusion and scorer: a mixture of experts with one expert a layer.

LinkedOut (arXiv 2512.16891) fuses the layers' knowledge with gates; here the gate also depends on the candidate, and
both the gate and the score are inner products with stored tokens, so one matrix product over the store serves both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from linkedout_quant.model.tokens import dequantise


def fuse(query: Tensor, bias: Tensor, values: Tensor, top_k: int | None = None) -> tuple[Tensor, Tensor]:
    """Scores of candidates for a batch of users, from float tokens.

    Args:
        query: float32 [B, 2, L, M·D]; bias: float32 [B, L].
        values: float32 [B, C, L, M·D].
        top_k: let only the k layers with the largest gates speak; None: all, as what ships does.

    Returns:
        score float32 [B, C] and contributions float32 [B, C, L].
    """
    scores, gates = layer_scores(query, bias, values, top_k)
    contributions = gates * scores
    return contributions.sum(-1), contributions


def layer_scores(query: Tensor, bias: Tensor, values: Tensor, top_k: int | None = None) -> tuple[Tensor, Tensor]:
    """Each layer's own score and its gate, float32 [B, C, L] each; arguments as for `fuse`."""
    products = torch.einsum("bklf,bclf->kbcl", query, values)
    logits = products[1] + bias.unsqueeze(1)
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k, -1).values[..., -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    return products[0], torch.softmax(logits, -1)


def scorer_reference(
    query: Tensor, bias: Tensor, tokens: Tensor, scales: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """What the scorer graph computes, in float: the reference that the integer graph is checked against."""
    score, contributions = fuse(query, bias, dequantise(tokens, scales).unsqueeze(0))
    lowest = torch.full_like(score[0], torch.finfo(torch.float32).min)
    return torch.where(mask, score[0], lowest), contributions[0]
