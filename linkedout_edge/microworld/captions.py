"""Natural English for a micro-video, as a title that its uploader might have given it."""

from __future__ import annotations

import numpy as np

from linkedout_edge.microworld.attributes import Attributes

_PLACE = {
    "kitchen": ("in a kitchen", "by the kitchen counter"),
    "street": ("in a street", "on the road between houses"),
    "forest": ("in a forest", "among the pines"),
    "sea": ("by the sea", "above the waves"),
    "stadium": ("in a stadium", "on the pitch in front of a crowd"),
    "desert": ("in the desert", "between sand dunes"),
    "night city": ("in a city at night", "in front of a skyline at night"),
    "room": ("in a living room", "in a room with a sofa"),
}
_MOTION = {
    "still": ("sitting still", "resting"),
    "left-right": ("moving from side to side", "going left and right"),
    "up-down": ("bouncing up and down", "moving up and down"),
    "circle": ("going round in circles", "circling"),
    "zigzag": ("zigzagging", "moving in a zigzag"),
    "grow-shrink": ("growing and shrinking", "getting bigger and smaller"),
}
_CAMERA = {
    "static": ("", "filmed from a tripod"),
    "pan": ("the camera pans", "a slow pan"),
    "zoom": ("the camera zooms", "with a zoom"),
    "shake": ("shaky camera", "filmed by a shaky hand"),
}
_CUTS = {
    "none": ("", "in one take"),
    "one": ("one cut", "in two shots"),
    "three": ("a few cuts", "in four shots"),
    "many": ("quick cuts", "a fast montage"),
}


def caption(attributes: Attributes, rng: np.random.Generator) -> str:
    """One caption of many that fit; it always names the object and its color."""

    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    a = attributes
    thing = f"{'an' if a.palette[0] in 'aeiou' else 'a'} {a.palette} {a.object}"
    place, motion = pick(_PLACE[a.scene]), pick(_MOTION[a.motion])
    sentence = pick(
        (
            f"{thing} {motion} {place}",
            f"{thing} {place}, {motion}",
            f"{place}: {thing}, {motion}",
            f"a clip of {thing} {motion} {place}",
            f"watch {thing} {motion} {place}",
        )
    )
    text = "" if a.text == "none" else pick((f'the word "{a.text.lower()}" on screen', f"it says {a.text}"))
    details = [d for d in (pick(_CAMERA[a.camera]), pick(_CUTS[a.cuts]), text) if d and rng.random() < 0.7]
    return ", ".join([sentence, *details])
