"""Stage 2: the whole encoder on clips.

Terms of the loss, each on the layer tokens that a device will store:

- photo clips: predict the teacher's features from the tokens; the tokens' similarities follow the teacher's (relational
  distillation), since ranking compares videos by inner products of tokens;
- micro-videos: name every facet of the scene; the tokens' similarities follow those of the latent attributes;
- captions as titles: next-token loss, which makes the LM a language model that looks at the video.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from linkedout_edge.config import ModelConfig
from linkedout_edge.microworld import FACETS, caption, one_hot, random_attributes, render_frames
from linkedout_quant.model.student import VideoEncoder
from linkedout_quant.teachers.mobilenet import WIDTH
from linkedout_quant.tokenizer import EOS
from linkedout_quant.training.loop import StageRecipe, train_stage
from linkedout_quant.training.photo_clips import PhotoClips
from linkedout_quant.training.tower import feature_loss

PHOTO_FRAMES = 3  # a pan over a still needs no more; the rest is masked, which teaches the model to do with less


@dataclass
class ClipBatch:
    """Micro-videos first, then photo clips; shapes as in docs/architecture.md."""

    micro_frames: Tensor  # uint8 [A, F, H, W, 3]
    photo_frames: Tensor  # uint8 [P, PHOTO_FRAMES, H, W, 3]
    title_ids: Tensor  # int64 [A+P, T]
    title_mask: Tensor  # bool [A+P, T]
    facets: Tensor  # int64 [A, number of facets]
    latents: Tensor  # float32 [A, K], centred
    teacher: Tensor  # float32 [P, 1280]


def latent_mean() -> np.ndarray:
    """Mean float32 [K] of one-hot attributes that are drawn uniformly."""
    return np.concatenate([np.full(len(values), 1 / len(values), np.float32) for values in FACETS.values()])


class ClipData:
    """Draws seeded batches; the next one is made while the current one trains."""

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        photos: PhotoClips | None,
        micro: int,
        photo: int,
        seed: int,
    ) -> None:
        self.config, self.tokenizer, self.photos = config, tokenizer, photos
        self.micro, self.photo, self.seed = micro, photo if photos else 0, seed
        self.mean = latent_mean()
        self.eos = int(tokenizer.token_to_id(EOS) or 0)
        self._pool = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[ClipBatch]] | None = None

    def batch(self, step: int) -> ClipBatch:
        """The batch of a step, whatever came before."""
        ready = self._next[1].result() if self._next and self._next[0] == step else self._make(step)
        self._next = (step + 1, self._pool.submit(self._make, step + 1))
        return ready

    def _title(self, text: str | None) -> tuple[np.ndarray, np.ndarray]:
        ids = np.zeros(self.config.title_tokens, np.int64)
        mask = np.zeros(self.config.title_tokens, bool)
        if text is not None:
            got = np.array([*self.tokenizer.encode(text).ids, self.eos][: self.config.title_tokens])
            ids[: len(got)], mask[: len(got)] = got, True
        return ids, mask

    def _make(self, step: int) -> ClipBatch:
        c, rng = self.config, np.random.default_rng([self.seed, step])
        frames, facets, latents, titles, photo_frames, teacher = [], [], [], [], [], []
        for _ in range(self.micro):
            attributes = random_attributes(rng)  # never one of the combinations held out for the exam
            seed = int(rng.integers(2**31))
            times = np.clip((np.arange(c.frames) + 0.5 + rng.uniform(-0.3, 0.3, c.frames)) / c.frames, 0, 1)
            frames.append(render_frames(attributes, seed, times, c.frame_size))
            vector = one_hot(attributes)
            facets.append(facet_indices(vector))
            latents.append(vector - self.mean)
            titles.append(self._title(caption(attributes, rng) if rng.random() < 0.5 else None))
        for _ in range(self.photo):
            assert self.photos is not None
            index = int(rng.integers(len(self.photos.clips)))
            photo_frames.append(self.photos.frames(index, PHOTO_FRAMES, c.frame_size))
            teacher.append(self.photos.features[index])
            texts = self.photos.captions.get(self.photos.clips[index].photo)
            titles.append(self._title(texts[rng.integers(len(texts))] if texts and rng.random() < 0.5 else None))
        side = c.frame_size
        return ClipBatch(
            torch.from_numpy(np.stack(frames)),
            torch.from_numpy(
                np.stack(photo_frames) if photo_frames else np.zeros((0, PHOTO_FRAMES, side, side, 3), np.uint8)
            ),
            torch.from_numpy(np.stack([t[0] for t in titles])),
            torch.from_numpy(np.stack([t[1] for t in titles])),
            torch.from_numpy(np.stack(facets)),
            torch.from_numpy(np.stack(latents).astype(np.float32)),
            torch.from_numpy(np.stack(teacher).astype(np.float32) if teacher else np.zeros((0, WIDTH), np.float32)),
        )


def facet_indices(vector: np.ndarray) -> np.ndarray:
    """One-hot float32 [K] → int64 [number of facets], the value's place within each facet."""
    ends = np.cumsum([len(values) for values in FACETS.values()])
    return np.array([part.argmax() for part in np.split(vector, ends[:-1])], np.int64)


