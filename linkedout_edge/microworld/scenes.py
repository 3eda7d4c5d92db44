"""The eight backgrounds: each with its own composition, recognizable without color.

A painter fills all of a canvas that shows [-0.25, 1.25]² of the world, so that the camera can move; [0, 1]² is what a
still camera sees. Layout varies with the generator.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from linkedout_edge.microworld.palette import Color
from linkedout_edge.microworld.shapes import Pen, box, ellipse, poly

Colors = dict[str, Color]
LOW, HIGH = -0.25, 1.25


def _texture(pen: Pen, x0: float, y0: float, x1: float, y1: float, cells: np.ndarray) -> None:
    """Fill a rectangle with the cells uint8 [rows, columns, 3], sharp-edged."""
    size = pen.canvas.shape[0]
    a, b, c, d = (min(max(round(v * pen.scale + pen.offset), 0), size) for v in (x0, x1, y0, y1))
    if b > a and d > c:
        pen.canvas[c:d, a:b] = cv2.resize(cells, (b - a, d - c), interpolation=cv2.INTER_NEAREST)


def _pick(rng: np.random.Generator, rows: int, columns: int, options: list[Color], p: list[float]) -> np.ndarray:
    """Random cells uint8 [rows, columns, 3]."""
    which = np.searchsorted(np.cumsum(p), rng.random((rows, columns)) * sum(p), side="right")
    return np.rint(np.array(options)).astype(np.uint8)[np.minimum(which, len(options) - 1)]


def _cloud(pen: Pen, x: float, y: float, r: float, color: Color) -> None:
    pen.fill(ellipse(x, y, 1.9 * r, 0.55 * r), color)
    pen.fill(ellipse(x - 0.5 * r, y - 0.35 * r, 0.75 * r, 0.6 * r, n=16), color)
    pen.fill(ellipse(x + 0.45 * r, y - 0.5 * r, 0.9 * r, 0.75 * r, n=16), color)


def _kitchen(pen: Pen, c: Colors, rng: np.random.Generator) -> None:
    counter = rng.uniform(0.66, 0.74)
    pen.band(LOW, HIGH, c["pale"], c["sky"])
    step = rng.uniform(0.11, 0.14)  # tiles
    for v in np.arange(LOW, HIGH, step):
        pen.stroke(poly((v, LOW), (v, counter)), c["sky2"], 0.012)
        if v < counter:
            pen.stroke(poly((LOW, v), (HIGH, v)), c["sky2"], 0.012)
    shelf = rng.uniform(0.16, 0.24)
    x = rng.uniform(-0.2, 0.1)
    pen.fill(box(x, shelf, x + 0.55, shelf + 0.035), c["near"])
    for i in range(4):  # jars
        jar = x + 0.04 + 0.13 * i
        h = rng.uniform(0.07, 0.13)
        pen.fill(box(jar, shelf - h, jar + 0.09, shelf, corner=0.02), c[("mid", "warm", "far")[int(rng.integers(3))]])
        pen.fill(box(jar + 0.01, shelf - h - 0.025, jar + 0.08, shelf - h), c["deep"])
    lamp = x + rng.uniform(0.7, 0.85)
    pen.stroke(poly((lamp, LOW), (lamp, 0.08)), c["deep"], 0.014)
    pen.fill(poly((lamp - 0.04, 0.06), (lamp + 0.04, 0.06), (lamp + 0.15, 0.21), (lamp - 0.15, 0.21)), c["near"])
    pen.fill(ellipse(lamp, 0.21, 0.06, 0.05, arc=(0, 180), n=12), c["warm"])
    pen.band(counter, counter + 0.06, c["deep"])
    pen.band(counter + 0.06, HIGH, c["mid"], c["near"])
    for v in np.arange(LOW + rng.uniform(0, 0.1), HIGH, 0.3):  # doors
        pen.stroke(box(v, counter + 0.1, v + 0.26, HIGH), c["far"], 0.014, closed=True)
        pen.fill(box(v + 0.2, counter + 0.16, v + 0.225, counter + 0.26), c["pale"])


def _street(pen: Pen, c: Colors, rng: np.random.Generator) -> None:
    horizon, vanish = rng.uniform(0.44, 0.5), rng.uniform(0.42, 0.58)
    pen.band(LOW, horizon, c["sky2"], c["sky"])
    pen.band(horizon, HIGH, c["far"], c["mid"])
    for side in (-1, 1):  # house fronts that grow towards the viewer
        for k, role in enumerate(("far", "mid", "near")):
            inner = vanish + side * (0.1 + 0.17 * k)
            outer = vanish + side * (0.1 + 0.17 * (k + 1)) if k < 2 else vanish + side * 1.0
            top = horizon - rng.uniform(0.2, 0.27) * (1 + 0.75 * k)
            base = horizon + 0.045 * k
            pen.fill(box(min(inner, outer), top, max(inner, outer), base + 0.1), c[role])
            cells = _pick(rng, 5 + 2 * k, 2 if k < 2 else 5, [c["pale"], c["warm"], c["deep"]], [0.5, 0.2, 0.3])
            rows, columns = cells.shape[:2]
            left, width = min(inner, outer), abs(outer - inner) / columns
            height = (base - top) / rows
            for i in range(rows):
                for j in range(columns):
                    x, y = left + j * width, top + i * height
                    pane = cells[i : i + 1, j : j + 1]
                    _texture(pen, x + 0.25 * width, y + 0.3 * height, x + 0.75 * width, y + 0.8 * height, pane)
    pen.fill(poly((vanish, horizon - 0.02), (HIGH + 0.75, HIGH), (LOW - 0.75, HIGH)), c["pale"])
    pen.fill(
        poly((vanish - 0.02, horizon), (vanish + 0.02, horizon), (vanish + 0.95, HIGH), (vanish - 0.95, HIGH)),
        c["deep"],
    )
    for near, far in ((1.0, 0.72), (0.55, 0.4), (0.3, 0.22), (0.15, 0.1)):  # dashes of the middle line
        y0, y1 = horizon + far * 0.78, horizon + near * 0.78
        pen.fill(
            poly(
                (vanish - 0.03 * far, y0),
                (vanish + 0.03 * far, y0),
                (vanish + 0.03 * near, y1),
                (vanish - 0.03 * near, y1),
            ),
            c["warm"],
        )


def _pine(pen: Pen, x: float, base: float, h: float, leaf: Color, trunk: Color) -> None:
    pen.fill(box(x - 0.05 * h, base - 0.2 * h, x + 0.05 * h, base), trunk)
    for k in range(3):
        y = base - h * (0.12 + 0.27 * k)
        w = h * (0.3 - 0.065 * k)
        pen.fill(poly((x - w, y), (x, y - 0.42 * h), (x + w, y)), leaf)


def _forest(pen: Pen, c: Colors, rng: np.random.Generator) -> None:
    pen.band(LOW, 0.64, c["pale"], c["sky2"])
    for x in np.arange(LOW, HIGH, 0.14):
        _pine(pen, x + rng.uniform(-0.03, 0.03), 0.66, rng.uniform(0.4, 0.55), c["far"], c["mid"])
    pen.band(0.62, HIGH, c["sky2"], c["far"])
    for x in np.arange(LOW - rng.uniform(0, 0.2), HIGH, 0.3):
        at = x + rng.uniform(-0.06, 0.06)
        _pine(pen, at, rng.uniform(0.7, 0.78), rng.uniform(0.55, 0.75), c["near"], c["deep"])
    for x in (rng.uniform(-0.12, 0.08), rng.uniform(0.92, 1.12)):
        _pine(pen, x, rng.uniform(0.94, 1.04), rng.uniform(0.9, 1.1), c["deep"], c["near"])
    for x in rng.uniform(LOW, HIGH, 14):  # grass
        y = rng.uniform(0.82, 1.2)
        pen.fill(
            poly((x - 0.03, y), (x - 0.02, y - 0.06), (x, y - 0.02), (x + 0.012, y - 0.08), (x + 0.03, y)), c["near"]
        )


def _sea(pen: Pen, c: Colors, rng: np.random.Generator) -> None:
    horizon = rng.uniform(0.4, 0.48)
    pen.band(LOW, horizon, c["sky2"], c["sky"])
    x, y = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.24)
    pen.fill(ellipse(x, y, 0.12, 0.12), c["warm"])
    for _ in range(3):
        _cloud(pen, rng.uniform(LOW, HIGH), rng.uniform(-0.05, horizon - 0.14), rng.uniform(0.06, 0.1), c["pale"])
    pen.band(horizon, HIGH, c["mid"], c["near"])
    boat = (x + rng.uniform(0.3, 0.6)) % 1.0
    pen.fill(
        poly(
            (boat - 0.1, horizon - 0.015),
            (boat + 0.1, horizon - 0.015),
            (boat + 0.06, horizon + 0.03),
            (boat - 0.06, horizon + 0.03),
        ),
        c["deep"],
    )
    pen.fill(
        poly((boat + 0.005, horizon - 0.2), (boat + 0.09, horizon - 0.03), (boat + 0.005, horizon - 0.03)), c["pale"]
    )
    pen.fill(
        poly((boat - 0.015, horizon - 0.16), (boat - 0.015, horizon - 0.03), (boat - 0.07, horizon - 0.03)), c["pale"]
    )
    xs = np.linspace(LOW, HIGH, 60)
    y = horizon + 0.08
    for k, role in enumerate(("far", "near", "sky2", "deep", "mid")):  # waves, nearer ones larger
        a, length = 0.012 + 0.007 * k, 0.14 + 0.05 * k
        wave = y + a * np.abs(np.sin(np.pi * (xs / length + rng.uniform(0, 1)))) * -1
        pen.fill(np.concatenate([np.stack([xs, wave], 1), poly((HIGH, HIGH), (LOW, HIGH))]).astype(np.float32), c[role])
        pen.stroke(np.stack([xs, wave], 1).astype(np.float32), c["pale"], 0.009)
        y += 0.07 + 0.035 * k


def _stadium(pen: Pen, c: Colors, rng: np.random.Generator) -> None:
    edge = rng.uniform(0.46, 0.52)
    top = rng.uniform(0.17, 0.21)
    pen.band(LOW, top, c["sky2"], c["sky"])
    crowd = _pick(rng, 11, 60, [c["near"], c["deep"], c["pale"], c["warm"], c["mid"]], [0.34, 0.26, 0.14, 0.1, 0.16])
    _texture(pen, LOW, top, HIGH, edge - 0.05, crowd)
    for y in (top, (top + edge - 0.05) / 2):
        pen.band(y - 0.012, y + 0.018, c["pale"])
    for x in np.array([0.02, 0.5, 0.98]) + rng.uniform(-0.08, 0.08):  # floodlights
        pen.stroke(poly((x, top), (x, 0.06)), c["deep"], 0.016)
        pen.fill(box(x - 0.1, 0.01, x + 0.1, 0.11), c["deep"])
        for dx in (-0.06, 0.0, 0.06):
            pen.fill(ellipse(x + dx, 0.06, 0.024, 0.028, n=10), c["pale"])
    pen.band(edge - 0.05, edge, c["deep"])
    mid, stripes = rng.uniform(0.42, 0.58), 9
    for k in range(-stripes, stripes):  # mown stripes that meet far behind the pitch
        near, far = 0.34, 0.17
        shape = poly(
            (mid + k * far, edge), (mid + (k + 1) * far, edge), (mid + (k + 1) * near, HIGH), (mid + k * near, HIGH)
        )
        pen.fill(shape, c["mid"] if k % 2 else c["sky2"])
    pen.band(edge + 0.03, edge + 0.045, c["pale"])
    pen.stroke(ellipse(mid, 0.84, 0.34, 0.13, n=36), c["pale"], 0.016, closed=True)
    pen.stroke(poly((mid, edge + 0.04), (mid, HIGH)), c["pale"], 0.016)


def _desert(pen: Pen, c: Colors, rng: np.random.Generator) -> None:
    pen.band(LOW, 0.7, c["sky"], c["warm"])
    pen.fill(ellipse(rng.uniform(0.12, 0.88), rng.uniform(0.14, 0.26), 0.13, 0.13, n=32), c["pale"])
    for k in range(2):  # pyramids
        x, h = rng.uniform(0.0, 0.45) + 0.5 * k, rng.uniform(0.18, 0.3)
        pen.fill(poly((x - 1.1 * h, 0.6), (x, 0.6 - h), (x + 1.1 * h, 0.6)), c["far"])
        pen.fill(poly((x + 0.25 * h, 0.6), (x, 0.6 - h), (x + 1.1 * h, 0.6)), c["mid"])
    xs = np.linspace(LOW, HIGH, 40)
    for y, role, a in ((0.56, "far", 0.05), (0.68, "mid", 0.07), (0.86, "near", 0.07)):  # dunes
        crest = y + a * np.sin(2 * np.pi * (xs * rng.uniform(0.55, 0.95) + rng.uniform(0, 1)))
        pen.fill(
            np.concatenate([np.stack([xs, crest], 1), poly((HIGH, HIGH), (LOW, HIGH))]).astype(np.float32), c[role]
        )
        ripple = np.stack([xs, crest + 0.05], 1).astype(np.float32)
        pen.stroke(ripple, c["warm"], 0.008)
    for x in (rng.uniform(-0.05, 0.2), rng.uniform(0.8, 1.05)):  # cacti
        y, h = rng.uniform(0.74, 0.86), rng.uniform(0.26, 0.36)
        pen.fill(box(x - 0.03, y - h, x + 0.03, y, corner=0.03), c["deep"])
        for side, up in ((-1, 0.45), (1, 0.6)):
            arm = poly((x, y - up * h), (x + side * 0.09, y - up * h), (x + side * 0.09, y - (up + 0.3) * h))
            pen.stroke(arm, c["deep"], 0.038)


def _night_city(pen: Pen, c: Colors, rng: np.random.Generator) -> None:
    pen.band(LOW, 0.85, c["sky"], c["sky2"])
    for x, y in rng.uniform((LOW, LOW), (HIGH, 0.5), (40, 2)):
        pen.fill(ellipse(x, y, 0.007, 0.007, n=6), c["pale"])
    x, y = rng.uniform(0.15, 0.85), rng.uniform(0.08, 0.2)
    pen.fill(ellipse(x, y, 0.1, 0.1), c["warm"])
    mix = (y - LOW) / (0.85 - LOW)  # the sky's color at that height
    dark = tuple(a + mix * (b - a) for a, b in zip(c["sky"], c["sky2"], strict=True))
    pen.fill(ellipse(x + 0.045, y - 0.02, 0.085, 0.085), (dark[0], dark[1], dark[2]))
    for role, low, high, w0, lit in (("far", 0.3, 0.6, 0.13, 0.3), ("mid", 0.42, 0.72, 0.19, 0.45)):
        x = LOW - rng.uniform(0, 0.1)
        while x < HIGH:
            w, top = w0 * rng.uniform(0.8, 1.2), rng.uniform(low, high)
            pen.fill(box(x, top, x + w, HIGH), c[role])
            rows, columns = max(2, int((1.05 - top) / 0.055)), max(2, round(w / 0.05))
            cells = np.repeat(
                np.repeat(_pick(rng, rows, columns, [c["warm"], c["pale"], c["deep"]], [lit, 0.08, 0.9 - lit]), 2, 0),
                2,
                1,
            )
            cells[::2] = cells[:, 1::2] = np.rint(c[role]).astype(np.uint8)
            _texture(pen, x + 0.02, top + 0.02, x + w - 0.005, 1.05, cells)
            if rng.random() < 0.3:
                pen.stroke(poly((x + w / 2, top), (x + w / 2, top - 0.1)), c[role], 0.014)
            x += w
    pen.band(0.92, HIGH, c["near"], c["deep"])
    for x in np.arange(LOW + rng.uniform(0, 0.2), HIGH, 0.3):  # street lights
        pen.fill(ellipse(x, 0.985, 0.075, 0.02, n=14), c["sky2"])
        pen.stroke(poly((x, 0.98), (x, 0.83)), c["deep"], 0.014)
        pen.fill(ellipse(x, 0.82, 0.028, 0.028, n=12), c["warm"])


def _room(pen: Pen, c: Colors, rng: np.random.Generator) -> None:
    floor = rng.uniform(0.7, 0.76)
    pen.band(LOW, floor, c["sky"])
    stripe = rng.uniform(0.08, 0.11)  # wallpaper
    for x in np.arange(LOW, HIGH, 2 * stripe):
        pen.fill(box(x, LOW, x + stripe, floor), c["sky2"])
    x = rng.uniform(0.0, 0.14)
    pen.fill(box(x, 0.06, x + 0.34, 0.46), c["pale"])  # window with curtains
    pen.fill(box(x + 0.025, 0.085, x + 0.315, 0.435), c["far"])
    pen.stroke(poly((x + 0.17, 0.07), (x + 0.17, 0.45)), c["pale"], 0.02)
    pen.stroke(poly((x, 0.26), (x + 0.34, 0.26)), c["pale"], 0.02)
    for side in (x - 0.08, x + 0.3):
        pen.fill(poly((side, 0.02), (side + 0.12, 0.02), (side + 0.1, 0.54), (side + 0.02, 0.54)), c["near"])
    for k in range(2):  # pictures
        px, py, w = x + 0.53 + 0.25 * k, rng.uniform(0.06, 0.16), rng.uniform(0.08, 0.1)
        pen.fill(box(px - w, py, px + w, py + 0.22), c["deep"])
        pen.fill(box(px - w + 0.02, py + 0.02, px + w - 0.02, py + 0.2), c["warm"])
        pen.fill(poly((px - w + 0.02, py + 0.2), (px - 0.01, py + 0.08), (px + w - 0.02, py + 0.2)), c["near"])
    pen.band(floor, floor + 0.03, c["pale"])
    pen.band(floor + 0.03, HIGH, c["mid"], c["near"])
    for k in range(1, 5):
        pen.stroke(poly((LOW, floor + 0.02 + 0.09 * k), (HIGH, floor + 0.02 + 0.09 * k)), c["near"], 0.01)
    sofa = rng.uniform(0.4, 0.52)
    pen.fill(box(sofa, 0.5, sofa + 0.56, 0.8, corner=0.07), c["near"])
    pen.fill(box(sofa - 0.06, 0.6, sofa + 0.08, 0.86, corner=0.05), c["deep"])
    pen.fill(box(sofa + 0.48, 0.6, sofa + 0.62, 0.86, corner=0.05), c["deep"])
    pen.fill(box(sofa + 0.06, 0.67, sofa + 0.5, 0.84, corner=0.04), c["mid"])
    pen.fill(ellipse(rng.uniform(0.25, 0.5), 0.97, 0.36, 0.075), c["warm"])  # rug


SCENES: dict[str, Callable[[Pen, Colors, np.random.Generator], None]] = {
    "kitchen": _kitchen,
    "street": _street,
    "forest": _forest,
    "sea": _sea,
    "stadium": _stadium,
    "desert": _desert,
    "night city": _night_city,
    "room": _room,
}
