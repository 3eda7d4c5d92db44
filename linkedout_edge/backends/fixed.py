"""Graphs with fixed dimensions, for devices that take no others: NPUs and TensorRT.

Masks are inputs of every graph, so a static graph is the same graph with its free dimension fixed: what is too short is
padded and masked, what is too long is cut in parts. Each size is compiled when it is first needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.backends.base import CONTRACT, Arrays, Session
from linkedout_edge.errors import BackendError

FREE = {"encoder": "B", "user": "N", "scorer": "C"}
"""Graph → the dimension that is free in the bundle's graphs."""
SIZES: dict[str, tuple[int, ...]] = {"encoder": (1,), "user": (64, 256, 2048), "scorer": (1024,)}
"""Graph → the sizes it is compiled for. They are few because each costs a compilation; a history of up to 64 and
candidates by the thousand are the usual case."""


def free_axes(graph: str, side: int) -> dict[str, int]:
    """Port → the axis of the free dimension, for the ports that have it; `side` is 0 for inputs, 1 for outputs."""
    return {name: dims.index(FREE[graph]) for name, (_, dims) in CONTRACT[graph][side].items() if FREE[graph] in dims}


class FixedSession:
    """See `linkedout_edge.backends.base.Session`; takes any size, as a dynamic graph does.

    Args:
        graph: Which one.
        compile: Size → the graph with its free dimension fixed to it.
        sizes: Sizes to choose from, rising.
    """

    def __init__(self, graph: str, compile: Callable[[int], Session], sizes: tuple[int, ...] | None = None) -> None:
        self._graph = graph
        self._compile = compile
        self._sizes = sizes or SIZES[graph]
        self._inputs, self._outputs = free_axes(graph, 0), free_axes(graph, 1)
        self._lock = threading.Lock()
        self._sessions = {self._sizes[0]: compile(self._sizes[0])}

    @property
    def device(self) -> str:
        """What really runs the graph, in its smallest size."""
        return self._sessions[self._sizes[0]].device

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Outputs by name.

        Raises:
            BackendError: The library failed, or there are more events than any size takes.
        """
        try:
            counts = {feeds[name].shape[axis] for name, axis in self._inputs.items()}
        except (KeyError, IndexError) as e:
            raise BackendError(f"the {self._graph} graph takes {', '.join(CONTRACT[self._graph][0])}: {e}") from e
        if len(counts) != 1:
            raise BackendError(f"the {self._graph} graph got inputs of different lengths: {sorted(counts)}")
        count, most = counts.pop(), self._sizes[-1]
        if count <= most:
            return self._run(feeds, count)
        if self._graph == "user":  # its events see each other, so parts of a history are not the history
            raise BackendError(f"the user graph takes at most {most} events on {self.device}, not {count}")
        spans = [slice(start, min(start + most, count)) for start in range(0, count, most)]
        parts = [self._run(self._part(feeds, span), span.stop - span.start) for span in spans]
        return {name: np.concatenate([p[name] for p in parts], axis) for name, axis in self._outputs.items()}

    def close(self) -> None:
        """Release the memory of all sizes."""
        with self._lock:
            for session in self._sessions.values():
                session.close()

    def _run(self, feeds: Mapping[str, NDArray[Any]], count: int) -> Arrays:
        size = next(s for s in self._sizes if s >= count)
        out = self._session(size).run({k: _padded(v, self._inputs.get(k), size) for k, v in feeds.items()})
        return {k: v if k not in self._outputs else _cut(v, self._outputs[k], count) for k, v in out.items()}

    def _session(self, size: int) -> Session:
        with self._lock:
            if size not in self._sessions:
                self._sessions[size] = self._compile(size)
            return self._sessions[size]

    def _part(self, feeds: Mapping[str, NDArray[Any]], span: slice) -> dict[str, NDArray[Any]]:
        axes = self._inputs
        return {k: v[(slice(None),) * axes[k] + (span,)] if k in axes else v for k, v in feeds.items()}


def _padded(array: NDArray[Any], axis: int | None, size: int) -> NDArray[Any]:
    if axis is None or array.shape[axis] == size:
        return array
    width = [(0, 0)] * array.ndim
    width[axis] = (0, size - array.shape[axis])
    return np.pad(array, width)


def _cut(array: NDArray[Any], axis: int, count: int) -> NDArray[Any]:
    return array if array.shape[axis] == count else array[(slice(None),) * axis + (slice(count),)].copy()
