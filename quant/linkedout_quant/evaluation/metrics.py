"""Ranking metrics, all from torchmetrics: HR, NDCG and MRR at 5, 10 and 20, and AUC, averaged over users."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics.functional.regression import kendall_rank_corrcoef
from torchmetrics.functional.retrieval import (
    retrieval_auroc,
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_reciprocal_rank,
)

CUTS = (5, 10, 20)


def user_metrics(scores: np.ndarray, relevant: np.ndarray, cuts: Sequence[int] = CUTS) -> dict[str, float]:
    """Metrics of one user.

    Args:
        scores: float [C], higher is better. Ties are broken by position, as a ranking that keeps input order does.
        relevant: bool [C].
        cuts: k of HR@k, NDCG@k and MRR@k.
    """
    # Metrics sort by score alone; ranks in place of scores make them see the very order that a user would.
    order = np.argsort(-scores, kind="stable")
    preds = torch.empty(len(scores))
    # Within (0, 1]: torchmetrics takes anything else for logits, and its sigmoid would make ties of them.
    preds[torch.from_numpy(order.copy())] = torch.arange(len(scores), 0, -1, dtype=torch.float32) / len(scores)
    target = torch.from_numpy(np.array(relevant, bool))
    row = {"auc": float(retrieval_auroc(preds, target))}
    for k in cuts:
        row[f"hr@{k}"] = float(retrieval_hit_rate(preds, target, top_k=k))
        row[f"ndcg@{k}"] = float(retrieval_normalized_dcg(preds, target, top_k=k))
        row[f"mrr@{k}"] = float(retrieval_reciprocal_rank(preds, target, top_k=k))
    return row


def mean_metrics(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean over users of each metric."""
    return {k: float(np.mean([r[k] for r in rows])) for k in rows[0]}


def bootstrap_interval(values: Sequence[float], rounds: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean, by bootstrap over users."""
    x, rng = np.asarray(values), np.random.default_rng(seed)
    means = x[rng.integers(0, len(x), (rounds, len(x)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def grouped_interval(groups: Sequence[np.ndarray], rounds: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean over groups of each group's mean, by bootstrap over groups and over users in them.

    Args:
        groups: values float [users] of each group, none empty. Of a single group it is an interval over users.
        rounds, seed: of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(groups), (rounds, len(groups)))
    means = np.zeros(picks.shape)
    for g, values in enumerate(groups):
        here = picks == g
        means[here] = values[rng.integers(0, len(values), (here.sum(), len(values)))].mean(1)
    low, high = np.percentile(means.mean(1), [2.5, 97.5])
    return float(low), float(high)


def rank_agreement(a: np.ndarray, b: np.ndarray, k: int = 10) -> tuple[float, float]:
    """Kendall's tau of two score vectors [C], and the share of `a`'s k best that are among `b`'s."""
    tau = float(kendall_rank_corrcoef(torch.from_numpy(a.astype(np.float64)), torch.from_numpy(b.astype(np.float64))))
    best = [set(np.argsort(-x, kind="stable")[:k].tolist()) for x in (a, b)]
    return tau, len(best[0] & best[1]) / min(k, len(a))
