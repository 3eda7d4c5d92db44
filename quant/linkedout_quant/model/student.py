"""The student: everything from frames to layer tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linkedout_edge.config import ModelConfig
from linkedout_quant.model.compressor import Compressor
from linkedout_quant.model.lm import CausalLM
from linkedout_quant.model.tower import VisionTower


class VideoEncoder(nn.Module):
    """Video LLM with a compressor at each tap; one forward pass, no decoding.

    The prompt ("promptable query") is a buffer: exporting bakes it in.
    """

    prompt_ids: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = VisionTower(config)
        self.lm = CausalLM(config)
        self.compressors = nn.ModuleList(Compressor(config) for _ in config.taps)
        self.register_buffer("prompt_ids", torch.zeros(config.prompt_tokens, dtype=torch.long))

    def states(self, frames: Tensor, frame_mask: Tensor, title_ids: Tensor, title_mask: Tensor) -> list[Tensor]:
        """All hidden states of the LM; arguments as the encoder graph's (docs/architecture.md)."""
        b, f = frames.shape[:2]
        visual = self.tower(frames.flatten(0, 1))
        return self.lm(visual.unflatten(0, (b, f)), frame_mask, title_ids, title_mask, self.prompt_ids)

    def features(self, states: list[Tensor], frame_mask: Tensor) -> Tensor:
        """Hidden states → float32 [B, L, M, W], each layer read by its compressor."""
        c = self.config
        visual = frame_mask.repeat_interleave(c.grid**2, 1)
        new = torch.ones_like(frame_mask[:, :1]).expand(-1, c.prompt_tokens)
        valid = torch.cat([visual, new], 1)
        seen, asked = visual.shape[1], c.prompt_tokens
        rows = []
        for tap, compressor in zip(c.taps, self.compressors, strict=True):
            hidden = torch.cat([states[tap][:, :seen], states[tap][:, -asked:]], 1)
            rows.append(compressor.features(hidden, valid))  # type: ignore[operator]
        return torch.stack(rows, 1)

    def tokens(self, features: Tensor) -> Tensor:
        """[B, L, M, W] → layer tokens float32 [B, L, M, D]."""
        return torch.stack([c.tokens(features[:, i]) for i, c in enumerate(self.compressors)], 1)  # type: ignore[operator]

    def forward(self, frames: Tensor, frame_mask: Tensor, title_ids: Tensor, title_mask: Tensor) -> Tensor:
        """Layer tokens float32 [B, L, M, D]; arguments as the encoder graph's (docs/architecture.md)."""
        return self.tokens(self.features(self.states(frames, frame_mask, title_ids, title_mask), frame_mask))


class Student(nn.Module):
    """All trained weights of a bundle: the video encoder. Users are a closed form (`linkedout_edge.rank.taste`)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = VideoEncoder(config)
