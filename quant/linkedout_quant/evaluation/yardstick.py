"""How well does content alone rank? Users of three tastes, through the public API, beside simpler ideas.

A baseline ranks by the cosine to what was watched, of features of its own: color histograms, the product's stored
tokens, a teacher's last layer. All features are centered: their mean over all clips is taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import cv2
import msgspec
import numpy as np

from linkedout_edge import Event, Recommender, Video
from linkedout_edge.cli.output import progress
from linkedout_edge.decode.base import slot_centers
from linkedout_edge.errors import LinkedOutError
from linkedout_edge.microworld import Exam, render_frames
from linkedout_quant.evaluation.baselines import color_histogram, unit_rows
from linkedout_quant.evaluation.exam import stored_vectors
from linkedout_quant.evaluation.metrics import grouped_interval, user_metrics
from linkedout_quant.evaluation.tastes import (
    RELEVANT_EACH,
    SKIPPED,
    STEPS,
    Kinds,
    SessionUser,
    Taste,
    TasteUser,
    mixed_taste,
    one_taste,
    sessions,
)
from linkedout_quant.progress import track

BASELINES = ("random", "histogram", "cosine", "teacher")
PRODUCT, REFERENCE = "product", "cosine"
SKIP_WEIGHT = -0.25  # of what was skipped, where a baseline sums up what was watched

_BATCH = 16  # clips in memory at a time

T = TypeVar("T")
Clip = np.ndarray  # uint8 [F, H, W, 3] RGB
MaybeClip = Clip | LinkedOutError
"""A clip, or why it cannot be had."""
Watched = tuple[int, float]
"""An item and the fraction of it that was watched."""
Ranker = Callable[[Sequence[Watched], np.ndarray, int], np.ndarray]
"""History, candidates int64 [C], how many are asked for → so many of the candidates, best first."""


@dataclass(frozen=True)
class Pool:
    """Clips that are in the store, and what baselines know of them."""

    ids: list[str]
    kinds: Kinds
    features: dict[str, np.ndarray]  # baseline → float64 [clips, width], centered, of length 1
    skipped: list[str]  # why some that were given are not among them


class Measured(msgspec.Struct):
    """A metric: the mean over kinds of the mean over users, with 95 % intervals by bootstrap.

    `difference` is that to the cosine of the same tokens, paired by user; None where that is no baseline.
    """

    mean: float
    interval: tuple[float, float]
    difference: float | None
    difference_interval: tuple[float, float] | None
    by_kind: dict[str, float]


class TasteReport(msgspec.Struct):
    """What was measured of the users of one taste: who ranks → metric → figures."""

    taste: Taste
    users: int
    results: dict[str, dict[str, Measured]]


def micro_clips(exam: Exam, size: int, frames: int) -> Iterator[Clip]:
    """The exam's clips as so many frames of this side, one after the other."""
    times = np.array(slot_centers(frames, 1.0))
    for attributes, seed in exam.pool:
        yield render_frames(attributes, seed, times, size)


def encode_pool(
    rec: Recommender,
    clips: Iterable[MaybeClip],
    kinds: Kinds,
    baselines: Sequence[str],
    teacher: Path | None = None,
) -> Pool:
    """Encode clips through the API, a few at a time, and take the baselines' features of them on the way.

    Args:
        rec: Recommender whose store takes them, as ``clip0``, ``clip1`` …
        clips: One for each item of `kinds`; an error in place of one that cannot be had.
        kinds: What they show.
        baselines: Some of `BASELINES`.
        teacher: Model file of the baseline ``teacher``.

    Raises:
        MissingDependencyError: The teacher's library is not installed.
    """
    looks = _looks(baselines, teacher)
    kept: list[int] = []
    rows: dict[str, list[np.ndarray]] = {name: [] for name in looks}
    skipped: list[str] = []
    total, done = kinds.member.shape[1], 0
    with progress("encoding clips", total, patience=0.0, keep=True) as advance:
        for batch in _batches(enumerate(clips), _BATCH):
            good = [(i, clip) for i, clip in batch if isinstance(clip, np.ndarray)]
            skipped += [str(clip) for _, clip in batch if not isinstance(clip, np.ndarray)]
            failed = {f.id: f.reason for f in rec.encode([Video(frames=c, id=f"clip{i}") for i, c in good]).failed}
            skipped += failed.values()
            for i, clip in good:
                if f"clip{i}" not in failed:
                    kept.append(i)
                    for name, look in looks.items():
                        rows[name].append(look(clip))
            done += len(batch)
            advance(done, total)
    ids = [f"clip{i}" for i in kept]
    features = {name: unit_rows(np.array(r)) for name, r in rows.items()}
    if REFERENCE in baselines:
        features[REFERENCE] = unit_rows(stored_vectors(rec, ids))
    return Pool(ids, kinds.take(kept), features, skipped)


