"""The demo's page: one file, no requests, and nothing from outside becomes markup."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from linkedout_edge.cli.report import THUMBNAIL, Picture, Place, Report, Watched, embed_json, film_strip, render

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "\"'&amp;<b>",
    "]]>\u2028\u2029",
    "@@DATA@@",
    "\udcff not utf-8",
]


def report(name: str = "a clip") -> Report:
    strip = film_strip(np.zeros((2, 8, 8, 3), np.uint8))
    picture = Picture(name, strip, 2)
    place = Place(1, picture, 0.5, [0.75, -0.25], f"because of {name}", 0, [[0.75, -0.25]])
    return Report("taste", ["one", "two"], [Watched(picture, 0.9)], [place], [(name, name)], [("model", name)])


class Page(HTMLParser):
    """Tags with their attributes, and the contents of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and data.strip():
            self.scripts.append(data)

    @property
    def data(self) -> dict:
        return json.loads(self.scripts[0])


def test_page_is_self_contained():
    html = render(report())
    page = Page(html)
    assert not [
        t for t, a in page.tags if t in ("link", "iframe", "object", "embed", "base") or "src" in a or "href" in a
    ]
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|WebSocket|sendBeacon", html)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy


def test_the_script_makes_no_markup_from_text():
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", render(report()))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name: str):
    harmless, hostile = Page(render(report())), Page(render(report(name)))
    assert hostile.tags == harmless.tags
    assert hostile.data["ranked"][0]["picture"]["name"] == name
    assert hostile.data["failed"] == [[name, name]]


def test_page_is_utf8_whatever_the_names_are():
    assert render(report("\udcff")).encode("utf-8")


def test_embedded_json_has_no_character_that_html_knows():
    text = embed_json({"a": HOSTILE})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": HOSTILE}


def test_embedded_json_refuses_what_browsers_cannot_read():
    with pytest.raises(ValueError):
        embed_json([float("nan")])


def test_matrix_and_layers_reach_the_page():
    data = Page(render(report())).data
    place = data["ranked"][0]
    assert sum(map(sum, place["matrix"])) == pytest.approx(place["score"])
    assert data["layer_names"] == ["one", "two"]
    assert data["history"][0]["fraction"] == 0.9


def decoded(strip: str) -> np.ndarray:
    head, _, body = strip.partition(",")
    assert head == "data:image/jpeg;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(body), np.uint8), cv2.IMREAD_COLOR)


def test_film_strip_lays_frames_side_by_side_in_rgb():
    frames = np.zeros((3, 40, 40, 3), np.uint8)
    frames[0, ..., 0] = frames[1, ..., 1] = frames[2, ..., 2] = 255
    strip = decoded(film_strip(frames))
    assert strip.shape == (THUMBNAIL, 3 * THUMBNAIL, 3)
    channels = [int(strip[100, THUMBNAIL // 2 + i * THUMBNAIL].argmax()) for i in range(3)]
    assert channels == [2, 1, 0]  # OpenCV reads BGR


@pytest.mark.parametrize(("aspect", "axis"), [(2.0, 1), (0.5, 0)])
def test_film_strip_crops_what_is_too_long(aspect: float, axis: int):
    frame = np.zeros((1, 40, 40, 3), np.uint8)
    middle = [slice(None), slice(None)]
    middle[axis] = slice(10, 30)  # the middle half of the long side
    frame[0][tuple(middle)] = 255
    assert decoded(film_strip(frame, aspect)).min() > 230
