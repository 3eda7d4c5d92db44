"""Exported graphs → one encoder of the bundle's contract, taps and compressors added.

    frames → pixels → [vision tower] ─┐
    title → [word embeddings] ────────┴→ sequence → [language model] → taps → compressors → tokens, scales

What stands in brackets is the exported graph; the rest is ours, written in torch once (`Sequence`, `Compressor`) and
converted, so that both ways of exporting compute the same.
"""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Iterable
from collections.abc import Sequence as Items
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from linkedout_quant.model import Student, VideoEncoder, quantize
from linkedout_quant.model.compressor import Compressor
from torch import Tensor, nn

from linkedout_edge._telemetry import import_openvino
from linkedout_edge.backends.base import INPUTS, OUTPUTS
from linkedout_edge.config import ModelConfig
from linkedout_export.conversion import import_nncf
from linkedout_export.quantization import Feeds
from linkedout_export.vlm.exported import Exported
from linkedout_export.vlm.sequence import Pixels, Reading, Sequence
from linkedout_export.vlm.taps import EMBEDS, GraphError, hidden_states, without_cache

if TYPE_CHECKING:
    import openvino

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
"""As the runtime runs graphs: float is float32, and what meets 8- or 4-bit weights is not rounded."""


_TYPES = {"uint8": "u8", "int32": "i32", "bool": "boolean"}


class GraphEncoder(VideoEncoder):
    """Exported graphs in the place of the student's tower and LM; runs on OpenVINO, on the CPU.

    Args:
        exported: The graphs.
        found: How their checkpoint reads a clip.
        compressors: One a tap.
    """

    def __init__(self, exported: Exported, found: Reading, compressors: Iterable[Compressor]) -> None:
        nn.Module.__init__(self)  # the student's tower and LM are not wanted
        self.config = found.config
        self.exported, self.found = exported, found
        self.compressors = nn.ModuleList(compressors)
        self._run: Any = None

    def states(self, frames: Tensor, frame_mask: Tensor, title_ids: Tensor, title_mask: Tensor) -> list[Tensor]:
        """As `VLMEncoder.states`; arguments as the encoder graph's."""
        if self._run is None:
            body = Body(self.exported, self.found)
            read = [body.port("frame_mask"), *body.states]
            model = body.finished(_fed(_convert(_Reader(body.sequence), *self._example(body, len(body.states))), read))
            self._run = import_openvino().Core().compile_model(model, "CPU", EXACT)
        given = dict(zip(INPUTS, (x.numpy() for x in (frames, frame_mask, title_ids, title_mask)), strict=True))
        return [torch.from_numpy(np.array(x)) for x in self._run(given).values()]

    def over(self, exported: Exported) -> GraphEncoder:
        """The same compressors behind other graphs of the same checkpoint."""
        return GraphEncoder(exported, self.found, self.compressors).eval()  # type: ignore[arg-type]

    def language_inputs(self, feeds: Items[Feeds]) -> list[dict[str, np.ndarray]]:
        """What the language model's graph reads of each of these feeds: what its quantizer calibrates on."""
        body = Body(self.exported, self.found)
        compiled = import_openvino().Core().compile_model(body.finished(list(body.given.values())), "CPU", EXACT)
        found = []
        for feed in feeds:
            inputs = dict(zip(body.given, (np.array(x) for x in compiled(feed).values()), strict=True))
            if body.beams:
                inputs["beam_idx"] = np.arange(len(feed["frames"]), dtype=np.int32)
            found.append(inputs)
        return found

    def forget(self) -> None:
        """Release the memory that `states` holds."""
        self._run = None

    def graph(self, *, small: bool) -> openvino.Model:
        """The encoder as a graph of the bundle's contract.

        Args:
            small: Store the compressors' weights in int8, as what stands before them is stored in 8 or 4 bit.
        """
        body = Body(self.exported, self.found)
        read = [body.port("frame_mask"), *(body.states[tap] for tap in self.config.taps)]
        head = _convert(_Head(self, body.sequence), *self._example(body, len(self.config.taps)))
        if small:
            nncf = import_nncf()
            head = nncf.compress_weights(head, mode=nncf.CompressWeightsMode.INT8_SYM)
        outputs = _fed(head, read)
        for output, name in zip(outputs, OUTPUTS, strict=True):
            output.get_tensor().set_names({name})
        return body.finished(outputs)

    def _example(self, body: Body, states: int) -> tuple[Tensor, ...]:
        c = self.config
        state = torch.zeros(2, body.sequence.length(c.frames, c.title_tokens), c.lm_width)
        return torch.ones(2, c.frames, dtype=torch.bool), *[state] * states


