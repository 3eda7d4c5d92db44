"""Rank a folder of videos by a few that were watched: ``python examples/rank_folder.py WATCHED.mp4 … -- FOLDER``."""

import sys
from pathlib import Path

from linkedout_edge import Recommender


def main() -> None:
    """Print the ranking, best first, each line with its reason."""
    if "--" not in sys.argv:
        raise SystemExit(__doc__)
    split = sys.argv.index("--")
    watched, folder = sys.argv[1:split], Path(sys.argv[split + 1])
    with Recommender.load("int8") as rec:
        ranking = rec.rank(watched, sorted(folder.glob("*.mp4")))
        for r in ranking:
            print(f"{r.rank:3} {r.score:+.2f} {r.id}  {r.explain().sentence}")
        for f in ranking.failed:
            print(f"    not ranked: {f.id}: {f.reason}")


if __name__ == "__main__":
    main()
