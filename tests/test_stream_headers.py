"""What `decode.headers` and `decode.tracks` read, beside what FFmpeg says of the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkedout_edge.decode import Limits
from linkedout_edge.decode.files import check_file
from linkedout_edge.decode.headers import (
    KNOWN,
    UNSPECIFIED,
    Colors,
    display_orientation,
    read_format,
    without_colors,
)
from linkedout_edge.decode.orientation import UPRIGHT, Orientation
from linkedout_edge.decode.tracks import video_tracks

av = pytest.importorskip("av", reason="PyAV makes the clips of these tests")

from media import scene, scenes, write  # noqa: E402

CODECS: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline": ("h264", {"options": {"x264-params": "bframes=0:cabac=0:8x8dct=0:weightp=0"}}),
    "high": ("h264", {"options": {"x264-params": "cqm=jvt"}}),
    "10 bit": ("h264", {"pixels": "yuv420p10le"}),
    "4:4:4": ("h264", {"pixels": "yuv444p", "options": {"x264-params": "cqm=jvt"}}),
    "fields": ("h264", {"options": {"x264-params": "interlaced=1:tff=1"}}),
    "hevc": ("hevc", {"codec": "libx265", "options": {"x265-params": "log-level=none:scaling-list=default"}}),
    "hevc 4:2:2": ("hevc", {"codec": "libx265", "pixels": "yuv422p10le", "options": {"x265-params": "log-level=none"}}),
    "mpeg2": ("mpeg2", {"codec": "mpeg2video"}),
    "mpeg2 4:2:2": ("mpeg2", {"codec": "mpeg2video", "pixels": "yuv422p"}),
    "mpeg1": ("mpeg2", {"codec": "mpeg1video"}),
    "mpeg4": ("mpeg4", {"codec": "mpeg4"}),
    "vp9": ("vp9", {"codec": "libvpx-vp9"}),
    "mjpeg": ("mjpeg", {"codec": "mjpeg", "pixels": "yuvj422p"}),
}


def packets(path: Path) -> list[bytes]:
    """Compressed frames with start codes, the configuration before the first."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        name = stream.codec_context.name
        if name not in ("h264", "hevc"):
            configuration = bytes(stream.codec_context.extradata or b"")
            found = [bytes(p) for p in container.demux(stream) if p.size]
            return [configuration + found[0], *found[1:]] if name == "mpeg4" else found
        to = av.BitStreamFilterContext(f"{name}_mp4toannexb", stream)
        return [bytes(new) for p in container.demux(stream) for new in to.filter(p if p.size else None)]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(("width", "height"), [(128, 96), (176, 144)])
def test_format(tmp_path: Path, name: str, width: int, height: int) -> None:
    codec, how = CODECS[name]
    images = [scene(i, height, width) for i in range(5)]
    form = {"mjpeg": "avi", "vp9": "webm"}.get(codec, "matroska")
    found = read_format(codec, packets(write(tmp_path / "v", images, form=form, **how))[0])
    assert found is not None
    assert (found.width, found.height) == (width, -(-height // 32) * 32 if found.interlaced else height)  # as coded
    assert found.interlaced == (name == "fields")
    assert found.colors == UNSPECIFIED
    other = "yuv444p" if codec in ("h264", "hevc") else "yuv420p"
    if codec in ("mpeg4", "vp9") or name == "mpeg1":
        return
    if how.get("pixels") == other:
        other = "yuv420p"
    if codec == "mjpeg":
        other = "yuvj420p"
    if name == "mpeg2":
        other = "yuv422p"
    how = {k: v for k, v in how.items() if k != "options"} | {"pixels": other}
    changed = read_format(codec, packets(write(tmp_path / "other", images, form=form, **how))[0])
    assert changed is not None
    assert changed.pixels != found.pixels


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("colors", [(9, 16, 9), (9, 14, 9), (1, 1, 1), (9, 18, 9), (6, 6, 6)])
def test_colors_are_read_and_taken_out(tmp_path: Path, codec: str, colors: tuple[int, int, int]) -> None:
    names = "colorprim={}:transfer={}:colormatrix={}".format(*colors)
    if codec == "h264":
        how: dict[str, Any] = {"options": {"x264-params": names}}
    else:
        how = {"codec": "libx265", "options": {"x265-params": f"log-level=none:{names}"}}
    first = packets(write(tmp_path / "v.mp4", scenes(3), colors=colors, **how))[0]
    found = read_format(codec, first)
    assert found is not None
    assert found.colors == Colors(*colors)
    pairs = without_colors(codec, first)
    assert pairs
    for old, new in pairs:
        assert len(old) == len(new)
        first = first.replace(old, new)
    assert read_format(codec, first) == found._replace(colors=UNSPECIFIED)


@pytest.mark.parametrize("codec", KNOWN)
@given(
    data=st.binary(max_size=200),
    start=st.sampled_from([b"", b"\0\0\1\x67", b"\0\0\0\1\x42\1", b"\0\0\1\xb3", b"\0\0\1\x20"]),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_bytes_give_a_format_or_a_value_error(codec: str, data: bytes, start: bytes) -> None:
    try:
        read_format(codec, start + data)
        without_colors(codec, start + data)
    except ValueError:
        pass
    display_orientation(codec, start + data)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_damage_leaves_a_list_of_tracks(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp()
    for ending in ("mp4", "mkv"):
        path = folder / f"tracks.{ending}"
        if not path.exists():
            write(path, scenes(3))
        content = bytearray(path.read_bytes())
        begin = content.index(b"moov") if ending == "mp4" else 0
        for _ in range(data.draw(st.integers(1, 6))):
            content[data.draw(st.integers(begin, min(len(content), begin + 900) - 1))] = data.draw(st.integers(0, 255))
        damaged = folder / f"damaged.{ending}"
        damaged.write_bytes(content)
        try:
            file = check_file(damaged, Limits())
        except ValueError:
            continue
        assert all(isinstance(track.orientation, Orientation) for track in video_tracks(file))


def test_tracks(tmp_path: Path) -> None:
    for ending in ("mp4", "mkv", "mov"):
        tracks = video_tracks(check_file(write(tmp_path / f"v.{ending}", scenes(3)), Limits()))
        assert [(t.id, t.orientation, t.default) for t in tracks] == [(1, UPRIGHT, ending != "mkv")]
    assert video_tracks(check_file(write(tmp_path / "v.avi", scenes(3), codec="mpeg4"), Limits())) == []


@pytest.mark.parametrize("degrees", range(0, 360, 45))
def test_turning_by_matrix_and_by_angle_agree(degrees: int) -> None:
    import math

    angle = math.radians(degrees + 1)
    sin, cos = math.sin(angle), math.cos(angle)
    assert Orientation.turned(degrees + 1) == Orientation.from_matrix(cos, -sin, sin, cos)
    assert Orientation.from_matrix(0, 0, 0, 0) == Orientation.from_matrix(math.nan, 1, 1, 1) == UPRIGHT