class GraphStudent(Student):
    """A `GraphEncoder`: what `Student` is to the bundle writer.

    Attributes:
        encoder: The encoder.
        prompt: What is baked into it.
        tokenizer: Content of the bundle's ``tokenizer.json``.
    """

    encoder: GraphEncoder

    def __init__(self, encoder: GraphEncoder) -> None:
        nn.Module.__init__(self)
        self.config = encoder.config
        self.encoder = encoder
        self.prompt, self.tokenizer = encoder.found.prompt, encoder.found.tokenizer


def token_space(student: GraphStudent) -> str:
    """Sha256 of shapes, compressors and the graphs' weights: as `linkedout_export.writer.token_space`."""
    from linkedout_export.writer import token_space as of_weights

    digest = hashlib.sha256(of_weights(student).encode())
    for path in student.encoder.exported.weights():
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Body:
    """Everything from frames to the language model's hidden states, as one graph under construction.

    Attributes:
        states: Outputs [B, S, W]: the hidden states as transformers counts them.
        sequence: What the visual tokens, title and prompt were put into.
        given: Inputs of the language model's graph by name.
        beams: Whether that also wants the order of beams.

    Raises:
        GraphError: A graph is not built as expected.
    """

    def __init__(self, exported: Exported, found: Reading) -> None:
        openvino = import_openvino()
        ops = openvino.opset13
        graphs, c = exported.read(), found.config
        self.states = hidden_states(graphs.language, c.lm_layers)
        self.sequence = Sequence(found.parts, _embedded(graphs.words, found.parts.ids))
        without_cache(graphs.language)
        sizes = {"F": c.frames, "H": c.frame_size, "W": c.frame_size, "T": c.title_tokens}
        self._inputs = {}
        for name, (dtype, dims) in INPUTS.items():
            shape = [-1 if d == "B" else sizes[d] if isinstance(d, str) else d for d in dims]
            self._inputs[name] = ops.parameter(shape, getattr(openvino.Type, _TYPES[dtype]), name)
        frame_mask, title_mask = self.port("frame_mask"), self.port("title_mask")
        (visual,) = _fed(graphs.vision, self._seen(graphs.vision, exported.raw, found))
        _check_cells(visual, exported, found)
        (words,) = _fed(graphs.words, [ops.convert(self.port("title_ids"), "i64").output(0)])
        read = [visual, words, frame_mask, title_mask]
        feed = _Feed(graphs.language, self.sequence)
        masks = torch.ones(2, c.frames, dtype=torch.bool), torch.ones(2, c.title_tokens, dtype=torch.bool)
        seen, said = torch.zeros(2 * c.frames, c.grid**2, c.lm_width), torch.zeros(2, c.title_tokens, c.lm_width)
        made = _fed(_convert(feed, seen, said, *masks), read)
        self.given = dict(zip(feed.names, made, strict=True))
        self.beams = any("beam_idx" in p.output(0).get_names() for p in graphs.language.get_parameters())
        if self.states[0].get_node().get_type_name() == "Parameter":
            self.states[0] = self.given[EMBEDS]
        _replace(graphs.language, self.given)

    def port(self, name: str) -> Any:
        """An input of the encoder."""
        return self._inputs[name].output(0)

    def finished(self, outputs: Items[Any]) -> openvino.Model:
        """The graph that ends in these outputs."""
        openvino = import_openvino()
        named = {self.port(name): {name} for name in INPUTS}
        named |= {o: o.get_names() for o in outputs}
        results = [openvino.opset13.result(o) for o in outputs]
        try:
            model = openvino.Model(results, list(self._inputs.values()), "encoder")
        except RuntimeError as e:
            raise GraphError(f"the exported graphs do not make up an encoder: {str(e).strip().splitlines()[-1]}") from e
        # Tensors that were joined carry each other's names, and OpenVINO gives more of them to inputs when it compiles.
        for node in model.get_ops():
            for output in node.outputs():
                output.get_tensor().set_names(named.get(output, set()))
        return model

    def _seen(self, vision: openvino.Model, raw: Any, found: Reading) -> list[Any]:
        """What the vision tower's graph reads, in its order of inputs."""
        c = found.config
        blank = torch.zeros(2, c.frames, c.frame_size, c.frame_size, 3, dtype=torch.uint8)
        return _fed(_convert(_Front(vision, raw, found), blank), [self.port("frames")])


