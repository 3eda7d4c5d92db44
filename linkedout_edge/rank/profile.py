"""`Recommender.taste`: what the model believes a user likes, in a form that an app can show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from linkedout_edge.inputs import Event
from linkedout_edge.rank.interests import Events
from linkedout_edge.rank.taste import Taste

LIKED, AVOIDED = 5, 3
"""Videos that are named of an interest, and of what is avoided."""


@dataclass(frozen=True)
class Interest:
    """One thing that a user likes, shown by watched videos.

    Attributes:
        share: Its part of the events that attract, from 0 to 1.
        videos: Ids of watched videos that show it best, the best first; at most 5.
    """

    share: float
    videos: tuple[str, ...]


@dataclass(frozen=True)
class TasteSummary:
    """What is believed of a user.

    Attributes:
        events: How many events it rests on.
        likes: Interests, one or two, the larger first; empty while nothing is known to be liked.
        avoids: Ids of watched videos; videos similar to them are ranked low, the lowest first; at most 3,
            and none of those in `likes`, however often it was skipped as well.
        layers: How much each of L layers counts for this user; they sum to 1.
        layer_names: L names.
        sentence: The same in words.
    """

    events: int
    likes: tuple[Interest, ...]
    avoids: tuple[str, ...]
    layers: tuple[float, ...]
    layer_names: tuple[str, ...]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def summarise(
    events: Sequence[Event],
    user: Taste,
    interests: Sequence[Events],
    layer_names: tuple[str, ...],
    name: Callable[[Event], str],
) -> TasteSummary:
    """Say what a user's taste is.

    Args:
        events: N events, oldest first.
        user: What they say.
        interests: Which of them attract, in groups.
        layer_names: L names.
        name: What to call an event's video.
    """
    own = (user.weights * np.square(user.seen).sum(-1)).sum(1)  # how hard an event pulls towards its own like
    by_id = {e.id: e for e in events}

    def strongest(places: Sequence[int] | Events, sign: float, count: int) -> tuple[str, ...]:
        pulls = sorted(((sign * own[n], -n, events[n].id) for n in places if sign * own[n] > 0), reverse=True)
        return tuple(dict.fromkeys(identity for *_, identity in pulls))[:count]

    attracting = sum(len(group) for group in interests)
    likes = tuple(Interest(len(group) / attracting, strongest(group, 1.0, LIKED)) for group in interests)
    liked_ids = {v for like in likes for v in like.videos}
    avoids = strongest([n for n, e in enumerate(events) if e.id not in liked_ids], -1.0, AVOIDED)
    named = {i: f"“{name(by_id[i])}”" for i in (*liked_ids, *avoids)}
    liked = ", and ".join(f"videos like {_listed([named[i] for i in like.videos])}" for like in likes)
    sentence = f"likes {liked}" if likes else "nothing is known to be liked yet"
    if avoids:
        sentence += f"; avoids videos like {_listed([named[i] for i in avoids])}"
    return TasteSummary(
        len(events), likes, avoids, tuple(user.gates.tolist()), layer_names, sentence[0].upper() + sentence[1:] + "."
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
