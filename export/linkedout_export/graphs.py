"""Encoder and user graphs: torch → ONNX by torch's own exporter, with names, opset and IR version pinned."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx
import torch
from linkedout_quant.model import Student, UserEncoder, VideoEncoder, quantise
from torch import Tensor, nn

from linkedout_edge.config import EVENT_FEATURES, ModelConfig
from linkedout_export.scorer import IR_VERSION, OPSET, scorer_graph

GraphName = Literal["encoder", "user", "scorer"]


class EncoderGraph(nn.Module):
    """Video encoder with token quantisation inside, as the contract has it."""

    def __init__(self, encoder: VideoEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, frames: Tensor, frame_mask: Tensor, title_ids: Tensor, title_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See docs/architecture.md."""
        return quantise(self.encoder(frames, frame_mask, title_ids, title_mask))


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


def user_example(config: ModelConfig, events: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Random inputs of the user graph, the last quarter of the events masked."""
    g = torch.Generator().manual_seed(seed)
    shape = (1, events, config.layers, config.tokens_per_layer)
    tokens = torch.randint(-127, 128, (*shape, config.token_width), dtype=torch.int8, generator=g)
    scales = torch.rand(shape, generator=g) * 0.01 + 0.005
    features = torch.rand(1, events, len(EVENT_FEATURES), generator=g)
    mask = torch.arange(events)[None] < max(1, events * 3 // 4)
    return tokens, scales, features, mask


def _export(
    module: nn.Module, example: Sequence[Tensor], names: dict[str, str | None], outputs: list[str]
) -> onnx.ModelProto:
    """`names`: input name → name of its dynamic dimension 0 ("B") or 1 ("N"), in order."""
    dims = {k: torch.export.Dim(k) for k in {v for v in names.values() if v}}
    axis = {"B": 0, "N": 1}
    shapes = tuple({axis[v]: dims[v]} if v else None for v in names.values())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's advice on its own internals
        program = torch.onnx.export(
            module.eval(),
            tuple(example),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=list(names),
            output_names=outputs,
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


def export_encoder(encoder: VideoEncoder) -> onnx.ModelProto:
    """The encoder graph in float32, B dynamic."""
    names: dict[str, str | None] = {"frames": "B", "frame_mask": "B", "title_ids": "B", "title_mask": "B"}
    return _export(EncoderGraph(encoder), encoder_example(encoder.config, 2), names, ["tokens", "scales"])


def export_user(user: UserEncoder) -> onnx.ModelProto:
    """The user graph in float32, N dynamic."""
    names: dict[str, str | None] = {"tokens": "N", "scales": "N", "events": "N", "mask": "N"}
    return _export(user, user_example(user.config, 5), names, ["query", "bias", "event_weights"])


def export_graphs(student: Student) -> dict[GraphName, onnx.ModelProto]:
    """The three float32 graphs."""
    return {
        "encoder": export_encoder(student.encoder),
        "user": export_user(student.user),
        "scorer": scorer_graph(student.config),
    }


def parity(student: Student, graphs: dict[GraphName, onnx.ModelProto], batch: int = 3) -> dict[str, float]:
    """Largest difference between ONNX Runtime and torch, per graph, in units of a token step or a score.

    The encoder is compared after dequantising, in units of the largest scale (1 is one int8 step).
    """
    import onnxruntime as ort
    from linkedout_quant.model import dequantise, scorer_reference

    def run(name: GraphName, feeds: dict[str, Tensor]) -> list[np.ndarray]:
        session = ort.InferenceSession(graphs[name].SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {k: v.numpy() for k, v in feeds.items()})

    config = student.config
    worst = {}
    with torch.no_grad():
        example = encoder_example(config, batch, seed=1)
        tokens, scales = run(
            "encoder", dict(zip(("frames", "frame_mask", "title_ids", "title_mask"), example, strict=True))
        )
        want_tokens, want_scales = EncoderGraph(student.encoder.eval())(*example)
        got = dequantise(torch.from_numpy(tokens), torch.from_numpy(scales))
        worst["encoder"] = float((got - dequantise(want_tokens, want_scales)).abs().max() / want_scales.max())
        history = user_example(config, 7, seed=2)
        got_user = run("user", dict(zip(("tokens", "scales", "events", "mask"), history, strict=True)))
        want_user = student.user.eval()(*history)
        worst["user"] = max(float(np.abs(g - w.numpy()).max()) for g, w in zip(got_user, want_user, strict=True))
        c_tokens, c_scales = (x[0] for x in user_example(config, 9, seed=3)[:2])
        mask = torch.arange(9) != 4
        feeds = {
            "query": want_user[0],
            "bias": want_user[1],
            "tokens": c_tokens,
            "scales": c_scales,
            "mask": mask,
        }
        got_score = run("scorer", feeds)
        want_score, want_parts = scorer_reference(*feeds.values())
        unit = max(1.0, float(want_score[mask].std()))  # scores of random tokens can be far larger than real ones
        pairs = zip(got_score, (want_score, want_parts), strict=True)
        worst["scorer"] = max(float(np.abs(g - w.numpy()).max()) for g, w in pairs) / unit
    return worst
