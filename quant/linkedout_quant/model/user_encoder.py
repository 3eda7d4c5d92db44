"""User encoder: the history's layer tokens and event features → per layer a query, a gate query and event weights.

The weight of an event may depend on everything in the history; what is weighed are the stored tokens themselves
(``u_l = Σ_n w[n,l] · t[n,l]``). That linearity is what makes an explanation exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linkedout_edge.config import EVENT_FEATURES, ModelConfig
from linkedout_quant.model.lm import MASKED
from linkedout_quant.model.tokens import dequantise


class UserEncoder(nn.Module):
    """One user's history → what the scorer needs."""

    score_scale: Tensor

    def __init__(self, config: ModelConfig, heads: int = 2) -> None:
        super().__init__()
        self.config, self.heads = config, heads
        layers, flat, width = config.layers, config.tokens_per_layer * config.token_width, config.user_width
        self.read_tokens = nn.Linear(layers * flat, width)
        self.read_event = nn.Sequential(nn.Linear(len(EVENT_FEATURES), width), nn.ReLU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attend = nn.Linear(2 * width, layers)  # how much an event counts
        self.value = nn.Linear(2 * width, layers)  # and in which direction: a disliked video pushes away
        # Tokens of unlike videos have cosines of a few hundredths: scores a softmax can learn from are 20 times that.
        self.strength = nn.Parameter(torch.full((layers,), 3.0))
        self.gate_query = nn.Parameter(torch.zeros(layers, flat))
        self.gate_read = nn.Linear(width, layers * flat)
        self.gate_bias = nn.Linear(width, layers)
        # A layer whose tokens agree over the history is the one that sees what the user likes.
        self.gate_agreement = nn.Linear(layers, layers)
        for linear in (self.attend, self.value, self.gate_read, self.gate_bias):
            nn.init.zeros_(linear.bias)
            nn.init.normal_(linear.weight, std=1e-3)
        nn.init.constant_(self.value.bias, 0.5)
        nn.init.zeros_(self.gate_agreement.weight)
        nn.init.zeros_(self.gate_agreement.bias)
        self.register_buffer("score_scale", torch.ones(()))  # set after training: scores with unit deviation

    def forward(self, tokens: Tensor, scales: Tensor, events: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments and results as the user graph's (docs/architecture.md), for any batch size.

        Returns:
            query float32 [B, 2, L, M·D], bias float32 [B, L], event_weights float32 [B, N, L].
        """
        return self.from_values(dequantise(tokens, scales), events, mask)

    def from_values(self, values: Tensor, events: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same from float tokens [B, N, L, M·D]; what training uses."""
        b, n, layers, flat = values.shape
        h = self.read_tokens(values.flatten(2)) * flat**-0.5 + self.read_event(events)
        q, k, v = self.qkv(self.norm(h)).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        hidden = torch.where(mask, 0.0, MASKED)[:, None, None, :]
        mixed = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + hidden, -1) @ v
        state = torch.cat([h, mixed.transpose(1, 2).reshape(b, n, -1)], -1)
        present = mask.to(values.dtype).unsqueeze(-1)
        attention = torch.softmax(self.attend(state) + torch.where(mask, 0.0, MASKED).unsqueeze(-1), 1) * present
        signed = attention * torch.tanh(self.value(state))
        scale = self.strength.exp() * self.score_scale / flat
        mean = torch.einsum("bnl,bnlf->blf", signed, values)
        agreement = mean.square().mean(-1)  # [B, L] in [0, 1]: tokens have unit variance
        pooled = (attention.mean(-1, keepdim=True) * h).sum(1)
        q_gate = (self.gate_query + self.gate_read(pooled).reshape(b, layers, flat)) * flat**-0.5
        bias = self.gate_bias(pooled) + self.gate_agreement(agreement)
        return torch.stack([mean * scale.unsqueeze(-1), q_gate], 1), bias, signed * scale
