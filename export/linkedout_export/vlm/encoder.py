"""SmolVLM2 with our compressors behind it: frames in, layer tokens out, as the encoder graph's contract has it.

The checkpoint's parts are the library's own modules, called one after the other: patch embedding → encoder → norm →
connector → causal LM by `inputs_embeds`. The model's own `forward` does the same and cannot be exported, because of
how it builds masks and puts image features into the sequence; both are written out here in a few operators.

The sequence is the one that the checkpoint's processor makes for F images and the prompt, with room for a title:

    <|im_start|>User: [frame 0] … [frame F-1] (The title is "[title]". ) prompt <end_of_utterance> Assistant:

What is absent (frames by `frame_mask`, words by `title_mask`) is masked in attention and takes no position, so that a
clip of three frames reads as the model reads three images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from linkedout_quant.model import Student, VideoEncoder
from linkedout_quant.model.compressor import Compressor
from linkedout_quant.model.lm import MASKED
from linkedout_quant.teachers import TeacherError
from linkedout_quant.teachers.checkpoint import locate, read_config, require
from linkedout_quant.teachers.huggingface import PROMPT, LoadIn, choose_layers, load_net
from linkedout_quant.teachers.processor import TITLE_FRAME, ClipProcessor
from linkedout_quant.tokenizer import portable
from torch import Tensor, nn

from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError, unknown

FAMILIES = ("smolvlm",)
BEFORE, BEHIND = 2, 1
"""Tokens that stand right before and behind a frame's visual tokens and belong to it."""


@dataclass(frozen=True)
class Parts:
    """Token ids of the fixed parts of the sequence, and where the frames are."""

    opening: list[int]
    frame: list[int]  # BEFORE + visual + BEHIND
    title_before: list[int]
    title_after: list[int]
    prompt: list[int]


