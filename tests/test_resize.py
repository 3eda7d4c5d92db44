"""How pictures become squares: each pixel of the square is the mean of the area that it covers."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from packed import TINY, values_of

from linkedout_edge import Recommender, Video
from linkedout_edge.decode import Limits, get_decoder, prepare_frames

SIZE = 32
# Height and width: whole multiples of the square's side and others, landscape and portrait.
SHAPES = [(96, 160), (100, 75), (33, 250), (480, 270)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[1]}x{s[0]}")


def shares(length: int, size: int) -> np.ndarray:
    """How much of each of `length` pixels each of `size` covers: float64 ``[size, length]``, rows sum to 1."""
    edges = np.linspace(0, length, size + 1)[:, None]
    pixels = np.arange(length)
    covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.maximum(covered, 0) * size / length


def means(frame: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Area means of one picture: float64 ``[size, size, 3]``."""
    height, width = frame.shape[:2]
    return np.einsum("yh,hwc,xw->yxc", shares(height, size), frame, shares(width, size), optimize=True)


def noise(shape: tuple[int, int], count: int = 1) -> np.ndarray:
    """Where nothing is smooth, another way of resizing is far off."""
    return np.random.default_rng(shape).integers(0, 256, (count, *shape, 3), dtype=np.uint8)


@shapes
def test_frames_of_the_app(shape: tuple[int, int]) -> None:
    frames = noise(shape, 2)
    got = prepare_frames(frames, 8, SIZE)
    np.testing.assert_allclose(got, [means(f) for f in frames], atol=1)


@shapes
@pytest.mark.parametrize("decoder", ["pyav", "opencv"])
def test_files(decoder: str, shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if decoder == "pyav":
        pytest.importorskip("av")
    else:
        monkeypatch.setitem(sys.modules, "av", None)  # as on a machine without PyAV
    (frame,) = noise(shape)
    path = tmp_path / "a.png"  # lossless
    assert cv2.imwrite(str(path), frame[..., ::-1])
    (got,) = get_decoder(decoder)(path, 8, SIZE, Limits())
    np.testing.assert_allclose(got, means(frame), atol=1)


@shapes
def test_the_model_sees_the_same(rec: Recommender, tmp_path: Path, shape: tuple[int, int]) -> None:
    """A large picture and its square of means are one video to the model, and a picture sampled in between another."""
    (frame,) = noise(shape)
    square = np.rint(means(frame, TINY.frame_size)).astype(np.uint8)
    sampled = cv2.resize(frame, (TINY.frame_size,) * 2, interpolation=cv2.INTER_NEAREST)
    given = {"large": frame, "square": square, "sampled": sampled}
    assert rec.encode([Video(frames=f[None], id=i) for i, f in given.items()]).failed == ()
    large, small, other = values_of(rec, tmp_path, list(given))
    near, far = np.abs(large - small).max(), np.abs(large - other).max()
    assert near < far / 4
