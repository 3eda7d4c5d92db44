"""VP9's frame headers, and decoding without its loop filter."""

from __future__ import annotations

import re
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import scene, write

from linkedout_edge.decode import DEFAULT_LIMITS, get_decoder
from linkedout_edge.decode.bits import Bits
from linkedout_edge.decode.vp9 import read_header, without_loop_filter

STREAMS = {
    "realtime": {"options": {"deadline": "realtime", "cpu-used": "8"}},
    "hidden frames": {"options": {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}},
    "error resilient": {"options": {"deadline": "realtime", "cpu-used": "8", "error-resilient": "default"}},
    "layers": {"options": {"deadline": "realtime", "cpu-used": "8", "ts-parameters": "ts_layering_mode=3"}},
    "4:4:4": {"pixels": "yuv444p"},
    "RGB": {"pixels": "gbrp"},
    "lossless": {"options": {"lossless": "1"}},
}


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    how = {"options": {"cpu-used": "5"}, **STREAMS[request.param]}
    how["options"] = {"b": "200k", **how["options"]}
    images = [scene(i, 144, 200) for i in range(40)]
    return write(tmp_path / "v.webm", images, codec="libvpx-vp9", gop=30, **how)


def packets(path: Path) -> list[bytearray]:
    with av.open(str(path)) as container:
        return [bytearray(p) for p in container.demux(video=0) if p.size]


def told_by_ffmpeg(path: Path, data: list[bytearray]) -> list[tuple[int, int]]:
    """Of each frame: the first bit of its loop filter's strength, and the strength."""
    with av.open(str(path)) as container:
        trace = av.BitStreamFilterContext("vp9_superframe_split,trace_headers", container.streams.video[0])
        before = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            with av.logging.Capture() as lines:
                for packet in data:
                    trace.filter(av.Packet(bytes(packet)))
        finally:
            av.logging.set_level(before)
    found = (re.match(r"(\d+) +loop_filter_level .*= (\d+)", line) for _, _, line in lines)
    return [(int(m[1]), int(m[2])) for m in found if m]


def decoded(path: Path, data: list[bytearray]) -> np.ndarray:
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        frames = [f for p in [*(av.Packet(bytes(d)) for d in data), None] for f in context.decode(p)]
        return np.stack([f.to_ndarray(format="rgb24") for f in frames]).astype(int)


def test_the_filters_strength_becomes_zero_and_nothing_else_changes(stream: Path) -> None:
    before, after = packets(stream), packets(stream)
    for packet in after:
        without_loop_filter(memoryview(packet))
    told, told_after = told_by_ffmpeg(stream, before), told_by_ffmpeg(stream, after)
    assert len(told) >= 40
    assert told_after == [(at, 0) for at, _ in told]
    changed = sum((a ^ b).bit_count() for p, q in zip(before, after, strict=True) for a, b in zip(p, q, strict=True))
    assert changed == sum(strength.bit_count() for _, strength in told)
    # Frames that come alone: the place of the bits is what FFmpeg says.
    header = read_header(Bits(bytes(before[0])))
    assert header is not None
    assert (header.key, header.width, header.height) == (True, 200, 144)
    assert header.strength_at == told[0][0]


def test_pictures_stay_nearly_the_same(stream: Path) -> None:
    data = packets(stream)
    filtered = decoded(stream, data)
    for packet in data:
        without_loop_filter(memoryview(packet))
    rough = decoded(stream, data)
    assert filtered.shape == rough.shape == (40, 144, 200, 3)
    assert np.abs(filtered - rough).mean() < 8


def test_the_decoder_leaves_it_out_where_pictures_become_small_enough(tmp_path: Path) -> None:
    images = [scene(i, 144, 200) for i in range(60)]
    path = write(tmp_path / "v.webm", images, codec="libvpx-vp9", gop=60, options={"b": "40k", "deadline": "realtime"})
    for side, left_out in ((24, True), (32, False)):  # 50 and 28 pixels become one
        found, exact = (get_decoder(name)(path, 7, side, DEFAULT_LIMITS).astype(int) for name in ("pyav", "opencv"))
        assert np.abs(found - exact).mean() < 4
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("linkedout_edge.decode.pyav.FINE_VP9", 10**9)
            filtered = get_decoder("pyav")(path, 7, side, DEFAULT_LIMITS)
            patch.setattr("linkedout_edge.decode.pyav.FINE_VP9", 40)
            patch.setattr("linkedout_edge.decode.pyav.UNFILTERED", 50)  # all but the last 4 of the 60 are in a row
            assert np.array_equal(get_decoder("pyav")(path, 7, side, DEFAULT_LIMITS), filtered)
        assert np.array_equal(found, filtered) != left_out


@given(data=st.binary(max_size=60), start=st.sampled_from([b"", b"\x82\x49\x83\x42", b"\x86\0", b"\xa2\x49\x83\x42"]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_nonsense_is_left_alone(data: bytes, start: bytes) -> None:
    packet = bytearray(start + data)
    before = bytes(packet)
    without_loop_filter(memoryview(packet))
    assert sum((a ^ b).bit_count() for a, b in zip(before, packet, strict=True)) <= 8 * 6  # eight frames at most
    again = bytearray(packet)
    without_loop_filter(memoryview(again))
    assert again == packet
