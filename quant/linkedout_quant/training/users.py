"""Stage "users": fusion and ranking on user sequences.

The encoder is frozen up to the compressors' last projection; its features are computed once for a pool of clips, so a
step costs milliseconds and can rank a hundred candidates. Trained are the projections (which decide what an inner
product of tokens means) and the user encoder with its gates. Two kinds of users take turns: simulated ones of the
micro-video world, and ones who like a sort of photo or video, where the teacher's similarity to an anchor stands for
taste. Gates learn from photos that the encoder was not trained on: of those that it was, the deepest layers know too
much, and gates would trust them more than they deserve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tokenizers import Tokenizer
from torch import Tensor, nn

from linkedout_edge.config import EVENT_FEATURES, ModelConfig
from linkedout_edge.decode.base import slot_centres
from linkedout_edge.features import event_features
from linkedout_edge.microworld import UserPool, one_hot, random_attributes, render_frames
from linkedout_quant.master import PROMPTS, prompt_ids
from linkedout_quant.model import Student
from linkedout_quant.model.fusion import layer_scores
from linkedout_quant.progress import track
from linkedout_quant.training.clips import PROMPT_SHARES, latent_mean, latent_weights
from linkedout_quant.training.loop import StageRecipe, train_stage
from linkedout_quant.training.losses import centre_loss, relational_loss, similarity

CANDIDATES = 100
MAX_EVENTS = 32
EVENNESS = 0.05
CENTRED = 1.0


@dataclass
class Case:
    """One user: indices into a pool of clips."""

    history: np.ndarray  # int [N], oldest first
    events: np.ndarray  # float32 [N, E]
    candidates: np.ndarray  # int [C]
    relevant: np.ndarray  # bool [C]


@torch.no_grad()
def pool_features(
    student: Student,
    clips: Sequence[Callable[[], np.ndarray]],
    prompts: Sequence[Tensor],
    what: str,
    accelerator: Accelerator,
    batch: int = 16,
) -> list[Tensor]:
    """Features float32 [clips, L, M, W] before the last projection, one tensor a prompt.

    Each clip is made when its turn comes; the vision tower looks at it once for all prompts. Several processes share
    the clips, and all of them have all features at the end.
    """
    c, encoder, device = student.config, student.encoder.eval().to(accelerator.device), accelerator.device
    rows: list[list[Tensor]] = [[] for _ in prompts]
    shares = np.array_split(np.arange(len(clips)), accelerator.num_processes)
    own = shares[accelerator.process_index].tolist()
    for start in track(range(0, len(own), batch), f"features of {what}"):
        frames = torch.from_numpy(np.stack([clips[i]() for i in own[start : start + batch]])).to(device)
        b = len(frames)
        frame_mask = torch.ones(b, c.frames, dtype=torch.bool, device=device)
        titles = torch.zeros(b, c.title_tokens, dtype=torch.long, device=device)
        with accelerator.autocast():
            visual = encoder.tower(frames.flatten(0, 1)).unflatten(0, (b, c.frames))
            for row, prompt in zip(rows, prompts, strict=True):
                states = encoder.lm(visual, frame_mask, titles, titles.bool(), prompt.to(device))
                row.append(encoder.features(states, frame_mask).float().cpu())
    empty = torch.zeros(0, c.layers, c.tokens_per_layer, c.lm_width)
    found = [torch.cat([empty, *row]) for row in rows]
    if accelerator.num_processes == 1:
        return found
    return [torch.cat(parts) for parts in zip(*gather_object([found]), strict=True)]


@dataclass(frozen=True)
class LikedSorts:
    """Users who like what the teacher finds similar to an anchor.

    Args:
        likeness: float [P, P], the teacher's similarities among the pool's items.
        liked: an anchor's nearest items, among which a user's likes are drawn.
        between: how many of the next ones are neither liked nor candidates, so that there is a margin.
    """

    likeness: np.ndarray
    liked: tuple[int, int] = (14, 30)
    between: int = 30

    @property
    def usable(self) -> bool:
        """Whether the pool is large enough to ask anything."""
        return len(self.likeness) >= self.liked[1] + self.between + 20

    def case(self, rng: np.random.Generator) -> Case:
        """One user with 1 to 12 events and up to 8 relevant candidates."""
        order = np.argsort(-self.likeness[rng.integers(len(self.likeness))])
        sort = int(rng.integers(*self.liked))
        liked = rng.permutation(order[:sort])
        relevant = min(8, sort // 2)
        n = int(rng.integers(1, min(12, sort - relevant) + 1))
        others = rng.permutation(order[self.liked[1] + self.between :])
        # All cases have one number of candidates; in a small pool some others come twice, which changes little.
        others = np.resize(others, CANDIDATES - relevant)
        watched = rng.uniform(0.6, 1.0, n)
        ages = np.sort(rng.exponential(48, n))[::-1]
        candidates = np.r_[liked[n : n + relevant], others]
        where = np.arange(CANDIDATES) < relevant
        return told_differently(liked[:n], watched, ages, candidates, where, rng, plain=0.5)


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


def mean_likeness(pooled: np.ndarray, language: np.ndarray) -> np.ndarray:
    """Mean of the cosines of both kinds of standardised features [P, ·]: float32 [P, P]."""
    both = [similarity(torch.from_numpy(x.astype(np.float32))) for x in (pooled, language)]
    return torch.stack(both).mean(0).numpy()


@dataclass(frozen=True)
class ClipPool:
    """Clips of photos and videos that users choose from."""

    clips: Sequence[Callable[[], np.ndarray]]  # each gives uint8 [F, H, W, 3]
    pooled: np.ndarray  # float32 [P, ·], the teacher's features, standardised
    language: np.ndarray
    held_back: np.ndarray  # bool [P], the encoder was not trained on it


def micro_pool(config: ModelConfig, size: int, seed: int) -> tuple[list, list[Callable[[], np.ndarray]]]:
    """Attributes of `size` random micro-videos and what renders each, uint8 [F, H, W, 3]."""
    rng = np.random.default_rng([seed, 99])
    attributes = [random_attributes(rng) for _ in range(size)]
    seeds = rng.integers(2**31, size=size)
    times = np.array(slot_centres(config.frames, 1.0))
    clips: list[Callable[[], np.ndarray]] = [
        partial(render_frames, a, int(s), times, config.frame_size) for a, s in zip(attributes, seeds, strict=True)
    ]
    return attributes, clips


def micro_case(users: UserPool, rng: np.random.Generator, kind: str | None = None) -> Case:
    """One simulated user of the micro-video world with 1 to 32 events."""
    n = int(np.exp(rng.uniform(0, np.log(MAX_EVENTS + 0.99))))
    user = users.draw(rng, n_events=n, n_candidates=CANDIDATES, kind=kind)
    return told_differently(
        user.history, user.watched, user.ages_hours, user.candidates, user.relevant, rng, plain=0.15
    )


class UserObjective:
    """Losses of the users stage on pools whose features are known; what experiments on the fusion share.

    Args:
        student: its projections and user encoder are trained.
        micro: prompt → features float32 [P, L, M, W] of micro-videos.
        attributes: what these show.
        pool: photos and videos; None: micro-videos alone.
        real: prompt → features of `pool`.
        top_k: see `linkedout_quant.model.fusion.fuse`.
        gated: whether gates learn; else all layers count alike.
    """

    def __init__(
        self,
        student: Student,
        micro: dict[str, Tensor],
        attributes: Sequence,
        pool: ClipPool | None = None,
        real: dict[str, Tensor] | None = None,
        top_k: int | None = None,
        gated: bool = True,
    ) -> None:
        self.student, self.micro, self.real, self.pool = student, micro, real or {}, pool
        self.top_k, self.gated = top_k, gated
        self.users = UserPool(attributes)
        self.latents = torch.from_numpy(np.stack([one_hot(a) for a in attributes]) - latent_mean())
        self.sorts: dict[bool, tuple[np.ndarray, LikedSorts]] = {}
        if pool is not None:
            for held_back in (False, True):
                chosen = np.flatnonzero(pool.held_back == held_back)
                likeness = mean_likeness(pool.pooled[chosen], pool.language[chosen])
                sorts = LikedSorts(likeness, (12, 20), 15) if held_back else LikedSorts(likeness)
                if sorts.usable:
                    self.sorts[held_back] = chosen, sorts
        projections = nn.ModuleList(c.project for c in student.encoder.compressors)  # type: ignore[misc]
        self.modules = nn.ModuleDict({"projections": projections, "user": student.user})

    def values(self, features: Tensor) -> Tensor:
        """[P, L, M, W] → tokens [P, L, M·D]."""
        return self.student.encoder.tokens(features).flatten(2)

    def scores(
        self, values: Tensor, cases: list[Case], *, learn_gates: bool = True, learn_rest: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores float32 [B, C], gates [B, C, L] and relevance bool [B, C] of users over a pool's tokens."""
        history, events, mask, candidates, relevant = (x.to(values.device) for x in collate(cases))
        query, bias, _ = self.student.user.from_values(values[history], events, mask)
        u, q = query[:, 0], query[:, 1]
        if not self.gated:
            q, bias = torch.zeros_like(q), torch.zeros_like(bias)
        if not learn_gates:
            q, bias = q.detach(), bias.detach()
        if not learn_rest:
            u = u.detach()
        each, gates = layer_scores(torch.stack([u, q], 1), bias, values[candidates], self.top_k)
        return (gates * each).sum(-1), gates, relevant

    def losses(self, recipe_seed: int, draw: int, batch: int) -> dict[str, Tensor]:
        """Weighted loss terms of one step."""
        rng = np.random.default_rng([recipe_seed, draw])
        prompt = str(rng.choice(list(PROMPT_SHARES), p=list(PROMPT_SHARES.values())))
        prompt = prompt if prompt in self.micro else "general"
        kind = {"general": None, "objects": "objects", "looks": "looks"}[prompt]
        device = next(self.student.user.parameters()).device
        shown = self.values(self.micro[prompt].to(device))
        some = torch.from_numpy(rng.integers(len(shown), size=64))
        scores, _, relevant = self.scores(shown, [micro_case(self.users, rng, kind) for _ in range(batch)])
        weighted = (self.latents[some] * torch.from_numpy(latent_weights(prompt))).to(device)
        terms = {
            "micro": listwise_loss(scores, relevant),
            "micro_relations": relational_loss(shown[some.to(device)].flatten(1), weighted),
            "micro_centre": CENTRED * centre_loss(shown.transpose(0, 1)),
        }
        if self.pool is None or prompt == "looks":
            return terms
        shown = self.values(self.real[prompt].to(device))
        pooled, language = (torch.from_numpy(x).to(device) for x in (self.pool.pooled, self.pool.language))
        for held_back, (chosen, sorts) in self.sorts.items():
            name = "unseen" if held_back else "seen"
            cases = [self._within(chosen, sorts.case(rng)) for _ in range(batch)]
            scores, gates, relevant = self.scores(shown, cases, learn_gates=held_back, learn_rest=not held_back)
            terms[name] = listwise_loss(scores, relevant)
            if held_back:
                # Layers err in different ways, so their mean errs less than the best of them: gates stay soft.
                terms["evenness"] = EVENNESS * (gates * (gates + 1e-9).log()).sum(-1).mean()
        learned = np.flatnonzero(~self.pool.held_back)
        terms["centre"] = CENTRED * centre_loss(shown[torch.from_numpy(learned).to(device)].transpose(0, 1))
        some = torch.from_numpy(rng.choice(learned, min(64, len(learned)), replace=False)).to(device)
        terms["relations"] = 5 * relational_loss(shown[some].flatten(1), pooled[some], language[some])
        terms["layer_relations"] = 3 * relational_loss(shown[some].transpose(0, 1), pooled[some], language[some])
        return terms

    @staticmethod
    def _within(chosen: np.ndarray, case: Case) -> Case:
        """A case told in places of a part of the pool, in places of the whole."""
        return Case(chosen[case.history], case.events, chosen[case.candidates], case.relevant)

    @torch.no_grad()
    def unit_scores(self, seed: int) -> None:
        """Scale scores to unit standard deviation within a user's candidates, over users of all kinds."""
        rng = np.random.default_rng([seed, 10**6])
        device = next(self.student.user.parameters()).device
        shown = self.values(self.micro["general"].to(device))
        spread = [self.scores(shown, [micro_case(self.users, rng) for _ in range(100)])[0].std(1)]
        for chosen, sorts in self.sorts.values():
            shown = self.values(self.real["general"].to(device))
            cases = [self._within(chosen, sorts.case(rng)) for _ in range(50)]
            spread.append(self.scores(shown, cases)[0].std(1))
        self.student.user.score_scale /= torch.cat(spread).mean()


