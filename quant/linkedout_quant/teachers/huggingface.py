"""Any image/video-text-to-text checkpoint of Hugging Face as a teacher: one forward pass, no generation.

What becomes of a clip, with S positions of width W in each hidden state of the LM:

==========  ==========================================================================================
layers[i]   [K, W], K = grid² + 1: the visual tokens averaged in grid × grid cells of the picture, over
            all frames, row by row ("context"); then the mean over the positions behind the last visual
            token: title, prompt and the opening of the answer ("new")
pooled      [W]: mean of the visual tokens in the last hidden state: the clip as it is seen
language    [W]: the last hidden state at the last position, from which the first word of the answer
            would be predicted: what the model is about to say
==========  ==========================================================================================

Hidden state 0 is the LM's input, i the output of its i-th block (the last one after the final norm, where the library
has it so).
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from linkedout_edge.errors import ArgumentError, unknown
from linkedout_quant.teachers.base import TeacherError, TeacherFeatures, check_clips
from linkedout_quant.teachers.checkpoint import digest, locate, read_config, require
from linkedout_quant.teachers.processor import ClipProcessor, FramesAs

if TYPE_CHECKING:
    import torch

LoadIn = Literal["8bit", "4bit"]
LOAD_IN = ("8bit", "4bit")
DTYPES = ("float32", "bfloat16", "float16")
PROMPT = "In one sentence: what is shown, how does it look and how does it move?"
DEFAULT_LAYERS = 6
FEATURES_VERSION = 1
"""Raised when the same model and settings give other features; part of the fingerprint."""


class HuggingFaceTeacher:
    """A vision-language model that looks at clips; see the module for what it says of them.

    Args:
        source: Folder of a checkpoint, or its name on the hub.
        layers: Hidden states by index, negative ones from the end; None takes six, evenly spread up to the last.
        prompt: The question that is put behind the frames.
        load_in: ``"8bit"`` or ``"4bit"`` (nf4) through bitsandbytes; also works on CPUs.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``; None is what the checkpoint was saved in.
        device: Such as ``"cpu"`` or ``"cuda:1"``; ``"auto"`` spreads the model over what there is; None is the first
            GPU, else the CPU.
        batch: Clips in a forward pass; halved for good when memory runs out, with a warning.
        grid: The picture is pooled into grid × grid cells.
        frames_as: ``"video"`` or ``"images"`` (`linkedout_quant.teachers.processor`); None is video where it works.

    Raises:
        TeacherError: The checkpoint cannot be had, is no vision-language model, or lacks the layers.
        ArgumentError: An option has a value that makes no sense.
        MissingDependencyError: A library is not installed.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        layers: Sequence[int] | None = None,
        prompt: str | None = None,
        load_in: LoadIn | None = None,
        dtype: str | None = None,
        device: str | None = None,
        batch: int = 8,
        grid: int = 4,
        frames_as: FramesAs | None = None,
    ) -> None:
        check_options(load_in, dtype)
        if batch < 1 or grid < 1:
            raise ArgumentError(f"batch and grid are at least 1, got batch={batch}, grid={grid}")
        require("torch", "transformers", "accelerate", "PIL", purpose="a Hugging Face teacher")
        if load_in:
            require("bitsandbytes", purpose=f"load_in={load_in!r}")
        folder = locate(source)
        config = read_config(folder)
        self.name = folder.resolve().name if Path(source).is_dir() else str(source)
        self.layers = choose_layers(layers, config.get_text_config().num_hidden_layers, str(source))
        self.layer_names = tuple(f"layer {i}" if i else "input" for i in self.layers)
        self.prompt = prompt if prompt is not None else PROMPT
        self.batch, self.grid = batch, grid
        self._processor = ClipProcessor(folder, config, frames_as)
        self._net = load_net(folder, load_in, dtype, device)
        tokens = ("image_token_id", "video_token_id")
        self._visual_ids = [i for t in tokens if (i := getattr(config, t, None)) is not None]
        if not self._visual_ids:
            raise TeacherError(f"{source} ({config.model_type}) does not say which tokens are visual (image_token_id)")
        decides = {
            "version": FEATURES_VERSION,
            "files": digest(folder),
            "layers": self.layers,
            "prompt": self.prompt,
            "load_in": load_in,
            "dtype": str(self._net.dtype),
            "grid": grid,
            "frames_as": self._processor.frames_as,
            "backend": self._processor.backend,
        }
        self.fingerprint = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def extract_features(
        self, clips: Sequence[np.ndarray], titles: Sequence[str | None] | None = None
    ) -> TeacherFeatures:
        """Features of clips; see `linkedout_quant.teachers.base.Teacher.extract_features`.

        Args:
            clips: uint8 [F, H, W, 3] RGB each; sizes and lengths may differ.
            titles: One a clip, None where there is none. They stand before the prompt, without special tokens.

        Raises:
            TeacherError: The clips are not what was expected, memory does not suffice for one of them, or the features
                are not finite.
        """
        if titles is None:
            titles = [None] * len(clips)
        check_clips(clips, titles)
        # Clips of one length together: processors stack a batch's frames.
        order = sorted(range(len(clips)), key=lambda i: len(clips[i]))
        rows: list[tuple[np.ndarray, ...]] = []
        while len(rows) < len(order):
            rest = order[len(rows) :]
            length = len(clips[rest[0]])
            some = [i for i in rest[: self.batch] if len(clips[i]) == length]
            try:
                rows += self._forward([clips[i] for i in some], [titles[i] for i in some])
            except Exception as e:
                if not _out_of_memory(e):
                    raise
                self._halve(len(some), e)
        back = np.argsort(order)
        columns = [np.stack(c)[back] for c in zip(*rows, strict=True)]
        if not all(np.isfinite(c).all() for c in columns):
            raise TeacherError(f'{self.name} gives features that are not finite in {self._net.dtype}: dtype="float32"')
        return TeacherFeatures(layers=tuple(columns[:-2]), pooled=columns[-2], language=columns[-1])

    def _forward(self, clips: list[np.ndarray], titles: list[str | None]) -> list[tuple[np.ndarray, ...]]:
        """A row a clip: each layer [K, W], then pooled [W] and language [W]."""
        import torch

        from linkedout_quant.teachers import pooling

        inputs = self._processor(clips, titles, self.prompt)
        device = self._net.get_input_embeddings().weight.device
        inputs = inputs.to(device, dtype=self._net.dtype)
        visual = torch.isin(inputs["input_ids"], torch.tensor(self._visual_ids, device=device))
        valid = inputs["attention_mask"].bool()
        with torch.inference_mode():
            states = self._net(**inputs, output_hidden_states=True, use_cache=False, return_dict=True).hidden_states
        if max(self.layers) >= len(states):
            raise TeacherError(f"{self.name} returned {len(states)} hidden states, no layer {max(self.layers)}")
        rows = []
        for i, clip in enumerate(clips):
            seen, asked = visual[i], pooling.prompt_positions(visual[i], valid[i])
            layout = self._layout(inputs, i, len(clip), int(seen.sum()))
            cells = []
            for layer in self.layers:
                state = states[layer][i].to(seen.device).float()
                grid = pooling.pool_visual(state[seen], layout, self.grid)
                cells.append(torch.cat([grid, state[asked].mean(0, keepdim=True)]))
            last = states[-1][i].to(seen.device).float()
            row = (*cells, last[seen].mean(0), last[pooling.last_position(valid[i])])
            rows.append(tuple(t.cpu().numpy() for t in row))
        return rows

    def _layout(self, inputs: Any, clip: int, frames: int, tokens: int) -> tuple[int, int, int] | None:
        """Where the visual tokens of one clip stand; all its frames have one shape."""
        from linkedout_quant.teachers.pooling import square_layout

        merge = self._processor.merge_size
        if (grids := inputs.get("video_grid_thw")) is not None:
            steps, height, width = (int(n) for n in grids[clip])
            return steps, height // merge, width // merge
        steps = self._processor.steps(frames)
        if (grids := inputs.get("image_grid_thw")) is not None:
            _, height, width = (int(n) for n in grids[clip * steps])
            return steps, height // merge, width // merge
        return square_layout(tokens, frames if self._processor.frames_as == "video" else steps)

    def _halve(self, clips: int, cause: Exception) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if clips == 1:
            raise TeacherError(
                f"memory does not suffice for {self.name} on a single clip: fewer or smaller frames, load_in='4bit', "
                "dtype='bfloat16' or device='auto'"
            ) from cause
        self.batch = clips // 2
        warnings.warn(f"{self.name}: out of memory at {clips} clips, going on with {self.batch}", stacklevel=3)


