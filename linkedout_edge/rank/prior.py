"""A prior: what the app knows about candidates besides their content, such as a server's score or their freshness.

The rule by which it is mixed in: it is standardised over the candidates of the call (mean 0, standard deviation 1;
unknown ones get 0) and ``weight`` times the result is added to the content score, which has about unit standard
deviation too. So a prior of any unit can be passed as it is, and with weight 1 both count about the same. In a cold
start content scores are all 0, and the prior alone decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.errors import ArgumentError, ArgumentTypeError
from linkedout_edge.rank.taste import Singles


@dataclass(frozen=True, eq=False)
class Prior:
    """A prior with a weight; `Recommender.rank` also takes the bare values, which then weigh 1.

    Attributes:
        values: Mapping from id to a number (ids that are not ranked are ignored), or a sequence of numbers aligned with
            the candidates as they are given (of a handle: with its ``ids``). NaN, like a missing id, means unknown.
        weight: How much one standard deviation of it counts, in standard deviations of content. A negative one turns
            the order of the prior around.

    Raises:
        ArgumentTypeError: `values` is neither a mapping nor a list, or `weight` no number.
        ArgumentError: `weight` is not finite.
    """

    values: Mapping[str, float] | Sequence[float] | NDArray[Any]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.weight, bool) or not isinstance(self.weight, Real):
            raise ArgumentTypeError(f"weight must be a number, not {type(self.weight).__name__}")
        if not math.isfinite(self.weight):
            raise ArgumentError(f"weight must be finite, not {self.weight}")
        if isinstance(self.values, str | bytes) or not isinstance(self.values, Mapping | Iterable):
            raise ArgumentTypeError(
                f"prior must map ids to numbers, or be a list of numbers as long as candidates, not "
                f"{type(self.values).__name__}"
            )


PriorLike: TypeAlias = Prior | Mapping[str, float] | Sequence[float] | NDArray[Any]


class Priors:
    """A checked prior, to be looked up by candidate.

    Args:
        prior: A `Prior`, or its values.

    Raises:
        ArgumentTypeError: It is neither a mapping nor a sequence of numbers.
        ArgumentError: A value is infinite.
    """

    def __init__(self, prior: object) -> None:
        given = prior if isinstance(prior, Prior) else Prior(prior)  # type: ignore[arg-type]
        values = given.values if isinstance(given.values, Mapping | np.ndarray) else list(given.values)
        self.weight = float(given.weight)
        self._mapping: Mapping[str, Any] | None = values if isinstance(values, Mapping) else None
        self._array = None if isinstance(values, Mapping) else _numbers(values)
        self._ids: Sequence[str] = ()

    def align(self, ids: Sequence[str] | None) -> None:
        """Say which candidates a sequence belongs to.

        Args:
            ids: Of the candidates as given, duplicates included; None if they were not given.

        Raises:
            ArgumentError: There are more or fewer values than candidates.
        """
        if self._array is None:
            return
        if ids is None:
            raise ArgumentError(
                "prior is a sequence, but candidates were left out, so there is nothing to align it with: "
                "pass a mapping from id to number, or candidates=rec.store.select(ids)"
            )
        if len(ids) != len(self._array):
            raise ArgumentError(
                f"prior has {len(self._array)} values for {len(ids)} candidates: pass one for each (NaN where "
                "unknown), or a mapping from id to number"
            )
        self._ids = ids

    def bonus(self, ids: Sequence[str]) -> Singles:
        """What the prior adds to each score: float32 ``[C]``."""
        values = self._values(ids)
        known = np.isfinite(values)
        out = np.zeros(len(values), np.float32)
        out[known] = self.weight * standardized(values[known])
        return out

    def _values(self, ids: Sequence[str]) -> NDArray[np.float64]:
        if self._array is not None:
            if ids is self._ids:  # a handle: no look-up at all
                return self._array
            if self._mapping is None:  # of an id that is named twice, the first value counts
                self._mapping = dict(zip(self._ids[::-1], self._array[::-1].tolist(), strict=True))
        assert self._mapping is not None
        get = self._mapping.get
        return _numbers([get(i, math.nan) for i in ids])


def standardized(values: NDArray[Any]) -> NDArray[np.float64]:
    """Float ``[C]`` with mean 0 and standard deviation 1; all 0 where they do not differ."""
    values = values.astype(np.float64)
    spread = float(values.std()) if len(values) else 0.0
    # Rounding makes the standard deviation of equal numbers a little more than 0.
    if not spread > 1e-12 * max(1.0, float(np.abs(values).max(initial=0.0))):
        return np.zeros(len(values))
    return np.asarray((values - values.mean()) / spread)


def _numbers(values: Any) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ArgumentTypeError("prior must hold numbers only; use NaN, or leave the id out, where unknown") from None
    if array.ndim != 1:
        raise ArgumentError(f"prior must have one dimension, not the shape {list(array.shape)}")
    if np.isinf(array).any():
        raise ArgumentError("prior must hold finite numbers; use NaN, or leave the id out, where unknown")
    return array
