"""What an id stands for: one content and one title; another one is encoded again, the same one is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from packed import values_of

from linkedout_edge import Recommender, Video
from linkedout_edge.decode import Limits

sizes: list[int] = []


def decoder(path: str, count: int, size: int, limits: Limits) -> np.ndarray:
    """Notes the file's size, and gives a picture that belongs to it."""
    sizes.append(Path(path).stat().st_size)
    return np.random.default_rng(sizes[-1]).integers(0, 256, (1, size, size, 3), dtype=np.uint8)


@pytest.fixture
def reading(tiny_bundle: Path) -> Iterator[Recommender]:
    sizes.clear()
    with Recommender.load(tiny_bundle, precision="fp32", decoder=decoder) as rec:
        yield rec


def test_a_file_that_grew_is_another_content(reading: Recommender, tmp_path: Path) -> None:
    """Its start, middle and end may all look as before."""
    file = tmp_path / "a.mp4"
    for size in (300_000, 300_000, 400_000):
        file.write_bytes(b"\0" * size)
        reading.encode([file])
    assert sizes == [300_000, 400_000]


@pytest.mark.parametrize("call", ["encode", "rank"])
def test_another_title_is_read_anew(reading: Recommender, tmp_path: Path, call: str) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"\0" * 100)
    seen = []
    for title in (None, "a red ball", "a red ball", "a blue square", None, "a red ball"):
        video = Video(file, title=title)
        if call == "encode":
            reading.encode([video])
        else:
            assert reading.rank([], [video]).ids == [str(file)]
        seen.append((len(sizes), values_of(reading, tmp_path, [str(file)])))
    assert [n for n, _ in seen] == [1, 2, 2, 3, 3, 4]  # without a title it is what is known of it
    plain, red, _, blue, as_known, red_again = (values for _, values in seen)
    assert (red == red_again).all()
    assert (blue == as_known).all()
    assert not any(np.array_equal(a, b) for a, b in ((plain, red), (red, blue), (plain, blue)))
