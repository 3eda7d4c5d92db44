"""Vision tower and connector: one frame → grid × grid visual tokens.

Design choices:
- plain 3×3 convolutions with ReLU: they fold with their batch norms, quantize per channel with little loss, and run at
  full speed in every inference library; from few images a small student also learns faster with them than with patches;
- the tower looks at each frame by itself; time is the LM's business.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linkedout_edge.config import ModelConfig


def conv_norm(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution and batch norm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """x + conv(relu(conv(x))), then ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = conv_norm(width, width), conv_norm(width, width)
        last_norm = self.second[1]
        assert isinstance(last_norm, nn.BatchNorm2d)
        nn.init.zeros_(last_norm.weight)  # starts as the identity, so that depth does not slow the first epochs

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, h, w] → the same."""
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class VisionTower(nn.Module):
    """uint8 RGB frames → a feature map and visual tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = config.tower_widths
        stages: list[nn.Module] = [conv_norm(3, widths[0], 2), nn.ReLU()]
        for width_in, width, blocks in zip(widths[:-1], widths[1:], config.tower_blocks, strict=True):
            self.middle = len(stages)  # where the last stage begins: before it lies the map that training also reads
            stages += [conv_norm(width_in, width, 2), nn.ReLU(), *(Residual(width) for _ in range(blocks))]
        # A cheap 1×1 expansion: the last map is small, and what the LM reads should not be its bottleneck.
        self.width = 2 * widths[-1]
        stages += [nn.Conv2d(widths[-1], self.width, 1, bias=False), nn.BatchNorm2d(self.width), nn.ReLU()]
        self.stages = nn.Sequential(*stages)
        side = config.frame_size // 2 ** len(widths)
        if side < config.grid:
            raise ValueError(f"a feature map of {side} × {side} cells cannot be pooled to a grid of {config.grid}")
        step = side // config.grid  # squares overlap where the side is no multiple of the grid
        self.pool = nn.AvgPool2d(side - (config.grid - 1) * step, step)
        self.connector = nn.Linear(self.width, config.lm_width)

    def middle_and_tokens(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, H, W, 3] → the map before the last stage [B, C, h, w] and visual tokens [B, grid², lm_width]."""
        x = frames.to(torch.float32).permute(0, 3, 1, 2) * (1 / 64.0) - 2.0
        middle = self.stages[: self.middle](x)
        last = self.pool(self.stages[self.middle :](middle))
        return middle, self.connector(last.flatten(2).transpose(1, 2))

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] → float32 visual tokens [B, grid², lm_width]."""
        return self.middle_and_tokens(frames)[1]
