"""Stage "clips": the whole encoder, on the layer tokens that a device will store.

Terms of the loss:

- clips of photos and real videos: predict the teacher's features from the tokens, layer by layer and all together; the
  tokens' similarities follow the teacher's (relational distillation), since ranking compares videos by inner products;
- micro-videos: name every facet of the scene; similarities follow those of the latent attributes;
- both: what all clips have in common stays small, since it says nothing about taste;
- captions as titles: next-token loss, which keeps the LM a language model that looks at the video; where no title was
  shown, the tokens are aligned with the caption's sentence embedding (contrastive).

The prompt changes from step to step. Asked for objects or looks, similarities follow that facet first, so that the
promptable query does what it says. Layers share the work: each follows some facets of micro-videos more than others, so
that gates have something to choose from. Sentences without clips keep the LM fluent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from torch import Tensor, nn

from linkedout_edge.config import ModelConfig
from linkedout_edge.microworld import FACETS, caption, one_hot, random_attributes, render_frames
from linkedout_quant.master import PROMPTS, prompt_ids
from linkedout_quant.model.student import VideoEncoder
from linkedout_quant.progress import track
from linkedout_quant.teachers.base import ALIKE, TeacherFeatures
from linkedout_quant.teachers.sentences import WIDTH as SENTENCE_WIDTH
from linkedout_quant.training.axes import Moments, keep_axes
from linkedout_quant.training.crops import CropSource
from linkedout_quant.training.language import title_tokens
from linkedout_quant.training.loop import StageRecipe, train_stage
from linkedout_quant.training.losses import alignment_loss, center_loss, feature_loss, relational_loss
from linkedout_quant.training.stills import CameraPath

VIEW_FRAMES = 3  # a pan over a still needs no more; the rest is masked, which teaches the model to do with less
PROMPT_SHARES = {"general": 0.5, "objects": 0.25, "looks": 0.25}
FACET_WEIGHTS: dict[str, dict[str, float]] = {
    "general": {},
    "objects": {"object": 3.0},
    "looks": {"palette": 3.0, "scene": 1.0},
}
"""Prompt → facet → weight of its similarities; facets that a prompt does not ask for count 0.3."""
FACETS_BY_DEPTH = (("palette", "scene"), ("object", "text"), ("motion", "camera", "cuts"))
"""What shallow, middle and deep taps follow first: looks need no LM, time needs all of it. The last tap follows all
alike: it is the one that knows most of what a photo shows, so users are told by it before anything else is known."""
OWN_FACET, OTHER_FACET = 1.5, 0.5
TITLED = 0.4  # share of clips that come with a title
VIEW_SHARE = 0.6  # of a batch that are photos and videos, where there are some; the others are micro-videos
SENTENCES = 2  # without a clip, for each clip of a batch
MICRO_SHARE = 0.6  # what micro-videos count where the tokens' axes are chosen
WORDS = 0.3  # weight of the next-token losses
CENTERED = 1.0  # weight of what all clips have in common


@dataclass
class ClipBatch:
    """Micro-videos first (A), then views of photos and videos (P); shapes as in docs/architecture.md."""

    micro_frames: Tensor  # uint8 [A, F, H, W, 3]
    view_frames: Tensor  # uint8 [P, VIEW_FRAMES, H, W, 3]
    title_ids: Tensor  # int64 [A+P, T]
    title_mask: Tensor  # bool [A+P, T]
    text_ids: Tensor  # int64 [S, T], sentences that belong to no clip
    text_mask: Tensor  # bool [S, T]
    facets: Tensor  # int64 [A, number of facets]
    latents: Tensor  # float32 [A, K], centered and weighted for the prompt
    layers: tuple[Tensor, ...]  # float32 [P, W] each: the teacher's layers, mean over their tokens
    pooled: Tensor  # float32 [P, ·], standardized
    language: Tensor  # float32 [P, ·], standardized
    colors: Tensor  # float32 [P, 48], a view's colors by place
    sentences: Tensor  # float32 [P, 384], of captions
    captioned: Tensor  # bool [P], a caption is known and was not shown as a title
    prompt: str

    def to(self, device: torch.device) -> ClipBatch:
        """The same on another device."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = value.to(device)
            elif isinstance(value, tuple):
                moved[field.name] = tuple(v.to(device) for v in value)
        return replace(self, **moved)