class ClipHeads(nn.Module):
    """Readers of the tokens that exist only while training."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        flat = config.tokens_per_layer * config.token_width
        self.teacher_all = nn.Linear(config.layers * flat, WIDTH)
        self.teacher_last = nn.Linear(flat, WIDTH)
        self.facets = nn.ModuleList(nn.Linear(config.layers * flat, len(v)) for v in FACETS.values())


def similarity(x: Tensor) -> Tensor:
    """Cosines [..., B, B] of rows [..., B, K]."""
    x = nn.functional.normalize(x, dim=-1)
    return x @ x.transpose(-1, -2)


def relational_loss(tokens: Tensor, target: Tensor) -> Tensor:
    """Squared error between cosines of rows of `tokens` [..., B, X] and of `target` [B, Y], off the diagonal."""
    b = target.shape[0]
    off = ~torch.eye(b, dtype=torch.bool)
    return (similarity(tokens) - similarity(target))[..., off].square().mean()


def forward_states(encoder: VideoEncoder, batch: ClipBatch) -> tuple[list[Tensor], Tensor]:
    """Hidden states and frame mask; frames that are masked are not computed."""
    c = encoder.config
    a, p = len(batch.micro_frames), len(batch.photo_frames)
    seen = encoder.tower(torch.cat([batch.micro_frames.flatten(0, 1), batch.photo_frames.flatten(0, 1)]))
    micro = seen[: a * c.frames].unflatten(0, (a, c.frames))
    photo = (
        seen[a * c.frames :].unflatten(0, (p, PHOTO_FRAMES)) if p else seen.new_zeros(0, PHOTO_FRAMES, *seen.shape[1:])
    )
    photo = nn.functional.pad(photo, (0, 0, 0, 0, 0, c.frames - PHOTO_FRAMES))
    frame_mask = torch.ones(a + p, c.frames, dtype=torch.bool)
    frame_mask[a:, PHOTO_FRAMES:] = False
    visual = torch.cat([micro, photo])
    return encoder.lm(visual, frame_mask, batch.title_ids, batch.title_mask, encoder.prompt_ids), frame_mask


def caption_loss(encoder: VideoEncoder, last: Tensor, batch: ClipBatch) -> Tensor:
    """Next-token loss on titles; the first word is predicted from the last visual token."""
    c = encoder.config
    seen = c.frames * c.grid**2
    logits = encoder.lm.logits(last[:, seen - 1 : seen + c.title_tokens - 1])
    # A padded frame's last position has seen nothing of its own, but all frames before it: it can start a caption too.
    return nn.functional.cross_entropy(logits[batch.title_mask], batch.title_ids[batch.title_mask])


def train_clips(
    run: Path,
    config: ModelConfig,
    recipe: StageRecipe,
    tokenizer: Tokenizer,
    encoder: VideoEncoder,
    photos: PhotoClips | None,
) -> nn.ModuleDict:
    """Train the encoder on micro-videos and, where given, photo clips; gives ``tower``, ``rest`` and ``heads``."""
    torch.manual_seed(recipe.seed)
    heads = ClipHeads(config)
    rest = nn.ModuleDict({"lm": encoder.lm, "compressors": encoder.compressors})
    modules = nn.ModuleDict({"tower": encoder.tower, "rest": rest, "heads": heads})
    micro = recipe.batch // 2
    data = ClipData(config, tokenizer, photos, micro, recipe.batch - micro, recipe.seed)

    def losses(step: int) -> dict[str, Tensor]:
        batch = data.batch(step)
        with torch.autocast("cpu", torch.bfloat16):
            states, frame_mask = forward_states(encoder, batch)
            features = encoder.features(states, frame_mask)
            captions = caption_loss(encoder, states[-1], batch) if batch.title_mask.any() else features.sum() * 0
        tokens = encoder.tokens(features.float()).flatten(2)  # [B, L, M·D]
        a = len(batch.micro_frames)
        flat = tokens.flatten(1)
        facets = [
            nn.functional.cross_entropy(head(flat[:a]), batch.facets[:, i]) for i, head in enumerate(heads.facets)
        ]
        terms = {
            "facets": torch.stack(facets).mean(),
            "micro_relations": 5 * relational_loss(flat[:a], batch.latents),
            "captions": 0.2 * captions,
        }
        if len(batch.teacher):
            half = config.layers // 2
            terms["teacher"] = feature_loss(heads.teacher_all(flat[a:]), batch.teacher)
            terms["teacher_last"] = 0.5 * feature_loss(heads.teacher_last(tokens[a:, -1]), batch.teacher)
            terms["relations"] = 5 * relational_loss(flat[a:], batch.teacher)
            terms["deep_relations"] = 5 * relational_loss(tokens[a:, half:].transpose(0, 1), batch.teacher)
        return terms

    train_stage(run, recipe, modules, losses, slow=("tower",), checkpoint_every=100)
    return modules