def train_users(
    run: Path,
    config: ModelConfig,
    recipe: StageRecipe,
    tokenizer: Tokenizer,
    student: Student,
    real: ClipPool | None,
    pool: int,
    accelerator: Accelerator,
) -> None:
    """Train projections and user encoder in place, then set the scale of the scores."""
    torch.manual_seed(recipe.seed)
    attributes, clips = micro_pool(config, pool, recipe.seed)
    cache = run / "features.pt"
    if not cache.exists():
        prompts = [prompt_ids(tokenizer, text, config.prompt_tokens) for text in PROMPTS.values()]
        features = pool_features(student, clips, prompts, "micro-videos", accelerator)
        state = {"micro": dict(zip(PROMPTS, features, strict=True))}
        if real is not None:
            features = pool_features(student, real.clips, prompts, "photos and videos", accelerator)
            state["real"] = dict(zip(PROMPTS, features, strict=True))
        if accelerator.is_main_process:
            partial_file = cache.with_suffix(".partial")
            torch.save(state, partial_file)
            partial_file.replace(cache)
    accelerator.wait_for_everyone()
    saved = torch.load(cache, weights_only=True)
    objective = UserObjective(student, saved["micro"], attributes, real, saved.get("real"))
    train_stage(
        run,
        recipe,
        objective.modules,
        lambda draw, batch: objective.losses(recipe.seed, draw, batch),
        slow=("projections",),
        accelerator=accelerator,
    )
    objective.unit_scores(recipe.seed)