def _check_cells(visual: Any, exported: Exported, found: Reading) -> None:
    """Compare the vision graph's output with the room that the sequence has for a frame."""
    cells = visual.get_partial_shape()[1]
    if cells.is_static and cells.get_length() != found.parts.cells:
        raise GraphError(
            f"the vision graph gives {cells.get_length()} tokens a frame, and the processor in {exported.folder} makes "
            f"room for {found.parts.cells}: copy the checkpoint's processor_config.json (or preprocessor_config.json) "
            "beside the graphs; Optimum leaves it out where torchvision is not installed"
        )


PATCHES = ("pixel_values", "patch_attention_mask", "patch_position_ids")


class _Front(nn.Module):
    """Frames uint8 [B, F, H, W, 3] → inputs of the vision tower's graph, a frame each."""

    whole: Tensor
    places: Tensor

    def __init__(self, vision: openvino.Model, raw: Any, found: Reading) -> None:
        super().__init__()
        self.pixels = Pixels(found.mean, found.std)
        self.names = [port.get_any_name() for port in vision.inputs]
        if not set(self.names) <= set(PATCHES):
            raise GraphError(
                f"the vision graph of {raw.model_type} reads {', '.join(self.names)}: expected "
                f"{PATCHES[0]}, alone or with {' and '.join(PATCHES[1:])}"
            )
        if PATCHES[2] in self.names:
            side = found.config.frame_size // raw.vision_config.patch_size
            self.register_buffer("whole", torch.ones(1, side, side, dtype=torch.bool))
            self.register_buffer("places", _places(raw, side))

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        pixels = self.pixels(frames.flatten(0, 1))
        given = {PATCHES[0]: pixels}
        if PATCHES[2] in self.names:
            n = pixels.shape[0]
            given[PATCHES[1]] = self.whole.expand(n, -1, -1)
            given[PATCHES[2]] = self.places.expand(n, -1)
        return tuple(given[name] for name in self.names)


def _places(raw: Any, side: int) -> Tensor:
    """The position of each patch of a whole picture, int64 [1, side²].

    Asked of the library's module: how it rounds positions is its own affair. One whose patches are all zero and whose
    table of positions counts from zero gives the positions themselves.
    """
    module = import_module(f"transformers.models.{raw.model_type}.modeling_{raw.model_type}")
    kind: Any = next(k for n, k in inspect.getmembers(module, inspect.isclass) if n.endswith("VisionEmbeddings"))
    vision = type(raw.vision_config)(**{**raw.vision_config.to_dict(), "hidden_size": 1, "num_attention_heads": 1})
    embeddings = kind(vision)
    size = vision.image_size
    with torch.no_grad():
        embeddings.patch_embedding.weight.zero_()
        embeddings.patch_embedding.bias.zero_()
        embeddings.position_embedding.weight.copy_(torch.arange(side**2).view(-1, 1))
        found = embeddings(torch.zeros(1, 3, size, size), torch.ones(1, side, side, dtype=torch.bool))
    return found.squeeze(-1).round().long()


