"""The encoder graph: torch → ONNX by torch's own exporter, with names, opset and IR version pinned."""

from __future__ import annotations

import warnings

import onnx
import torch
from linkedout_quant.model import VideoEncoder, dequantize, quantize
from torch import Tensor, nn

from linkedout_edge.backends.base import INPUTS, OUTPUTS
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import BackendError

OPSET = 18
IR_VERSION = 10
TOLERANCE = 1.5
"""In int8 steps: a value on the edge between two may fall to either side."""


class EncoderGraph(nn.Module):
    """Video encoder with token quantization inside, as the contract has it."""

    def __init__(self, encoder: VideoEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, frames: Tensor, frame_mask: Tensor, title_ids: Tensor, title_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See docs/architecture.md."""
        return quantize(self.encoder(frames, frame_mask, title_ids, title_mask))


def encoder_example(config: ModelConfig, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Random inputs of the encoder graph, some frames and titles masked."""
    g = torch.Generator().manual_seed(seed)
    side = config.frame_size
    frames = torch.randint(0, 256, (batch, config.frames, side, side, 3), dtype=torch.uint8, generator=g)
    present = torch.randint(1, config.frames + 1, (batch,), generator=g)
    frame_mask = torch.arange(config.frames) < present[:, None]
    titles = torch.randint(2, config.vocab_size, (batch, config.title_tokens), dtype=torch.int32, generator=g)
    words = torch.randint(0, config.title_tokens + 1, (batch,), generator=g)
    title_mask = torch.arange(config.title_tokens) < words[:, None]
    return frames, frame_mask, titles * title_mask, title_mask


def export_encoder(encoder: VideoEncoder) -> onnx.ModelProto:
    """The encoder graph in float32, B dynamic."""
    batch = torch.export.Dim("B")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's advice on its own internals
        program = torch.onnx.export(
            EncoderGraph(encoder).eval(),
            encoder_example(encoder.config, 2),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=tuple({0: batch} for _ in INPUTS),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            external_data=False,
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
    model.ir_version = IR_VERSION
    model.producer_name = "linkedout-edge"
    for node in model.graph.node:  # source locations of this machine do not belong into a bundle
        node.ClearField("metadata_props")
        node.doc_string = ""
    for item in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        item.ClearField("metadata_props")
        item.doc_string = ""
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    onnx.checker.check_model(model, full_check=True)
    return model


def parity(encoder: VideoEncoder, graph: onnx.ModelProto, batch: int = 3) -> float:
    """Largest difference of tokens between ONNX Runtime and torch, in int8 steps of the largest scale.

    Raises:
        BackendError: It is more than `TOLERANCE`: the graph does not compute what torch computes.
    """
    import onnxruntime as ort

    example = encoder_example(encoder.config, batch, seed=1)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    got = session.run(list(OUTPUTS), {name: x.numpy() for name, x in zip(INPUTS, example, strict=True)})
    with torch.no_grad():
        want, scales = EncoderGraph(encoder.eval())(*example)
    difference = dequantize(*map(torch.from_numpy, got)) - dequantize(want, scales)
    worst = float(difference.abs().max() / scales.max())
    if worst > TOLERANCE:
        raise BackendError(f"the exported graph differs from torch by {worst:.3g} int8 steps")
    return worst
