"""What a micro-video shows: seven facets with a handful of named values each.

The facets are the latent truth behind a clip. Some combinations are *held out*: training never sees them, the exam
consists of nothing else, so a model has to know the facets and cannot have learned the clips.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

import numpy as np

from linkedout_edge.errors import ArgumentError, unknown

Split = Literal["train", "held_out", "any"]

FACETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "scene": ("kitchen", "street", "forest", "sea", "stadium", "desert", "night city", "room"),
        "object": ("ball", "car", "dog", "bird", "cup", "tree", "house", "fish", "robot", "flower"),
        "motion": ("still", "left-right", "up-down", "circle", "zigzag", "grow-shrink"),
        "palette": ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "grey"),
        "camera": ("static", "pan", "zoom", "shake"),
        "cuts": ("none", "one", "three", "many"),
        "text": ("none", "WOW", "GO", "NEW", "LIVE", "YES"),
    }
)
"""Facet → its values, in the order of `one_hot`."""

LATENT_SIZE = sum(map(len, FACETS.values()))
"""K, the width of `one_hot`."""

_SIZES = np.array([len(values) for values in FACETS.values()])
_OFFSETS = np.cumsum(_SIZES) - _SIZES
_COLUMN = {
    (facet, value): int(offset) + i
    for (facet, values), offset in zip(FACETS.items(), _OFFSETS, strict=True)
    for i, value in enumerate(values)
}


@dataclass(frozen=True)
class Attributes:
    """One value per facet of `FACETS`.

    Raises:
        ArgumentError: A value that its facet does not have.
    """

    scene: str
    object: str
    motion: str
    palette: str
    camera: str = "static"
    cuts: str = "none"
    text: str = "none"

    def __post_init__(self) -> None:
        for facet, value in zip(FACETS, astuple(self), strict=True):
            if value not in FACETS[facet]:
                raise ArgumentError(unknown(facet, value, FACETS[facet]))


def one_hot(attributes: Attributes) -> np.ndarray:
    """float32 [K]: a 1 for the value of each facet."""
    vector = np.zeros(LATENT_SIZE, np.float32)
    for facet in FACETS:
        vector[_COLUMN[facet, getattr(attributes, facet)]] = 1
    return vector


def held_out(attributes: Attributes) -> bool:
    """Whether the combination of scene, object, palette and motion is one of the 20 % that training never sees."""
    return _held_out(attributes.scene, attributes.object, attributes.palette, attributes.motion)


@cache
def _held_out(*combination: str) -> bool:
    # Python's own hash of a str differs from process to process.
    digest = hashlib.blake2b("|".join(combination).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 5 == 0


def random_attributes(rng: np.random.Generator, *, split: Split = "train") -> Attributes:
    """Uniformly drawn attributes.

    Args:
        rng: Source of chance.
        split: ``"train"`` leaves out the held-out combinations, ``"held_out"`` gives only those, ``"any"`` all.

    Raises:
        ArgumentError: An unknown split.
    """
    if split not in ("train", "held_out", "any"):
        raise ArgumentError(unknown("split", split, ("train", "held_out", "any")))
    while True:
        picks = rng.integers(_SIZES)
        attributes = Attributes(*(values[i] for values, i in zip(FACETS.values(), picks, strict=True)))
        if split == "any" or held_out(attributes) == (split == "held_out"):
            return attributes
