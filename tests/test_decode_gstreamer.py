"""GStreamer as a decoder: it runs where GStreamer and its Python binding are; what is said without, everywhere."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from linkedout_edge.decode import Limits, get_decoder
from linkedout_edge.decode.gstreamer import GStreamerDecoder, _gstreamer
from linkedout_edge.errors import MissingDependencyError, VideoError, VideoTooLargeError, VideoUnreadableError

LIMITS = Limits()
LEVELS = 6
"""Grey levels by which its conversion from YUV may differ from FFmpeg's."""


@pytest.fixture(scope="module")
def decoder() -> GStreamerDecoder:
    try:
        decoder = GStreamerDecoder()
    except MissingDependencyError as error:
        pytest.skip(str(error)[:80])
    if _gstreamer().Gst.ElementFactory.find("avdec_h264") is None:
        pytest.skip("GStreamer has no decoder of H.264 here: apt install gstreamer1.0-libav")
    return decoder


def write(path: Path, frames: int, *, codec: str = "libx264", seconds_of_sound: float = 0.0) -> Path:
    """25 frames a second of a square that moves over a gradient."""
    av = pytest.importorskip("av", reason="PyAV makes the clips of these tests")
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 90, 130, "yuv420p"  # rows that hardware and RGBA would pad
        stream.options = {"crf": "12"}
        sound = out.add_stream("aac", rate=16000) if seconds_of_sound else None
        for i in range(frames):
            image = np.zeros((90, 130, 3), np.uint8)
            image[..., 0], image[..., 2] = np.linspace(0, 250, 130), np.linspace(250, 0, 90)[:, None]
            image[10:40, 2 * i % 80 : 2 * i % 80 + 20, 1] = 255
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
        if sound is not None:
            noise = np.zeros((1, int(16000 * seconds_of_sound)), np.float32)
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            frame.sample_rate = 16000
            out.mux(sound.encode(frame))
            out.mux(sound.encode())
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("a.mkv", {}),
        ("hevc.mp4", {"codec": "libx265"}),
        ("sound is longer.mp4", {"seconds_of_sound": 4.0}),
        ("per%d cent ! fakesink.mp4", {}),  # would mean something in a pipeline's text
    ],
)
def test_frames_are_those_of_pyav(
    decoder: GStreamerDecoder, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    path = write(tmp_path / name, 50, **options)
    got, want = decoder(path, 8, 64, LIMITS), get_decoder("pyav")(path, 8, 64, LIMITS)
    assert got.shape == want.shape == (8, 64, 64, 3)
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - want).max() <= LEVELS
    other = np.roll(want, 1, axis=0)
    assert np.abs(got.astype(int) - other).max() > 50, "the clip cannot tell its frames apart"


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_a_phones_rotation(decoder: GStreamerDecoder, tmp_path: Path, clockwise: int) -> None:
    path, one = write(tmp_path / "v.mp4", 20), 1 << 16
    a, b, c, d = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[clockwise]
    data = bytearray(path.read_bytes())
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)  # as in test_decode.py
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data)
    want = np.rot90(decoder(path, 4, 32, LIMITS), -clockwise // 90, axes=(1, 2))
    assert np.array_equal(want, decoder(turned, 4, 32, LIMITS))


def test_short_and_cut_off_files(decoder: GStreamerDecoder, tmp_path: Path) -> None:
    assert decoder(write(tmp_path / "short.mp4", 3), 8, 32, LIMITS).shape == (3, 32, 32, 3)
    whole = write(tmp_path / "whole.mkv", 200).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) // 2])
    frames = decoder(cut, 8, 32, LIMITS)
    assert 1 <= len(frames) <= 8


def test_a_bad_file_is_this_files_error(decoder: GStreamerDecoder, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(5000))
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\nhttp://127.0.0.1/x.ts\n")
    for path, kind in ((broken, VideoUnreadableError), (playlist, VideoUnreadableError), (tmp_path / "no", VideoError)):
        with pytest.raises(kind):
            decoder(path, 8, 32, LIMITS)
    clip = write(tmp_path / "a.mp4", 50)
    for limits in (Limits(max_pixels=1000), Limits(max_seconds=1), Limits(max_decode_seconds=1e-9)):
        with pytest.raises(VideoTooLargeError):
            decoder(clip, 8, 32, limits)


def test_without_gstreamer_the_error_has_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gi", None)
    _gstreamer.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match=r"sudo apt install python3-gi .*--system-site-packages"):
            get_decoder("gstreamer")
    finally:
        _gstreamer.cache_clear()


def test_an_element_that_is_not_there_is_named(decoder: GStreamerDecoder) -> None:
    with pytest.raises(MissingDependencyError, match="'nvnothing'"):
        GStreamerDecoder(converter="nvnothing")
