"""The ten objects, each recognizable by its outline, whatever its color.

An object is a list of (role, polygon) in a box of about [-1, 1]², x to the right and y down, drawn in order. Shapes of
the silhouette are drawn twice: first a pale rim around all, like a sticker's, which sets the object off any background.
"""

from __future__ import annotations

import numpy as np

from linkedout_edge.microworld.shapes import box, ellipse, poly, ring

Shape = tuple[str, np.ndarray]
"""Role of the color (see `palette.colours`), polygon float32 [n, 2]."""


def _ball() -> list[Shape]:
    wedges = [
        ("o_light", np.concatenate([poly((0, 0)), ellipse(0, 0, 0.86, 0.86, arc=(a, a + 60), n=10)]))
        for a in (-90, 30, 150)
    ]
    return [
        ("o_main", ellipse(0, 0, 0.86, 0.86, n=36)),
        *wedges,
        ("o_shade", ring(0, 0, 0.86, 0.72, arc=(20, 120))),
        ("o_shade", ellipse(0, 0, 0.17, 0.17)),
    ]


def _car() -> list[Shape]:
    body = poly(
        (-1, 0.35),
        (-1, 0),
        (-0.86, -0.12),
        (-0.58, -0.16),
        (-0.32, -0.58),
        (0.34, -0.58),
        (0.62, -0.14),
        (0.92, -0.04),
        (1, 0.12),
        (1, 0.35),
    )
    wheels = [
        s
        for x in (-0.55, 0.55)
        for s in (
            ("o_dark", ellipse(x, 0.36, 0.27, 0.27)),
            ("o_light", ellipse(x, 0.36, 0.12, 0.12)),
        )
    ]
    return [
        ("o_main", body),
        ("o_light", poly((-0.43, -0.14), (-0.24, -0.45), (-0.03, -0.45), (-0.03, -0.14))),
        ("o_light", poly((0.07, -0.14), (0.07, -0.45), (0.27, -0.45), (0.46, -0.14))),
        ("o_shade", box(-1, 0.16, 1, 0.35, corner=0.05)),
        *wheels,
        ("o_warm", ellipse(0.93, 0.08, 0.08, 0.1)),
    ]


def _dog() -> list[Shape]:
    legs = [("o_main", box(x, 0.15, x + 0.2, 0.85, corner=0.08)) for x in (-0.66, -0.38, 0.08, 0.32)]
    return [
        ("o_shade", poly((-0.66, 0.0), (-0.98, -0.42), (-0.86, -0.56), (-0.52, -0.1))),
        *legs,
        ("o_main", box(-0.74, -0.12, 0.55, 0.42, corner=0.24)),
        ("o_main", poly((0.2, 0.2), (0.28, -0.5), (0.66, -0.4), (0.56, 0.2))),
        ("o_main", ellipse(0.48, -0.5, 0.33, 0.3)),
        ("o_light", ellipse(0.76, -0.4, 0.26, 0.17)),
        ("o_dark", ellipse(0.96, -0.46, 0.09, 0.08)),
        ("o_shade", ellipse(0.24, -0.42, 0.14, 0.33, turn=14)),
        ("o_dark", ellipse(0.56, -0.6, 0.06, 0.07)),
        ("o_warm", box(0.24, -0.2, 0.62, -0.1)),
    ]


def _bird() -> list[Shape]:
    return [
        ("o_shade", poly((-0.4, 0.1), (-1, -0.02), (-0.94, 0.18), (-1, 0.38), (-0.4, 0.4))),
        ("o_dark", box(-0.08, 0.55, -0.01, 0.95)),
        ("o_dark", box(0.16, 0.55, 0.23, 0.95)),
        ("o_main", ellipse(0.02, 0.2, 0.6, 0.46, turn=-14)),
        ("o_main", ellipse(0.42, -0.34, 0.33, 0.32)),
        ("o_warm", poly((0.68, -0.48), (1.05, -0.3), (0.68, -0.18))),
        ("o_light", ellipse(0.24, 0.26, 0.3, 0.32, turn=-14)),
        ("o_shade", poly((0.16, 0.06), (-0.02, 0.34), (-0.5, 0.28), (-0.86, -0.62), (-0.4, -0.52), (-0.06, -0.2))),
        ("o_dark", ellipse(0.5, -0.4, 0.075, 0.085)),
    ]


def _cup() -> list[Shape]:
    steam = [
        (
            "o_light",
            poly(
                (x, -0.5),
                (x + 0.1, -0.66),
                (x, -0.82),
                (x + 0.06, -0.98),
                (x + 0.16, -0.98),
                (x + 0.1, -0.82),
                (x + 0.2, -0.66),
                (x + 0.1, -0.5),
            ),
        )
        for x in (-0.42, -0.06)
    ]
    return [
        *steam,
        ("o_main", ring(0.46, 0.14, 0.44, 0.26, arc=(-85, 85))),
        ("o_main", poly((-0.66, -0.36), (0.54, -0.36), (0.42, 0.72), (0.3, 0.84), (-0.42, 0.84), (-0.54, 0.72))),
        ("o_light", poly((-0.63, 0.02), (0.51, 0.02), (0.48, 0.26), (-0.6, 0.26))),
        ("o_shade", ellipse(-0.06, -0.36, 0.6, 0.16)),
        ("o_dark", ellipse(-0.06, -0.34, 0.5, 0.11)),
    ]