def check_options(load_in: str | None, dtype: str | None) -> None:
    """Check how weights are to be loaded.

    Raises:
        ArgumentError: There is no such way.
    """
    if load_in is not None and load_in not in LOAD_IN:
        raise ArgumentError(unknown("load_in", load_in, LOAD_IN))
    if dtype is not None and dtype not in DTYPES:
        raise ArgumentError(unknown("dtype", dtype, DTYPES))


def choose_layers(layers: Sequence[int] | None, blocks: int, model: str) -> tuple[int, ...]:
    """Indices of hidden states, shallow first, without repetition.

    Args:
        layers: As asked for, negative ones from the end; None for evenly spread ones.
        blocks: Blocks of the LM: there are ``blocks + 1`` hidden states.
        model: For the message.

    Raises:
        TeacherError: Some do not exist; the message lists what does.
        ArgumentError: None are asked for.
    """
    if layers is None:
        count = min(DEFAULT_LAYERS, blocks)
        return tuple(round((i + 1) * blocks / count) for i in range(count))
    if not layers:
        raise ArgumentError("layers is empty: name at least one, or leave it out for evenly spread ones")
    wrong = [i for i in layers if not -blocks - 1 <= i <= blocks]
    if wrong:
        raise TeacherError(
            f"{model} has no layer {', '.join(map(str, wrong))}: it has 0 (the LM's input) to {blocks} "
            "(after its last block), and -1 for the last"
        )
    return tuple(sorted({i % (blocks + 1) for i in layers}))


