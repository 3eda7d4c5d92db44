"""A bundle of random weights, small enough to be made inside a test run."""

from __future__ import annotations

from pathlib import Path

import torch
from linkedout_quant.master import PROMPT, new_student
from linkedout_quant.tokenizer import portable, train_tokenizer

from linkedout_edge.backends.base import INPUTS
from linkedout_edge.bundle.manifest import Calibration
from linkedout_edge.config import ModelConfig
from linkedout_export.graphs import encoder_example, export_encoder
from linkedout_export.quantization import quantize_int8
from linkedout_export.sensitivity import onnx_runner, tokens_of
from linkedout_export.user_model import fit_user_model
from linkedout_export.writer import write_bundle

TEXTS = [
    "a red ball rolls over the street",
    "two dogs run along a beach",
    "a man cooks in a kitchen , 3 pans",
]


def write_tiny_bundle(folder: Path, seed: int = 0) -> Path:
    """Write a bundle of `ModelConfig.tiny()` in fp32 and int8, by the same exporter and quantizer as a real one."""
    config = ModelConfig.tiny()
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(TEXTS, 320)
    student = new_student(config, tokenizer).eval()
    encoder = export_encoder(student.encoder)
    feeds = [dict(zip(INPUTS, (x.numpy() for x in encoder_example(config, 2, i)), strict=True)) for i in range(8)]
    write_bundle(
        folder,
        student,
        {"int8": quantize_int8(encoder, feeds), "fp32": encoder},
        portable(tokenizer),
        fit_user_model(tokens_of(onnx_runner(encoder), feeds)),
        name="tiny",
        prompt=PROMPT,
        calibration=Calibration(description="random frames", videos=16),
        license="Apache-2.0",
        provenance="random weights",
    )
    return folder
