"""Layer token compressor: what one tapped LM layer knows of a video, in M tokens of width D.

M learned queries attend to the layer's visual tokens ("context") and prompt positions ("new"), after the idea of
LinkedOut (arXiv 2512.16891). The prompt positions also decide how much each feature of what was read counts: among some
hundred visual tokens they would hardly be heard, and this is what makes the prompt a query. The tokens leave with zero
mean and unit variance, so that inner products between videos are bounded and int8 loses little.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linkedout_edge.config import ModelConfig
from linkedout_quant.model.lm import MASKED


class Compressor(nn.Module):
    """One tapped layer's hidden states → M layer tokens."""

    def __init__(self, config: ModelConfig, heads: int = 4) -> None:
        super().__init__()
        width, inner = config.lm_width, config.lm_width // 2
        self.heads, self.asked = heads, config.prompt_tokens
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(config.tokens_per_layer, inner) * 0.5)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.mix = nn.Linear(inner, width)
        self.gain = nn.Linear(width, width)
        nn.init.zeros_(self.gain.weight)  # starts with all features alike
        nn.init.zeros_(self.gain.bias)
        self.project = nn.Linear(width, config.token_width)

    def features(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Hidden states → features float32 [B, M, W], before the projection to D.

        Args:
            hidden: float32 [B, S, W], the prompt's positions last.
            valid: bool [B, S].
        """
        b, s, _ = hidden.shape
        m, inner = self.queries.shape
        read = self.norm(hidden)
        k, v = self.key_value(read).reshape(b, s, 2, self.heads, inner // self.heads).permute(2, 0, 3, 1, 4)
        q = self.queries.reshape(m, self.heads, inner // self.heads).transpose(0, 1)
        mask = torch.where(valid, 0.0, MASKED)[:, None, None, :]
        attention = torch.softmax((q * (inner // self.heads) ** -0.5) @ k.transpose(-1, -2) + mask, -1)
        pooled = (attention @ v).transpose(1, 2).reshape(b, m, inner)
        # Three dimensions, so that ONNX has a MatMul there, whose weights become 4 bit, and no Gemm.
        gain = 2 * torch.sigmoid(self.gain(read[:, -self.asked :].mean(1, keepdim=True)))
        return torch.relu(self.mix(pooled)) * gain

    def tokens(self, features: Tensor) -> Tensor:
        """[B, M, W] → layer tokens float32 [B, M, D]."""
        return nn.functional.layer_norm(self.project(features), (self.project.out_features,))
