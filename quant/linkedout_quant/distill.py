"""Distillation from nothing to a master checkpoint: crops, tower, language, clips, each resumable by itself."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer

from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError
from linkedout_edge.microworld import caption, random_attributes
from linkedout_quant.master import PROMPT, load_student, new_student, save_master, set_prompt
from linkedout_quant.media import Media, Skipped, load_frames
from linkedout_quant.model import Student
from linkedout_quant.progress import track
from linkedout_quant.recipes import Recipe
from linkedout_quant.teachers import CachedTeacher, Teacher, TeacherFeatures
from linkedout_quant.teachers.base import ALIKE
from linkedout_quant.teachers.images import ImageTeacher
from linkedout_quant.teachers.sentences import embed_sentences
from linkedout_quant.tokenizer import from_portable, portable, train_tokenizer
from linkedout_quant.training.clips import RealVideos, Views, train_clips
from linkedout_quant.training.crops import CropCache, CropSource, cache_key, default_workers, write_shards
from linkedout_quant.training.language import train_language
from linkedout_quant.training.live import HostCrops, LiveCrops, choose_live
from linkedout_quant.training.loop import TrainingError, new_accelerator
from linkedout_quant.training.tower import train_tower

STAGES = ("crops", "tower", "language", "clips")
FRAME_SIZE = 256  # side of the frames that are kept of a real video, from which crops are cut


@dataclass(frozen=True)
class TrainingData:
    """The decoded training data."""

    media: list[Media]
    frames: list[np.ndarray]  # uint8 [F or 1, H, W, 3] each
    skipped: list[Skipped]

    @classmethod
    def load(cls, media: Sequence[Media], config: ModelConfig) -> TrainingData:
        """Decode all media; unreadable ones are skipped and listed.

        Raises:
            ArgumentError: none is usable.
        """
        return cls(*load_frames(media, config.frames, FRAME_SIZE))

    def images(self) -> list[tuple[list[np.ndarray], list[int]]]:
        """Pictures that the encoder may learn from, and for each the place of its item; one pair a collection."""
        out = []
        for collection in dict.fromkeys(item.collection for item in self.media):
            items = [(i, m) for i, m in enumerate(self.media) if m.collection == collection]
            # So few items that all of them are held back teach nothing, unless they all may be learned from.
            free = [i for i, m in items if not m.held_back] or [i for i, _ in items]
            pairs = [(image, i) for i in free for image in self.frames[i]]
            out.append(([p[0] for p in pairs], [p[1] for p in pairs]))
        return out


@dataclass(frozen=True)
class Distilled:
    """What a training left."""

    run: Path
    master: Path | None
    """None where it was asked to stop before the last stage."""
    skipped: list[Skipped]
    is_main: bool = True
    """Whether this is the main process, which reports the result."""


def caption_texts(texts: Sequence[str], micro: int = 5000) -> list[str]:
    """Sentences for tokenizer and LM: those given and as many of micro-videos."""
    rng = np.random.default_rng(5)
    return [caption(random_attributes(rng), rng) for _ in range(micro)] + list(texts)


def read_texts(index: Path, without: set[str]) -> list[str]:
    """Captions of a CSV file with columns ``image`` and ``caption``, but for the images named in `without`."""
    with index.open(newline="", encoding="utf-8") as f:
        return [row["caption"] for row in csv.DictReader(f) if row.get("image") not in without]


def distill_student(
    run: Path,
    recipe: Recipe,
    *,
    teacher: Teacher | None = None,
    media: Sequence[Media] = (),
    texts: Sequence[str] = (),
    sources: str = "the user's own",
    cache: Path | None = None,
    start: Path | None = None,
    first: str | None = None,
    until: str = STAGES[-1],
    live: bool | None = None,
    accelerator: Accelerator | None = None,
) -> Distilled:
    """Train a student; an interrupted run continues where it stopped.

    Args:
        run: folder for checkpoints, metrics, plots, caches and the result.
        recipe: shapes and lengths of the stages.
        teacher: whose features photos and videos are learned by; None: the micro-video world alone.
        media: photos and videos; a teacher needs some.
        texts: more sentences for tokenizer and LM than the media's captions.
        sources: what the media are, for the provenance in the bundle.
        cache: where the teacher's features are kept; by default in the run folder. Shared by several runs, it spares
            the second student's teacher everything that the first one's saw.
        start: folder of a finished student to continue from, instead of random weights.
        first: one of `STAGES`, the first to run; by default the first of all, or with `start` the last, so that the
            tower is kept. A stage that is left out leaves its part as it is, and a student that is gone on from knows
            its language already.
        until: one of `STAGES`, the last to run.
        live: whether crops are made where training happens instead of being kept on disk; None: on a GPU, with a
            teacher that can (`linkedout_quant.training.live`).
        accelerator: where to train; by default as `linkedout_quant.training.loop.new_accelerator`.

    Raises:
        ArgumentError: none of the media is usable, `start` holds no finished student of the recipe's shape, there is
            none that `first` could continue from, or the teacher cannot look at live crops.
        TrainingError: the run folder is of another recipe, teacher or set of media; or see
            `linkedout_quant.training.loop.train_stage`.
    """
    if first is not None and start is None and first != STAGES[0]:
        raise ArgumentError(f"the stage {first} needs a student to continue from: name one with --start")
    accelerator = accelerator or new_accelerator()
    stages = STAGES[STAGES.index(first or STAGES[-1 if start else 0]) : STAGES.index(until) + 1]
    config = recipe.model
    run.mkdir(parents=True, exist_ok=True)
    data = TrainingData.load(media, config) if teacher is not None else TrainingData([], [], [])
    live = teacher is not None and choose_live(teacher, accelerator.device, live)
    if accelerator.is_main_process:
        begin = f"{start.name}, from {stages[0]}" if start else None
        _remember(run, recipe, teacher, data, sources, begin, live)
    done = Distilled(run, None, data.skipped, accelerator.is_main_process)
    captions = [text for item in data.media if not item.held_back for text in item.captions]
    begun = _begun(start, run, config) if start is not None else None
    sentences = caption_texts([*texts, *captions])
    with accelerator.main_process_first():
        tokenizer = _tokenizer(run, config, sentences)
    cache = cache or run / "cache"
    collections = data.images()
    weights = [recipe.crops.weight(name) for name in dict.fromkeys(item.collection for item in data.media)]
    crops: CropSource | None = None
    if teacher is not None:
        crops = _crops(cache, collections, weights, recipe, teacher, accelerator, live)
    torch.manual_seed(recipe.tower.seed)
    student = begun or new_student(config, tokenizer)
    if "tower" in stages and crops is not None:
        train_tower(run, crops, config, recipe.tower, student.encoder.tower, accelerator)
    if "language" in stages and begun is None:
        train_language(run, config, recipe.language, tokenizer, student.encoder.lm, sentences, accelerator)
    if isinstance(crops, LiveCrops):
        crops = HostCrops(crops)  # what follows renders and films on the host
    if "clips" in stages:
        owners = [i for _, places in collections for i in places]
        views = _views(cache, crops, data, owners, teacher) if teacher is not None and crops is not None else None
        kept = begun is not None and "tower" not in stages
        train_clips(
            run,
            config,
            recipe.clips,
            tokenizer,
            student.encoder,
            views,
            sentences,
            accelerator,
            axes=recipe.axes,
            learn_tower=not kept,
        )
        if accelerator.is_main_process:
            return Distilled(run, save_master(run, student.cpu()), data.skipped)
    return done


def _crops(
    cache: Path,
    collections: Sequence[tuple[list[np.ndarray], list[int]]],
    weights: Sequence[float],
    recipe: Recipe,
    teacher: Teacher,
    accelerator: Accelerator,
    live: bool,
) -> CropSource:
    """Crops that are made where training happens, or those that the main process has cut and shown to the teacher."""
    if sum(weights) <= 0:
        raise ArgumentError("crops.weights of the recipe leaves out all collections at hand: give one more than 0")
    if isinstance(teacher, ImageTeacher):
        teacher.to(accelerator.device)
    if live:
        assert isinstance(teacher, ImageTeacher)  # as choose_live has seen to
        return LiveCrops(
            teacher,
            [images for images, _ in collections],
            weights,
            side=recipe.crops.side,
            frame_size=recipe.model.frame_size,
            device=accelerator.device,
            bfloat16=accelerator.mixed_precision == "bf16",
        )
    count, size = recipe.crops.count, recipe.model.frame_size
    folders = []
    for (images, _), weight in zip(collections, weights, strict=True):
        folders.append(cache / f"crops-{cache_key(teacher, images, count, size)}")
        if accelerator.is_main_process:
            shards = math.ceil(round(recipe.crops.shards * weight / sum(weights), 6))
            write_shards(teacher, images, folders[-1], shards, count, size, default_workers(teacher))
    accelerator.wait_for_everyone()
    alike = getattr(teacher, "alike", ALIKE)
    return CropCache(folders, [len(images) for images, _ in collections], alike)


def _begun(start: Path, run: Path, config: ModelConfig) -> Student:
    """The finished student of a folder with today's prompt, looking at frames as `config` says; its tokenizer is copied
    to the run.
    """
    student = load_student(start, config.frames, config.frame_size)
    if student.config != config:
        raise ArgumentError(
            f"the student in {start} has another shape than the recipe's model: give the recipe its model"
        )
    if not (run / "tokenizer.json").exists():
        shutil.copyfile(start / "tokenizer.json", run / "tokenizer.json")
    set_prompt(student, from_portable((run / "tokenizer.json").read_bytes()), PROMPT)
    return student


def _remember(
    run: Path, recipe: Recipe, teacher: Teacher | None, data: TrainingData, sources: str, start: str | None, live: bool
) -> None:
    """Write what decides the run; refuse to continue with anything else."""
    listing = hashlib.sha256(repr([(m.path.name, m.captions) for m in data.media]).encode()).hexdigest()
    now = {
        "recipe": msgspec.to_builtins(recipe),
        "teacher": teacher.name if teacher else None,
        "teacher_fingerprint": teacher.fingerprint if teacher else None,
        "start": start,
        "crops": "live" if live else "cached",
        "media": len(data.media),
        "sources": sources,
        "media_listing": listing,
        "skipped": [{"file": s.path.name, "reason": s.reason} for s in data.skipped],
    }
    now = json.loads(json.dumps(now))
    target = run / "run.json"
    if target.exists():
        before = {"crops": "cached"} | json.loads(target.read_text(encoding="utf-8"))
        changed = _differences(before, now)
        if changed:
            raise TrainingError(
                f"{run} was begun differently: {'; '.join(changed)}. Restore that, or start in a new run folder"
            )
    target.write_text(json.dumps(now, indent=2) + "\n")
    (run / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(recipe.model)))


def _differences(before: dict, now: dict, path: str = "") -> list[str]:
    """``recipe.clips.steps: 5 → 6`` for each leaf that differs."""
    out = []
    for key in now:
        a, b, name = before.get(key), now[key], f"{path}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            out += _differences(a, b, name + ".")
        elif a != b and key not in ("skipped", "sources"):
            out.append(f"{name}: {a} → {b}")
    return out


def _tokenizer(run: Path, config: ModelConfig, texts: Sequence[str]) -> Tokenizer:
    """The run's tokenizer, trained where there is none yet."""
    target = run / "tokenizer.json"
    if not target.exists():
        partial_file = target.with_suffix(".partial")
        partial_file.write_bytes(portable(train_tokenizer(texts, config.vocab_size)))
        partial_file.replace(target)
    return from_portable(target.read_bytes())