class VLMEncoder(VideoEncoder):
    """A checkpoint's vision tower and LM in the place of the student's, with compressors at the tapped layers.

    Args:
        net: The library's model without its head (`load_net`).
        config: Shapes; `grid`² visual tokens a frame.
        parts: The sequence's fixed parts.
        mean: Subtracted from pixels in [0, 1], per channel; std: what they are then divided by.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    patch_position: Tensor
    fixed: Tensor

    def __init__(
        self, net: Any, config: ModelConfig, parts: Parts, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        nn.Module.__init__(self)  # the student's tower and LM are not wanted
        self.config = config
        vision = net.vision_model
        self.patches = vision.embeddings.patch_embedding
        self.encoder, self.post_norm = vision.encoder, vision.post_layernorm
        self.connector, self.text = net.connector, net.text_model
        self.compressors = nn.ModuleList(Compressor(config) for _ in config.taps)
        self.register_buffer("prompt_ids", torch.tensor(parts.prompt))
        self.register_buffer("pixel_mean", torch.tensor(mean).view(3, 1, 1) * 255)
        self.register_buffer("pixel_std", torch.tensor(std).view(3, 1, 1) * 255)
        self._lengths = [len(parts.opening), len(parts.title_before), len(parts.title_after), len(parts.prompt)]
        with torch.no_grad():
            blank = torch.zeros(1, 3, config.frame_size, config.frame_size, dtype=self.patches.weight.dtype)
            side = config.frame_size // vision.patch_size
            whole = torch.ones(1, side, side, dtype=torch.bool)
            # Asked of the module, not of its table: how it rounds positions is its own affair.
            self.register_buffer(
                "patch_position", vision.embeddings(blank, whole) - self.patches(blank).flatten(2).transpose(1, 2)
            )
            # Looked up once: only a title's words are not known before.
            ids = [*parts.opening, *parts.frame, *parts.title_before, *parts.title_after, *parts.prompt]
            self.register_buffer("fixed", self.text.get_input_embeddings()(torch.tensor(ids)))

    def see(self, frames: Tensor) -> Tensor:
        """Frames uint8 [N, H, W, 3] → visual tokens [N, grid², W]."""
        pixels = (frames.permute(0, 3, 1, 2).float() - self.pixel_mean) / self.pixel_std
        x = self.patches(pixels.to(self.patch_position.dtype)).flatten(2).transpose(1, 2) + self.patch_position
        x = self.encoder(inputs_embeds=x, attention_mask=None).last_hidden_state
        return self.connector(self.post_norm(x))

    def states(self, frames: Tensor, frame_mask: Tensor, title_ids: Tensor, title_mask: Tensor) -> list[Tensor]:
        """Hidden states of the LM at visual and prompt positions; arguments as the encoder graph's.

        Returns:
            ``lm_layers + 1`` tensors, float32 [B, F·grid² + P, W], the LM's input first.
        """
        c = self.config
        b, f = frame_mask.shape
        cells = c.grid**2
        visual = self.see(frames.flatten(0, 1))  # [B·F, cells, W]
        opening, frame, before, after, prompt = (
            part.unsqueeze(0)
            for part in self.fixed.split([self._lengths[0], BEFORE + cells + BEHIND, *self._lengths[1:]])
        )
        each = torch.cat(
            [frame[:, :BEFORE].expand(b * f, -1, -1), visual, frame[:, -BEHIND:].expand(b * f, -1, -1)], 1
        )  # the ids in between are the placeholders that visual tokens replace
        words = self.text.get_input_embeddings()(title_ids)
        parts = [opening.expand(b, -1, -1), each.reshape(b, -1, c.lm_width), before.expand(b, -1, -1), words]
        x = torch.cat([*parts, after.expand(b, -1, -1), prompt.expand(b, -1, -1)], 1)  # [B, S, W]

        always = torch.ones_like(frame_mask[:, :1])
        titled = title_mask.any(1, keepdim=True)
        valid = torch.cat(
            [
                always.expand(-1, opening.shape[1]),
                frame_mask.repeat_interleave(BEFORE + cells + BEHIND, 1),
                titled.expand(-1, before.shape[1]),
                title_mask,
                titled.expand(-1, after.shape[1]),
                always.expand(-1, prompt.shape[1]),
            ],
            1,
        )
        s = x.shape[1]
        causal = torch.ones(s, s, dtype=torch.bool, device=x.device).tril()
        mask = torch.where(causal & valid[:, None, None, :], 0.0, MASKED).to(x.dtype)  # [B, 1, S, S]
        positions = (valid.long().cumsum(1) - 1).clamp_min(0)
        states = self.text(
            inputs_embeds=x, attention_mask=mask, position_ids=positions, use_cache=False, output_hidden_states=True
        ).hidden_states
        seen = slice(opening.shape[1], opening.shape[1] + f * (BEFORE + cells + BEHIND))

        def wanted(state: Tensor) -> Tensor:
            groups = state[:, seen].unflatten(1, (f, BEFORE + cells + BEHIND))[:, :, BEFORE:-BEHIND]
            return torch.cat([groups.flatten(1, 2), state[:, -prompt.shape[1] :]], 1).float()

        return [wanted(state) for state in states]


class VLMStudent(Student):
    """A `VLMEncoder`: what `Student` is to export and the bundle writer.

    Args:
        encoder: The encoder.
        prompt: What is baked into it.
        tokenizer: Content of the bundle's ``tokenizer.json``.
    """

    encoder: VLMEncoder

    def __init__(self, encoder: VLMEncoder, prompt: str, tokenizer: bytes) -> None:
        nn.Module.__init__(self)
        self.config = encoder.config
        self.encoder = encoder
        self.prompt, self.tokenizer = prompt, tokenizer


def load_vlm(
    source: str | Path,
    *,
    frames: int = 8,
    layers: Sequence[int] | None = None,
    tokens_per_layer: int = 2,
    token_width: int = 64,
    title_tokens: int = 16,
    prompt: str = PROMPT,
    load_in: LoadIn | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> VLMStudent:
    """A checkpoint with fresh compressors.

    Args:
        source: Folder or name on the hub.
        frames: Frames of a video.
        layers: Tapped hidden states; None takes six, evenly spread.
        tokens_per_layer: M. token_width: D.
        title_tokens: T, room for a title's words.
        prompt: Baked in.
        load_in: ``"8bit"`` or ``"4bit"`` through bitsandbytes, to run in torch; what is exported is loaded without.
        dtype: Of the checkpoint's parts; compressors are float32. None is float32, and with `load_in` what the
            checkpoint was saved in: what is quantised need not be widened first.
        seed: Of the compressors' weights.

    Raises:
        TeacherError: The checkpoint cannot be had or is of another family.
        ArgumentError: A shape makes no sense.
    """
    if min(frames, tokens_per_layer, token_width, title_tokens) < 1:
        raise ArgumentError("frames, tokens_per_layer, token_width and title_tokens are at least 1")
    require("torch", "transformers", "accelerate", "PIL", purpose="a vision-language model as encoder")
    folder = locate(source)
    raw = read_config(folder)
    if raw.model_type not in FAMILIES:
        raise TeacherError(f"{source}: {unknown('family for an encoder graph', raw.model_type, FAMILIES)}")
    processor = ClipProcessor(folder, raw, "images")
    size = raw.vision_config.image_size
    parts = read_sequence(processor, raw.image_token_id, size, prompt)
    cells = len(parts.frame) - BEFORE - BEHIND
    text = raw.text_config
    config = ModelConfig(
        frames=frames,
        frame_size=size,
        grid=math.isqrt(cells),
        vocab_size=text.vocab_size,
        title_tokens=title_tokens,
        prompt_tokens=len(parts.prompt),
        lm_width=text.hidden_size,
        lm_layers=text.num_hidden_layers,
        lm_heads=text.num_attention_heads,
        lm_mlp=text.intermediate_size,
        taps=choose_layers(layers, text.num_hidden_layers, str(source)),
        tokens_per_layer=tokens_per_layer,
        token_width=token_width,
    )
    torch.manual_seed(seed)
    # eager: written in plain operators, which all exporters know
    net = load_net(folder, load_in, dtype or (None if load_in else "float32"), "cpu", attention="eager")
    encoder = VLMEncoder(net, config, parts, *processor.normalisation())
    return VLMStudent(encoder, prompt, portable_tokenizer(processor)).eval().requires_grad_(False)


def read_sequence(processor: ClipProcessor, image_token: int, size: int, prompt: str) -> Parts:
    """The fixed parts, read off what the checkpoint's processor makes of two blank frames.

    Raises:
        TeacherError: Frames do not stand in the sequence as expected.
    """
    blank = np.zeros((2, size, size, 3), np.uint8)
    ids = processor([blank], [None], prompt)["input_ids"][0].tolist()
    where = [i for i, token in enumerate(ids) if token == image_token]
    cells = len(where) // 2
    each = BEFORE + cells + BEHIND
    start = where[0] - BEFORE if where else 0
    first, second = ids[start : start + each], ids[start + each : start + 2 * each]
    square = cells and math.isqrt(cells) ** 2 == cells
    if not square or first != second or first[BEFORE:-BEHIND] != [image_token] * cells:
        raise TeacherError(
            f"the processor puts {len(where)} visual tokens of two frames into {len(ids)} tokens in a way that is not "
            "known: expected two equal square runs with two tokens before and one behind each"
        )
    before, after = (processor.tokenizer.encode(t, add_special_tokens=False) for t in TITLE_FRAME)
    return Parts(ids[:start], first, before, after, ids[start + 2 * each :])


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
