"""Stage 3: fusion and ranking on user sequences.

The encoder is frozen up to the compressors' last projection; its features are computed once for a pool of clips, so a
step costs milliseconds and can rank a hundred candidates. Trained are the projections (which decide what an inner
product of tokens means) and the user encoder with its gates. Two kinds of users take turns: simulated ones of the
micro-video world, and ones who like a sort of photo, where the teacher's similarity to an anchor stands for taste.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from linkedout_edge.config import EVENT_FEATURES, ModelConfig
from linkedout_edge.decode.base import slot_centres
from linkedout_edge.features import event_features
from linkedout_edge.microworld import UserPool, one_hot, random_attributes, render_frames
from linkedout_quant.model import Student, fuse
from linkedout_quant.progress import track
from linkedout_quant.training.clips import latent_mean, relational_loss
from linkedout_quant.training.loop import StageRecipe, train_stage
from linkedout_quant.training.photo_clips import PhotoClips

CANDIDATES = 100
MAX_EVENTS = 32


@dataclass
class Case:
    """One user: indices into a pool of clips."""

    history: np.ndarray  # int [N], oldest first
    events: np.ndarray  # float32 [N, E]
    candidates: np.ndarray  # int [C]
    relevant: np.ndarray  # bool [C]


@torch.no_grad()
def pool_features(student: Student, clips: Sequence[Callable[[], np.ndarray]], what: str, batch: int = 16) -> Tensor:
    """Features float32 [clips, L, M, W] before the last projection; each clip is made when its turn comes."""
    c, encoder = student.config, student.encoder.eval()
    rows = []
    for start in track(range(0, len(clips), batch), f"features of {what}"):
        frames = torch.from_numpy(np.stack([make() for make in clips[start : start + batch]]))
        b = len(frames)
        frame_mask = torch.ones(b, c.frames, dtype=torch.bool)
        titles = torch.zeros(b, c.title_tokens, dtype=torch.int32)
        with torch.autocast("cpu", torch.bfloat16):
            states = encoder.states(frames, frame_mask, titles, titles.bool())
            rows.append(encoder.features(states, frame_mask).float())
    return torch.cat(rows)


class PhotoUsers:
    """Users who like what the teacher finds similar to an anchor photo."""

    def __init__(self, photos: PhotoClips, chosen: np.ndarray) -> None:
        features = photos.features[chosen]
        self.units = features / np.linalg.norm(features, axis=1, keepdims=True)
        self.photo = np.array([photos.clips[i].photo for i in chosen])

    def case(self, rng: np.random.Generator) -> Case:
        """One user with 1 to 12 events and 8 relevant candidates."""
        anchor = rng.integers(len(self.photo))
        cosine = self.units @ self.units[anchor]
        order = np.argsort(-cosine)
        _, first = np.unique(self.photo[order], return_index=True)  # one clip a photo
        order = order[np.sort(first)]
        liked = rng.permutation(order[: rng.integers(14, 30)])
        n = int(rng.integers(1, min(12, len(liked) - 8) + 1))
        others = rng.permutation(order[60:])[: CANDIDATES - 8]
        watched = rng.uniform(0.6, 1.0, n)
        ages = np.sort(rng.exponential(48, n))[::-1]
        candidates = np.r_[liked[n : n + 8], others]
        return told_differently(liked[:n], watched, ages, candidates, np.arange(len(candidates)) < 8, rng, plain=0.5)


def told_differently(
    history: np.ndarray,
    watched: np.ndarray,
    ages: np.ndarray,
    candidates: np.ndarray,
    relevant: np.ndarray,
    rng: np.random.Generator,
    *,
    plain: float,
) -> Case:
    """A case as apps of different kinds would tell it.

    Most hand in bare paths (watched to the end, of unknown age), some have a like button, and some know only what was
    skipped or disliked; then what is alike should come last.

    Args:
        plain: Share of users of whom nothing but the order of the videos is known.
    """
    n, kind = len(history), rng.random()
    said = np.zeros(n)
    if kind < plain:
        watched, ages = np.ones(n), np.full(n, np.nan)
    elif kind > 0.9:  # nothing but rejection
        watched, relevant = rng.uniform(0.0, 0.1, n), ~relevant
        if rng.random() < 0.7:
            said[:] = -1
            watched = np.where(rng.random(n) < 0.5, watched, rng.random(n))
    elif kind > 0.55:
        asked = rng.random(n) < 0.5
        said = np.where(asked & (watched > 0.65), 1.0, np.where(asked & (watched < 0.2), -1.0, 0.0))
        # Where the button says it, the time watched need not.
        watched = np.where((said != 0) & (rng.random(n) < 0.5), rng.random(n), watched)
    return Case(history, event_features(watched, ages_hours=ages, liked=said), candidates, relevant)


def collate(cases: list[Case]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cases → history [B, N], events float32 [B, N, E], mask bool [B, N], candidates [B, C], relevant bool [B, C]."""
    n = max(len(c.history) for c in cases)
    history, mask = np.zeros((len(cases), n), np.int64), np.zeros((len(cases), n), bool)
    events = np.zeros((len(cases), n, len(EVENT_FEATURES)), np.float32)
    for row, case in enumerate(cases):
        k = len(case.history)
        history[row, :k], events[row, :k], mask[row, :k] = case.history, case.events, True
    arrays = (
        history,
        events,
        mask,
        np.stack([c.candidates for c in cases]),
        np.stack([c.relevant for c in cases]),
    )
    return tuple(torch.from_numpy(a) for a in arrays)  # type: ignore[return-value]