def _cached_features(
    cache: Path, teacher: Teacher, clips: Sequence[np.ndarray], titles: Sequence[str | None], what: str
) -> TeacherFeatures:
    """Features of many clips, a few at a time, kept on disk."""
    with CachedTeacher(teacher, cache / "clips") as cached:
        rows = [
            cached.extract_features(clips[i : i + 8], titles[i : i + 8])
            for i in track(range(0, len(clips), 8), f"teacher features of {what}")
        ]
    return TeacherFeatures(
        tuple(np.concatenate(layer) for layer in zip(*(r.layers for r in rows), strict=True)),
        np.concatenate([r.pooled for r in rows]),
        np.concatenate([r.language for r in rows]),
    )


def _views(cache: Path, crops: CropSource, data: TrainingData, owners: Sequence[int], teacher: Teacher) -> Views:
    """What the clips stage draws from; owners: the item of each picture that crops were cut from."""
    texts = [data.media[i].captions for i in owners]
    sentences = None
    if any(texts):
        flat = embed_sentences([t for item in texts for t in item])
        ends = np.cumsum([len(item) for item in texts])[:-1]
        sentences = np.split(flat, ends)
    real = [i for i, m in enumerate(data.media) if not m.still and not m.held_back]
    videos = None
    if real:
        frames = [data.frames[i] for i in real]
        titles = [next(iter(data.media[i].captions), None) for i in real]
        features = _cached_features(cache, teacher, [f[:: max(1, len(f) // 4)] for f in frames], titles, "videos")
        videos = RealVideos(frames, features, [data.media[i].captions for i in real])
    return Views(crops, texts, sentences, videos)
