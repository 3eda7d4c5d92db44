"""Does each part earn its place? One table of what a finished student loses without it, with intervals.

The trunk (tower and LM) is that of the run. Compressors on its hidden states are trained again for each variant, alike
for all. All are judged by the closed form (`linkedout_edge.rank.taste`) on the exam's users, whose clips show
combinations that no training saw; differences are paired by user.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from linkedout_edge.config import ModelConfig
from linkedout_edge.decode.base import slot_centers
from linkedout_edge.microworld import Attributes, Exam, make_exam, one_hot, random_attributes, render_frames
from linkedout_edge.rank.taste import Space
from linkedout_quant.evaluation.gates import ndcg_of, without_gates
from linkedout_quant.evaluation.metrics import bootstrap_interval
from linkedout_quant.model import Student
from linkedout_quant.model.compressor import Compressor
from linkedout_quant.progress import track
from linkedout_quant.training.clips import facet_indices, latent_mean, layer_weights
from linkedout_quant.training.losses import relational_loss

COMPRESSOR_STEPS = 200
Clip = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Variant:
    """A way to build the rest on a trunk.

    Attributes:
        name: for the table.
        states: which hidden states the taps read; 0 is the LM's input, so ``(0,) * L`` is a student without LM.
        tokens: M, layer tokens a tap.
        gated: whether gates follow a user's evidence; else all layers count alike.
    """

    name: str
    states: tuple[int, ...]
    tokens: int = 2
    gated: bool = True


def variants(config: ModelConfig) -> list[Variant]:
    """The whole first, then what it is compared with."""
    taps = config.taps
    return [
        Variant("all layers, gates by evidence, M = 2 (what ships)", taps),
        Variant("the LM replaced by identity", (0,) * len(taps)),
        Variant("last layer alone", taps[-1:]),
        *(Variant(f"layer {t} alone", (t,)) for t in taps[:-1]),
        Variant("mean of the layers, no gates", taps, gated=False),
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
    times = np.array(slot_centers(config.frames, 1.0))
    return [lambda a=a, s=s: render_frames(a, s, times, config.frame_size) for a, s in exam.pool]  # type: ignore[misc]


def micro_pool(config: ModelConfig, size: int, seed: int) -> tuple[list[Attributes], list[Clip]]:
    """Attributes of `size` random micro-videos and what renders each, uint8 [F, H, W, 3]."""
    rng = np.random.default_rng([seed, 99])
    attributes = [random_attributes(rng) for _ in range(size)]
    seeds = rng.integers(2**31, size=size)
    times = np.array(slot_centers(config.frames, 1.0))
    clips: list[Clip] = [
        partial(render_frames, a, int(s), times, config.frame_size) for a, s in zip(attributes, seeds, strict=True)
    ]
    return attributes, clips


class _Compressors(nn.Module):
    """A variant's compressors, one for each of the states that its taps read."""

    def __init__(self, config: ModelConfig, taps: Sequence[int]) -> None:
        super().__init__()
        self.taps = taps
        self.compressors = nn.ModuleList(Compressor(config) for _ in taps)

    def forward(self, states: Tensor) -> Tensor:
        """Hidden states [B, LM layers + 1, S, W] → layer tokens [B, L, M·D]."""
        valid = torch.ones(states.shape[0], states.shape[2], dtype=torch.bool)
        rows = [
            c.tokens(c.features(states[:, tap].float(), valid))  # type: ignore[operator]
            for c, tap in zip(self.compressors, self.taps, strict=True)
        ]
        return torch.stack(rows, 1).flatten(2)


def train_compressors(config: ModelConfig, variant: Variant, states: Tensor, attributes: Sequence) -> _Compressors:
    """Fresh compressors, taught to name facets and to keep their similarities."""
    torch.manual_seed(0)
    config = msgspec.structs.replace(config, tokens_per_layer=variant.tokens)
    compressors = _Compressors(config, variant.states)
    vectors = np.stack([one_hot(a) for a in attributes])
    latents = torch.from_numpy(vectors - latent_mean())
    by_layer = torch.from_numpy(layer_weights(len(variant.states)))[:, None]
    facets = torch.from_numpy(np.stack([facet_indices(v) for v in vectors]))
    flat = len(variant.states) * config.tokens_per_layer * config.token_width
    heads = nn.ModuleList(nn.Linear(flat, int(facets[:, i].max()) + 1) for i in range(facets.shape[1]))
    optimizer = torch.optim.AdamW([*compressors.parameters(), *heads.parameters()], 3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, COMPRESSOR_STEPS)
    for _ in track(range(COMPRESSOR_STEPS), f"compressors: {variant.name}"):
        rows = torch.randint(len(states), (48,))
        tokens = compressors(states[rows])
        whole = tokens.flatten(1)
        loss = 5 * relational_loss(whole, latents[rows])
        loss = loss + 3 * relational_loss(tokens.transpose(0, 1), by_layer * latents[rows])
        named = [nn.functional.cross_entropy(h(whole), facets[rows, i]) for i, h in enumerate(heads)]
        loss = loss + torch.stack(named).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return compressors.eval()


class PartRow(msgspec.Struct):
    """One line of the table: NDCG@10 and its paired difference to the whole, each with a 95 % interval over users."""

    name: str
    ndcg: float
    interval: tuple[float, float]
    difference: float
    difference_interval: tuple[float, float]


def judge(variant: Variant, values: np.ndarray, exam: Exam) -> np.ndarray:
    """NDCG@10 [users] of a variant whose tokens of the exam's clips are [clips, L, M·D]."""
    space = Space.of(values)
    if not variant.gated:
        values, space = without_gates(values, space)
    return ndcg_of(exam.users, values, space)


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
    tokens: dict[tuple[tuple[int, ...], int], np.ndarray] = {}
    for variant in variants(config):
        built = variant.states, variant.tokens
        if built not in tokens:
            compressors = train_compressors(config, variant, states, attributes)
            with torch.no_grad():
                parts = [compressors(part) for part in exam_states.split(64)]
            tokens[built] = torch.cat(parts).double().numpy()
        results.append((variant, judge(variant, tokens[built], exam)))
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
