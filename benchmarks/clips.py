"""What the benchmarks decode: a folder of one's own, else clips that the package renders."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from linkedout_edge.microworld import random_attributes, write_clip

RENDERED = ((256, 4.0), (256, 16.0), (512, 4.0))
"""Side in pixels and seconds of each rendered clip."""


@contextmanager
def videos_of(folder: Path | None) -> Iterator[list[Path]]:
    """The files of a folder, sorted; without one, micro-videos in a temporary folder."""
    if folder is not None:
        yield sorted(p for p in folder.iterdir() if p.is_file())
        return
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="linkedout-benchmark-") as temporary:
        paths = [Path(temporary) / f"rendered_{side}px_{seconds:.0f}s.mp4" for side, seconds in RENDERED]
        for seed, (path, (side, seconds)) in enumerate(zip(paths, RENDERED, strict=True)):
            write_clip(path, random_attributes(rng), seed, size=side, seconds=seconds)
        yield paths
