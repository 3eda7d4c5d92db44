"""The sequence that a checkpoint reads: fixed tokens, visual tokens, a title, the prompt.

It is the one that the checkpoint's processor makes for F images and the prompt, with room for a title; of SmolVLM2:

    <|im_start|>User: [frame 0] … [frame F-1] (The title is "[title]". ) prompt <end_of_utterance> Assistant:

What is absent (frames by `frame_mask`, words by `title_mask`) is masked in attention and takes no position, so that a
clip of three frames reads as the model reads three images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from linkedout_quant.teachers import TeacherError
from linkedout_quant.teachers.huggingface import choose_layers
from linkedout_quant.teachers.processor import TITLE_FRAME, ClipProcessor
from linkedout_quant.tokenizer import portable
from torch import Tensor, nn

from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError


@dataclass(frozen=True)
class Parts:
    """Token ids of the fixed parts of the sequence, and where the frames are."""

    opening: list[int]
    frame: list[int]
    before: int
    """Tokens of `frame` that stand right before its visual tokens."""
    behind: int
    """Tokens of `frame` that stand right behind them."""
    title_before: list[int]
    title_after: list[int]
    prompt: list[int]

    @property
    def cells(self) -> int:
        """Visual tokens of a frame."""
        return len(self.frame) - self.before - self.behind

    @property
    def ids(self) -> list[int]:
        """All of them, one frame, as `Sequence` wants them embedded."""
        return [*self.opening, *self.frame, *self.title_before, *self.title_after, *self.prompt]


class Pixels(nn.Module):
    """Frames uint8 [N, H, W, 3] → the vision tower's input, float32 [N, 3, H, W].

    Args:
        mean: Subtracted from pixels in [0, 1], per channel; std: what they are then divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Iterable[float], std: Iterable[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean)).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(list(std)).view(3, 1, 1) * 255)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        return (frames.permute(0, 3, 1, 2).float() - self.mean) / self.std


