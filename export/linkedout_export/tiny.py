"""A bundle of random weights, small enough to be made inside a test run."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from linkedout_quant.master import PROMPT, new_student
from linkedout_quant.tokenizer import portable, train_tokenizer

from linkedout_edge.bundle.manifest import Calibration
from linkedout_edge.config import ModelConfig
from linkedout_export.graphs import GraphName, encoder_example, export_graphs
from linkedout_export.quantisation import quantise_int8
from linkedout_export.writer import write_bundle

TEXTS = [
    "a red ball rolls over the street",
    "two dogs run along a beach",
    "a man cooks in a kitchen , 3 pans",
]


def write_tiny_bundle(folder: Path, seed: int = 0) -> Path:
    """Write a bundle of `ModelConfig.tiny()` in fp32 and int8, by the same exporter and quantiser as a real one."""
    config = ModelConfig.tiny()
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(TEXTS, 320)
    student = new_student(config, tokenizer).eval()
    with torch.no_grad():
        for linear in (
            student.user.attend,
            student.user.value,
            student.user.gate_read,
            student.user.gate_bias,
        ):
            linear.weight.normal_(std=0.3)  # untrained heads are near zero, which would hide mistakes in the weights
        student.user.gate_query.normal_()
        student.user.score_scale.fill_(4.0)
    graphs = export_graphs(student)
    names = ("frames", "frame_mask", "title_ids", "title_mask")
    feeds = [dict(zip(names, (x.numpy() for x in encoder_example(config, 2, i)), strict=True)) for i in range(8)]
    int8: dict[GraphName, onnx.ModelProto] = {**graphs, "encoder": quantise_int8(graphs["encoder"], feeds)}
    write_bundle(
        folder,
        student,
        {"int8": int8, "fp32": graphs},
        portable(tokenizer),
        name="tiny",
        prompt=PROMPT,
        calibration=Calibration(description="random frames", videos=8, score_std=1.0),
        licence="Apache-2.0",
        provenance="random weights",
    )
    return folder
