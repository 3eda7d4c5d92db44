"""How far a CPU and an inference library are from the golden vectors: ``python benchmarks/golden.py``.

Where rounding is not that of the machine that made them, `make golden`'s tolerances have to cover what this prints.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from linkedout_edge import Recommender, Video
from linkedout_edge.backends import cpu

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from stored import tokens_of
from test_golden import GOLDEN, events_of, frames_of, only


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="onnxruntime")
    backend = parser.parse_args().backend
    videos = GOLDEN["videos"]
    with Recommender.load(GOLDEN["bundle"]["precision"], backend=backend) as rec:
        rec.encode([Video(frames=frames_of(v), id=v["id"], title=v["title"] or None) for v in videos])
        tokens, scales = tokens_of(rec.store, [v["id"] for v in videos])
        expected = np.array([v["scales"] for v in videos])[..., None]
        got, want = tokens * scales[..., None], np.array([v["tokens"] for v in videos]) * expected  # [V, L, M, D]
        steps = np.abs((got - want) / expected).max((1, 2, 3))
        cosines = (got * want).sum(-1) / np.linalg.norm(got, axis=-1) / np.linalg.norm(want, axis=-1)
        off, now = 0.0, datetime.now(timezone.utc)
        for case in GOLDEN["cases"]:
            with only(rec, case["store"]):
                ranking = rec.rank(events_of(case, now), case["candidates"])
            off = max([off, *(abs(r.score - case["scores"][r.id]) for r in ranking)])
        here, library = cpu.instruction_set(), rec.info().versions.get(backend, "")
    print(f"{backend} {library} on {here.architecture} with {', '.join(here.features) or 'unknown instructions'}:")
    equal = (steps < 1e-3).sum()  # scales in golden.json are rounded
    print(f"  {equal} of {len(videos)} videos equal, the others up to {steps.max():.1f} steps apart")
    print(f"  cosine at least {cosines.min():.5f}, scores within {off:.4f}")


if __name__ == "__main__":
    main()
