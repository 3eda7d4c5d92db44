"""What a finished student does with prompts, with time, with new items; and what its gates look at.

All in torch, on clips of the exam (combinations that no training saw), with users drawn for the question at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from linkedout_edge.microworld import UserPool, make_exam
from linkedout_edge.rank.taste import Space
from linkedout_quant.evaluation.baselines import popularity
from linkedout_quant.evaluation.gates import drawn_users, ndcg_of, taste_of
from linkedout_quant.evaluation.metrics import bootstrap_interval, user_metrics
from linkedout_quant.evaluation.parts import Clip, exam_clips, micro_pool
from linkedout_quant.evaluation.sasrec import train_sasrec
from linkedout_quant.master import PROMPTS, prompt_ids
from linkedout_quant.model import Student
from linkedout_quant.progress import track


class Measured(msgspec.Struct):
    """NDCG@10 of some users with its 95 % interval over users."""

    what: str
    users: str
    ndcg: float
    interval: tuple[float, float]


@torch.no_grad()
def clip_values(student: Student, clips: Sequence[Clip], what: str, prompt: Tensor | None = None) -> np.ndarray:
    """Layer tokens float64 [clips, L, M·D] as a device would compute them, before rounding to int8."""
    c, encoder = student.config, student.encoder.eval()
    asked = encoder.prompt_ids if prompt is None else prompt
    rows = []
    for start in track(range(0, len(clips), 16), f"tokens of {what}"):
        frames = torch.from_numpy(np.stack([make() for make in clips[start : start + 16]]))
        b = len(frames)
        mask, title = torch.ones(b, c.frames, dtype=torch.bool), torch.zeros(b, c.title_tokens, dtype=torch.long)
        visual = encoder.tower(frames.flatten(0, 1)).unflatten(0, (b, c.frames))
        states = encoder.lm(visual, mask, title, title.bool(), asked)
        rows.append(encoder.tokens(encoder.features(states, mask)).flatten(2))
    return torch.cat(rows).double().numpy()


def _measured(what: str, users: str, ndcg: np.ndarray) -> Measured:
    return Measured(what, users, float(ndcg.mean()), bootstrap_interval(ndcg.tolist()))


def prompt_effect(student: Student, tokenizer: Tokenizer, users: int = 100) -> list[Measured]:
    """Users whose taste is objects, and users whose taste is colors, under each prompt baked into the encoder."""
    exam = make_exam(users_per_length=1)
    clips, pool = exam_clips(exam, student.config), UserPool([a for a, _ in exam.pool])
    rows = []
    for name, text in PROMPTS.items():
        asked = prompt_ids(tokenizer, text, student.config.prompt_tokens)
        values = clip_values(student, clips, f"clips, asked for {name}", asked)
        rows += [
            _measured(name, kind, ndcg_of(drawn_users(pool, kind, users, 1), values, Space.of(values)))
            for kind in ("object", "palette")
        ]
    return rows


def time_effect(student: Student, users: int = 100) -> list[Measured]:
    """What shuffled and repeated frames cost users whose taste is motion, or cuts, or objects (who should not care)."""
    exam = make_exam(users_per_length=1)
    clips, pool = exam_clips(exam, student.config), UserPool([a for a, _ in exam.pool])
    rng = np.random.default_rng(5)
    order = [rng.permutation(student.config.frames) for _ in clips]
    seen: dict[str, list[Clip]] = {
        "as filmed": list(clips),
        "frames shuffled": [lambda c=c, o=o: c()[o] for c, o in zip(clips, order, strict=True)],  # type: ignore[misc]
        "first frame repeated": [lambda c=c: np.repeat(c()[:1], student.config.frames, 0) for c in clips],  # type: ignore[misc]
    }
    rows = []
    for what, made in seen.items():
        values = clip_values(student, made, f"clips, {what}")
        rows += [
            _measured(what, kind, ndcg_of(drawn_users(pool, kind, users, 2), values, Space.of(values)))
            for kind in ("motion", "cuts", "object")
        ]
    return rows


def new_item_effect(
    student: Student, known: int = 500, new: int = 300, users: int = 100, watchers: int = 3000
) -> list[Measured]:
    """The product, a SASRec by item ids and popularity, on items that others watched and on items that nobody has."""
    attributes, clips = micro_pool(student.config, known + new, seed=11)
    pool, is_new = UserPool(attributes), np.arange(known + new) >= known
    values = clip_values(student, clips, "clips")
    rng = np.random.default_rng(13)
    watched = UserPool(attributes[:known])
    histories = [
        watched.draw(rng, n_events=int(rng.integers(4, 33)), n_candidates=10).history.tolist()
        for _ in track(range(watchers), "watchers")
    ]
    ids, watches = train_sasrec(histories, known + new), popularity(histories, known + new)
    old_users = drawn_users(watched, None, users, 3)
    new_users = drawn_users(pool, None, users, 3, is_new)
    rows = []
    for what, drawn in (("watched by others", old_users), ("watched by nobody yet", new_users)):
        rows.append(_measured("product", what, ndcg_of(drawn, values, Space.of(values))))
        by_id = [user_metrics(ids.scores(u.history.tolist(), u.candidates), u.relevant)["ndcg@10"] for u in drawn]
        rows.append(_measured("SASRec by ids", what, np.array(by_id)))
        often = [user_metrics(watches[u.candidates], u.relevant)["ndcg@10"] for u in drawn]
        rows.append(_measured("popularity", what, np.array(often)))
        chance = [user_metrics(rng.random(len(u.candidates)), u.relevant)["ndcg@10"] for u in drawn]
        rows.append(_measured("random", what, np.array(chance)))
    return rows


def gates_by_kind(student: Student, users: int = 60) -> dict[str, list[float]]:
    """Mean gate of each layer, by what users like: kind → float [L]."""
    exam = make_exam(users_per_length=1)
    values = clip_values(student, exam_clips(exam, student.config), "clips")
    pool, space = UserPool([a for a, _ in exam.pool]), Space.of(values)
    out = {}
    for kind in ("scene", "object", "palette", "motion", "camera", "cuts", "text"):
        gates = [taste_of(u, values, space).gates for u in drawn_users(pool, kind, users, 4)]
        out[kind] = [round(float(g), 4) for g in np.mean(gates, 0)]
    return out
