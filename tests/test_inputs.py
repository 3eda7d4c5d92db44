from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from linkedout_edge import Event, Video
from linkedout_edge.errors import ArgumentError, ArgumentTypeError, LinkedOutError
from linkedout_edge.inputs import as_events, as_videos


def test_the_id_is_the_given_one_else_the_path_unchanged_else_the_content(frames: np.ndarray) -> None:
    assert Video("a/../b.mp4").id == "a/../b.mp4"
    assert Video(Path("a/b.mp4")).id == "a/b.mp4"
    assert Video("a.mp4", id="x").id == "x"
    by_content = Video(frames=frames).id
    assert len(by_content) == 32
    assert Video(frames=frames.copy()).id == by_content
    assert Video(frames=frames[::-1]).id != by_content
    assert Video(frames=frames.reshape(3, 30, 20, 3)).id != by_content


def test_videos_compare_by_what_they_are(frames: np.ndarray) -> None:
    assert Video("a") == Video(Path("a"))
    assert Video("a") != Video("a", title="t")
    assert Video(frames=frames) == Video(frames=frames.copy())
    assert len({Video("a"), Video("a"), Video("b")}) == 2
    assert repr(Video("a.mp4", title="t")) == "Video('a.mp4', title='t')"


def test_a_video_is_called_by_title_else_by_the_last_part_of_its_id() -> None:
    assert Video("x/a.mp4", title=" Cats ").name == "Cats"
    assert Video("C:\\x\\a.mp4").name == "a.mp4"
    assert Video("/").name == "/"


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Video(), ArgumentError, "needs a path, frames"),
        (lambda: Video("a", frames=np.zeros(1)), ArgumentError, "not both"),
        (lambda: Video("a", id=""), ArgumentError, "must not be empty"),
        (lambda: Video(b"a"), ArgumentTypeError, "not bytes"),  # type: ignore[arg-type]
        (lambda: Video(np.zeros(3)), ArgumentTypeError, "frames="),  # type: ignore[arg-type]
        (lambda: Video("a", title=3), ArgumentTypeError, "title must be a str"),  # type: ignore[arg-type]
        (lambda: Event("a", watched=1.5), ArgumentError, "from 0 to 1"),
        (lambda: Event("a", watched=50), ArgumentError, "divide percent by 100"),
        (lambda: Event("a", watched=float("nan")), ArgumentError, "from 0 to 1"),
        (lambda: Event("a", watched=True), ArgumentTypeError, "watched must be a number"),
        (lambda: Event("a", watched="1"), ArgumentTypeError, "watched must be a number"),  # type: ignore[arg-type]
        (lambda: Event("a", liked=1), ArgumentTypeError, "True, False or None"),  # type: ignore[arg-type]
        (lambda: Event("a", at=datetime(2026, 1, 1)), ArgumentError, "no time zone"),
        (lambda: Event("a", at="2026-01-01"), ArgumentTypeError, "at must be a datetime"),  # type: ignore[arg-type]
        (lambda: Event(Event("a")), ArgumentTypeError, "pass its .video"),  # type: ignore[arg-type]
        (lambda: as_events("a.mp4"), ArgumentTypeError, r"pass a list, such as \['a.mp4'\]"),
        (lambda: as_videos(Path("a.mp4")), ArgumentTypeError, "must be a list"),
        (lambda: as_videos(b"a.mp4"), ArgumentTypeError, "must be a list"),
        (lambda: as_videos(Video("a")), ArgumentTypeError, "not a single Video"),
        (lambda: as_videos({"a": 1}), ArgumentTypeError, "not a dict"),
        (lambda: as_videos(7), ArgumentTypeError, "not int"),
        (lambda: as_videos(["a", None], "candidates"), ArgumentTypeError, r"candidates\[1\] must be"),
        (lambda: as_videos([np.zeros(3)]), ArgumentTypeError, r"Video\(frames="),
        (lambda: as_videos([Event("a")]), ArgumentTypeError, "pass its .video"),
    ],
)
def test_mistakes_in_the_call_say_how_to_mend_them(make, error, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=words) as caught:
        make()
    assert isinstance(caught.value, LinkedOutError)


def test_event_fields_are_normalized() -> None:
    at = datetime.now(timezone(timedelta(hours=2)))
    event = Event("a.mp4", np.float32(0.5), np.bool_(True), at)  # type: ignore[arg-type]
    assert (event.video, event.id, event.watched, event.liked, event.at) == (Video("a.mp4"), "a.mp4", 0.5, True, at)
    assert type(event.watched) is float
    assert event == Event(Video("a.mp4"), 0.5, True, at)
    with pytest.raises(AttributeError):
        event.watched = 1.0  # type: ignore[misc]


def test_lists_may_mix_kinds_and_be_generators() -> None:
    given = (v for v in ["a", Path("b"), Video("c"), Event("d", 0.1)])
    assert [e.id for e in as_events(given)] == ["a", "b", "c", "d"]
    assert [v.id for v in as_videos(np.array(["a", "b"]))] == ["a", "b"]