def measure_tastes(
    rec: Recommender, pool: Pool, tastes: Sequence[Taste], baselines: Sequence[str], users: int, seed: int
) -> list[TasteReport]:
    """Rank for users of each taste.

    Raises:
        ArgumentError: No kind has as many clips as a taste needs.
    """
    rankers = {PRODUCT: by_api(rec, pool.ids)}
    for name in baselines:
        rankers[name] = by_chance(seed) if name == "random" else by_cosine(pool.features[name])
    reports = []
    for taste in tastes:
        drawn: list[TasteUser | SessionUser] = list(_DRAW[taste](pool.kinds, users, seed))
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in rankers}
        for user in track(drawn, f"ranking for users of taste {taste}"):
            for name, ranker in rankers.items():
                rows[name].append(judge(user, ranker))
        # Most pairs of kinds are drawn once or never, so users of two kinds are one group.
        groups = ["two kinds" if taste == "mixed" else user.kind for user in drawn]
        reports.append(TasteReport(taste, users, _summary(rows, groups)))
    return reports


def judge(user: TasteUser | SessionUser, ranker: Ranker) -> dict[str, float]:
    """Metrics of one user.

    One kind: NDCG@10 and AUC. Two kinds: NDCG@10, and both@10, the smaller of the two kinds' shares of what they could
    have of the first ten (five each). A session: the share of what was shown that was liked.
    """
    if isinstance(user, SessionUser):
        return {"liked": _session(user, ranker)}
    order = ranker([(int(i), 1.0) for i in user.history], user.candidates, len(user.candidates))
    mark = dict(zip(user.candidates.tolist(), user.wanted.tolist(), strict=True))
    found = np.array([mark[i] for i in order.tolist()])
    row = user_metrics(-np.arange(len(found)), found > 0, (10,))
    if (user.wanted == 2).any():
        return {"ndcg@10": row["ndcg@10"], "both@10": min((found[:10] == k).sum() for k in (1, 2)) / RELEVANT_EACH}
    return {"ndcg@10": row["ndcg@10"], "auc": row["auc"]}


def _session(user: SessionUser, ranker: Ranker) -> float:
    """Share liked of `STEPS` clips: each is the first of those not shown yet, and its fate goes into the history."""
    rest, history, liked = user.offered, list[Watched](), 0
    for _ in range(STEPS):
        shown = int(ranker(history, rest, 1)[0])
        liked += bool(user.likes[shown])
        history.append((shown, 1.0 if user.likes[shown] else SKIPPED))
        rest = rest[rest != shown]
    return liked / STEPS


def by_api(rec: Recommender, ids: Sequence[str]) -> Ranker:
    """What `Recommender.rank` says."""
    item = {id: i for i, id in enumerate(ids)}

    def rank(history: Sequence[Watched], candidates: np.ndarray, count: int) -> np.ndarray:
        events = [Event(ids[i], watched=fraction) for i, fraction in history]
        return np.array([item[r.id] for r in rec.rank(events, [ids[i] for i in candidates], top_k=count)])

    return rank


def by_cosine(units: np.ndarray) -> Ranker:
    """The sum over what was watched of cosines of features [clips, width]; what was skipped counts `SKIP_WEIGHT`."""

    def rank(history: Sequence[Watched], candidates: np.ndarray, count: int) -> np.ndarray:
        user = np.zeros(units.shape[1])
        for i, fraction in history:
            user += (1.0 if fraction > 0.5 else SKIP_WEIGHT) * units[i]
        return candidates[np.argsort(-(units[candidates] @ user), kind="stable")[:count]]

    return rank


def by_chance(seed: int) -> Ranker:
    """Any order."""
    rng = np.random.default_rng([seed, 2])
    return lambda history, candidates, count: rng.permutation(candidates)[:count]


_DRAW: dict[Taste, Callable[[Kinds, int, int], Iterator]] = {
    "one": one_taste,
    "mixed": mixed_taste,
    "session": sessions,
}


def _looks(baselines: Sequence[str], teacher: Path | None) -> dict[str, Callable[[Clip], np.ndarray]]:
    """What baselines see of a clip's pixels."""
    looks: dict[str, Callable[[Clip], np.ndarray]] = {}
    if "histogram" in baselines:
        looks["histogram"] = color_histogram
    if "teacher" in baselines:
        from linkedout_quant.teachers.mobilenet import SIDE, MobileNet

        assert teacher is not None
        net = MobileNet(teacher)
        looks["teacher"] = lambda clip: np.mean(
            [net(cv2.resize(f, (SIDE, SIDE), interpolation=cv2.INTER_AREA)).pooled for f in clip], 0
        )
    return looks


def _summary(rows: dict[str, list[dict[str, float]]], kinds: Sequence[str]) -> dict[str, dict[str, Measured]]:
    places = {kind: [i for i, k in enumerate(kinds) if k == kind] for kind in dict.fromkeys(kinds)}

    def grouped(values: np.ndarray) -> list[np.ndarray]:
        return [values[p] for p in places.values()]

    def mean(groups: list[np.ndarray]) -> float:
        return float(np.mean([g.mean() for g in groups]))

    summary: dict[str, dict[str, Measured]] = {}
    for name, results in rows.items():
        summary[name] = {}
        for metric in results[0]:
            values = np.array([r[metric] for r in results])
            groups, against = grouped(values), None
            if REFERENCE in rows and name != REFERENCE:
                against = grouped(values - np.array([r[metric] for r in rows[REFERENCE]]))
            summary[name][metric] = Measured(
                mean(groups),
                grouped_interval(groups),
                None if against is None else mean(against),
                None if against is None else grouped_interval(against),
                {kind: float(g.mean()) for kind, g in zip(places, groups, strict=True)},
            )
    return summary


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
