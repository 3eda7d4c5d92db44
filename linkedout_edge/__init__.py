"""Private, low-latency video recommendation on the device itself.

Example::

    from linkedout_edge import Recommender, Event, Video

    with Recommender.load("int8") as rec:
        ranking = rec.rank(["seen/a.mp4", Event("seen/b.mp4", watched=0.2)], ["new/c.mp4", "new/d.mp4"])
        for r in ranking:
            print(r.rank, r.id, r.score)
        for f in ranking.failed:
            print("not ranked:", f.id, f.reason)
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from linkedout_edge import _telemetry, errors  # noqa: F401 (quiets onnxruntime before anything imports it)
from linkedout_edge._version import __version__
from linkedout_edge.inputs import Event, EventLike, Video, VideoLike
from linkedout_edge.rank.prior import Prior
from linkedout_edge.rank.profile import Interest, TasteSummary
from linkedout_edge.results import EncodeResult, Explanation, Failed, Info, Ranked, Ranking, Timing

if TYPE_CHECKING:
    from linkedout_edge.history import History
    from linkedout_edge.rank.request import RankOptions
    from linkedout_edge.recommender import Recommender
    from linkedout_edge.store import Selection, StoreStats, TokenStore

__all__ = [
    "EncodeResult",
    "Event",
    "EventLike",
    "Explanation",
    "Failed",
    "History",
    "Info",
    "Interest",
    "Prior",
    "RankOptions",
    "Ranked",
    "Ranking",
    "Recommender",
    "Selection",
    "StoreStats",
    "TasteSummary",
    "Timing",
    "TokenStore",
    "Video",
    "VideoLike",
    "__version__",
    "errors",
]

logging.getLogger("linkedout_edge").addHandler(logging.NullHandler())


# Late, because they load OpenCV or the store: without a working OpenCV, `linkedout-edge doctor` must still start.
_LATE = {
    "History": "linkedout_edge.history",
    "RankOptions": "linkedout_edge.rank.request",
    "Recommender": "linkedout_edge.recommender",
    "Selection": "linkedout_edge.store",
    "StoreStats": "linkedout_edge.store",
    "TokenStore": "linkedout_edge.store",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
