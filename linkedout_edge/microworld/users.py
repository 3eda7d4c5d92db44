"""Simulated users with mixed, drifting tastes.

A taste is a vector over the facets' values: the utility of a clip is its inner product with the clip's `one_hot`, with
mean 0 and standard deviation 1 over all clips. What a user watches is chosen from what a feed happens to offer, and how
much of it is watched grows with the utility, so a history says something about the taste and never all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from linkedout_edge.errors import ArgumentError, unknown
from linkedout_edge.microworld.attributes import FACETS, LATENT_SIZE, Attributes, Split, one_hot, random_attributes

KINDS: dict[str, tuple[str, ...]] = {
    "looks": ("palette", "scene"),
    "objects": ("object",),
    "motion": ("motion", "cuts", "camera"),
    "mixed": ("scene", "object", "motion", "palette", "text"),
}
"""Kind of user → the facets that matter to it; a mixed one cares about three of those named, drawn per user."""

_FEED = 40  # clips that are on offer when one is chosen
_SHARPNESS = 3.0  # a clip on offer is chosen ∝ exp(sharpness · utility)
_SKIP = 0.18  # share of events where a clip just came up; mostly it is soon skipped
_MAX_DRIFT = 0.025  # radians an event, so after 32 events a taste has turned by 0.8 at most
_SIZES = np.array([len(values) for values in FACETS.values()])
_STARTS = np.cumsum(_SIZES) - _SIZES
_SHARE = np.repeat(1 / _SIZES, _SIZES)  # float64 [K], of each value among uniformly drawn clips


@dataclass(frozen=True)
class Taste:
    """A taste that turned slowly, event by event, from an earlier one into today's."""

    kind: str
    today: np.ndarray  # float64 [K]
    earlier: np.ndarray  # float64 [K]
    drift: float  # radians an event

    def at(self, events_ago: int = 0) -> np.ndarray:
        """The taste as it was, float64 [K]."""
        angle = self.drift * events_ago
        return _standardized(np.cos(angle) * self.today + np.sin(angle) * self.earlier)

    def utility(self, latents: np.ndarray, events_ago: int = 0) -> np.ndarray:
        """Utilities float64 [...] of `one_hot` rows [..., K]."""
        taste = self.at(events_ago)
        return latents @ taste - float(_SHARE @ taste)


@dataclass(frozen=True)
class UserEvent:
    """A clip that a simulated user came across."""

    attributes: Attributes
    seed: int
    watched: float  # fraction in [0, 1]
    age_hours: float


@dataclass(frozen=True)
class PoolUser:
    """A user whose clips are given as indices into a pool."""

    kind: str
    history: np.ndarray  # int64 [N], oldest first
    watched: np.ndarray  # float64 [N] in [0, 1]
    ages_hours: np.ndarray  # float64 [N], falling
    candidates: np.ndarray  # int64 [C], none of them in the history
    relevant: np.ndarray  # bool [C]


def _standardized(taste: np.ndarray) -> np.ndarray:
    """Scaled so that the utility of uniformly drawn clips has standard deviation 1."""
    means = np.add.reduceat(_SHARE * taste, _STARTS)
    return taste / np.sqrt(_SHARE @ taste**2 - means @ means)


def draw_taste(rng: np.random.Generator, kind: str | None = None) -> Taste:
    """A taste of the kind, or of any.

    Args:
        rng: Source of chance.
        kind: One of `KINDS`, or a single facet that alone matters; None draws a kind.

    Raises:
        ArgumentError: An unknown kind.
    """
    if kind is None:
        kind = list(KINDS)[int(rng.integers(len(KINDS)))]
    elif kind not in KINDS and kind not in FACETS:
        raise ArgumentError(unknown("kind of user", kind, [*KINDS, *FACETS]))
    facets = KINDS.get(kind, (kind,))
    if kind == "mixed":
        facets = tuple(rng.choice(facets, 3, replace=False))

    def draw() -> np.ndarray:
        taste = rng.normal(0, 0.06, LATENT_SIZE)
        for facet in facets:
            place = list(FACETS).index(facet)
            order = _STARTS[place] + rng.permutation(_SIZES[place])
            favorites = int(rng.integers(1, 3))
            taste[order[:favorites]] += 1.0
            taste[order[-1]] -= 0.5
        return _standardized(taste)

    return Taste(kind, draw(), draw(), float(rng.uniform(0, _MAX_DRIFT)))


def _watched(rng: np.random.Generator, utility: float) -> float:
    """Fraction watched: grows with utility; about 0.25 of an average clip, 0.9 of a favorite."""
    return float(1 / (1 + np.exp(-1.5 * (utility - 0.8) - 0.5 * rng.normal())))


