"""The training master: one fp16 safetensors file with all weights, ``config.json`` and ``tokenizer.json`` beside it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError
from linkedout_quant.model import Student

log = logging.getLogger(__name__)

MASTER, RUN = "master.safetensors", "run.json"
POSITIONS = "encoder.lm.frame_position"
USER = "user."
"""What the names of the user encoder's weights begin with in masters of before it went."""
PROMPTS = {
    "general": "what is shown, how does it look and how does it move?",
    "objects": "which object is shown?",
    "looks": "which colours does it have?",
}
"""The promptable queries that a student is trained with; exporting bakes one in."""
PROMPT = PROMPTS["general"]


def prompt_ids(tokenizer: Tokenizer, prompt: str, length: int) -> torch.Tensor:
    """A prompt's token ids int64 [length], cut or padded with 0."""
    ids = torch.zeros(length, dtype=torch.long)
    got = tokenizer.encode(prompt).ids[:length]
    ids[: len(got)] = torch.tensor(got)
    return ids


def set_prompt(student: Student, tokenizer: Tokenizer, prompt: str) -> None:
    """Make `prompt` the student's promptable query; layer tokens of different prompts are different token spaces."""
    student.encoder.prompt_ids.copy_(prompt_ids(tokenizer, prompt, student.config.prompt_tokens))


def new_student(config: ModelConfig, tokenizer: Tokenizer) -> Student:
    """A student with the general prompt in place."""
    student = Student(config)
    set_prompt(student, tokenizer, PROMPT)
    return student


def save_master(run: Path, student: Student) -> Path:
    """Write the fp16 master; integers stay as they are."""
    weights = {k: v.half() if v.is_floating_point() else v for k, v in student.state_dict().items()}
    save_file({k: v.contiguous() for k, v in weights.items()}, run / MASTER)
    return run / MASTER


def unfinished(run: Path) -> str:
    """What to say of a folder without a master: how far its training got, and how to continue."""
    command = f"linkedout-edge distill --out {run} and the options it was begun with"
    if not (run / RUN).exists():
        return f"{run} holds no {MASTER}: finish the training first ({command})"
    stage, step = "crops", ""
    for name in ("tower", "language", "clips"):
        if (run / f"{name}.jsonl").exists():
            lines = (run / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
            steps = json.loads((run / RUN).read_bytes())["recipe"][name]["steps"]
            stage, step = name, f", step {json.loads(lines[-1])['step'] if lines else 0} of {steps}"
    return f"{run}: training not finished: last stage {stage}{step}; continue with {command}"


def spread_positions(positions: Tensor, frames: int) -> Tensor:
    """What tells the LM when a frame is, for another number of frames that are spread over the same video.

    Args:
        positions: one for each frame of training, [F, ...].
        frames: how many there are to be.

    Returns:
        [frames, ...]: between the centers of the former slots, in proportion; as they are where the number is the same.
    """
    count = len(positions)
    at = ((torch.arange(frames) + 0.5) * count / frames - 0.5).clamp(0, count - 1)
    before = at.floor().long()
    share = (at - before).reshape(-1, *[1] * (positions.ndim - 1)).to(positions.dtype)
    return (1 - share) * positions[before] + share * positions[(before + 1).clamp(max=count - 1)]


def load_student(run: Path, frames: int | None = None, frame_size: int | None = None) -> Student:
    """The student of a run folder, in float32 from its fp16 master.

    Masters of before also hold a user encoder, which is left out.

    Args:
        run: The folder.
        frames: How many it is to look at; by default as its ``config.json`` says. Either may be another number than in
            training: see `spread_positions`.
        frame_size: Their side in pixels; by default as its ``config.json`` says.

    Raises:
        ArgumentError: the folder holds no finished training, or one of another version of the model.
    """
    if not (run / MASTER).exists():
        raise ArgumentError(unfinished(run))
    config = msgspec.json.decode((run / "config.json").read_bytes(), type=ModelConfig)
    config = msgspec.structs.replace(config, frames=frames or config.frames, frame_size=frame_size or config.frame_size)
    student = Student(config)
    stored = load_file(run / MASTER)
    weights = {k: v.float() if v.is_floating_point() else v for k, v in stored.items() if not k.startswith(USER)}
    if len(weights) < len(stored):
        log.debug("left out %d weights of a user encoder, which students no longer have", len(stored) - len(weights))
    if POSITIONS in weights:
        weights[POSITIONS] = spread_positions(weights[POSITIONS], config.frames)
    try:
        student.load_state_dict(weights)
    except RuntimeError as e:
        raise ArgumentError(
            f"{run / MASTER} is of another version of the model: train it again, or use the version of linkedout-edge "
            f"that trained it ({e})"
        ) from e
    return student.eval()
