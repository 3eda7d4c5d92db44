"""The one description of a model's shape, shared by training, export, manifest and runtime.

Names of dimensions, here and everywhere else:

====  =======================================================================
B     videos in a batch
F     frames a video (`frames`)
H, W  height and width of a frame (`frame_size`)
T     title tokens (`title_tokens`)
L     tapped layers of the video LLM (`taps`)
M     layer tokens per tapped layer (`tokens_per_layer`)
D     width of a layer token (`token_width`)
N     events in the history
C     candidates
====  =======================================================================
"""

from __future__ import annotations

import msgspec


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Shape of a student model. `ModelConfig()` is what recipes begin with; `tiny()` is for tests."""

    frames: int = 8
    frame_size: int = 128
    tower_widths: tuple[int, ...] = (24, 48, 96, 192)
    """Channels after each of the vision tower's stride-2 stages; the first is the stem."""
    tower_blocks: tuple[int, ...] = (1, 1, 2)
    """Residual blocks in each stage after the stem."""
    grid: int = 4
    """The connector hands grid × grid visual tokens per frame to the LM."""
    vocab_size: int = 4096
    title_tokens: int = 16
    prompt_tokens: int = 8
    lm_width: int = 256
    lm_layers: int = 6
    lm_heads: int = 4
    lm_mlp: int = 1024
    taps: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    """Tapped hidden states: 0 is the LM's input, i the output of its i-th block."""
    tokens_per_layer: int = 2
    token_width: int = 64

    @property
    def layers(self) -> int:
        """L, the number of tapped layers."""
        return len(self.taps)

    @property
    def payload_bytes(self) -> int:
        """Bytes stored per video: int8 tokens and float32 scales."""
        return self.layers * self.tokens_per_layer * (self.token_width + 4)

    @classmethod
    def tiny(cls) -> ModelConfig:
        """A model small enough to export and run in seconds, with no dimension equal to another."""
        return cls(
            frames=8,
            frame_size=32,
            tower_widths=(8, 12, 16),
            tower_blocks=(1, 1),
            grid=2,
            title_tokens=6,
            prompt_tokens=4,
            lm_width=32,
            lm_layers=3,
            lm_heads=2,
            lm_mlp=64,
            taps=(0, 2, 3),
            tokens_per_layer=2,
            token_width=16,
        )
