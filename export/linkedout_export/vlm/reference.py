"""What a checkpoint's own library makes of a clip: the hidden states that exported graphs are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from linkedout_quant.model import VideoEncoder
from linkedout_quant.teachers.huggingface import load_net
from linkedout_quant.teachers.processor import ClipProcessor
from torch import Tensor

from linkedout_export.vlm.sequence import Reading
from linkedout_export.writer import layer_names


@dataclass(frozen=True)
class Reference:
    """Hidden states of one clip in float32 torch, at visual and prompt positions.

    Attributes:
        clip: uint8 [F, H, W, 3].
        states: float32 [F·grid² + P, W] each, as transformers counts hidden states.
    """

    clip: np.ndarray
    states: list[Tensor]

    @classmethod
    def of(cls, checkpoint: Path, raw: Any, found: Reading, clip: np.ndarray) -> Reference:
        """Run the checkpoint once, through its own processor and its own forward pass."""
        processor = ClipProcessor(checkpoint, raw, "images")
        net = load_net(checkpoint, None, "float32", "cpu")
        given = processor([clip], [None], found.prompt)
        with torch.no_grad():
            states = net(**given, output_hidden_states=True).hidden_states
        seen = given["input_ids"][0] == found.image_token
        asked = found.config.prompt_tokens
        return cls(clip, [torch.cat([s[0][seen], s[0][-asked:]]) for s in states])

    def cosines(self, encoder: VideoEncoder) -> dict[str, float]:
        """Layer name → cosine of an encoder's hidden states with these, at its taps."""
        c = encoder.config
        got = encoder.states(
            torch.from_numpy(self.clip)[None],
            torch.ones(1, c.frames, dtype=torch.bool),
            torch.zeros(1, c.title_tokens, dtype=torch.int32),
            torch.zeros(1, c.title_tokens, dtype=torch.bool),
        )
        pairs = [(got[tap][0].flatten(), self.states[tap].flatten()) for tap in c.taps]
        cosines = [torch.nn.functional.cosine_similarity(a.double(), b.double(), 0) for a, b in pairs]
        return {name: round(float(x), 6) for name, x in zip(layer_names(c), cosines, strict=True)}
