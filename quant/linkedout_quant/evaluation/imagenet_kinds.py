"""Twelve kinds of things among ImageNet's thousand classes, for photos whose index has ImageNet's class numbers.

For evaluation alone: no training may look at it.
"""

from __future__ import annotations

from types import MappingProxyType


def _numbers(*parts: int | tuple[int, int]) -> frozenset[int]:
    """Class numbers; a pair is a range, both ends included."""
    spans = [p if isinstance(p, tuple) else (p, p) for p in parts]
    return frozenset(i for first, last in spans for i in range(first, last + 1))


IMAGENET_KINDS = MappingProxyType(
    {
        "dog": _numbers((151, 268)),
        "bird": _numbers((7, 24), (80, 100), (127, 146)),
        "reptile": _numbers((25, 68)),
        "insect": _numbers((300, 326)),
        "carnivore": _numbers((269, 299), (356, 364)),
        "sea animal": _numbers((0, 6), (107, 126), (147, 150), (389, 397)),
        "food": _numbers((923, 969)),
        "vehicle": _numbers(
            *(403, 404, 407, 408, 436, 444, 468, 472, 511, 547, 555, 565, 569, 573, 609, 612, 627, 654, 656, 661),
            *(665, 670, 671, 675, 705, 717, 734, 751, 757, 779, 817, 829, 864, 866, 867, 870, 874, 895, 914),
        ),
        "primate": _numbers((365, 382)),
        "ungulate": _numbers((339, 355)),
        "landscape": _numbers((970, 980)),
        "instrument": _numbers(
            *(401, 402, 420, 432, 486, 494, 513, 541, 546, 558, 566, 579),
            *(593, 594, 642, 683, 684, 687, 699, 776, 822, 875, 881, 889),
        ),
    }
)
"""Kind → class numbers (0 – 999). Their order is that in which users are drawn."""


def kind_of_class(number: int) -> str | None:
    """The kind that an ImageNet class belongs to; None for most of those that are no animals."""
    return next((kind for kind, numbers in IMAGENET_KINDS.items() if number in numbers), None)
