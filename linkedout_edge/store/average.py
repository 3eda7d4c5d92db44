"""The sum of what is stored, kept up to date: the user model compares videos with the average one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNIT = 2.0**-30
"""What scales are counted in. Whole numbers add up to the same whatever came and left in which order, so a ranking does
not depend on how the store came to hold what it holds."""
LARGEST = 2.0**7
"""A scale beyond it counts as so much: no model gives any, but a pack that was made up may. So sums cannot overflow."""


class RunningSum:
    """Sum of the tokens of videos that come and go. Its caller locks.

    Args:
        shape: L, M and D.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._sum = np.zeros(shape, np.int64)

    def add(self, tokens: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        """Videos come: int8 ``[V, L, M, D]``, float32 ``[V, L, M]``."""
        self._sum += _in_units(tokens, scales)

    def remove(self, tokens: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        """Videos that came before leave."""
        self._sum -= _in_units(tokens, scales)

    def total(self) -> NDArray[np.float64]:
        """Sum of their dequantised tokens, float64 ``[L, M·D]``."""
        return np.asarray(self._sum * UNIT).reshape(len(self._sum), -1)


def _in_units(tokens: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.int64]:
    units = np.rint(np.clip(np.nan_to_num(scales.astype(np.float64)), -LARGEST, LARGEST) / UNIT).astype(np.int64)
    return np.asarray(np.einsum("vlmd,vlm->lmd", tokens, units, dtype=np.int64, casting="safe"))
