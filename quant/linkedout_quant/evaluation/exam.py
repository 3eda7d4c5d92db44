"""The micro-video exam, taken through the public API, beside its baselines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import numpy as np

from linkedout_edge import Event, Recommender, Video
from linkedout_edge.cli.output import progress
from linkedout_edge.decode.base import slot_centers
from linkedout_edge.microworld import Exam, ExamUser, ceiling_scores, normalized, render_frames
from linkedout_edge.rank.taste import dequantize
from linkedout_edge.store import read_tokens
from linkedout_quant.evaluation.baselines import (
    color_histograms,
    latest_cosine,
    mean_cosine,
    popularity,
    unit_rows,
)
from linkedout_quant.evaluation.metrics import bootstrap_interval, mean_metrics, user_metrics
from linkedout_quant.progress import track

Scorer = Callable[[ExamUser], np.ndarray]


def pool_videos(exam: Exam, size: int, frames: int) -> list[Video]:
    """The exam's clips as so many frames of this side, under ids ``clip0``, ``clip1`` …

    A model is shown what a decoder would give it: as many frames as it takes, and none that has to be enlarged.
    """
    times = np.array(slot_centers(frames, 1.0))
    return [
        Video(frames=render_frames(attributes, seed, times, size), id=f"clip{i}")
        for i, (attributes, seed) in enumerate(track(exam.pool, "rendering the exam's clips"))
    ]


def encode(rec: Recommender, videos: list[Video]) -> None:
    """Have the store take the exam's clips."""
    with progress("encoding the exam's clips", len(videos), patience=0.0, keep=True) as advance:
        rec.encode(videos, advance)


def stored_values(rec: Recommender, ids: list[str]) -> np.ndarray:
    """Stored layer tokens of videos, float32 [len(ids), L, M·D]."""
    return dequantize(*read_tokens(rec.store, ids))


def stored_vectors(rec: Recommender, ids: list[str]) -> np.ndarray:
    """The same, flattened: float32 [len(ids), L·M·D]."""
    return stored_values(rec, ids).reshape(len(ids), -1)


def product_scores(rec: Recommender, user: ExamUser, now: datetime) -> np.ndarray:
    """What `Recommender.rank` says of a user's candidates: float [C]."""
    history = [
        Event(f"clip{i}", watched=float(w), at=now - timedelta(hours=float(age)))
        for i, w, age in zip(user.history, user.watched, user.ages_hours, strict=True)
    ]
    ranking = rec.rank(history, [f"clip{i}" for i in user.candidates])
    score = {r.id: r.score for r in ranking}
    return np.array([score[f"clip{i}"] for i in user.candidates])


def take_exam(rec: Recommender, exam: Exam, videos: list[Video]) -> dict[str, dict]:
    """Metrics of the product, the baselines and the ceiling, by length of history.

    Returns:
        ``{"8": {"product": {"ndcg@10": …, "normalised": …, "interval": [low, high]}, "random": …}, …}``;
        `normalized` is (NDCG@10 − random) / (ceiling − random).
    """
    encode(rec, videos)
    now = datetime.now(timezone.utc)
    ids = [v.id for v in videos]
    tokens = unit_rows(stored_vectors(rec, ids))
    colors = color_histograms([v.frames for v in videos])
    watched = popularity((u.history for u in exam.users), len(videos))
    rng = np.random.default_rng(11)
    scorers: dict[str, Scorer] = {
        "product": lambda u: product_scores(rec, u, now),
        "random": lambda u: rng.random(len(u.candidates)),
        "popularity": lambda u: watched[u.candidates],
        "recency (cosine to the latest)": lambda u: latest_cosine(tokens, u.history, u.candidates),
        "colour histogram": lambda u: mean_cosine(colors, u.history, u.candidates),
        "mean cosine of the same tokens": lambda u: mean_cosine(tokens, u.history, u.candidates),
        "ceiling": lambda u: ceiling_scores(exam, u),
    }
    report: dict[str, dict] = {}
    for length in track(sorted({len(u.history) for u in exam.users}), "ranking for users of each length of history"):
        users = [u for u in exam.users if len(u.history) == length]
        rows = {name: [user_metrics(score(u), u.relevant) for u in users] for name, score in scorers.items()}
        means = {name: mean_metrics(r) for name, r in rows.items()}
        low, high = means["random"]["ndcg@10"], means["ceiling"]["ndcg@10"]
        for name, r in rows.items():
            means[name]["normalised"] = normalized(means[name]["ndcg@10"], low, high)
            means[name]["interval"] = list(bootstrap_interval([x["ndcg@10"] for x in r]))  # type: ignore[assignment]
        report[str(length)] = means
    return report