def _tree() -> list[Shape]:
    fruit = [
        ("o_warm", ellipse(x, y, 0.09, 0.09, n=14))
        for x, y in ((-0.42, -0.14), (0.1, -0.5), (0.46, -0.06), (-0.1, -0.02))
    ]
    return [
        ("o_dark", poly((-0.13, 0.1), (0.13, 0.1), (0.17, 0.8), (0.32, 0.95), (-0.32, 0.95), (-0.17, 0.8))),
        ("o_shade", ellipse(0, 0.12, 0.62, 0.26)),
        ("o_main", ellipse(-0.42, -0.1, 0.42, 0.4)),
        ("o_main", ellipse(0.42, -0.1, 0.42, 0.4)),
        ("o_main", ellipse(0, -0.48, 0.5, 0.46)),
        ("o_light", ellipse(-0.18, -0.64, 0.16, 0.1, turn=-30)),
        *fruit,
    ]


def _house() -> list[Shape]:
    return [
        ("o_shade", box(0.36, -0.88, 0.6, -0.2)),
        ("o_light", box(-0.68, -0.16, 0.68, 0.86)),
        ("o_main", poly((-0.98, -0.08), (0, -0.92), (0.98, -0.08), (0.9, 0.06), (-0.9, 0.06))),
        ("o_shade", box(-0.5, 0.24, -0.12, 0.86)),
        ("o_warm", ellipse(-0.2, 0.56, 0.045, 0.045, n=10)),
        ("o_dark", box(0.1, 0.24, 0.52, 0.62)),
        ("o_warm", box(0.14, 0.28, 0.29, 0.41)),
        ("o_warm", box(0.33, 0.28, 0.48, 0.41)),
        ("o_warm", box(0.14, 0.45, 0.29, 0.58)),
        ("o_warm", box(0.33, 0.45, 0.48, 0.58)),
    ]


def _fish() -> list[Shape]:
    return [
        ("o_shade", poly((-0.42, 0), (-1, -0.5), (-0.84, 0), (-1, 0.5))),
        ("o_shade", poly((-0.22, -0.34), (0.0, -0.74), (0.4, -0.62), (0.42, -0.3))),
        ("o_shade", poly((-0.1, 0.34), (-0.16, 0.66), (0.16, 0.6), (0.24, 0.34))),
        ("o_main", poly((-0.62, 0), *map(tuple, ellipse(0.16, 0, 0.8, 0.46, arc=(-140, 140), n=24).tolist()))),
        ("o_light", poly((-0.2, -0.38), (-0.02, -0.43), (-0.1, 0), (-0.02, 0.43), (-0.2, 0.38), (-0.28, 0))),
        ("o_light", poly((0.18, -0.45), (0.34, -0.44), (0.26, 0), (0.34, 0.44), (0.18, 0.45), (0.1, 0))),
        ("o_light", ellipse(0.62, -0.1, 0.14, 0.14)),
        ("o_dark", ellipse(0.65, -0.1, 0.075, 0.075)),
    ]


def _robot() -> list[Shape]:
    return [
        ("o_dark", box(-0.04, -0.98, 0.04, -0.72)),
        ("o_warm", ellipse(0, -0.96, 0.1, 0.1)),
        ("o_shade", box(-0.82, -0.06, -0.54, 0.12)),
        ("o_shade", box(0.54, -0.06, 0.82, 0.12)),
        ("o_shade", box(-0.84, -0.06, -0.66, 0.5, corner=0.06)),
        ("o_shade", box(0.66, -0.06, 0.84, 0.5, corner=0.06)),
        ("o_dark", box(-0.36, 0.5, -0.12, 0.95)),
        ("o_dark", box(0.12, 0.5, 0.36, 0.95)),
        ("o_main", box(-0.52, -0.14, 0.52, 0.62, corner=0.1)),
        ("o_main", box(-0.46, -0.76, 0.46, -0.2, corner=0.1)),
        ("o_light", ellipse(-0.2, -0.52, 0.14, 0.14)),
        ("o_light", ellipse(0.2, -0.52, 0.14, 0.14)),
        ("o_dark", ellipse(-0.2, -0.52, 0.065, 0.065, n=12)),
        ("o_dark", ellipse(0.2, -0.52, 0.065, 0.065, n=12)),
        ("o_dark", box(-0.24, -0.34, 0.24, -0.27)),
        ("o_light", box(-0.32, 0.04, 0.32, 0.42, corner=0.05)),
        ("o_warm", ellipse(-0.15, 0.23, 0.09, 0.09, n=14)),
        ("o_shade", ellipse(0.15, 0.23, 0.09, 0.09, n=14)),
    ]


def _flower() -> list[Shape]:
    petals = [
        ("o_main", ellipse(0.44 * np.cos(a), -0.34 + 0.44 * np.sin(a), 0.29, 0.25, turn=float(np.degrees(a))))
        for a in np.radians(np.arange(0, 360, 60) + 30)
    ]
    return [
        ("o_dark", box(-0.06, -0.2, 0.06, 0.98)),
        ("o_shade", ellipse(-0.3, 0.62, 0.3, 0.13, turn=28)),
        ("o_shade", ellipse(0.3, 0.5, 0.3, 0.13, turn=-28)),
        *petals,
        ("o_warm", ellipse(0, -0.34, 0.25, 0.25)),
        ("o_light", ellipse(-0.07, -0.41, 0.08, 0.07, n=12)),
    ]


OBJECTS: dict[str, list[Shape]] = {
    "ball": _ball(),
    "car": _car(),
    "dog": _dog(),
    "bird": _bird(),
    "cup": _cup(),
    "tree": _tree(),
    "house": _house(),
    "fish": _fish(),
    "robot": _robot(),
    "flower": _flower(),
}
