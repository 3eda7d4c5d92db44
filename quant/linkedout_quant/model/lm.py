"""A small causal LM that reads ``[visual tokens, title tokens, prompt tokens]`` and keeps its hidden states.

Design choices: pre-norm blocks, LayerNorm and ReLU (one operator each in ONNX, and both fuse), learned positions by
segment (frame, cell, title, prompt), input and output embeddings tied. Attention is written out with an additive mask,
because that exports to the same few operators everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linkedout_edge.config import ModelConfig

MASKED = -1e4  # finite: a row without any valid key stays finite, and float16 holds it


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, mlp)
        self.down = nn.Linear(mlp, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """X float32 [B, S, W], mask additive [B, 1, S, S] → [B, S, W]."""
        b, s, w = x.shape
        q, k, v = self.qkv(self.norm_attention(x)).reshape(b, s, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        attention = torch.softmax((q * (w // self.heads) ** -0.5) @ k.transpose(-1, -2) + mask, -1)
        x = x + self.out((attention @ v).transpose(1, 2).reshape(b, s, w))
        return x + self.down(torch.relu(self.up(self.norm_mlp(x))))


class CausalLM(nn.Module):
    """Blocks, embeddings and the tied output head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.lm_width
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.frame_position = nn.Parameter(torch.randn(config.frames, 1, width) * 0.02)
        self.cell_position = nn.Parameter(torch.randn(1, config.grid**2, width) * 0.02)
        self.title_position = nn.Parameter(torch.randn(config.title_tokens, width) * 0.02)
        self.prompt_position = nn.Parameter(torch.randn(config.prompt_tokens, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, config.lm_heads, config.lm_mlp) for _ in range(config.lm_layers))
        self.final_norm = nn.LayerNorm(width)
        self.apply(self._initialize)

    def _initialize(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(
        self, visual: Tensor, frame_mask: Tensor, title_ids: Tensor, title_mask: Tensor, prompt_ids: Tensor
    ) -> list[Tensor]:
        """All hidden states, the LM's input first.

        Args:
            visual: float32 [B, F, grid², W]; training may leave out the frames that the mask would hide.
            frame_mask: bool [B, F], True where there is a frame.
            title_ids: int [B, T]; title_mask: bool [B, T].
            prompt_ids: int [P], or [B, P] where each video has a prompt of its own.

        Returns:
            ``lm_layers + 1`` tensors, float32 [B, F·grid² + T + P, W].
        """
        b, f, cells, width = visual.shape
        seen = (visual + self.frame_position[:f] + self.cell_position).reshape(b, f * cells, width)
        title = self.embedding(title_ids) + self.title_position
        prompt = (self.embedding(prompt_ids) + self.prompt_position).expand(b, -1, -1)
        x = torch.cat([seen, title, prompt], 1)
        asked = torch.ones_like(title_mask[:, :1]).expand(b, prompt_ids.shape[-1])
        valid = torch.cat([frame_mask.repeat_interleave(cells, 1), title_mask, asked], 1)
        return self._run(x, valid)

    def read_text(self, title_ids: Tensor, title_mask: Tensor) -> list[Tensor]:
        """Hidden states of titles without video or prompt: int [B, T], bool [B, T] → float32 [B, T, W] each."""
        return self._run(self.embedding(title_ids) + self.title_position, title_mask)

    def _run(self, x: Tensor, valid: Tensor) -> list[Tensor]:
        s = x.shape[1]
        causal = torch.ones(s, s, dtype=torch.bool, device=x.device).tril()
        mask = torch.where(causal & valid[:, None, None, :], 0.0, MASKED)
        states = [x]
        for block in self.blocks:
            x = block(x, mask)
            states.append(x)
        return states

    def logits(self, last: Tensor) -> Tensor:
        """Next-token logits [B, S, vocab] of the last hidden state [B, S, W]."""
        return self.final_norm(last) @ self.embedding.weight.T
