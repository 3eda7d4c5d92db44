"""An app that decodes by itself hands in frames, and keeps a rolling history in the recommender."""

import numpy as np

from linkedout_edge import Recommender, Video
from linkedout_edge.microworld import caption, random_attributes, render_frames


def decoded(i: int) -> Video:
    """Stands for the app's own decoder: uint8 [F, H, W, 3] RGB of any size, with an id and a title."""
    rng = np.random.default_rng(i)
    attributes = random_attributes(rng)
    return Video(
        frames=render_frames(attributes, i, np.linspace(0, 1, 7), 144), id=f"clip {i}", title=caption(attributes, rng)
    )


def main() -> None:
    """Encode once, watch two, rank the rest."""
    with Recommender.load("int8") as rec:
        rec.encode([decoded(i) for i in range(12)])
        rec.history.add("clip 0", watched=0.95)
        rec.history.add("clip 1", watched=0.1)
        for r in rec.rank(top_k=5):  # the history against everything in the store that was not watched
            print(r.rank, r.id, round(r.score, 2), r.explain().sentence)


if __name__ == "__main__":
    main()
