"""Does each part earn its place? One table of what a finished student loses without it, with intervals.

The trunk (tower and LM) is that of the run. What a variant changes is trained anew and alike for all: compressors on
the hidden states, then projections, user encoder and gates on simulated users. All are judged on the exam's users,
whose clips show combinations that no training saw; differences are paired by user.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from linkedout_edge.config import ModelConfig
from linkedout_edge.decode.base import slot_centres
from linkedout_edge.features import event_features
from linkedout_edge.microworld import Exam, ExamUser, make_exam, one_hot, render_frames
from linkedout_quant.evaluation.metrics import bootstrap_interval, user_metrics
from linkedout_quant.model import Student
from linkedout_quant.model.compressor import Compressor
from linkedout_quant.progress import track
from linkedout_quant.training.clips import facet_indices, latent_mean, layer_weights
from linkedout_quant.training.losses import relational_loss
from linkedout_quant.training.users import UserObjective, micro_pool

COMPRESSOR_STEPS, USER_STEPS = 200, 250
Clip = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Variant:
    """A way to build the rest on a trunk.

    Attributes:
        name: for the table.
        states: which hidden states the taps read; 0 is the LM's input, so ``(0,) * L`` is a student without LM.
        tokens: M, layer tokens a tap.
        top_k, gated: see `linkedout_quant.training.users.UserObjective`.
    """

    name: str
    states: tuple[int, ...]
    tokens: int = 2
    top_k: int | None = None
    gated: bool = True


def variants(config: ModelConfig) -> list[Variant]:
    """The whole first, then what it is compared with."""
    taps = config.taps
    return [
        Variant("all layers, soft gates, M = 2 (what ships)", taps),
        Variant("the LM replaced by identity", (0,) * len(taps)),
        Variant("last layer alone", taps[-1:]),
        *(Variant(f"layer {t} alone", (t,)) for t in taps[:-1]),
        Variant("mean of the layers, no gates", taps, gated=False),
        Variant("top-1 gate", taps, top_k=1),
        Variant("top-2 gates", taps, top_k=2),
        Variant("M = 1", taps, tokens=1),
        Variant("M = 4", taps, tokens=4),
    ]


@torch.no_grad()
def hidden_states(student: Student, clips: Sequence[Clip], what: str) -> Tensor:
    """What compressors may read: float16 [clips, LM layers + 1, visual + prompt positions, W]."""
    c, encoder = student.config, student.encoder.eval()
    seen, rows = c.frames * c.grid**2, []
    for start in track(range(0, len(clips), 16), f"hidden states of {what}"):
        frames = torch.from_numpy(np.stack([make() for make in clips[start : start + 16]]))
        mask = torch.ones(len(frames), c.frames, dtype=torch.bool)
        title = torch.zeros(len(frames), c.title_tokens, dtype=torch.long)
        states = encoder.states(frames, mask, title, title.bool())
        rows.append(torch.stack([torch.cat([s[:, :seen], s[:, -c.prompt_tokens :]], 1) for s in states], 1).half())
    return torch.cat(rows)


def exam_clips(exam: Exam, config: ModelConfig) -> list[Clip]:
    """What renders each clip of an exam, uint8 [F, H, W, 3]."""
    times = np.array(slot_centres(config.frames, 1.0))
    return [lambda a=a, s=s: render_frames(a, s, times, config.frame_size) for a, s in exam.pool]  # type: ignore[misc]


class _Trunk(nn.Module):
    """Compressors alone, in the place where `UserObjective` looks for an encoder."""

    def __init__(self, config: ModelConfig, count: int) -> None:
        super().__init__()
        self.config = config
        self.compressors = nn.ModuleList(Compressor(config) for _ in range(count))

    def features(self, states: Tensor, taps: Sequence[int]) -> Tensor:
        """Hidden states [B, LM layers + 1, S, W] → [B, L, M, W]."""
        valid = torch.ones(states.shape[0], states.shape[2], dtype=torch.bool)
        rows = [
            c.features(states[:, tap].float(), valid)  # type: ignore[operator]
            for c, tap in zip(self.compressors, taps, strict=True)
        ]
        return torch.stack(rows, 1)

    def tokens(self, features: Tensor) -> Tensor:
        """[B, L, M, W] → [B, L, M, D]."""
        return torch.stack([c.tokens(features[:, i]) for i, c in enumerate(self.compressors)], 1)  # type: ignore[operator]


class _Head(nn.Module):
    """Trunk and user encoder of a variant: what `UserObjective` needs of a student."""

    def __init__(self, config: ModelConfig, trunk: _Trunk) -> None:
        super().__init__()
        from linkedout_quant.model import UserEncoder

        self.config, self.encoder, self.user = config, trunk, UserEncoder(config)


def _variant_config(config: ModelConfig, variant: Variant) -> ModelConfig:
    # The user encoder's size follows the number of taps; which states they read is the variant's own business.
    taps = tuple(range(len(variant.states)))
    return msgspec.structs.replace(config, taps=taps, tokens_per_layer=variant.tokens)


def train_compressors(config: ModelConfig, variant: Variant, states: Tensor, attributes: Sequence) -> _Trunk:
    """Fresh compressors, taught to name facets and to keep their similarities."""
    torch.manual_seed(0)
    trunk = _Trunk(config, len(variant.states))
    vectors = np.stack([one_hot(a) for a in attributes])
    latents = torch.from_numpy(vectors - latent_mean())
    by_layer = torch.from_numpy(layer_weights(len(variant.states)))[:, None]
    facets = torch.from_numpy(np.stack([facet_indices(v) for v in vectors]))
    flat = config.layers * config.tokens_per_layer * config.token_width
    heads = nn.ModuleList(nn.Linear(flat, int(facets[:, i].max()) + 1) for i in range(facets.shape[1]))
    optimiser = torch.optim.AdamW([*trunk.parameters(), *heads.parameters()], 3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, COMPRESSOR_STEPS)
    for _ in track(range(COMPRESSOR_STEPS), f"compressors: {variant.name}"):
        rows = torch.randint(len(states), (48,))
        tokens = trunk.tokens(trunk.features(states[rows], variant.states)).flatten(2)
        whole = tokens.flatten(1)
        loss = 5 * relational_loss(whole, latents[rows])
        loss = loss + 3 * relational_loss(tokens.transpose(0, 1), by_layer * latents[rows])
        named = [nn.functional.cross_entropy(h(whole), facets[rows, i]) for i, h in enumerate(heads)]
        loss = loss + torch.stack(named).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return trunk.eval()


def exam_scores(head: nn.Module, values: Tensor, user: ExamUser, objective: UserObjective) -> np.ndarray:
    """Scores float32 [C] of an exam user's candidates, as the variant's fusion gives them."""
    from linkedout_quant.training.users import Case

    liked = np.zeros(len(user.history))
    events = event_features(user.watched, ages_hours=user.ages_hours, liked=liked)
    case = Case(user.history, events, user.candidates, user.relevant)
    with torch.no_grad():
        return objective.scores(values, [case])[0][0].numpy()


def train_variant(
    config: ModelConfig,
    variant: Variant,
    trunk: _Trunk,
    features: Tensor,
    attributes: Sequence,
    exam_features: Tensor,
    users: Sequence[ExamUser],
) -> np.ndarray:
    """NDCG@10 float64 [users] of a variant whose compressors are trained."""
    torch.manual_seed(1)
    head = _Head(config, trunk)
    objective = UserObjective(
        head,  # type: ignore[arg-type]  # it has what of a student is asked for
        {"general": features},
        attributes,
        top_k=variant.top_k,
        gated=variant.gated,
    )
    projections, user = objective.modules["projections"], objective.modules["user"]
    optimiser = torch.optim.AdamW(
        [{"params": projections.parameters(), "lr": 4e-4}, {"params": user.parameters(), "lr": 2e-3}], weight_decay=0.02
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [4e-4, 2e-3], USER_STEPS)
    for step in track(range(USER_STEPS), f"users: {variant.name}"):
        loss = torch.stack(list(objective.losses(0, step, 16).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(list(head.parameters()), 1.0)
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        values = objective.values(exam_features)
    return np.array([user_metrics(exam_scores(head, values, u, objective), u.relevant)["ndcg@10"] for u in users])


class PartRow(msgspec.Struct):
    """One line of the table: NDCG@10 and its paired difference to the whole, each with a 95 % interval over users."""

    name: str
    ndcg: float
    interval: tuple[float, float]
    difference: float
    difference_interval: tuple[float, float]


def compare_parts(student: Student, pool: int = 1200, users_per_length: int = 60) -> list[PartRow]:
    """Train and judge every variant on a finished student's trunk.

    Args:
        student: its tower and LM are used as they are.
        pool: micro-videos to train on.
        users_per_length: exam users for each of 2, 8 and 32 events.
    """
    config = student.config
    attributes, clips = micro_pool(config, pool, seed=3)
    exam = make_exam(users_per_length=users_per_length)
    states = hidden_states(student, clips, "training clips")
    exam_states = hidden_states(student, exam_clips(exam, config), "the exam's clips")
    results: list[tuple[Variant, np.ndarray]] = []
    trained: dict[tuple[int, ...], tuple[_Trunk, Tensor, Tensor]] = {}
    for variant in variants(config):
        shape = _variant_config(config, variant)
        whole = (*variant.states, variant.tokens)
        if whole not in trained:
            trunk = train_compressors(shape, variant, states, attributes)
            with torch.no_grad():
                read = [
                    torch.cat([trunk.features(part, variant.states) for part in s.split(64)])
                    for s in (states, exam_states)
                ]
            trained[whole] = trunk, read[0], read[1]
        trunk, features, exam_features = trained[whole]
        fresh = _Trunk(shape, len(variant.states))  # variants share compressors, but not what users teach them
        fresh.load_state_dict(trunk.state_dict())
        results.append((variant, train_variant(shape, variant, fresh, features, attributes, exam_features, exam.users)))
    reference = results[0][1]
    return [
        PartRow(
            variant.name,
            float(ndcg.mean()),
            bootstrap_interval(ndcg.tolist()),
            float((ndcg - reference).mean()),
            bootstrap_interval((ndcg - reference).tolist()),
        )
        for variant, ndcg in results
    ]
