"""All stages of a training, from nothing to a master checkpoint, each resumable by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError
from linkedout_edge.microworld import caption, random_attributes
from linkedout_quant.master import new_student, save_master
from linkedout_quant.tokenizer import from_portable, portable, train_tokenizer
from linkedout_quant.training.clips import train_clips
from linkedout_quant.training.loop import StageRecipe
from linkedout_quant.training.photo_cache import existing_shards, write_shards
from linkedout_quant.training.photo_clips import PhotoClips
from linkedout_quant.training.tower import train_tower
from linkedout_quant.training.users import train_users


@dataclass(frozen=True)
class Recipe:
    """The stages' lengths; the default takes about two hours on two cores."""

    shards: int = 60
    tower: StageRecipe = StageRecipe("tower", 3200, 128, 2e-3, warmup=200)  # noqa: RUF009 - frozen
    clips: StageRecipe = StageRecipe("clips", 1500, 32, 1.5e-3, warmup=100)  # noqa: RUF009
    users: StageRecipe = StageRecipe("users", 1600, 32, 2e-3, warmup=100)  # noqa: RUF009
    pool: int = 3000
    per_photo: int = 8
    """Photo clips of each photo."""

    @classmethod
    def smoke(cls) -> Recipe:
        """Seconds long: shows that every stage runs, teaches nothing."""
        return cls(
            shards=1,
            tower=StageRecipe("tower", 2, 4, 1e-3, warmup=1),
            clips=StageRecipe("clips", 2, 4, 1e-3, warmup=1),
            users=StageRecipe("users", 2, 2, 1e-3, warmup=1),
            pool=260,
            per_photo=1,
        )


def caption_texts(data: Path | None) -> list[str]:
    """Texts for the tokenizer: all captions at hand and as many of micro-videos."""
    rng = np.random.default_rng(5)
    texts = [caption(random_attributes(rng), rng) for _ in range(5000)]
    if data is not None:
        import csv

        with (data / "images" / "captions_text_only.csv").open() as f:
            texts += [row["caption"] for row in csv.DictReader(f)]
    return texts


def train(run: Path, data: Path | None, config: ModelConfig, recipe: Recipe) -> Path:
    """Train a student; a run that was interrupted goes on where it stopped.

    Args:
        run: folder for checkpoints, metrics, caches and the result.
        data: folder with photos, captions and teacher (``images``, ``teacher``), or None: micro-videos alone.
        config: shapes.
        recipe: lengths of the stages.

    Returns:
        The master checkpoint, fp16 safetensors, with ``config.json`` and ``tokenizer.json`` beside it.

    Raises:
        ArgumentError: `data` lacks what is needed.
        TrainingError: see `linkedout_quant.training.loop.train_stage`.
    """
    run.mkdir(parents=True, exist_ok=True)
    if data is not None and not (data / "images" / "captions.csv").exists():
        raise ArgumentError(
            f"{data} holds no images/captions.csv: name a folder laid out like shared/data, or leave --data out"
        )
    tokenizer_file = run / "tokenizer.json"
    if not tokenizer_file.exists():
        tokenizer_file.write_bytes(portable(train_tokenizer(caption_texts(data), config.vocab_size)))
    tokenizer = from_portable(tokenizer_file.read_bytes())
    (run / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(config)))

    torch.manual_seed(recipe.tower.seed)
    student = new_student(config, tokenizer)
    photos = None
    if data is not None:
        cache = run / "cache"
        if len(list(existing_shards(cache))) < recipe.shards:
            write_shards(data, cache, range(recipe.shards), config.frame_size)
        tower = train_tower(run, cache, config, recipe.tower)
        student.encoder.tower.load_state_dict(tower["tower"].state_dict())
        photos = PhotoClips(data, cache, recipe.per_photo)
    train_clips(run, config, recipe.clips, tokenizer, student.encoder, photos)
    train_users(run, config, recipe.users, student, photos, recipe.pool)
    return save_master(run, student)
