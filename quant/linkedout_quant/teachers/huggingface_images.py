"""Image classifiers and CLIP-like models of Hugging Face as teachers, by folder or name.

==========  ==========================================================================================
layers[i]   [K, W]: a hidden state, averaged in cells of the picture (7 × 7, the last one 4 × 4); tokens
            that stand for no place (class, registers) are left out
pooled      [W]: mean of the last hidden state over the picture
language    of a classifier: its classes, softened, and the sentence embeddings of their names under
            these; of a CLIP-like model the picture's embedding in the space that texts share
==========  ==========================================================================================

A picture is squashed to the checkpoint's size; it is never cropped, so that what a student sees is seen.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from linkedout_quant.teachers.base import TeacherError
from linkedout_quant.teachers.checkpoint import ImageKind, digest, locate, require
from linkedout_quant.teachers.huggingface import check_options, choose_layers, load_checkpoint
from linkedout_quant.teachers.images import IMAGENET, LAST_GRID, MIDDLE_GRID, ImageTeacher, Naming, Seen, cells
from linkedout_quant.teachers.sentences import embed_sentences

if TYPE_CHECKING:
    from linkedout_quant.teachers.huggingface import LoadIn

FEATURES_VERSION = 1
"""Raised when the same model and settings give other features; part of the fingerprint."""
MOST_PREFIX = 16
"""Tokens before the patches: a class, a few registers. More means that the patches are no square."""


class HuggingFaceImageTeacher(ImageTeacher):
    """A classifier or CLIP-like model on single images; see the module for what it says of them.

    Args:
        source: Folder of a checkpoint, or its name on the hub.
        kind: What it is (`linkedout_quant.teachers.checkpoint.image_kind`).
        layers: Hidden states by index, negative ones from the end; None takes the middle and the last.
        load_in, dtype, device: See `linkedout_quant.teachers.huggingface.HuggingFaceTeacher`.

    Raises:
        TeacherError: The checkpoint cannot be had, lacks the layers, or is of a shape that this does not know.
        ArgumentError: An option has a value that makes no sense.
        MissingDependencyError: A library is not installed.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        source: str | Path,
        kind: ImageKind,
        *,
        layers: Sequence[int] | None = None,
        load_in: LoadIn | None = None,
        dtype: str | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        check_options(load_in, dtype)
        require("transformers", "accelerate", purpose="a Hugging Face teacher")
        if load_in:
            require("bitsandbytes", purpose=f"load_in={load_in!r}")
        from transformers import AutoModel, AutoModelForImageClassification

        folder = locate(source)
        self.kind = kind
        self.name = folder.resolve().name if Path(source).is_dir() else str(source)
        self.side, mean, deviation = _preprocessing(folder)
        auto = AutoModelForImageClassification if kind == "classifier" else AutoModel
        self.net = load_checkpoint(auto, folder, load_in, dtype, device)
        self._seen: list[Tensor] = []
        if kind == "clip":
            self._listen()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1).to(self.device))
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1).to(self.device))
        names = _label_names(self.net.config) if kind == "classifier" else None
        self.naming = Naming(names).to(self.device)
        self.words = self.naming.words
        # ImageNet's classes, perhaps behind a background, can be joined with other teachers'.
        self.classes = IMAGENET if names is not None and len(names) in (IMAGENET, IMAGENET + 1) else 0
        states = self._states(torch.zeros(1, 3, self.side, self.side, device=self.device))[0]
        blocks = len(states) - 1
        self.layers = choose_layers([(blocks + 1) // 2, -1] if layers is None else layers, blocks, str(source))
        self.layer_names = tuple(f"layer {i}" if i else "input" for i in self.layers)
        decides = {
            "version": FEATURES_VERSION,
            "files": digest(folder),
            "layers": self.layers,
            "load_in": load_in,
            "dtype": str(self.net.dtype),
        }
        self.fingerprint = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def see(self, images: Tensor) -> Seen:
        """See `ImageTeacher.see`."""
        states, said = self._states(images)
        grids = [MIDDLE_GRID] * (len(self.layers) - 1) + [LAST_GRID]
        layers = tuple(_cells(states[i].float(), grid) for i, grid in zip(self.layers, grids, strict=True))
        pooled = _cells(states[-1].float(), 1)[:, 0]
        return Seen(layers, pooled, self.naming(said) if self.kind == "classifier" else said.float())

    def _states(self, images: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """Hidden states, and class scores or the embedding [B, Q]."""
        pixels = ((images / 255.0 - self.mean) / self.deviation).to(self.net.dtype)
        with torch.no_grad():
            if self.kind == "classifier":
                out = self.net(pixel_values=pixels, output_hidden_states=True, return_dict=True)
                states, said = out.hidden_states, out.logits
            else:
                self._seen.clear()
                said = self.net.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
                states = tuple(self._seen)
                self._seen.clear()
        if not states:
            raise TeacherError(f"{self.name} ({self.net.config.model_type}) does not return its hidden states")
        return states, said

    def _listen(self) -> None:
        """Keep what goes into the vision encoder's first block and comes out of each: some models cannot be asked."""
        try:
            blocks = self.net.vision_model.encoder.layers
        except AttributeError as e:
            raise TeacherError(
                f"{self.name} ({self.net.config.model_type}) is CLIP-like, but its blocks are not where CLIP and "
                "SigLIP have them (vision_model.encoder.layers)"
            ) from e
        self.net.text_model = None  # half of the memory, and nobody asks it anything
        first = lambda out: out[0] if isinstance(out, tuple) else out  # noqa: E731
        blocks[0].register_forward_pre_hook(
            lambda _, args, named: self._seen.append(args[0] if args else named["hidden_states"]), with_kwargs=True
        )
        for block in blocks:
            block.register_forward_hook(lambda _, args, out: self._seen.append(first(out)))


def _cells(state: Tensor, grid: int) -> Tensor:
    """A hidden state, [B, T, W] or a map [B, W, h, w] → the mean of cells [B, grid² or fewer, W]."""
    if state.ndim == 4:
        return cells(state, grid)
    side = math.isqrt(state.shape[1])
    prefix = state.shape[1] - side * side
    if prefix > MOST_PREFIX:  # no square: where a patch lies is not known
        return state.mean(1, keepdim=True)
    return cells(state[:, prefix:].transpose(1, 2).unflatten(2, (side, side)), grid)


def _preprocessing(folder: Path) -> tuple[int, list[float], list[float]]:
    """Side of the squares, mean and deviation of pixels in [0, 1], out of ``preprocessor_config.json``.

    The library's own image processors are not used: they take one image at a time, on the CPU.
    """
    path = folder / "preprocessor_config.json"
    try:
        told = json.loads(path.read_bytes())
        size: Any = told.get("crop_size") if told.get("do_center_crop") else None
        size = size or told.get("size") or told["crop_size"]
        if isinstance(size, dict):
            size = size.get("height") or size.get("shortest_edge")
        plain = not told.get("do_normalize", True)
        mean, deviation = ([0.0] * 3, [1.0] * 3) if plain else (told["image_mean"], told["image_std"])
        side = int(size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise TeacherError(
            f"{path} does not say the size, mean and deviation of images ({type(e).__name__}: {e}): copy it from the "
            "checkpoint that the model was trained from"
        ) from e
    if side < 1 or len(mean) != 3 or len(deviation) != 3 or min(deviation) <= 0:
        raise TeacherError(f"{path}: size {side}, mean {mean}, deviation {deviation} are of no RGB image")
    return side, [float(x) for x in mean], [float(x) for x in deviation]


def _label_names(config: Any) -> Any:
    """Embeddings of a classifier's class names; None where they are called LABEL_0 and so on."""
    labels = [str(config.id2label[i]) for i in range(config.num_labels)]
    generic = all(label == f"LABEL_{i}" for i, label in enumerate(labels))
    return None if generic else embed_sentences(labels)
