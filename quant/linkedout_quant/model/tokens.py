"""Int8 layer tokens: one scale per token, symmetric, the largest magnitude at ±127."""

from __future__ import annotations

import torch
from torch import Tensor


def quantize(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Float tokens [..., M, D] → int8 [..., M, D] and float32 scales [..., M]."""
    scales = tokens.abs().amax(-1).clamp_min(1e-6) / 127.0
    whole = torch.round(tokens / scales.unsqueeze(-1)).clamp(-127, 127)
    return whole.to(torch.int8), scales


def dequantize(tokens: Tensor, scales: Tensor) -> Tensor:
    """Int8 [..., L, M, D] and float32 [..., L, M] → float32 [..., L, M·D]."""
    return (tokens.to(torch.float32) * scales.unsqueeze(-1)).flatten(-2)
