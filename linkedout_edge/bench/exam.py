"""Named sets of rankings, and measures of agreement between two backends' or precisions' answers to one."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.microworld import Exam, make_exam, render_frames

if TYPE_CHECKING:
    from linkedout_edge import Recommender

LENGTHS = (2, 8, 32)

Floats = NDArray[np.float64]


def _micro_video(rankings: int) -> Exam:
    return make_exam(users_per_length=-(-rankings // len(LENGTHS)), lengths=LENGTHS)


def _micro_video_sample(rankings: int) -> Exam:
    """Few enough clips to be rendered and encoded in seconds: a look at agreement, with wide intervals."""
    lengths = LENGTHS[:2]
    return make_exam(users_per_length=-(-rankings // len(lengths)), lengths=lengths, n_candidates=30, pool_size=48)


SETS: dict[str, Callable[[int], Exam]] = {"micro-video exam": _micro_video, "micro-video sample": _micro_video_sample}
"""Name → the set with at least so many rankings."""


def write_set(
    exam: Exam, frames: int, side: int, folder: Path, progress: Callable[[int, int], None] = lambda done, of: None
) -> tuple[Path, Path]:
    """Render a set's clips and write them and its users where the workers find them.

    Returns:
        A ``.npy`` with frames uint8 ``[P, F, side, side, 3]``, and the users as JSON.
    """
    from linkedout_edge.decode.base import slot_centers

    times = np.array(slot_centers(frames, 1.0))
    used = sorted({int(i) for u in exam.users for i in (*u.history, *u.candidates)})
    place = {clip: n for n, clip in enumerate(used)}
    clips, users = folder / "clips.npy", folder / "users.json"
    pixels = np.lib.format.open_memmap(clips, "w+", np.uint8, (len(used), frames, side, side, 3))
    for n, clip in enumerate(used):
        attributes, seed = exam.pool[clip]
        pixels[n] = render_frames(attributes, seed, times, side)
        progress(n + 1, len(used))
    pixels.flush()
    listed = [
        {
            "history": [place[int(i)] for i in u.history],
            "watched": u.watched.tolist(),
            "ages_hours": u.ages_hours.tolist(),
            "candidates": [place[int(i)] for i in u.candidates],
        }
        for u in exam.users
    ]
    users.write_text(json.dumps(listed))
    return clips, users


def take(rec: Recommender, frames: str, users: str, scores: str) -> None:
    """Rank for each user of a written set; scores float64 ``[users, C]`` go into a ``.npy``."""
    from linkedout_edge import Event, Video

    pixels = np.load(frames, mmap_mode="r")
    for start in range(0, len(pixels), 16):  # a few at a time: all of them would not fit into a small device
        some = pixels[start : start + 16]
        rec.encode([Video(frames=np.array(f), id=f"clip{start + n}") for n, f in enumerate(some)])
    now = datetime.now(timezone.utc)
    rows = []
    for user in json.loads(Path(users).read_text()):
        history = [
            Event(f"clip{i}", watched=w, at=now - timedelta(hours=age))
            for i, w, age in zip(user["history"], user["watched"], user["ages_hours"], strict=True)
        ]
        ranking = rec.rank(history, [f"clip{i}" for i in user["candidates"]])
        found = {r.id: r.score for r in ranking}
        rows.append([found[f"clip{i}"] for i in user["candidates"]])
    np.save(scores, np.array(rows))


def ndcg(scores: Floats, relevant: NDArray[np.bool_], k: int = 10) -> float:
    """NDCG@k of one ranking; ties are broken by position, as a ranking that keeps the input order does."""
    order = np.argsort(-scores, kind="stable")[:k]
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = discount[: min(k, int(relevant.sum()))].sum()
    return float((relevant[order] * discount[: len(order)]).sum() / best)


def kendall_tau(a: Floats, b: Floats) -> float:
    """Kendall's tau-b of two score vectors ``[C]``; of a hundred candidates all pairs are quickly compared."""
    x, y = np.sign(a[:, None] - a[None]), np.sign(b[:, None] - b[None])
    norm = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / norm) if norm else 1.0


def top_overlap(a: Floats, b: Floats, k: int = 10) -> float:
    """Share of `b`'s k best that are among `a`'s k best."""
    best = [set(np.argsort(-s, kind="stable")[:k].tolist()) for s in (a, b)]
    return len(best[0] & best[1]) / min(k, len(a))