def load_net(
    folder: Path, load_in: LoadIn | None, dtype: str | None, device: str | None, *, attention: str | None = None
) -> Any:
    """The model of a checkpoint folder without its LM head, whose logits nobody needs.

    Args:
        folder: The checkpoint.
        load_in, dtype, device: See `HuggingFaceTeacher`.
        attention: Implementation of attention by the library's name, such as ``"eager"``; None is its choice.

    Raises:
        TeacherError: The weights are damaged or incomplete, or memory does not suffice.
    """
    from transformers import AutoModelForImageTextToText

    return load_checkpoint(AutoModelForImageTextToText, folder, load_in, dtype, device, attention=attention).base_model


def load_checkpoint(
    auto: Any,
    folder: Path,
    load_in: LoadIn | None,
    dtype: str | None,
    device: str | None,
    *,
    attention: str | None = None,
) -> Any:
    """The frozen model of a checkpoint folder, by one of the library's ``AutoModel`` classes; else as `load_net`."""
    import torch
    from safetensors import SafetensorError

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"dtype": dtype or "auto", "device_map": device if device == "auto" else {"": device}}
    if attention:
        options["attn_implementation"] = attention
    if load_in:
        options["quantization_config"] = _bitsandbytes(load_in, getattr(torch, dtype) if dtype else None)
    try:
        model, report = auto.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except ImportError as e:
        raise TeacherError(f"the model in {folder} needs a library that is not installed: {str(e).strip()}") from e
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as e:
        if _out_of_memory(e):
            raise TeacherError(
                f"memory does not suffice to load {folder}: load_in='4bit', dtype='bfloat16' or device='auto'"
            ) from e
        raise TeacherError(f"the weights of {folder} cannot be loaded: {e}") from e
    # The library fills what a file lacks with random numbers, and only logs it.
    if missing := sorted(k for k in report["missing_keys"] if not k.startswith("lm_head.")):
        raise TeacherError(
            f"the weights of {folder} lack {len(missing)} tensors of its architecture, such as {missing[0]}: "
            "copy the checkpoint again, or install the version of transformers that it was saved with"
        )
    return model.eval().requires_grad_(False)


def _bitsandbytes(load_in: LoadIn, compute: torch.dtype | None) -> Any:
    from transformers import BitsAndBytesConfig

    if load_in == "8bit":
        # It says at every layer of every pass that it casts to float16, which is how this format works.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def _out_of_memory(error: Exception) -> bool:
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, MemoryError) or should_reduce_batch_size(error)
