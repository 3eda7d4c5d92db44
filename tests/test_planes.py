"""Frames made small plane by plane are those of a picture that is converted whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from linkedout_edge.decode.limits import DEFAULT_LIMITS
from linkedout_edge.decode.planes import prepare_planes
from linkedout_edge.decode.pyav import PyAVDecoder, _planes

SHARES = {1: (0.2126, 0.0722), 6: (0.299, 0.114)}
"""Matrix → share of red and of blue in brightness: ITU-R BT.709 and BT.601."""

COLORS = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 30, 60), (20, 180, 40), (10, 60, 230)]


def planes_of(rgb: np.ndarray, matrix: int, *, full_range: bool, bits: int) -> list[np.ndarray]:
    """float RGB [H, W, 3] → Y, Cb, Cr with half the colour resolution, by the formulas of the standards."""
    red, blue = SHARES[matrix]
    r, g, b = np.moveaxis(rgb.astype(np.float64), -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    if not full_range:
        y, cb, cr = y * 219 / 255 + 16, cb * 224 / 255, cr * 224 / 255
    cb, cr = (p.reshape(p.shape[0] // 2, 2, -1, 2).mean((1, 3)) + 128 for p in (cb, cr))
    unit, kind = (1, np.uint8) if bits == 8 else (4, np.uint16)
    return [np.rint(np.clip(p, 0, 255) * unit).astype(kind) for p in (y, cb, cr)]


def fill(frame: av.VideoFrame, planes: list[np.ndarray]) -> None:
    """Write planes into a frame, whose rows may be longer."""
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
        rows[:, : plane.width] = values
        plane.update(rows.tobytes())


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [1, 6])
def test_colors_come_out_as_they_went_in(matrix: int, full_range: bool, bits: int) -> None:
    for color in COLORS:
        rgb = np.broadcast_to(np.array(color), (360, 640, 3))
        planes = planes_of(rgb, matrix, full_range=full_range, bits=bits)
        small = prepare_planes(planes, 64, matrix=matrix, full_range=full_range)
        assert small.shape == (64, 64, 3)
        assert small.dtype == np.uint8
        assert np.abs(small.astype(int) - color).max() <= 2, (color, small[0, 0])


@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (719, 1279), (360, 641), (1920, 1080), (256, 3000)])
def test_a_picture_is_made_small_as_if_it_were_converted_first(height: int, width: int) -> None:
    y, x = np.mgrid[: height + height % 2, : width + width % 2]
    rgb = np.stack([127 + 100 * np.sin(x / 90), 127 + 90 * np.cos(y / 70), 127 + 80 * np.sin((x + y) / 110)], -1)
    planes = planes_of(rgb, 1, full_range=False, bits=8)
    planes[0] = planes[0][:height, :width]
    small = prepare_planes(planes, 128, matrix=1, full_range=False)
    whole = cv2.resize(rgb[:height, :width], (128, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(small - whole).mean() < 0.8
    assert np.abs(small - whole).max() < 5  # where an odd line is left out


@pytest.mark.parametrize("width", [640, 646])  # rows that end where the buffer's row ends, and such that do not
@pytest.mark.parametrize("name", ["yuv420p", "yuvj420p", "yuv420p10le"])
def test_planes_of_a_decoded_frame_are_its_values(name: str, width: int) -> None:
    kind, most = (np.uint16, 1024) if name.endswith("10le") else (np.uint8, 256)
    rng = np.random.default_rng(0)
    values = [rng.integers(0, most, shape).astype(kind) for shape in [(360, width), *[(180, width // 2)] * 2]]
    frame = av.VideoFrame(width, 360, name)
    fill(frame, values)
    planes = _planes(frame, 128)
    assert planes is not None
    for got, put in zip(planes, values, strict=True):
        np.testing.assert_array_equal(got, put)


def test_what_has_other_planes_or_is_too_small_is_converted_whole() -> None:
    rgb = np.zeros((300, 300, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    assert _planes(frame, 128) is None
    assert _planes(frame.reformat(format="yuv444p"), 128) is None
    planar = frame.reformat(format="yuv420p")
    assert _planes(planar, 128) is not None
    assert _planes(planar, 151) is None, "a plane of colours has 150 rows"
    odd = SimpleNamespace(format=SimpleNamespace(name="yuv420p"), colorspace=8, width=300, height=300, planes=())
    assert _planes(odd, 128) is None, "YCgCo"


@pytest.mark.parametrize(("matrix", "full_range"), [(1, False), (6, False), (1, True), (6, True)])
@pytest.mark.parametrize(
    ("name", "width", "height"),
    [("yuv420p", 640, 360), ("yuv420p", 192, 128), ("yuv422p", 640, 360), ("yuv444p", 640, 360)],
)
def test_a_video_has_the_colors_that_it_states(
    tmp_path: Path, name: str, width: int, height: int, matrix: int, full_range: bool
) -> None:
    path = tmp_path / "clip.mp4"
    colors = [(200, 30, 60), (20, 180, 40), (10, 60, 230), (230, 230, 40)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(10), options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = width, height, name
        context = stream.codec_context
        context.colorspace, context.color_range = matrix, 2 if full_range else 1
        for n, color in enumerate(np.repeat(colors, 5, axis=0)):
            frame = av.VideoFrame(width, height, name)
            planes = planes_of(np.broadcast_to(color, (2, 2, 3)), matrix, full_range=full_range, bits=8)
            fill(frame, [np.full((p.height, p.width), v[0, 0]) for p, v in zip(frame.planes, planes, strict=True)])
            frame.pts, frame.colorspace, frame.color_range = n, matrix, 2 if full_range else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = PyAVDecoder()(path, 4, 128, DEFAULT_LIMITS)
    assert np.abs(frames.astype(int) - np.array(colors)[:, None, None]).max() <= 4


def test_a_picture_that_is_stored_upside_down_is_decoded_upright(tmp_path: Path) -> None:
    path = tmp_path / "bottom_up.mkv"
    rgb = np.zeros((360, 640, 3), np.uint8)
    rgb[180:] = 200
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=10)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.codec_context.extradata = b"BottomUp\0"
        for n in range(8):
            frame = av.VideoFrame.from_ndarray(rgb[::-1].copy(), format="rgb24").reformat(format="yuv420p")
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = PyAVDecoder()(path, 4, 128, DEFAULT_LIMITS)
    assert frames.shape == (4, 128, 128, 3)
    assert frames[:, :56].mean() < 20
    assert frames[:, 72:].mean() > 180
