"""Do personal gates earn their place? Users whose taste lives at one depth, with gates by evidence and without.

Both rank by the same closed form (`linkedout_edge.rank.taste`) over the same tokens. Without personal gates every layer
counts as `Space.prior` says, for all users alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from linkedout_edge.microworld import Attributes, PoolUser, UserPool
from linkedout_edge.rank.taste import Space, Taste, fit, noise, wanted
from linkedout_quant.evaluation.metrics import bootstrap_interval, user_metrics
from linkedout_quant.progress import track

DEPTHS = ("looks", "objects", "motion")
"""Kinds of users, each of whom cares about what one depth of the encoder should know best."""
EVENTS = 8


class GateReport(msgspec.Struct):
    """NDCG@10 of users of one kind, with 95 % intervals over users.

    `difference` is that of gates by evidence to even gates, paired by user; `gates` are the users' mean gates.
    """

    kind: str
    users: int
    by_evidence: float
    by_evidence_interval: tuple[float, float]
    even: float
    even_interval: tuple[float, float]
    difference: float
    difference_interval: tuple[float, float]
    gates: list[float]


def drawn_users(
    pool: UserPool, kind: str | None, count: int, seed: int, new: np.ndarray | None = None
) -> list[PoolUser]:
    """Users of a kind with `EVENTS` events; arguments as of `UserPool.draw`."""
    rng = np.random.default_rng([seed, 41])
    return [pool.draw(rng, n_events=EVENTS, kind=kind, new=new) for _ in range(count)]


def taste_of(user: PoolUser, values: np.ndarray, space: Space) -> Taste:
    """What the closed form makes of a user's history; values: [clips, L, M·D], tokens of the pool."""
    return fit(values[user.history], wanted(user.watched), noise(user.ages_hours), space)


def ndcg_of(users: Sequence[PoolUser], values: np.ndarray, space: Space) -> np.ndarray:
    """NDCG@10 [users] of the closed form over a pool's tokens [clips, L, M·D]."""
    return np.array(
        [
            user_metrics(taste_of(u, values, space).score(values[u.candidates]), u.relevant, (10,))["ndcg@10"]
            for u in users
        ]
    )


def without_gates(values: np.ndarray, space: Space) -> tuple[np.ndarray, Space]:
    """Tokens [clips, L, M·D] as those of one layer [clips, 1, L·M·D], and their space.

    With one layer there is nothing to gate: each of those that it is made of counts as `space.prior` says.
    """
    weighted = (values - space.mean) * np.sqrt(space.prior / space.size)[:, None]
    one = weighted.reshape(len(values), 1, -1)
    return one, Space(np.zeros(one.shape[1:]), np.ones(1), np.ones(1))


def compare_gates(
    values: np.ndarray, attributes: Sequence[Attributes], users: int, seed: int, trust: Sequence[float] = ()
) -> list[GateReport]:
    """Rank for users of each depth.

    Args:
        values: [clips, L, M·D], tokens.
        attributes: What each clip shows.
        users: How many of each depth.
        seed: Of the users.
        trust: [L], how far each layer is trusted before anything is known of a user; empty: all alike.
    """
    space, pool = Space.of(values, trust), UserPool(attributes)
    joined, one_layer = without_gates(values, space)
    reports = []
    for kind in track(DEPTHS, "ranking for users of each depth"):
        drawn = drawn_users(pool, kind, users, seed)
        gated, even = ndcg_of(drawn, values, space), ndcg_of(drawn, joined, one_layer)
        gates = np.mean([taste_of(u, values, space).gates for u in drawn], 0)
        reports.append(
            GateReport(
                kind,
                users,
                *_measured(gated),
                *_measured(even),
                *_measured(gated - even),
                gates.tolist(),
            )
        )
    return reports


def _measured(ndcg: np.ndarray) -> tuple[float, tuple[float, float]]:
    return float(ndcg.mean()), bootstrap_interval(ndcg.tolist())
