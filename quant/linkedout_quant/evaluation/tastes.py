"""Users of three tastes, over whatever comes in kinds: photos of dogs and cars, micro-videos of a ball or the sea.

- ``one``: watched five of one kind; among 100 candidates are eight more of it.
- ``mixed``: watched three each of two kinds; among 100 candidates are five more of each.
- ``session``: has watched nothing, likes one kind, and is shown one thing after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from linkedout_edge.errors import ArgumentError
from linkedout_edge.microworld import FACETS, Attributes

Taste = Literal["one", "mixed", "session"]
TASTES: tuple[Taste, ...] = ("one", "mixed", "session")

CANDIDATES = 100
WATCHED, RELEVANT = 5, 8  # of one kind
WATCHED_EACH, RELEVANT_EACH = 3, 5  # of each of two kinds
STEPS = 20  # of a session
SKIPPED = 0.1  # fraction watched of what is shown and not liked


@dataclass(frozen=True)
class Kinds:
    """Which items are of which kind; one item may be of several."""

    names: tuple[str, ...]
    member: np.ndarray  # bool [K, items]

    @classmethod
    def of(cls, labels: Sequence[str], names: Sequence[str] | None = None) -> Kinds:
        """Kinds of items that have one label each; `names` gives their order, by default the alphabet."""
        ordered = tuple(n for n in names if n in labels) if names is not None else tuple(sorted(set(labels)))
        return cls(ordered, np.array([[label == n for label in labels] for n in ordered], bool))

    def take(self, items: Sequence[int]) -> Kinds:
        """The same of some items only."""
        return Kinds(self.names, self.member[:, list(items)])


def clip_kinds(clips: Sequence[Attributes]) -> Kinds:
    """Kinds of micro-videos: what is to be seen (ten objects), and where (eight places)."""
    named = [(facet, value) for facet in ("object", "scene") for value in FACETS[facet]]
    member = [[getattr(c, facet) == value for c in clips] for facet, value in named]
    return Kinds(tuple(value for _, value in named), np.array(member, bool))


@dataclass(frozen=True)
class TasteUser:
    """Someone who watched something of one kind, or of two."""

    kind: str
    history: np.ndarray  # int64 [N], items, oldest first
    candidates: np.ndarray  # int64 [C], in any order
    wanted: np.ndarray  # int64 [C]: 1 of the first kind, 2 of the second, 0 of neither


@dataclass(frozen=True)
class SessionUser:
    """Someone who has watched nothing yet."""

    kind: str
    likes: np.ndarray  # bool [items]
    offered: np.ndarray  # int64 [items], all items in any order


def able_kinds(kinds: Kinds, taste: Taste) -> list[tuple[int, ...]]:
    """Kinds, for ``mixed`` pairs of them, that have as many items as a user of that taste needs.

    Raises:
        ArgumentError: There are none.
    """
    counts = kinds.member.sum(1)
    able: list[tuple[int, ...]]
    if taste == "mixed":
        needed = WATCHED_EACH + RELEVANT_EACH
        what = f"two kinds of at least {needed}"
        both = kinds.member.astype(np.int64) @ kinds.member.T  # [K, K]
        able = [
            (a, b)
            for a, b in combinations(range(len(kinds.names)), 2)
            if min(counts[a], counts[b]) - both[a, b] >= needed
        ]
    else:
        needed = WATCHED + RELEVANT if taste == "one" else STEPS
        what = f"a kind of at least {needed}, and others"
        able = [(k,) for k, n in enumerate(counts) if needed <= n < kinds.member.shape[1]]
    if not able:
        most = sorted(zip(counts.tolist(), kinds.names, strict=True), reverse=True)[:3]
        raise ArgumentError(
            f"taste {taste} needs {what}; the largest of {len(kinds.names)} kinds here: "
            f"{', '.join(f'{name} ({n})' for n, name in most) or 'none'}. Give more, or ask for another --taste"
        )
    return able


def one_taste(kinds: Kinds, users: int, seed: int) -> Iterator[TasteUser]:
    """Users of one kind; the kinds take turns. Raises as `able_kinds`."""
    rng, shuffles = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    able = able_kinds(kinds, "one")
    for n in range(users):
        (kind,) = able[n % len(able)]
        same, other = (rng.permutation(np.flatnonzero(m)) for m in (kinds.member[kind], ~kinds.member[kind]))
        relevant = same[WATCHED : WATCHED + RELEVANT]
        wanted = {1: relevant, 0: other[: CANDIDATES - RELEVANT]}
        yield _shuffled(kinds.names[kind], same[:WATCHED], wanted, shuffles)


def mixed_taste(kinds: Kinds, users: int, seed: int) -> Iterator[TasteUser]:
    """Users of two kinds, drawn for each. Raises as `able_kinds`."""
    rng, shuffles = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    pairs = set(able_kinds(kinds, "mixed"))
    able = sorted({k for pair in pairs for k in pair})
    for _ in range(users):
        a, b = rng.choice(able, 2, replace=False).tolist()
        while (min(a, b), max(a, b)) not in pairs:
            a, b = rng.choice(able, 2, replace=False).tolist()
        first, second = kinds.member[a], kinds.member[b]
        one, two = (rng.permutation(np.flatnonzero(m)) for m in (first & ~second, second & ~first))
        other = rng.permutation(np.flatnonzero(~first & ~second))
        history = np.stack([one[:WATCHED_EACH], two[:WATCHED_EACH]], 1).ravel()  # taking turns
        until = WATCHED_EACH + RELEVANT_EACH
        wanted = {
            1: one[WATCHED_EACH:until],
            2: two[WATCHED_EACH:until],
            0: other[: CANDIDATES - 2 * RELEVANT_EACH],
        }
        yield _shuffled(" + ".join(sorted((kinds.names[a], kinds.names[b]))), history, wanted, shuffles)


def sessions(kinds: Kinds, users: int, seed: int) -> Iterator[SessionUser]:
    """Users whose kinds take turns. Raises as `able_kinds`."""
    rng = np.random.default_rng(seed)
    able = able_kinds(kinds, "session")
    for n in range(users):
        (kind,) = able[n % len(able)]
        yield SessionUser(kinds.names[kind], kinds.member[kind], rng.permutation(kinds.member.shape[1]))


def _shuffled(kind: str, history: np.ndarray, wanted: Mapping[int, np.ndarray], rng: np.random.Generator) -> TasteUser:
    """A user whose candidates stand in an order that tells nothing."""
    candidates = np.concatenate(list(wanted.values()))
    marks = np.repeat(list(wanted), [len(items) for items in wanted.values()])
    order = rng.permutation(len(candidates))
    return TasteUser(kind, history, candidates[order], marks[order])
