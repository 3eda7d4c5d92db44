"""A decoder whose quick looks differ from its full ones, and whose full looks wait."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from linkedout_edge.decode import Limits
from linkedout_edge.errors import VideoUnreadableError


class Glancing:
    """Full looks wait until `open` is set and give four frames, quick ones give one; files named still* are whole."""

    name = "glancing"

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.looks: list[tuple[str, str]] = []

    def _frames(self, path: str, count: int, size: int) -> np.ndarray:
        rng = np.random.default_rng(len(Path(path).read_bytes()))
        return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)

    def __call__(self, path: str, count: int, size: int, limits: Limits) -> np.ndarray:
        assert self.open.wait(60)
        self.looks.append((Path(path).name, "full"))
        if Path(path).name.startswith("bad"):
            raise VideoUnreadableError("damaged behind its first frame")
        return self._frames(path, count, size)

    def quick(self, path: str, count: int, size: int, limits: Limits) -> tuple[np.ndarray, bool]:
        self.looks.append((Path(path).name, "quick"))
        whole = Path(path).name.startswith("still")
        return self._frames(path, count, size)[: count if whole else 1], whole

    def taken(self, kind: str) -> list[str]:
        return [n for n, k in self.looks if k == kind]
