from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linkedout_edge.decode import Limits, files, get_decoder, prepare, prepare_frames, spread
from linkedout_edge.decode.frames import Picker, Reservoir, on_screen, slot_centers
from linkedout_edge.errors import (
    ArgumentError,
    InvalidFramesError,
    MissingDependencyError,
    VideoError,
    VideoNotFoundError,
    VideoTooLargeError,
    VideoUnreadableError,
)

REAL = Path(__file__).parents[2] / "shared" / "data" / "videos"
CLIPS = sorted(REAL.glob("*.mp4"))
needs_clips = pytest.mark.skipif(not CLIPS, reason=f"no real clips at {REAL}")
LIMITS = Limits(max_decode_seconds=600)  # for slow machines
SIZE = 32

av = pytest.importorskip("av", reason="PyAV makes the clips of these tests")

from media import grays, scene, which, write  # noqa: E402


@pytest.fixture(params=["pyav", "opencv"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Both decoders; OpenCV's as on a machine without PyAV."""
    if request.param == "opencv":
        monkeypatch.setitem(sys.modules, "av", None)
        return get_decoder("auto")
    return get_decoder("pyav")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4", [scene(i) for i in range(50)], gop=12)


# -- choosing frames ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [*range(1, 40), 100, 1000, 12345])
def test_spread_rises_without_repeats_and_is_even(n: int) -> None:
    chosen = spread(n, 8)
    assert len(chosen) == min(n, 8)
    assert chosen[0] >= 0
    assert chosen[-1] < n
    gaps = np.diff(chosen)
    assert (gaps >= 1).all()
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("n", [*range(1, 40), 100, 1000])
def test_times_agree_with_spread_by_index(n: int) -> None:
    times = [i / 30 for i in range(n)]
    targets = slot_centers(8, n / 30)
    want = [times[i] for i in spread(n, 8)]
    assert on_screen(targets, times) == want
    reached, passed = Picker(want), Picker(targets)
    assert [t for t in times if reached.reached(t)] == want
    # Frames that come one by one, as the file goes on: the one before was on screen.
    held = [before for before, t in zip(times, [*times[1:], n / 30 + 1], strict=True) if passed.passed(t)]
    assert held == want


@pytest.mark.parametrize("n", [0, 1, 5, 31, 32, 33, 500, 10_000])
def test_reservoir_is_bounded_and_spread(n: int) -> None:
    reservoir, most = Reservoir(8), 0
    for i in range(n):
        if reservoir.wants():
            reservoir.add(np.array(i))
        most = max(most, len(reservoir._kept))
    got = [int(x) for x in reservoir.frames()]
    assert most <= 32
    assert len(got) == min(n, 8)
    assert got == sorted(set(got))
    if n > 100:
        assert got[0] < n / 6
        assert got[-1] > n * 0.8
        assert np.diff(got).max() < n / 4


@pytest.mark.parametrize("n", [1, 2, 5, 8, 9, 16, 17, 75, 300])
@pytest.mark.parametrize("gop", [1, 10, 250])
def test_frames_are_well_spread(decoder: Any, tmp_path: Path, n: int, gop: int) -> None:
    frames = decoder(write(tmp_path / "v.mp4", grays(n), gop=gop), 8, SIZE, LIMITS)
    assert frames.shape == (min(n, 8), SIZE, SIZE, 3)
    assert frames.dtype == np.uint8
    # Key frames may stand up to half a slot from the centre; grey levels are rounded.
    tolerance = 0.5 * n / 8 + 1 + n / 215
    assert np.abs(which(frames, n) - spread(n, 8)).max() <= tolerance
    assert (np.diff(which(frames, n)) > 0).all()


@pytest.mark.parametrize("form", ["matroska", "mpegts", "avi", "h264"])
def test_other_containers(decoder: Any, tmp_path: Path, form: str) -> None:
    codec = "mpeg4" if form == "avi" else "libx264"
    frames = decoder(write(tmp_path / "v.bin", grays(100), codec=codec, form=form, gop=30), 8, SIZE, LIMITS)
    assert len(frames) == 8
    assert np.abs(which(frames, 100) - spread(100, 8)).max() <= 8


def test_long_video_is_sought_in(decoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkedout_edge.decode.opencv.SEEK_FRAMES", 100)
    frames = decoder(write(tmp_path / "v.mp4", grays(400), gop=100), 8, SIZE, LIMITS)
    assert np.abs(which(frames, 400) - spread(400, 8)).max() <= 3


def test_variable_frame_rate_goes_by_time(decoder: Any, tmp_path: Path) -> None:
    # 20 dark frames in the first fifth of the time, 20 bright ones in the rest.
    images = [np.full((64, 64, 3), v, np.uint8) for v in [40] * 20 + [200] * 20]
    pts = [*range(20), *range(20, 100, 4)]
    frames = decoder(write(tmp_path / "v.mkv", images, times=pts, gop=250), 8, SIZE, LIMITS)
    assert len(frames) == 8
    assert int((frames.reshape(8, -1).mean(1) < 120).sum()) in (1, 2)


def test_pyav_budget_takes_earlier_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "v.mp4", grays(400), gop=400)
    monkeypatch.setattr("linkedout_edge.decode.pyav.FORWARD_PIXELS", 64 * 64 * 80)
    frames = get_decoder("pyav")(path, 8, SIZE, LIMITS)
    assert len(frames) == 8
    assert which(frames, 400)[-1] < 90
    assert (np.diff(which(frames, 400)) > 1).all()


@pytest.mark.parametrize("budget", [3_000_000_000, 64 * 64 * 80], ids=["all", "early"])
def test_pyav_gives_the_same_frames_with_any_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    """Several threads decode from several key frames, fewer than there are slots."""
    from linkedout_edge.decode.pyav import PyAVDecoder

    monkeypatch.setattr("linkedout_edge.decode.pyav.FORWARD_PIXELS", budget)
    path = write(tmp_path / "v.mp4", grays(300), gop=70)
    alone = PyAVDecoder(threads=1)(path, 8, SIZE, LIMITS)
    assert len(alone) == 8
    for threads in (0, 2, 3, 8):
        assert np.array_equal(PyAVDecoder(threads=threads)(path, 8, SIZE, LIMITS), alone)


def test_pyav_threads_end_together_at_a_limit(tmp_path: Path) -> None:
    from linkedout_edge.decode.pyav import PyAVDecoder

    path = write(tmp_path / "v.mp4", grays(300), gop=70)
    with pytest.raises(VideoTooLargeError, match="max_decode_seconds"):
        PyAVDecoder(threads=2)(path, 8, SIZE, Limits(max_decode_seconds=1e-6))


def count_frames(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames come out of PyAV from here on."""
    from linkedout_edge.decode import pyav

    decoded, check = [0], pyav.check_pixels

    def counted(width: int, height: int, limits: Limits, name: str) -> None:
        decoded[0] += 1
        check(width, height, limits, name)

    monkeypatch.setattr(pyav, "check_pixels", counted)
    return decoded


def test_pyav_starts_at_the_key_frame_that_it_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The times of frames 116 and 232, in seconds and back in ticks, round down to a tick less."""
    from linkedout_edge.decode.pyav import PyAVDecoder

    path = write(tmp_path / "v.mp4", grays(300), gop=116, options={"bf": "0"})
    decoded = count_frames(monkeypatch)
    assert len(PyAVDecoder(threads=1)(path, 8, SIZE, LIMITS)) == 8
    assert decoded[0] < 310


B_FRAMES = {
    "h264": {"options": {"bf": "3", "b-adapt": "0", "b-pyramid": "none", "crf": "8"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none:bframes=3:b-adapt=0:b-pyramid=0:crf=8"}},
    "av1": {"codec": "libsvtav1", "options": {"crf": "10", "preset": "10"}},
    "vp9": {"codec": "libvpx-vp9", "options": {"crf": "8", "b": "0", "lag-in-frames": "16", "auto-alt-ref": "1"}},
}


@pytest.mark.parametrize("codec", B_FRAMES)
def test_pyav_takes_the_frames_on_screen_and_leaves_out_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    """Of four frames in a row three are referred to by no other. Encoders of AV1 and VP9 decide for themselves."""
    from linkedout_edge.decode import pyav

    try:
        path = write(tmp_path / "v.mkv", grays(100), gop=40, **B_FRAMES[codec])
    except av.codec.codec.UnknownCodecError:
        pytest.skip("this build of PyAV has no such encoder")
    decoded = count_frames(monkeypatch)
    frames = pyav.PyAVDecoder(threads=1)(path, 7, SIZE, LIMITS)
    assert np.abs(which(frames, 100) - [7, 21, 35, 50, 64, 78, 92]).max() < 0.7
    # One for each video, up to three for each group of four, one for each that is taken.
    assert decoded[0] <= (1 + 100 / 4 + 3 + 7 if codec in ("h264", "hevc") else 100)


def test_pyav_believes_frames_rather_than_packets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where packets promise a frame that does not come, all frames are looked at."""
    from linkedout_edge.decode import pyav

    path = write(tmp_path / "v.mkv", grays(100), gop=40)
    expected = pyav.PyAVDecoder(threads=1)(path, 7, SIZE, LIMITS)
    times = pyav._Run._times
    monkeypatch.setattr(pyav._Run, "_times", lambda self, *span: [t + 0.01 for t in times(self, *span)])
    assert np.array_equal(pyav.PyAVDecoder(threads=1)(path, 7, SIZE, LIMITS), expected)


def test_pyav_keeps_the_order_where_a_file_tells_no_times_of_b_frames(tmp_path: Path) -> None:
    """AVI tells only when a frame is to be decoded."""
    path = write(tmp_path / "v.avi", grays(12), gop=12, options={"bf": "3", "b-adapt": "0"})
    order = which(get_decoder("pyav")(path, 7, SIZE, LIMITS), 12).round()
    assert len(order) == 7
    assert (np.diff(order) > 0).all(), order


def test_pyav_gives_the_same_frames_of_such_a_file_with_any_number_of_threads(tmp_path: Path) -> None:
    from linkedout_edge.decode.pyav import PyAVDecoder

    path = write(tmp_path / "v.avi", grays(100), gop=40, options={"bf": "3", "b-adapt": "0"})
    alone = PyAVDecoder(threads=1)(path, 7, SIZE, LIMITS)
    assert len(alone) == 7
    for threads in (2, 3, 8):
        assert np.array_equal(PyAVDecoder(threads=threads)(path, 7, SIZE, LIMITS), alone)


def test_pyav_takes_the_last_of_several_frames_at_one_time(tmp_path: Path) -> None:
    """Matroska rounds to milliseconds."""
    pairs = [80 * (i // 2) + i % 2 for i in range(100)]
    path = write(tmp_path / "v.mkv", grays(100), fps=4000, times=pairs, gop=100)
    frames = which(get_decoder("pyav")(path, 7, SIZE, LIMITS), 100)
    assert np.abs(frames - [7, 21, 35, 51, 65, 79, 93]).max() < 0.7


def test_pyav_goes_on_behind_an_empty_packet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from linkedout_edge.decode import pyav

    path = write(tmp_path / "v.mkv", grays(100), gop=40)
    expected = get_decoder("pyav")(path, 7, SIZE, LIMITS)
    packets = pyav._Run._packets

    def with_empty(self: pyav._Run) -> Iterator[Any]:
        for packet in packets(self):
            yield av.Packet()
            yield packet

    monkeypatch.setattr(pyav._Run, "_packets", with_empty)
    monkeypatch.setattr(pyav._Run, "_one_by_one", None)
    monkeypatch.setattr(pyav._Run, "_probe", with_packets(pyav._Run._probe, packets))
    assert np.array_equal(get_decoder("pyav")(path, 7, SIZE, LIMITS), expected)


def with_packets(method: Any, packets: Any) -> Any:
    """A method of `_Run`, with a `_packets` of its own."""

    def run(self: Any, *args: Any) -> Any:
        before, type(self)._packets = type(self)._packets, packets
        try:
            return method(self, *args)
        finally:
            type(self)._packets = before

    return run


def test_pyav_min_key_frames(tmp_path: Path) -> None:
    from linkedout_edge.decode.pyav import PyAVDecoder

    path = write(tmp_path / "v.mp4", grays(300), gop=100)
    assert len(PyAVDecoder(min_key_frames=2)(path, 8, SIZE, LIMITS)) == 3
    assert len(PyAVDecoder(min_key_frames=4)(path, 8, SIZE, LIMITS)) == 8
    with pytest.raises(ArgumentError, match="min_key_frames"):
        PyAVDecoder(min_key_frames=0)


def test_decoders_agree_on_a_moving_scene(clip: Path) -> None:
    a, b = (get_decoder(name)(clip, 8, SIZE, LIMITS).astype(int) for name in ("pyav", "opencv"))
    assert a.shape == b.shape
    assert np.abs(a - b).mean() < 3


@needs_clips
@pytest.mark.parametrize("path", CLIPS, ids=[p.stem for p in CLIPS])
def test_real_clips(path: Path) -> None:
    a, b = (get_decoder(name)(path, 8, 128, LIMITS).astype(int) for name in ("pyav", "opencv"))
    assert a.shape == b.shape == (8, 128, 128, 3)
    assert np.abs(a - b).mean() < 3
    assert a.std() > 5


def test_repeatable(decoder: Any, clip: Path) -> None:
    assert np.array_equal(decoder(clip, 8, SIZE, LIMITS), decoder(str(clip), 8, SIZE, LIMITS))


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_rotation_flag(decoder: Any, clip: Path, tmp_path: Path, clockwise: int) -> None:
    one = 1 << 16
    a, b, c, d = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[clockwise]
    data = bytearray(clip.read_bytes())
    # tkhd: type, then 40 bytes of version, times, ids, layer and volume, then the matrix.
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data)
    want = np.rot90(decoder(clip, 8, SIZE, LIMITS), -clockwise // 90, axes=(1, 2))
    assert np.abs(want.astype(int) - decoder(turned, 8, SIZE, LIMITS)).mean() < 1


def test_channel_order_is_rgb(decoder: Any, tmp_path: Path) -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 230
    r, g, b = decoder(write(tmp_path / "v.mp4", [red] * 10), 4, SIZE, LIMITS).reshape(-1, 3).mean(0)
    assert r > 200
    assert g < 30
    assert b < 30


def test_pictures_are_one_frame_videos(decoder: Any, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), scene(0)[..., ::-1])
    frames = decoder(tmp_path / "p.png", 8, SIZE, LIMITS)
    assert frames.shape[0] == 1
    assert np.abs(frames[0].astype(int) - prepare(scene(0), SIZE)).mean() < 3


def test_names_that_look_like_addresses(decoder: Any, clip: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a|b.mp4", "http:x.mp4", "-i.mp4", "a b%03d.mp4", "ünï.mp4"):
        Path(name).write_bytes(clip.read_bytes())
        assert len(decoder(name, 4, SIZE, LIMITS)) == 4, name


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_name_that_is_not_utf8(decoder: Any, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"v\xff\xfe.mp4")
    path.write_bytes(clip.read_bytes())
    assert len(decoder(path, 4, SIZE, LIMITS)) == 4


# -- bad files ---------------------------------------------------------------------------------------------------------


def wav_bytes() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(16000))
    return buffer.getvalue()


def audio_mp4(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def test_missing(decoder: Any, tmp_path: Path) -> None:
    with pytest.raises(VideoNotFoundError, match=r"gone\.mp4"):
        decoder(tmp_path / "gone.mp4", 8, SIZE, LIMITS)
    with pytest.raises(FileNotFoundError):
        decoder(tmp_path / "gone.mp4" / "below", 8, SIZE, LIMITS)
    with pytest.raises(VideoUnreadableError):
        decoder("nul\0byte", 8, SIZE, LIMITS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\0", "not a video"),
        (b"Dear diary, today\n" * 200, "not a video"),
        (b"%PDF-1.7" + bytes(5000), "not a video"),
        (wav_bytes(), "audio only"),
        (b"ID3\x04" + bytes(2000), "audio only"),
        (b"\0\0\0\x18ftypisom" + bytes(5000), "cannot be decoded|no picture|no video"),
        (b"\x1aE\xdf\xa3" + bytes(5000), "cannot be decoded|no picture|no video"),
    ],
)
def test_mislabelled(decoder: Any, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(VideoUnreadableError, match=message):
        decoder(tmp_path / "v.mp4", 8, SIZE, LIMITS)


def test_audio_only_mp4(decoder: Any, tmp_path: Path) -> None:
    with pytest.raises(VideoUnreadableError, match="audio only"):
        decoder(audio_mp4(tmp_path / "a.mp4"), 8, SIZE, LIMITS)


def test_cover_picture_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        song, cover = out.add_stream("aac", rate=8000), out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = 0x0400
        out.mux(cover.encode(av.VideoFrame.from_ndarray(scene(0, 64, 64), format="rgb24")))
        out.mux(cover.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        out.mux(song.encode(silence))
        out.mux(song.encode())
    # OpenCV does not tell a cover from a video; where the brand says M4A, neither decoder is asked.
    with pytest.raises(VideoUnreadableError, match="audio only"):
        get_decoder("pyav")(tmp_path / "a.mp4", 8, SIZE, LIMITS)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.m4a").write_bytes(data[:8] + b"M4A " + data[12:])
    with pytest.raises(VideoUnreadableError, match="M4A"):
        get_decoder("opencv")(tmp_path / "a.m4a", 8, SIZE, LIMITS)


def test_directory_and_pipe(decoder: Any, tmp_path: Path) -> None:
    with pytest.raises(VideoUnreadableError, match="directory"):
        decoder(tmp_path, 8, SIZE, LIMITS)
    os.mkfifo(tmp_path / "fifo.mp4")
    started = time.monotonic()
    for path in (tmp_path / "fifo.mp4", Path(os.devnull)):
        with pytest.raises(VideoUnreadableError, match="regular file"):
            decoder(path, 8, SIZE, LIMITS)
    assert time.monotonic() - started < 30


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_permission(decoder: Any, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "v.mp4").chmod(0)
    with pytest.raises(VideoUnreadableError, match="Permission"):
        decoder(tmp_path / "v.mp4", 8, SIZE, LIMITS)


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("form", ["mp4", "matroska", "faststart"])
def test_truncated(decoder: Any, tmp_path: Path, form: str, fraction: float) -> None:
    path = tmp_path / "v.bin"
    if form == "faststart":
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as out:
            stream = out.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            for i in range(200):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(scene(i), format="rgb24")))
            out.mux(stream.encode())
    else:
        write(path, [scene(i) for i in range(200)], form=form, gop=250)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    if form == "mp4" or fraction == 0.02:  # a plain MP4 has its index at the end
        with contextlib.suppress(VideoUnreadableError):
            assert len(decoder(path, 8, SIZE, LIMITS)) >= 1
            assert form != "mp4"
    else:
        assert len(decoder(path, 8, SIZE, LIMITS)) == 8


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    import zlib

    rows = b"IDAT" + zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (body, rows, b"IEND")
    )


@pytest.mark.parametrize(
    "content",
    [
        png_header(60000, 60000),
        png_header(0, 10),
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0),
    ],
    ids=["png-huge", "png-zero", "gif-huge"],
)
def test_absurd_dimensions(decoder: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.png").write_bytes(content + bytes(3000))
    with pytest.raises(VideoError):
        decoder(tmp_path / "v.png", 8, SIZE, LIMITS)


def test_absurd_dimensions_in_a_video(decoder: Any, clip: Path, tmp_path: Path) -> None:
    data = bytearray(clip.read_bytes())
    struct.pack_into(">HH", data, data.index(b"avc1", data.index(b"stsd")) + 28, 65535, 65535)
    (tmp_path / "v.mp4").write_bytes(data)
    with contextlib.suppress(VideoError):  # the codec's own header may overrule the container's
        assert decoder(tmp_path / "v.mp4", 8, SIZE, LIMITS).shape[1:] == (SIZE, SIZE, 3)


# -- playlists ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def playlists(clip: Path, port: int) -> dict[str, str]:
    url = f"http://127.0.0.1:{port}/v.ts"
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
    return {
        "hls-file": hls.format(clip),
        "hls-http": hls.format(url),
        "concat": f"ffconcat version 1.0\nfile '{clip}'\n",
        "concat-http": f"ffconcat version 1.0\nfile '{url}'\n",
        "dash": f'<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" type="static">'
        f"<Period><AdaptationSet><Representation><BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
    }


@pytest.mark.parametrize("kind", sorted(playlists(Path(), 0)))
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8"])
@pytest.mark.parametrize("sniffing", [True, False])
def test_playlists_are_refused(
    decoder: Any,
    clip: Path,
    tmp_path: Path,
    server: socket.socket,
    kind: str,
    suffix: str,
    sniffing: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not sniffing:
        if decoder.name != "pyav":
            pytest.skip("only PyAV has a second lock: FFmpeg's own white lists")
        monkeypatch.setattr(files, "sniff", lambda *_: "mp4")
    path = tmp_path / f"list{suffix}"
    path.write_text(playlists(clip, server.getsockname()[1])[kind])
    with pytest.raises(VideoUnreadableError, match=r"not a video|cannot be decoded"):
        decoder(path, 8, SIZE, LIMITS)
    with pytest.raises(BlockingIOError):
        server.accept()


@pytest.mark.parametrize("start", [b"\0\0\0\x18ftypisom", b"\0\0\x01\xba", b"G" * 1000])
@pytest.mark.parametrize("tail", [b"\nc=IN IP4 127.0.0.1\n", b"<MPD dash:profile:isoff-live"])
def test_playlist_behind_a_videos_first_bytes(decoder: Any, tmp_path: Path, start: bytes, tail: bytes) -> None:
    (tmp_path / "v.mp4").write_bytes(start + b" " * 5000 + tail)
    with pytest.raises(VideoUnreadableError, match="network playlist"):
        decoder(tmp_path / "v.mp4", 8, SIZE, LIMITS)


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(max_bytes=1000), "max_bytes"),
        (Limits(max_pixels=128 * 96 - 1), "max_pixels|cannot be decoded"),
        (Limits(max_seconds=1.9), "max_seconds"),
        (Limits(max_decode_seconds=1e-9), "max_decode_seconds"),
    ],
)
def test_limits(decoder: Any, clip: Path, limits: Limits, message: str) -> None:
    with pytest.raises(VideoTooLargeError, match=message):
        decoder(clip, 8, SIZE, limits)


def test_limits_just_met(decoder: Any, clip: Path) -> None:
    limits = Limits(max_bytes=clip.stat().st_size, max_pixels=128 * 96, max_seconds=2.1)
    assert len(decoder(clip, 8, SIZE, limits)) == 8


def test_limits_make_sense() -> None:
    with pytest.raises(ArgumentError, match="max_bytes"):
        Limits(max_bytes=0)


@pytest.mark.parametrize(("count", "size"), [(0, 8), (8, 0)])
def test_bad_requests(decoder: Any, clip: Path, count: int, size: int) -> None:
    with pytest.raises(ArgumentError):
        decoder(clip, count, size, LIMITS)


# -- the app's own frames ----------------------------------------------------------------------------------------------


def test_prepare_frames_spreads_and_squashes() -> None:
    frames = np.stack(grays(100))
    got = prepare_frames(frames, 8, SIZE)
    assert got.shape == (8, SIZE, SIZE, 3)
    assert np.array_equal(got[:, 0, 0, 0], frames[spread(100, 8), 0, 0, 0])
    assert len(prepare_frames(frames[:3, ::2, ::-1], 8, SIZE)) == 3


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([[1]], "list"),
        (np.zeros((2, 4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 3), np.uint8), r"frames\[None\]"),
        (np.zeros((2, 4, 4, 4), np.uint8), "4 channels"),
        (np.zeros((0, 4, 4, 3), np.uint8), "no pixel"),
        (np.zeros((2, 0, 4, 3), np.uint8), "no pixel"),
        (np.broadcast_to(np.uint8(0), (1, 9000, 9000, 3)), "max_pixels"),
    ],
)
def test_invalid_frames(frames: Any, message: str) -> None:
    with pytest.raises(InvalidFramesError, match=message):
        prepare_frames(frames, 8, SIZE)


# -- choosing a decoder ------------------------------------------------------------------------------------------------


def test_get_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_decoder().name == "pyav"
    assert get_decoder("opencv").name == "opencv"
    with pytest.raises(ArgumentError, match="Did you mean 'opencv'"):
        get_decoder("opencvv")
    monkeypatch.setitem(sys.modules, "av", None)
    assert get_decoder().name == "opencv"
    with pytest.raises(MissingDependencyError, match=r"pip install 'av>=14\.2'"):
        get_decoder("pyav")


def test_import_is_lazy_and_nothing_is_printed(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:3000])
    code = f"""
import sys
from linkedout_edge.decode import get_decoder, Limits
assert 'av' not in sys.modules
import cv2
logging = getattr(cv2.utils, 'logging', cv2)
level = logging.getLogLevel()
for name in ('opencv', 'pyav'):
    try:
        get_decoder(name)({str(tmp_path / "cut.mp4")!r}, 8, 32, Limits())
    except ValueError:
        pass
assert logging.getLogLevel() == level
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- random damage -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_random_damage_is_a_video_error_or_frames(
    decoder: Any, clip: Path, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(clip.read_bytes())
    where = st.integers(0, len(content) - 1) | st.integers(content.index(b"moov"), len(content) - 1)
    for offset, value in data.draw(st.lists(st.tuples(where, st.integers(0, 255)), min_size=1, max_size=20)):
        content[offset] = value
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    started = time.monotonic()
    try:
        frames = decoder(path, 8, SIZE, Limits(max_decode_seconds=3))
        assert 1 <= len(frames) <= 8
        assert frames.shape[1:] == (SIZE, SIZE, 3)
    except VideoError:
        pass
    assert time.monotonic() - started < 60