def latent_mean() -> np.ndarray:
    """Mean float32 [K] of one-hot attributes that are drawn uniformly."""
    return np.concatenate([np.full(len(values), 1 / len(values), np.float32) for values in FACETS.values()])


def facet_weights(prompt: str) -> dict[str, float]:
    """What each facet counts when `prompt` is asked: all alike, or those that it asks for and the others a little."""
    asked = FACET_WEIGHTS[prompt]
    return {facet: asked.get(facet, 0.3) if asked else 1.0 for facet in FACETS}


def per_latent(weights: dict[str, float]) -> np.ndarray:
    """What latents are multiplied by, so that each facet counts its weight in their products: float32 [K]."""
    return np.concatenate([np.full(len(values), weights[f] ** 0.5, np.float32) for f, values in FACETS.items()])


def latent_weights(prompt: str) -> np.ndarray:
    """What each latent counts when `prompt` is asked, float32 [K]."""
    return per_latent(facet_weights(prompt))


def facet_shares(prompt: str) -> dict[str, float]:
    """What naming each facet counts when `prompt` is asked; the sum is 1."""
    weights = facet_weights(prompt)
    return {facet: w / sum(weights.values()) for facet, w in weights.items()}


def layer_weights(layers: int) -> np.ndarray:
    """What each latent counts for each layer's similarities, float32 [L, K]; the last layer follows all alike."""
    own = [FACETS_BY_DEPTH[layer * len(FACETS_BY_DEPTH) // layers] for layer in range(layers - 1)]
    first = [per_latent({f: OWN_FACET if f in facets else OTHER_FACET for f in FACETS}) for facets in own]
    return np.stack([*first, latent_weights("general")])


def facet_indices(vector: np.ndarray) -> np.ndarray:
    """One-hot float32 [K] → int64 [number of facets], the value's place within each facet."""
    ends = np.cumsum([len(values) for values in FACETS.values()])
    return np.array([part.argmax() for part in np.split(vector, ends[:-1])], np.int64)


def color_layout(frames: np.ndarray) -> np.ndarray:
    """Mean colors of a 4 × 4 grid of cells: uint8 [F, H, W, 3] → float32 [48], about unit size."""
    cells = [cv2.resize(f, (4, 4), interpolation=cv2.INTER_AREA).astype(np.float32) for f in frames]
    return (np.mean(cells, 0).ravel() - 118.0) / 64.0


@dataclass(frozen=True)
class RealVideos:
    """Decoded videos and what the teacher says of each as a whole."""

    frames: Sequence[np.ndarray]  # uint8 [F, H, W, 3] each
    features: TeacherFeatures
    captions: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Views:
    """Where views of photos and real videos come from."""

    crops: CropSource
    captions: Sequence[Sequence[str]]
    """Of each photo that `CropBatch.sources` counts."""
    sentences: Sequence[np.ndarray] | None
    """Embeddings float32 [captions, 384] of each photo's captions; None: no alignment."""
    videos: RealVideos | None = None


class ClipData:
    """Draws seeded batches; the next one is made while the current one trains.

    Args:
        config: the student's shapes.
        tokenizer: for titles.
        views: photos and videos; None: micro-videos alone.
        sentences: captions of anything, for the LM alone.
        seed: with the draw's number, all chance.
    """

    def __init__(
        self, config: ModelConfig, tokenizer: Tokenizer, views: Views | None, sentences: Sequence[str], seed: int
    ) -> None:
        self.config, self.tokenizer, self.views, self.seed = config, tokenizer, views, seed
        self.sentences = title_tokens(tokenizer, sentences, config.title_tokens)
        self.mean = latent_mean()
        self._pool = ThreadPoolExecutor(1)
        self._next: tuple[tuple[int, int], Future[ClipBatch]] | None = None

    def batch(self, draw: int, count: int) -> ClipBatch:
        """The batch of a draw, whatever came before."""
        ready = self._next[1].result() if self._next and self._next[0] == (draw, count) else self._make(draw, count)
        self._next = (draw + 1, count), self._pool.submit(self._make, draw + 1, count)
        return ready

    def _make(self, draw: int, count: int) -> ClipBatch:
        c, rng = self.config, np.random.default_rng([self.seed, draw])
        prompt = str(rng.choice(list(PROMPT_SHARES), p=list(PROMPT_SHARES.values())))
        views = 0 if self.views is None else max(1, round(count * VIEW_SHARE))
        micro = max(1, count - views)
        frames, facets, latents, titles = [], [], [], []
        for _ in range(micro):
            attributes = random_attributes(rng)  # never one of the combinations held out for the exam
            seed = int(rng.integers(2**31))
            times = np.clip((np.arange(c.frames) + 0.5 + rng.uniform(-0.3, 0.3, c.frames)) / c.frames, 0, 1)
            frames.append(render_frames(attributes, seed, times, c.frame_size))
            vector = one_hot(attributes)
            facets.append(facet_indices(vector))
            latents.append((vector - self.mean) * latent_weights(prompt))
            titles.append(caption(attributes, rng) if rng.random() < TITLED else None)
        seen = self._views(rng, draw, views)
        ids, mask = title_tokens(self.tokenizer, titles + seen.titles, c.title_tokens)
        said = rng.integers(len(self.sentences[0]), size=SENTENCES * count)
        return ClipBatch(
            torch.from_numpy(np.stack(frames)),
            torch.from_numpy(seen.frames),
            torch.from_numpy(ids),
            torch.from_numpy(mask),
            torch.from_numpy(self.sentences[0][said]),
            torch.from_numpy(self.sentences[1][said]),
            torch.from_numpy(np.stack(facets)),
            torch.from_numpy(np.stack(latents).astype(np.float32)),
            seen.layers,
            seen.pooled,
            seen.language,
            torch.from_numpy(seen.colors),
            torch.from_numpy(seen.sentences),
            torch.from_numpy(seen.captioned),
            prompt,
        )

    def _views(self, rng: np.random.Generator, draw: int, count: int) -> _Seen:
        size = self.config.frame_size
        if self.views is None:
            return _Seen.none(size)
        batch = self.views.crops.batch(self.seed + 1, draw, count)
        crops = batch.crops.numpy()
        features = {"pooled": batch.pooled.numpy().copy(), "language": batch.language.numpy().copy()}
        layers = [x.numpy().mean(1) for x in batch.layers]
        times = (np.arange(VIEW_FRAMES) + 0.5) / VIEW_FRAMES
        frames = np.stack([CameraPath.random(x.shape, rng, 0.75).frames(x, times, size) for x in crops])
        texts: list[str | None] = []
        sentences, captioned = np.zeros((count, SENTENCE_WIDTH), np.float32), np.zeros(count, bool)
        for i, (first, second) in enumerate(batch.sources):
            known = self.views.captions[first] if second < 0 else ()
            pick = int(rng.integers(len(known))) if known else 0
            texts.append(known[pick] if known and rng.random() < TITLED else None)
            if known and texts[-1] is None and self.views.sentences is not None:
                sentences[i], captioned[i] = self.views.sentences[first][pick], True
        for i in np.flatnonzero(
            rng.random(count) < 0.2
        ).tolist():  # a cut to another picture: the teacher's views average
            other, at = int(rng.integers(count)), int(rng.integers(1, VIEW_FRAMES))
            share = at / VIEW_FRAMES
            frames[i, at:] = frames[other, at:]
            for x in (*features.values(), *layers):
                x[i] = share * x[i] + (1 - share) * x[other]
            texts[i], captioned[i] = None, False
        if self.views.videos is not None:
            self._put_videos(rng, frames, features, layers, texts, captioned)
        return _Seen(
            frames,
            texts,
            tuple(torch.from_numpy(x) for x in layers),
            torch.from_numpy(features["pooled"]),
            torch.from_numpy(features["language"]),
            np.stack([color_layout(f) for f in frames]),
            sentences,
            captioned,
        )

    def _put_videos(
        self,
        rng: np.random.Generator,
        frames: np.ndarray,
        features: dict[str, np.ndarray],
        layers: list[np.ndarray],
        texts: list[str | None],
        captioned: np.ndarray,
    ) -> None:
        """Real videos take the place of up to half of the views."""
        assert self.views is not None
        assert self.views.videos is not None
        videos, crops = self.views.videos, self.views.crops
        for i in range(min(len(frames) // 2, len(videos.frames))):
            v = int(rng.integers(len(videos.frames)))
            shown = videos.frames[v]
            spans = np.linspace(0, len(shown), VIEW_FRAMES + 1)
            chosen = [min(int(rng.uniform(a, b)), len(shown) - 1) for a, b in pairwise(spans)]
            size = frames.shape[2]
            frames[i] = [cv2.resize(shown[j], (size, size), interpolation=cv2.INTER_AREA) for j in chosen]
            if rng.random() < 0.5:
                frames[i] = frames[i, :, :, ::-1]
            features["pooled"][i] = crops.standardized("pooled", videos.features.pooled[v])
            features["language"][i] = crops.standardized("language", videos.features.language[v])
            for place, layer in enumerate(layers):
                layer[i] = crops.standardized(f"layer{place}", videos.features.layers[place][v].mean(0))
            known = videos.captions[v]
            texts[i] = known[int(rng.integers(len(known)))] if known and rng.random() < TITLED else None
            captioned[i] = False


@dataclass
class _Seen:
    """The part of a batch that is views of photos and videos."""

    frames: np.ndarray
    titles: list[str | None]
    layers: tuple[Tensor, ...]
    pooled: Tensor
    language: Tensor
    colors: np.ndarray
    sentences: np.ndarray
    captioned: np.ndarray

    @classmethod
    def none(cls, size: int) -> _Seen:
        empty = torch.zeros(0, 1)
        return cls(
            np.zeros((0, VIEW_FRAMES, size, size, 3), np.uint8), [], (), empty, empty,
            np.zeros((0, 48), np.float32), np.zeros((0, SENTENCE_WIDTH), np.float32), np.zeros(0, bool),
        )  # fmt: skip


class ClipHeads(nn.Module):
    """Readers of the tokens that exist only while training.

    Args:
        config: the student's shapes.
        layers: width of each of the teacher's layers; pooled, language: widths of these. Empty and 0 without a teacher.
        alike: which of pooled and language say what is alike.
    """

    def __init__(
        self,
        config: ModelConfig,
        layers: Sequence[int] = (),
        pooled: int = 0,
        language: int = 0,
        alike: tuple[str, ...] = ALIKE,
    ) -> None:
        super().__init__()
        self.alike = alike
        flat = config.tokens_per_layer * config.token_width
        self.facets = nn.ModuleList(nn.Linear(config.layers * flat, len(v)) for v in FACETS.values())
        if pooled:
            self.pooled = nn.Linear(config.layers * flat, pooled)
            self.language = nn.Linear(config.layers * flat, language)
            self.last = nn.Linear(flat, language)
            self.sentence = nn.Linear(config.layers * flat, SENTENCE_WIDTH)
            # Shallow layers of the teacher are asked of shallow taps, deep ones of deep taps.
            self.taps = [round((i + 1) / len(layers) * (config.layers - 1)) for i in range(len(layers))]
            self.layers = nn.ModuleList(nn.Linear(flat, width) for width in layers)


def see(encoder: VideoEncoder, batch: ClipBatch) -> tuple[Tensor, Tensor]:
    """Visual tokens of micro-videos [A, F, grid², W] and of views [P, VIEW_FRAMES, grid², W]."""
    micro, views = batch.micro_frames, batch.view_frames
    seen = encoder.tower(torch.cat([micro.flatten(0, 1), views.flatten(0, 1)]))
    first, second = seen.split([micro.shape[0] * micro.shape[1], views.shape[0] * views.shape[1]])
    return first.unflatten(0, micro.shape[:2]), second.unflatten(0, views.shape[:2])


def read_clips(
    encoder: VideoEncoder, batch: ClipBatch, seen: tuple[Tensor, Tensor], prompt: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """The compressors' features [B, L, M, W] and the last hidden states, of micro-videos and then, if any, of views.

    One after the other: a view's missing frames would be hidden by the mask, and cost as much as others.
    """
    a = len(batch.micro_frames)
    for visual, rows in zip(seen, (slice(None, a), slice(a, None)), strict=True):
        if len(visual):
            frame_mask = torch.ones(visual.shape[:2], dtype=torch.bool, device=visual.device)
            states = encoder.lm(visual, frame_mask, batch.title_ids[rows], batch.title_mask[rows], prompt)
            yield encoder.features(states, frame_mask), states[-1]


def caption_logits(encoder: VideoEncoder, last: Tensor) -> Tensor:
    """Logits [B, T, vocab] of each word of a title; the first is predicted from the last visual token.

    A padded frame's last position has seen nothing of its own, but all frames before it: it can start a caption too.
    """
    c = encoder.config
    start = last.shape[1] - c.title_tokens - c.prompt_tokens
    return encoder.lm.logits(last[:, start - 1 : start + c.title_tokens - 1])


def clip_losses(
    encoder: VideoEncoder,
    heads: ClipHeads,
    batch: ClipBatch,
    prompt: Tensor,
    accelerator: Accelerator,
    learn_tower: bool = True,
) -> dict[str, Tensor]:
    """Weighted loss terms of one batch."""
    a = len(batch.micro_frames)
    features, logits = [], []
    with accelerator.autocast():
        with torch.set_grad_enabled(learn_tower):
            seen = see(encoder, batch)
        for read, last in read_clips(encoder, batch, seen, prompt):
            features.append(read)
            logits.append(caption_logits(encoder, last))
        said = encoder.lm.logits(encoder.lm.read_text(batch.text_ids, batch.text_mask)[-1]).float()
    tokens = encoder.tokens(torch.cat(features).float()).flatten(2)  # [B, L, M·D]
    flat, following = tokens.flatten(1), batch.text_mask[:, 1:]
    named = [
        share * nn.functional.cross_entropy(head(flat[:a]), batch.facets[:, i])
        for i, (head, share) in enumerate(zip(heads.facets, facet_shares(batch.prompt).values(), strict=True))
    ]
    terms = {
        "facets": torch.stack(named).sum(),
        "words": WORDS * nn.functional.cross_entropy(said[:, :-1][following], batch.text_ids[:, 1:][following]),
    }
    if a > 1:
        by_layer = torch.from_numpy(layer_weights(tokens.shape[1])).to(tokens.device)
        terms["micro_relations"] = 5 * relational_loss(flat[:a], batch.latents)
        terms["micro_layers"] = 3 * relational_loss(tokens[:a].transpose(0, 1), by_layer[:, None] * batch.latents)
        terms["micro_centre"] = CENTERED * center_loss(tokens[:a].transpose(0, 1))
    if batch.title_mask.any():
        words = batch.title_mask
        terms["captions"] = WORDS * nn.functional.cross_entropy(
            torch.cat(logits).float()[words], batch.title_ids[words]
        )
    return terms if len(batch.view_frames) < 2 else terms | view_losses(heads, batch, tokens[a:])


def view_losses(heads: ClipHeads, batch: ClipBatch, tokens: Tensor) -> dict[str, Tensor]:
    """Terms of photos and videos, from their layer tokens [P, L, M·D]."""
    flat, by_layer = tokens.flatten(1), tokens.transpose(0, 1)
    if batch.prompt == "looks":
        return {
            "colour_relations": 5 * relational_loss(flat, batch.colors),
            "colour_layers": 3 * relational_loss(by_layer, batch.colors),
        }
    alike = [getattr(batch, name) for name in heads.alike]
    terms = {
        "pooled": feature_loss(heads.pooled(flat), batch.pooled),
        "language": feature_loss(heads.language(flat), batch.language),
        "last": 0.5 * feature_loss(heads.last(tokens[:, -1]), batch.language),
        "relations": 8 * relational_loss(flat, *alike),
        "layer_relations": 5 * relational_loss(by_layer, *alike),
        "centre": CENTERED * center_loss(by_layer),
    }
    for i, (head, tap, want) in enumerate(zip(heads.layers, heads.taps, batch.layers, strict=True)):
        terms[f"layer{i}"] = 0.2 * feature_loss(head(tokens[:, tap]), want)
    known = batch.captioned
    if int(known.sum()) > 1:
        terms["sentences"] = 0.1 * alignment_loss(heads.sentence(flat[known]), batch.sentences[known])
    return terms


def keep_statistics(tower: nn.Module) -> None:
    """Have batch norms use what they learned of photos: means over photos and rendered clips together fit neither."""
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def train_clips(
    run: Path,
    config: ModelConfig,
    recipe: StageRecipe,
    tokenizer: Tokenizer,
    encoder: VideoEncoder,
    views: Views | None,
    sentences: Sequence[str],
    accelerator: Accelerator,
    *,
    axes: int = 0,
    learn_tower: bool = True,
) -> None:
    """Train the encoder in place on micro-videos and, where given, views of photos and videos.

    Args:
        run, config, recipe, tokenizer, accelerator: as of every stage.
        encoder: its LM and compressors learn, and its tower if `learn_tower` says so.
        views: photos and videos; None: micro-videos alone.
        sentences: captions of anything, for the LM alone.
        axes: batches more, on which each compressor's last projection is then replaced by what keeps most of its
            features (`linkedout_quant.training.axes`); 0: it stays as it was trained.
        learn_tower: else the tower stays as it is, which saves a third of the time.
    """
    torch.manual_seed(recipe.seed)
    if views is None:
        heads = ClipHeads(config)
    else:
        crops = views.crops
        widths = [crops.width(f"layer{i}") for i in range(crops.layers)]
        heads = ClipHeads(config, widths, crops.width("pooled"), crops.width("language"), crops.alike)
    rest = nn.ModuleDict({"lm": encoder.lm, "compressors": encoder.compressors})
    modules = nn.ModuleDict({"rest": rest, "heads": heads})
    if learn_tower:
        modules["tower"] = encoder.tower
    else:
        encoder.tower.to(accelerator.device).eval()
    data = ClipData(config, tokenizer, views, sentences, recipe.seed)
    prompts = {name: prompt_ids(tokenizer, text, config.prompt_tokens) for name, text in PROMPTS.items()}

    def losses(draw: int, batch: int) -> dict[str, Tensor]:
        if views is not None:
            keep_statistics(encoder.tower)
        drawn = data.batch(draw, batch).to(accelerator.device)
        prompt = prompts[drawn.prompt].to(accelerator.device)
        return clip_losses(encoder, heads, drawn, prompt, accelerator, learn_tower)

    slow = () if views is None else ("tower",)  # without photos, nobody has taught the tower yet
    train_stage(run, recipe, modules, losses, slow=slow, checkpoint_every=100, accelerator=accelerator)
    if axes:
        # The checkpoint keeps the trained projections, so that going on from it does this once and not twice.
        after = recipe.steps * accelerator.num_processes
        drawn = (data.batch(after + i, recipe.batch) for i in range(axes))
        keep_most(encoder, track(drawn, "principal axes of the features", axes), prompts, accelerator)


@torch.no_grad()
def keep_most(
    encoder: VideoEncoder, batches: Iterable[ClipBatch], prompts: dict[str, Tensor], accelerator: Accelerator
) -> None:
    """Have the tokens keep most of the compressors' features, as they are of these clips under their prompts."""
    kinds: dict[tuple[str, bool], Moments] = {}
    for drawn in batches:
        batch = drawn.to(accelerator.device)
        read = read_clips(encoder, batch, see(encoder, batch), prompts[batch.prompt].to(accelerator.device))
        for micro, (features, _) in zip((True, False), read, strict=False):  # there may be no views
            kinds.setdefault((batch.prompt, micro), Moments()).add(features)
    share = {True: MICRO_SHARE, False: 1 - MICRO_SHARE}
    keep_axes(
        [c.project for c in encoder.compressors],  # type: ignore[misc]
        [(share[micro] * PROMPT_SHARES[prompt], moments) for (prompt, micro), moments in kinds.items()],
    )