class _Feed(nn.Module):
    """Visual tokens, words and masks → inputs of the language model's graph, in its order of inputs."""

    def __init__(self, language: openvino.Model, sequence: Sequence) -> None:
        super().__init__()
        self.sequence = sequence
        # What is left without a cache; the order of beams is the cache's affair.
        read = [p for p in language.get_parameters() if p.output(0).get_target_inputs()]
        self.names = [p.output(0).get_any_name() for p in read if p.output(0).get_any_name() != "beam_idx"]
        if unknown := set(self.names) - {EMBEDS, "attention_mask", "position_ids", "token_type_ids"}:
            raise GraphError(f"the language model's graph reads {', '.join(sorted(unknown))}, which is not known")

    def forward(self, visual: Tensor, words: Tensor, frame_mask: Tensor, title_mask: Tensor) -> tuple[Tensor, ...]:
        """See the class and `Sequence.forward`."""
        x, valid, positions = self.sequence(visual, words, frame_mask, title_mask)
        given = {EMBEDS: x, "attention_mask": valid.long(), "position_ids": positions}
        if "token_type_ids" in self.names:
            # Not 0 for visual tokens, which see all others of the same number. The library numbers the pictures
            # itself; Optimum's graph compares what it is given.
            given["token_type_ids"] = self.sequence.pictures(frame_mask.shape[1], words.shape[1]).expand(len(x), -1)
        return tuple(given[name] for name in self.names)


class _Reader(nn.Module):
    """Hidden states [B, S, W] → what compressors read of them; see `Sequence.read`."""

    def __init__(self, sequence: Sequence) -> None:
        super().__init__()
        self.sequence = sequence

    def forward(self, frame_mask: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return tuple(self.sequence.read(state, frame_mask.shape[1]) for state in states)


class _Head(nn.Module):
    """Tapped hidden states [B, S, W] → tokens int8 [B, L, M, D], scales float32 [B, L, M]."""

    def __init__(self, encoder: GraphEncoder, sequence: Sequence) -> None:
        super().__init__()
        self.compressors, self.config, self.sequence = encoder.compressors, encoder.config, sequence

    def forward(self, frame_mask: Tensor, *states: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        c: ModelConfig = self.config
        read = {tap: self.sequence.read(s, c.frames) for tap, s in zip(c.taps, states, strict=True)}
        features = VideoEncoder.features(self, read, frame_mask)  # type: ignore[arg-type]
        return quantize(VideoEncoder.tokens(self, features))  # type: ignore[arg-type]


def _embedded(words: openvino.Model, ids: list[int]) -> Tensor:
    """Word embeddings [N, W] of token ids, as the graph looks them up."""
    compiled = import_openvino().Core().compile_model(words, "CPU", EXACT)
    (found,) = compiled([np.array([ids], np.int64)]).values()
    return torch.from_numpy(np.array(found[0], np.float32))


def _convert(module: nn.Module, *example: Tensor) -> openvino.Model:
    """A torch module as a graph, all sizes dynamic."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's advice on its own internals
        return import_openvino().convert_model(module.eval(), example_input=example)


def _fed(model: openvino.Model, inputs: Items[Any]) -> list[Any]:
    """Let a graph read these outputs; gives its own outputs."""
    for parameter, output in zip(model.get_parameters(), inputs, strict=True):
        parameter.output(0).replace(output)
    return [result.input_value(0) for result in model.get_results()]


def _replace(model: openvino.Model, ports: dict[str, Any]) -> None:
    """Let a graph's inputs of these names be these outputs."""
    for parameter in model.get_parameters():
        names = parameter.output(0).get_names() & ports.keys()
        if names:
            parameter.output(0).replace(ports[names.pop()])
