"""A checkpoint's graphs in a folder, as `optimum-cli export openvino` lays them out, made without Optimum."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any


def export_as_optimum_does(checkpoint: Path, out: Path) -> Path:
    """Vision tower, word embeddings and language model of a SmolVLM, without a cache, in float32.

    `tests/through_optimum` has the real ones; these are for where Optimum is not installed.
    """
    import openvino
    import torch
    from linkedout_export.vlm import load_vlm
    from torch import nn
    from transformers import AutoModelForImageTextToText

    encoder = load_vlm(checkpoint, frames=2).encoder
    whole = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="float32")

    class Vision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, pixel_values: Any) -> Any:
            e = self.encoder
            x = e.patches(pixel_values).flatten(2).transpose(1, 2) + e.patch_position
            return e.connector(e.post_norm(e.encoder(inputs_embeds=x, attention_mask=None).last_hidden_state))

    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text, self.head = encoder.text, whole.lm_head

        def forward(self, attention_mask: Any, position_ids: Any, inputs_embeds: Any) -> Any:
            s = inputs_embeds.shape[1]
            causal = torch.ones(s, s, dtype=torch.bool).tril()
            mask = torch.where(causal & attention_mask[:, None, None, :].bool(), 0.0, -65504.0)
            state = self.text(
                inputs_embeds=inputs_embeds, attention_mask=mask, position_ids=position_ids, use_cache=False
            ).last_hidden_state
            return self.head(state)

    embeds = torch.randn(2, 7, encoder.config.lm_width)
    places = torch.arange(7).repeat(2, 1)
    side = encoder.config.frame_size
    out.mkdir(parents=True, exist_ok=True)
    for name, module, example, ins, result in (
        ("vision_embeddings", Vision(), (torch.randn(2, 3, side, side),), ["pixel_values"], "last_hidden_state"),
        ("text_embeddings", encoder.text.get_input_embeddings(), (places,), ["input"], "inputs_embeds"),
        (
            "language",
            Language(),
            (torch.ones_like(places), places, embeds),
            ["attention_mask", "position_ids", "inputs_embeds"],
            "logits",
        ),
    ):
        with torch.no_grad():
            model = openvino.convert_model(module.eval(), example_input=example)
        for port, given in zip(model.inputs, ins, strict=True):
            port.get_tensor().set_names({given})
        model.outputs[0].get_tensor().set_names({result})
        openvino.save_model(model, out / f"openvino_{name}_model.xml", compress_to_fp16=False)
    for path in checkpoint.iterdir():
        if path.suffix in (".json", ".jinja"):
            shutil.copyfile(path, out / path.name)
    return out


def small_decoder(
    *,
    blocks: int = 2,
    additions: int = 2,
    cache: str = "none",
    scaled: bool = False,
    last_only: bool = False,
    quantized: bool = False,
    logits: str = "logits",
    width: int = 8,
) -> Any:
    """A decoder-shaped graph whose hidden states are easily computed: each addition adds a matrix product.

    Args:
        blocks: How many.
        additions: To the residual stream, in each.
        cache: ``"none"``, ``"inputs"`` (past_key_values.* and present.*) or ``"state"`` (variables of the graph).
        scaled: The embeddings are multiplied by a number first.
        last_only: Only the last position's logits are computed.
        quantized: FakeQuantize stands behind each addition.
        logits: Name of the output.
        width: Of the residual stream, one head of it.
    """
    import numpy as np
    import openvino as ov
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)

    def product(x: Any, n: int = width) -> Any:
        return ops.matmul(x, ops.constant(rng.normal(size=(width, n)).astype(np.float32) * 0.1), False, False)

    embeds = ops.parameter([-1, -1, width], np.float32, "e")
    embeds.output(0).get_tensor().set_names({"inputs_embeds"})
    mask = ops.parameter([-1, -1], np.int64, "m")
    mask.output(0).get_tensor().set_names({"attention_mask"})
    parameters, sinks, results = [embeds, mask], [], []
    beams = None
    if cache == "state":
        beams = ops.parameter([-1], np.int32, "b")
        beams.output(0).get_tensor().set_names({"beam_idx"})
        parameters.append(beams)
    x = ops.multiply(embeds, ops.constant(np.float32(3))) if scaled else embeds
    batch = ops.gather(ops.shape_of(embeds), np.int64([0]), np.int64(0))
    for block in range(blocks):
        for addition in range(additions):
            read = ops.mvn(x, np.int64([-1]), True, 1e-5, "INSIDE_SQRT")
            added = product(read)
            if addition == 0 and cache != "none":
                key = ops.unsqueeze(added, np.int64(1))  # [B, 1, S, W]
                name = f"past_key_values.{block}.key"
                if cache == "inputs":
                    past = ops.parameter([-1, 1, -1, width], np.float32, name)
                    past.output(0).get_tensor().set_names({name})
                    parameters.append(past)
                    old = past
                else:
                    empty = ops.concat([batch, ops.constant(np.int64([1, 0, width]))], 0)
                    start = ops.broadcast(ops.constant(np.float32(0)), empty)
                    old = ops.gather(
                        ops.read_value(start, name, ov.Type.f32, [-1, 1, -1, width]), beams, ops.constant(np.int64(0))
                    )
                joined = ops.concat([old, key], 2)
                if cache == "inputs":
                    result = ops.result(joined)
                    result.output(0).get_tensor().set_names({f"present.{block}.key"})
                    results.append(result)
                else:
                    sinks.append(ops.assign(joined, name))
                seen = ops.gather(ops.shape_of(old), np.int64(2), np.int64(0))
                mean = ops.reduce_mean(joined, np.int64([2]), True)
                late = ops.add(ops.convert(seen, "f32"), ops.constant(np.float32(1)))
                added = ops.add(added, ops.multiply(ops.squeeze(mean, np.int64([1])), late))
            x = ops.add(x, added)
            if quantized:
                low, high = ops.constant(np.float32(-5)), ops.constant(np.float32(5))
                x = ops.fake_quantize(x, low, high, low, high, 256)
    x = ops.mvn(x, np.int64([-1]), True, 1e-5, "INSIDE_SQRT")
    if last_only:
        x = ops.gather(x, ops.constant(np.int64([-1])), ops.constant(np.int64(1)))
    out = product(x, 11)
    out.output(0).get_tensor().set_names({logits})
    return ov.Model([ops.result(out), *results], sinks, parameters)
