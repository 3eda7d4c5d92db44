"""What is remembered between rankings: a feed is ranked again after each video, with nearly the same arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from linkedout_edge.inputs import Event, Video
from linkedout_edge.rank.interests import Events
from linkedout_edge.rank.taste import Taste
from linkedout_edge.store import Derived, Positions, Selection

_COMPARABLE = frozenset({str, Event, Video})
"""What can be compared without surprises."""


@dataclass(frozen=True, eq=False)
class EncodedHistory:
    """A history that was looked up and fitted: all of it is stored.

    Attributes:
        given: What the caller passed.
        events: The same as events, oldest first.
        rows: Where their tokens lie, as long as `revision` stays.
        user: What they say.
        interests: Which events attract, in one group or two.
        revision: `Tokens.revision` when it was looked up.
        hour: What ages were taken from; None if no event has one.
    """

    given: list[Any]
    events: list[Event]
    rows: Positions
    user: Taste
    interests: tuple[Events, ...]
    revision: int
    hour: datetime | None


def this_hour() -> datetime:
    """The present hour. Ages are taken from it, so that the same history need not be fitted again within it."""
    return datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)


def find_history(derived: Derived, given: list[Any], revision: int) -> EncodedHistory | None:
    """The same history, if it was fitted lately and nothing has changed since."""
    if not given or not _COMPARABLE.issuperset(map(type, given)):
        return None
    found: EncodedHistory | None = derived.histories.find(lambda h: h.given == given)
    if found is None or found.revision != revision or found.hour not in (None, this_hour()):
        return None
    return found


def find_user_before(derived: Derived, rows: Positions, revision: int) -> Taste | None:
    """The user of the same history before its latest event, if nothing in the store has changed since."""
    older = rows[:-1].tobytes()
    found: EncodedHistory | None = derived.histories.find(
        lambda h: h.revision == revision and h.rows[1 - len(rows) :].tobytes() == older
    )
    return None if found is None or not older else found.user


def keep_history(derived: Derived, history: EncodedHistory) -> None:
    """Remember a history, and drop those that no store is like any more; its `given` must not be changed afterwards."""
    if history.given and _COMPARABLE.issuperset(map(type, history.given)):
        derived.histories.add(history, lambda h: h.revision == history.revision)


def find_list(derived: Derived, things: list[Any]) -> Selection | None:
    """What the same list was resolved to, if that still holds. What equals an id counts as that id."""
    found = derived.lists.find(lambda entry: _equal(entry[0], things))
    return None if found is None or not found[1]._is_current() else found[1]


def keep_list(derived: Derived, ids: list[str], selection: Selection) -> None:
    """Remember a list; it must not be changed afterwards."""
    derived.lists.add((ids, selection), lambda entry: entry[0] != ids and entry[1]._is_current())


def _equal(ids: list[str], things: list[Any]) -> bool:
    """Mostly a comparison of addresses: nothing is looked at."""
    try:
        return ids == things
    except Exception:  # something that cannot be compared, such as an array, is no id
        return False
