"""What an event does to the score of a similar video, as a picture.

    python benchmarks/events.py docs/events.png

Two micro-videos of one object in one place: one is watched, the other is ranked among others, by the built-in bundle.
"""

from __future__ import annotations

import argparse
from datetime import datetime, timedelta, timezone
from pathlib import Path

import matplotlib as mpl
import numpy as np

from linkedout_edge import Event, Recommender, Video
from linkedout_edge.microworld import random_attributes, render_frames

mpl.use("Agg")
from matplotlib import pyplot as plt

STEPS = np.linspace(0, 1, 21)
STORED = 60
"""Other videos in the store: the average video is theirs."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundle", default="int8")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    with Recommender.load(given.bundle) as rec:
        size, times = rec._parts.config.frame_size, np.linspace(0.05, 0.95, rec._parts.config.frames)
        clips = [(f"other{n}", random_attributes(rng)) for n in range(STORED)]
        clips += [("watched", clips[0][1]), ("similar", clips[0][1])]
        rec.encode(
            [Video(frames=render_frames(shown, n, times, size), id=i) for n, (i, shown) in enumerate(clips) if n]
        )

        def score(*events: Event) -> float:
            return rec.rank(events, ["similar"])[0].score

        long_ago = datetime.now(timezone.utc) - timedelta(days=3 * 365)
        lines = {
            "watched once": lambda w: score(Event("watched", w)),
            "watched again: the same fraction twice": lambda w: score(Event("watched", w), Event("watched", w)),
            "watched three years ago": lambda w: score(Event("watched", w, at=long_ago)),
        }
        figure, axes = plt.subplots(figsize=(7, 4.2))
        for name, line in lines.items():
            axes.plot(STEPS, [line(float(w)) for w in STEPS], label=name)
        for liked, name in ((True, "liked, whatever was watched"), (False, "disliked, whatever was watched")):
            axes.axhline(score(Event("watched", liked=liked)), ls="--", color="C3" if liked else "C4", label=name)
    axes.axhline(0, color="gray", lw=0.6)
    axes.set_xlabel("fraction that was watched")
    axes.set_ylabel("score of a similar video (the average video: 0)")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    figure.tight_layout()
    figure.savefig(given.out, dpi=110)


if __name__ == "__main__":
    main()
