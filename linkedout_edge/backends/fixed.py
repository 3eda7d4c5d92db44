"""The graph with fixed dimensions, for devices that accept no others: NPUs and TensorRT.

It takes one video, so it is run once for each video of a batch. Frames and words that a video lacks are masked as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.backends.base import INPUTS, Arrays, Session
from linkedout_edge.errors import BackendError


class FixedSession:
    """See `linkedout_edge.backends.base.Session`; takes any number of videos, as a dynamic graph does.

    Args:
        one: The graph, its batch fixed to one video.
    """

    def __init__(self, one: Session) -> None:
        self._one = one

    @property
    def device(self) -> str:
        """What really runs the graph."""
        return self._one.device

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Outputs by name, of one video or more.

        Raises:
            BackendError: The library failed, or the inputs are not the graph's.
        """
        if set(feeds) != set(INPUTS):
            raise BackendError(f"the encoder graph takes {', '.join(INPUTS)}: got {', '.join(feeds)}")
        counts = {len(array) for array in feeds.values()}
        if len(counts) != 1:
            raise BackendError(f"the encoder graph got inputs of different lengths: {sorted(counts)}")
        outs = [self._one.run({k: v[i : i + 1] for k, v in feeds.items()}) for i in range(counts.pop())]
        return {name: np.concatenate([out[name] for out in outs]) for name in outs[0]}

    def close(self) -> None:
        """Release the graph's memory."""
        self._one.close()