def _skips(rng: np.random.Generator, n: int) -> np.ndarray:
    """Which events were not chosen, bool [n]; at least one was, since a history of skips says nothing."""
    skips = rng.random(n) < _SKIP
    if skips.all():
        skips[int(rng.integers(n))] = False
    return skips


def _choose(rng: np.random.Generator, utilities: np.ndarray) -> int:
    """Index ∝ exp(sharpness · utility)."""
    return int(np.argmax(_SHARPNESS * utilities + rng.gumbel(size=len(utilities))))


def _ages(rng: np.random.Generator, n: int) -> np.ndarray:
    """Hours since each event, float64 [n], oldest first."""
    return np.cumsum(rng.exponential(8.0, n))[::-1].copy()


def simulate_user(
    rng: np.random.Generator, kind: str | None = None, n_events: int = 8, *, split: Split = "train"
) -> Iterator[UserEvent]:
    """Yield a user's history, oldest event first.

    Args:
        rng: Source of chance.
        kind: One of `KINDS`; None draws one.
        n_events: Length of the history, at least 1.
        split: Which combinations the clips are of, as in `random_attributes`.

    Raises:
        ArgumentError: An unknown kind or split, or no events.
    """
    if n_events < 1:
        raise ArgumentError(f"n_events must be at least 1, not {n_events}")
    taste, skips, ages = draw_taste(rng, kind), _skips(rng, n_events), _ages(rng, n_events)
    for i in range(n_events):
        feed = [random_attributes(rng, split=split) for _ in range(_FEED)]
        utilities = taste.utility(np.stack([one_hot(a) for a in feed]), n_events - 1 - i)
        pick = 0 if skips[i] else _choose(rng, utilities)
        seed = int(rng.integers(2**31))
        yield UserEvent(feed[pick], seed, _watched(rng, utilities[pick]), float(ages[i]))


class UserPool:
    """Users who share a pool of clips, so that each clip is rendered and encoded once for all of them.

    Args:
        attributes: What each clip of the pool shows.
    """

    def __init__(self, attributes: Sequence[Attributes]) -> None:
        self.latents = np.stack([one_hot(a) for a in attributes])  # float32 [P, K]

    def draw(
        self,
        rng: np.random.Generator,
        *,
        n_events: int,
        n_candidates: int = 100,
        kind: str | None = None,
        new: np.ndarray | None = None,
    ) -> PoolUser:
        """A user with a history and candidates, a tenth of them relevant.

        Relevant are those of highest utility today. Where the pool is large enough, clips that come next in utility are
        no candidates, so that there is a clear margin.

        Args:
            rng: Source of chance.
            n_events: Length of the history.
            n_candidates: Candidates.
            kind: As for `draw_taste`.
            new: bool [P], clips that nobody has watched yet: candidates are of these, the history of the others.

        Raises:
            ArgumentError: The pool is too small for that many events and candidates, or the kind is unknown.
        """
        size = len(self.latents)
        if n_events < 1 or n_candidates < 2 or n_events + n_candidates > size:
            raise ArgumentError(
                f"{n_events} events and {n_candidates} candidates from a pool of {size} clips: "
                "at least 1 and 2 are needed, and together no more than the pool has"
            )
        taste = draw_taste(rng, kind)
        skips, ages = _skips(rng, n_events), _ages(rng, n_events)
        free = np.ones(size, bool) if new is None else ~new
        history, watched = np.zeros(n_events, np.int64), np.zeros(n_events)
        for i in range(n_events):
            unseen = np.flatnonzero(free)
            feed = unseen[rng.integers(len(unseen), size=_FEED)]
            utilities = taste.utility(self.latents[feed], n_events - 1 - i)
            pick = 0 if skips[i] else _choose(rng, utilities)
            history[i], watched[i] = feed[pick], _watched(rng, utilities[pick])
            free[feed[pick]] = False
        unseen = np.flatnonzero(free if new is None else new)
        candidates, relevant = self._candidates(rng, taste, unseen, n_candidates)
        return PoolUser(taste.kind, history, watched, ages, candidates, relevant)

    def _candidates(
        self, rng: np.random.Generator, taste: Taste, unseen: np.ndarray, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        shortlist = rng.permutation(unseen)[: 2 * n]
        shortlist = shortlist[np.argsort(-taste.utility(self.latents[shortlist]), kind="stable")]
        n_relevant = max(1, round(n / 10))
        margin = min(len(shortlist) - n, 3 * n_relevant)
        others = rng.permutation(shortlist[n_relevant + margin :])[: n - n_relevant]
        candidates = np.concatenate([shortlist[:n_relevant], others])
        order = rng.permutation(n)
        return candidates[order], order < n_relevant
