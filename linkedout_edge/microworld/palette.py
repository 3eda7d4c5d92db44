"""Colors of a clip: one family per clip, in the roles that scenes and objects draw with."""

from __future__ import annotations

import numpy as np

Color = tuple[float, float, float]
"""RGB, 0 to 255."""

# Family → hue in degrees of OKLCH, chroma relative to a vivid color, lightness of the main color, hue of small
# accents. OKLCH, because there the shades of all families look equally light. Accents stay near the family, so that the
# palette can be told.
_FAMILIES = {
    "red": (24.0, 1.0, 0.60, 55.0),
    "orange": (57.0, 0.92, 0.71, 85.0),
    "yellow": (94.0, 0.92, 0.83, 68.0),
    "green": (145.0, 0.95, 0.63, 118.0),
    "turquoise": (192.0, 0.72, 0.71, 165.0),
    "blue": (257.0, 1.0, 0.56, 228.0),
    "purple": (308.0, 1.0, 0.56, 342.0),
    "grey": (260.0, 0.03, 0.58, 90.0),
}

# Role → lightness, chroma, hue shift in degrees (None: the accent's hue). Scenes are pale, so that the object stands
# out.
_DAY: dict[str, tuple[float, float, float | None]] = {
    "sky": (0.95, 0.035, -12.0),
    "sky2": (0.84, 0.08, 0.0),
    "far": (0.77, 0.075, 10.0),
    "mid": (0.67, 0.09, 0.0),
    "near": (0.55, 0.095, -8.0),
    "deep": (0.36, 0.07, 0.0),
    "pale": (0.97, 0.015, 0.0),
    "warm": (0.86, 0.11, None),
}
_NIGHT: dict[str, tuple[float, float, float | None]] = {
    **_DAY,
    "sky": (0.20, 0.05, 0.0),
    "sky2": (0.42, 0.10, 12.0),
    "far": (0.34, 0.07, 0.0),
    "mid": (0.26, 0.06, 0.0),
    "near": (0.19, 0.045, 0.0),
    "deep": (0.13, 0.03, 0.0),
    "warm": (0.88, 0.12, None),
}


def _rgb(lightness: float, chroma: float, hue: float) -> Color:
    """OKLCH → sRGB."""
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    r, g, b = (
        255 * (12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055)
        for x in (min(max(float(x), 0.0), 1.0) for x in linear)
    )
    return r, g, b


def colors(family: str, rng: np.random.Generator, *, night: bool) -> dict[str, Color]:
    """Role → color; scenes draw with the roles of `_DAY`, objects with those that start with ``o_``."""
    hue, vivid, light, accent = _FAMILIES[family]
    hue += float(rng.uniform(-5, 5)) if vivid > 0.1 else 0.0
    light += float(rng.uniform(-0.025, 0.025))
    lift = float(rng.uniform(-0.02, 0.02))
    roles = {
        role: _rgb(lightness + (0 if night else lift), chroma * vivid, accent if shift is None else hue + shift)
        for role, (lightness, chroma, shift) in (_NIGHT if night else _DAY).items()
    }
    roles["o_main"] = _rgb(light, 0.19 * vivid, hue)
    roles["o_shade"] = _rgb(light - 0.15, 0.16 * vivid, hue - 4)
    roles["o_light"] = _rgb(0.95, 0.035 * vivid, hue)
    roles["o_dark"] = _rgb(0.27, 0.05 * vivid, hue)
    roles["o_warm"] = _rgb(0.84, 0.13 * vivid, accent)
    return roles