def listwise_loss(scores: Tensor, relevant: Tensor) -> Tensor:
    """Cross-entropy between the softmax over candidates and the relevant ones, each alike."""
    target = relevant.float() / relevant.sum(1, keepdim=True)
    return -(target * torch.log_softmax(scores, 1)).sum(1).mean()


def train_users(
    run: Path,
    config: ModelConfig,
    recipe: StageRecipe,
    student: Student,
    photos: PhotoClips | None,
    pool: int = 3000,
) -> None:
    """Train projections and user encoder in place, then set the scale of the scores."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng([recipe.seed, 99])
    attributes = [random_attributes(rng) for _ in range(pool)]
    seeds = rng.integers(2**31, size=pool)
    times = np.array(slot_centres(config.frames, 1.0))
    users = UserPool(attributes)
    latents = torch.from_numpy(np.stack([one_hot(a) for a in attributes]) - latent_mean())

    photo_users = None
    if photos is not None:
        chosen = np.arange(0, len(photos.clips), 4)
        photo_users = PhotoUsers(photos, chosen)
        photo_teacher = torch.from_numpy(photos.features[chosen])
    cache = run / "features.pt"
    if cache.exists():
        saved = torch.load(cache, weights_only=True)
        micro_features, photo_features = saved["micro"], saved["photo"]
    else:
        rendered = [
            partial(render_frames, a, int(s), times, config.frame_size) for a, s in zip(attributes, seeds, strict=True)
        ]
        micro_features, photo_features = pool_features(student, rendered, "micro-videos"), None
        if photos is not None:
            panned = [partial(photos.frames, int(i), config.frames, config.frame_size) for i in chosen]
            photo_features = pool_features(student, panned, "photo clips")
        torch.save({"micro": micro_features, "photo": photo_features}, cache)

    projections = nn.ModuleList(c.project for c in student.encoder.compressors)  # type: ignore[misc]
    modules = nn.ModuleDict({"projections": projections, "user": student.user})

    def values(features: Tensor) -> Tensor:  # [P, L, M, W] → [P, L, M·D]
        return student.encoder.tokens(features).flatten(2)

    def scores_of(pool_values: Tensor, cases: list[Case], *, learn_gates: bool = True) -> tuple[Tensor, Tensor]:
        history, events, mask, candidates, relevant = collate(cases)
        query, bias, _ = student.user.from_values(pool_values[history], events, mask)
        if not learn_gates:
            query, bias = torch.stack([query[:, 0], query[:, 1].detach()], 1), bias.detach()
        return fuse(query, bias, pool_values[candidates])[0], relevant

    def losses(step: int) -> dict[str, Tensor]:
        draw = np.random.default_rng([recipe.seed, step])
        shown = values(micro_features)
        some = torch.from_numpy(draw.integers(pool, size=64))
        terms = {
            "micro": listwise_loss(*scores_of(shown, [micro_case(users, draw) for _ in range(recipe.batch)])),
            "micro_relations": relational_loss(shown[some].flatten(1), latents[some]),
        }
        if photo_users is not None:
            shown = values(photo_features)
            some = torch.from_numpy(draw.integers(len(photo_features), size=64))
            cases = [photo_users.case(draw) for _ in range(recipe.batch)]
            # The deepest layer knows these very photos by heart; gates that learned from them would trust it too much.
            terms["photo"] = listwise_loss(*scores_of(shown, cases, learn_gates=False))
            terms["photo_relations"] = 5 * relational_loss(shown[some].flatten(1), photo_teacher[some])
        return terms

    train_stage(run, recipe, modules, losses, slow=("projections",))
    with torch.no_grad():  # unit standard deviation of scores within a user's candidates, over users of both kinds
        draw = np.random.default_rng([recipe.seed, 10**6])
        spread = [scores_of(values(micro_features), [micro_case(users, draw) for _ in range(100)])[0].std(1)]
        if photo_users is not None:
            spread.append(scores_of(values(photo_features), [photo_users.case(draw) for _ in range(100)])[0].std(1))
        student.user.score_scale /= torch.cat(spread).mean()


def micro_case(users: UserPool, rng: np.random.Generator) -> Case:
    """One simulated user of the micro-video world with 1 to 32 events."""
    n = int(np.exp(rng.uniform(0, np.log(MAX_EVENTS + 0.99))))
    user = users.draw(rng, n_events=n, n_candidates=CANDIDATES)
    return told_differently(
        user.history, user.watched, user.ages_hours, user.candidates, user.relevant, rng, plain=0.15
    )