class Sequence(nn.Module):
    """Visual tokens and a title's words → the LM's input; and of its hidden states, those that compressors read.

    Args:
        parts: The fixed parts.
        fixed: Their word embeddings [N, W], in the order of `Parts.ids`. Looked up once: only a title's words are not
            known before.
    """

    fixed: Tensor

    def __init__(self, parts: Parts, fixed: Tensor) -> None:
        super().__init__()
        self.before, self.behind, self.cells = parts.before, parts.behind, parts.cells
        self._lengths = [
            len(p) for p in (parts.opening, parts.frame, parts.title_before, parts.title_after, parts.prompt)
        ]
        self.register_buffer("fixed", fixed)

    def forward(
        self, visual: Tensor, words: Tensor, frame_mask: Tensor, title_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The LM's input.

        Args:
            visual: [B·F, cells, W].
            words: Embeddings of the title [B, T, W].
            frame_mask: bool [B, F].
            title_mask: bool [B, T].

        Returns:
            Embeddings [B, S, W], which of them are there (bool [B, S]), their positions (int64 [B, S]).
        """
        b, f = frame_mask.shape
        opening, frame, before, after, prompt = (part.unsqueeze(0) for part in self.fixed.split(self._lengths))
        head, tail = frame[:, : self.before], frame[:, self.before + self.cells :]
        # The ids in between are the placeholders that visual tokens replace.
        each = torch.cat([head.expand(b * f, -1, -1), visual, tail.expand(b * f, -1, -1)], 1)
        pieces = [opening.expand(b, -1, -1), each.reshape(b, -1, visual.shape[-1]), before.expand(b, -1, -1), words]
        x = torch.cat([*pieces, after.expand(b, -1, -1), prompt.expand(b, -1, -1)], 1)
        always = torch.ones_like(frame_mask[:, :1])
        titled = title_mask.any(1, keepdim=True)
        valid = torch.cat(
            [
                always.expand(-1, opening.shape[1]),
                frame_mask.repeat_interleave(frame.shape[1], 1),
                titled.expand(-1, before.shape[1]),
                title_mask,
                titled.expand(-1, after.shape[1]),
                always.expand(-1, prompt.shape[1]),
            ],
            1,
        )
        return x, valid, (valid.long().cumsum(1) - 1).clamp_min(0)

    def pictures(self, frames: int, title_tokens: int) -> Tensor:
        """Which frame's visual token each position holds, from 1, else 0: int64 [1, S]."""
        opening, frame, *_ = self._lengths
        found = torch.zeros(1, self.length(frames, title_tokens), dtype=torch.long)
        for i in range(frames):
            start = opening + i * frame + self.before
            found[:, start : start + self.cells] = i + 1
        return found

    def length(self, frames: int, title_tokens: int) -> int:
        """S, for so many frames and title tokens."""
        opening, frame, *rest = self._lengths
        return opening + frames * frame + title_tokens + sum(rest)

    def read(self, state: Tensor, frames: int) -> Tensor:
        """Of a hidden state [B, S, W], visual and prompt positions: float32 [B, frames·cells + P, W]."""
        opening, frame, *_, prompt = self._lengths
        seen = state[:, opening : opening + frames * frame].unflatten(1, (frames, frame))
        groups = seen[:, :, self.before : self.before + self.cells]
        return torch.cat([groups.flatten(1, 2), state[:, state.shape[1] - prompt :]], 1).float()


@dataclass(frozen=True)
class Reading:
    """How a checkpoint reads a clip, by its files other than weights.

    Attributes:
        config: Shapes of the bundle; `grid`² visual tokens a frame.
        parts: Fixed parts of the sequence.
        image_token: Id of the placeholders that visual tokens replace.
        mean: Subtracted from pixels in [0, 1], per channel.
        std: What they are then divided by.
        tokenizer: Content of the bundle's ``tokenizer.json``.
        prompt: Baked in.
    """

    config: ModelConfig
    parts: Parts
    image_token: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tokenizer: bytes
    prompt: str


def read_reading(
    folder: Path,
    raw: Any,
    *,
    frames: int,
    layers: Iterable[int] | None,
    tokens_per_layer: int,
    token_width: int,
    title_tokens: int,
    prompt: str,
) -> Reading:
    """Read a folder's configuration, processor and tokenizer.

    Args:
        folder: Of a checkpoint or of exported graphs.
        raw: Its configuration, as `read_config` gives it.
        frames, layers, tokens_per_layer, token_width, title_tokens, prompt: As of `linkedout_export.vlm.load_vlm`.

    Raises:
        TeacherError: Something is missing or not known, or a layer does not exist.
        ArgumentError: A shape makes no sense.
    """
    if min(frames, tokens_per_layer, token_width, title_tokens) < 1:
        raise ArgumentError("frames, tokens_per_layer, token_width and title_tokens are at least 1")
    text, size = raw.get_text_config(), getattr(raw.vision_config, "image_size", None)
    if not isinstance(size, int):
        raise TeacherError(
            f"{folder} ({raw.model_type}) reads pictures of any size: an encoder graph needs a vision tower that takes "
            "squares of one size, such as SmolVLM's, Idefics3's, LLaVA's or Gemma 3's"
        )
    processor = ClipProcessor(folder, raw, "images")
    image_token = getattr(raw, "image_token_id", None) or getattr(raw, "image_token_index", None)
    if image_token is None:
        raise TeacherError(f"{folder} ({raw.model_type}) does not say which token is visual (image_token_id)")
    parts = read_sequence(processor, image_token, size, prompt)
    config = ModelConfig(
        frames=frames,
        frame_size=size,
        grid=math.isqrt(parts.cells),
        vocab_size=text.vocab_size,
        title_tokens=title_tokens,
        prompt_tokens=len(parts.prompt),
        lm_width=text.hidden_size,
        lm_layers=text.num_hidden_layers,
        lm_heads=text.num_attention_heads,
        lm_mlp=text.intermediate_size,
        taps=choose_layers(None if layers is None else list(layers), text.num_hidden_layers, str(folder)),
        tokens_per_layer=tokens_per_layer,
        token_width=token_width,
    )
    mean, std = (tuple(v) for v in processor.normalization())
    return Reading(config, parts, image_token, mean, std, portable_tokenizer(processor), prompt)


def read_sequence(processor: ClipProcessor, image_token: int, size: int, prompt: str) -> Parts:
    """The fixed parts, read off what the checkpoint's processor makes of two blank frames.

    Raises:
        TeacherError: Frames do not stand in the sequence as expected.
    """
    blank = np.zeros((2, size, size, 3), np.uint8)
    try:
        ids = processor([blank], [None], prompt)["input_ids"][0].tolist()
    except ValueError as e:
        raise TeacherError(f"the processor cannot put two frames into one sequence, as a clip needs: {e}") from e
    where = [i for i, token in enumerate(ids) if token == image_token]
    cells = len(where) // 2
    first, second = where[:cells], where[cells:]
    runs = (
        cells and first == list(range(first[0], first[0] + cells)) and second == [second[0] + i for i in range(cells)]
    )
    if not runs or math.isqrt(cells) ** 2 != cells:
        raise TeacherError(
            f"the processor puts {len(where)} visual tokens of two frames into {len(ids)} tokens in a way that is not "
            "known: expected two equal square runs"
        )
    opening, between, rest = ids[: first[0]], ids[first[-1] + 1 : second[0]], ids[second[-1] + 1 :]
    before = 0  # of what stands between the frames, as much as stands before the first one too
    while before < min(len(opening), len(between)) and opening[-1 - before] == between[-1 - before]:
        before += 1
    behind = len(between) - before
    if rest[:behind] != between[:behind]:
        raise TeacherError(
            "the processor puts other tokens behind the last frame than behind the one before, which is not known"
        )
    title_before, title_after = (processor.tokenizer.encode(t, add_special_tokens=False) for t in TITLE_FRAME)
    frame = ids[first[0] - before : first[-1] + 1 + behind]
    return Parts(opening[: len(opening) - before], frame, before, behind, title_before, title_after, rest[behind:])


def portable_tokenizer(processor: ClipProcessor) -> bytes:
    """The checkpoint's vocabulary as a bundle's ``tokenizer.json``, which the runtime reads with its own rules.

    Those fold capital letters and split by ASCII classes, so a few titles come out in other tokens than the
    checkpoint's own tokenizer would make; all of them are its tokens.

    Raises:
        TeacherError: It is no byte-level BPE.
    """
    raw = processor.tokenizer.backend_tokenizer
    described = json.loads(raw.to_str())
    steps = described["pre_tokenizer"] or {}
    kinds = {steps.get("type"), *(s.get("type") for s in steps.get("pretokenizers", []))}
    if described["model"]["type"] != "BPE" or "ByteLevel" not in kinds:
        raise TeacherError(
            f"the checkpoint's tokenizer is {described['model']['type']} over {sorted(filter(None, kinds))}: "
            "titles on a device need a byte-level BPE"
        )
    return portable(raw)
