"""SmolVLM2 with our compressors behind it: frames in, layer tokens out, as the encoder graph's contract has it.

The checkpoint's parts are the library's own modules, called one after the other: patch embedding → encoder → norm →
connector → causal LM by `inputs_embeds`. The model's own `forward` does the same and cannot be exported, because of
how it builds masks and puts image features into the sequence; both are written out here in a few operators.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from linkedout_quant.model import Student, VideoEncoder
from linkedout_quant.model.compressor import Compressor
from linkedout_quant.model.lm import MASKED
from linkedout_quant.teachers import TeacherError
from linkedout_quant.teachers.checkpoint import locate, read_config, require
from linkedout_quant.teachers.huggingface import PROMPT, LoadIn, load_net
from torch import Tensor, nn

from linkedout_edge.errors import unknown
from linkedout_export.vlm.sequence import Pixels, Reading, Sequence, read_reading

FAMILIES = ("smolvlm",)
"""Families that the torch way takes; the Optimum way takes those of `linkedout_export.vlm.families`."""


class VLMEncoder(VideoEncoder):
    """A checkpoint's vision tower and LM in the place of the student's, with compressors at the tapped layers.

    Args:
        net: The library's model without its head (`load_net`).
        found: How the checkpoint reads a clip.
        compressors: One a tap.
    """

    patch_position: Tensor

    def __init__(self, net: Any, found: Reading, compressors: Iterable[Compressor]) -> None:
        nn.Module.__init__(self)  # the student's tower and LM are not wanted
        self.config = config = found.config
        vision = net.vision_model
        self.patches = vision.embeddings.patch_embedding
        self.encoder, self.post_norm = vision.encoder, vision.post_layernorm
        self.connector, self.text = net.connector, net.text_model
        self.compressors = nn.ModuleList(compressors)
        self.pixels = Pixels(found.mean, found.std)
        with torch.no_grad():
            blank = torch.zeros(1, 3, config.frame_size, config.frame_size, dtype=self.patches.weight.dtype)
            side = config.frame_size // vision.patch_size
            whole = torch.ones(1, side, side, dtype=torch.bool)
            # Asked of the module, not of its table: how it rounds positions is its own affair.
            self.register_buffer(
                "patch_position", vision.embeddings(blank, whole) - self.patches(blank).flatten(2).transpose(1, 2)
            )
            fixed = self.text.get_input_embeddings()(torch.tensor(found.parts.ids))
        self.sequence = Sequence(found.parts, fixed)

    def see(self, frames: Tensor) -> Tensor:
        """Frames uint8 [N, H, W, 3] → visual tokens [N, grid², W]."""
        pixels = self.pixels(frames).to(self.patch_position.dtype)
        x = self.patches(pixels).flatten(2).transpose(1, 2) + self.patch_position
        x = self.encoder(inputs_embeds=x, attention_mask=None).last_hidden_state
        return self.connector(self.post_norm(x))

    def states(self, frames: Tensor, frame_mask: Tensor, title_ids: Tensor, title_mask: Tensor) -> list[Tensor]:
        """Hidden states of the LM at visual and prompt positions; arguments as the encoder graph's.

        Returns:
            ``lm_layers + 1`` tensors, float32 [B, F·grid² + P, W], the LM's input first.
        """
        visual = self.see(frames.flatten(0, 1))  # [B·F, cells, W]
        words = self.text.get_input_embeddings()(title_ids)
        x, valid, positions = self.sequence(visual, words, frame_mask, title_mask)
        s = x.shape[1]
        causal = torch.ones(s, s, dtype=torch.bool, device=x.device).tril()
        mask = torch.where(causal & valid[:, None, None, :], 0.0, MASKED).to(x.dtype)  # [B, 1, S, S]
        states = self.text(
            inputs_embeds=x, attention_mask=mask, position_ids=positions, use_cache=False, output_hidden_states=True
        ).hidden_states
        return [self.sequence.read(state, frame_mask.shape[1]) for state in states]


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
    layers: Iterable[int] | None = None,
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
            checkpoint was saved in: what is quantized need not be upcast first.
        seed: Of the compressors' weights.

    Raises:
        TeacherError: The checkpoint cannot be had or is of another family.
        ArgumentError: A shape makes no sense.
    """
    require("torch", "transformers", "accelerate", "PIL", purpose="a vision-language model as encoder")
    folder = locate(source)
    raw = read_config(folder)
    if raw.model_type not in FAMILIES:
        raise TeacherError(f"{source}: {unknown('family for an encoder graph', raw.model_type, FAMILIES)}")
    found = read_reading(
        folder, raw, frames=frames, layers=layers, tokens_per_layer=tokens_per_layer, token_width=token_width,
        title_tokens=title_tokens, prompt=prompt,
    )  # fmt: skip
    torch.manual_seed(seed)
    compressors = [Compressor(found.config) for _ in found.config.taps]
    # eager: written in plain operators, which all exporters know
    net = load_net(folder, load_in, dtype or (None if load_in else "float32"), "cpu", attention="eager")
    encoder = VLMEncoder(net, found, compressors)
    return VLMStudent(encoder, prompt, found.tokenizer).eval().requires_grad_(False)
