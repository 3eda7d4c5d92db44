"""The demo's page: one HTML file that loads nothing else.

What comes from outside (names, captions, reasons) travels as JSON and becomes text nodes in the browser, never markup.
A content security policy in the page forbids every request, so even a mistake here could not make it call out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

TEMPLATE = "report.html"
THUMBNAIL = 200
"""Side of one thumbnail, pixels."""
_PLACEHOLDER = "@@DATA@@"
_JPEG_QUALITY = 78


@dataclass(frozen=True)
class Picture:
    """A video as the page shows it.

    Attributes:
        name: What to call it.
        strip: Its thumbnails side by side, as a ``data:`` URI; "" if there are none.
        frames: How many thumbnails those are.
    """

    name: str
    strip: str = ""
    frames: int = 1


@dataclass(frozen=True)
class Watched:
    """A video of the history, and the fraction of it that was watched."""

    picture: Picture
    fraction: float


@dataclass(frozen=True)
class Place:
    """A ranked video.

    Attributes:
        rank: From 1.
        picture: How it looks.
        score: Its score.
        layers: L contributions; they sum to the score.
        sentence: Why, in words.
        because: Index of the watched video that decided most, None if none did.
        matrix: ``[N][L]``: what each watched video adds by each layer; it sums to the score.
    """

    rank: int
    picture: Picture
    score: float
    layers: Sequence[float]
    sentence: str
    because: int | None
    matrix: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Report:
    """Everything that the page shows.

    Attributes:
        summary: One sentence below the heading.
        layer_names: L names.
        history: The N watched videos, oldest first.
        ranked: Best first.
        failed: Names and reasons of videos that could not be used.
        facts: Labels and values: times, sizes, what ran.
    """

    summary: str
    layer_names: Sequence[str]
    history: Sequence[Watched]
    ranked: Sequence[Place]
    failed: Sequence[tuple[str, str]] = field(default=())
    facts: Sequence[tuple[str, str]] = field(default=())


def render(report: Report) -> str:
    """The page as one HTML document."""
    template = resources.files("linkedout_edge.cli").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return template.replace(_PLACEHOLDER, embed_json(asdict(report)), 1)


def embed_json(value: Any) -> str:
    """JSON in ASCII that may stand inside ``<script>``: nothing in it can end the element or open another."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def film_strip(frames: NDArray[np.uint8], aspect: float = 1.0) -> str:
    """Frames side by side, each a square of `THUMBNAIL` pixels, as a JPEG in a ``data:`` URI.

    Args:
        frames: uint8 ``[F, S, S, 3]`` RGB, squashed to squares as decoders give them.
        aspect: Width by height of the video; what is too wide or too high is cropped at the sides.
    """
    import cv2

    side = frames.shape[1]
    wide, high = (max(1.0, aspect), max(1.0, 1 / aspect))
    tiles = []
    for frame in frames:
        # Undo the squashing by cutting the middle out in squashed coordinates: a wide video loses its sides.
        w, h = max(1, round(side / wide)), max(1, round(side / high))
        x, y = (side - w) // 2, (side - h) // 2
        tiles.append(cv2.resize(frame[y : y + h, x : x + w], (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA))
    strip = cv2.cvtColor(np.concatenate(tiles, axis=1), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
