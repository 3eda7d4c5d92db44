"""The fixed exam: users and clips that are the same on every machine, all of combinations that training never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from linkedout_edge.microworld.attributes import FACETS, Attributes, one_hot, random_attributes
from linkedout_edge.microworld.users import PoolUser, UserPool

ExamUser = PoolUser
"""An exam's user; indices point into `Exam.pool`."""

# What an event must be watched to count in a clip's favor; less counts against it.
_NEUTRAL = 0.3


@dataclass(frozen=True)
class Exam:
    """Clips that all users share, and the users."""

    pool: list[tuple[Attributes, int]]  # attributes and render seed
    users: list[ExamUser] = field(repr=False)

    @cached_property
    def latents(self) -> np.ndarray:
        """float32 [P, K]: `one_hot` of each clip, less its mean over uniformly drawn clips."""
        mean = np.concatenate([np.full(len(v), 1 / len(v), np.float32) for v in FACETS.values()])
        return np.stack([one_hot(a) for a, _ in self.pool]) - mean


def make_exam(
    seed: int = 2512,
    *,
    users_per_length: int = 120,
    lengths: Sequence[int] = (2, 8, 32),
    n_candidates: int = 100,
    pool_size: int = 600,
) -> Exam:
    """The exam of a seed: `users_per_length` users for each length of history, a tenth of their candidates relevant.

    Raises:
        ArgumentError: The pool is too small for the histories and candidates.
    """
    rng = np.random.default_rng([seed, 0])
    pool = [(random_attributes(rng, split="held_out"), int(rng.integers(2**31))) for _ in range(pool_size)]
    shared = UserPool([a for a, _ in pool])
    users = []
    for n_events in lengths:
        # A stream for each length, so that fewer users are a part of the same users.
        rng = np.random.default_rng([seed, n_events])
        users += [shared.draw(rng, n_events=n_events, n_candidates=n_candidates) for _ in range(users_per_length)]
    return Exam(pool, users)


def ceiling_scores(exam: Exam, user: ExamUser) -> np.ndarray:
    """What a linear ranking could say that saw the true attributes: float64 [C].

    ``score[c] = Σ_n (watched[n] − 0.3) · ⟨x[history[n]], x[candidates[c]]⟩`` where x are centered one-hot attributes.
    It is the product's own scoring with perfect tokens and plain event weights: it knows neither the user's taste nor
    which facets matter to them, so it is a ceiling for perception and not for cleverness about events.
    """
    query = (user.watched - _NEUTRAL) @ exam.latents[user.history]  # [K]
    return exam.latents[user.candidates].astype(np.float64) @ query


def normalized(ndcg: float, random: float, ceiling: float) -> float:
    """How far of the way from `random` to `ceiling` an NDCG has come."""
    return (ndcg - random) / (ceiling - random)
