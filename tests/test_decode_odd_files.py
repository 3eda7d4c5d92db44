"""Real files that are odd: they must give the right picture or a clear error, in both decoders."""

from __future__ import annotations

import gc
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from linkedout_edge import Recommender
from linkedout_edge.decode import Limits, get_decoder, opencv, prepare
from linkedout_edge.decode.frames import slot_centers
from linkedout_edge.errors import VideoError, VideoUnreadableError

av = pytest.importorskip("av", reason="PyAV makes the clips of these tests")

from media import grays, scene, scenes, which, write  # noqa: E402
from stored import tokens_of  # noqa: E402

SIZE = 64
LIMITS = Limits(max_decode_seconds=600)  # for slow machines
CLOSE = 4.0
"""Grey levels by which two decoders may differ on average."""


@pytest.fixture(params=["pyav", "opencv"])
def decoder(request: pytest.FixtureRequest) -> Any:
    return get_decoder(request.param)


def far(a: np.ndarray, b: np.ndarray) -> float:
    """Grey levels between two pictures, on average."""
    return float(np.abs(a.astype(int) - b).mean())


# -- photos ------------------------------------------------------------------------------------------------------------

EXIF_TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def encoded(ending: str) -> bytes:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 98] if ending == ".jpg" else []
    return cv2.imencode(ending, scene(0)[..., ::-1], quality)[1].tobytes()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_exif(ending: str, orientation: int) -> bytes:
    """A photo whose EXIF data say how the camera was held."""
    tiff = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)
    data = encoded(ending)
    if ending == ".png":
        return data[:33] + png_chunk(b"eXIf", tiff) + data[33:]
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff + data[2:]


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photo_is_upright(decoder: Any, tmp_path: Path, ending: str, orientation: int) -> None:
    (tmp_path / f"p{ending}").write_bytes(with_exif(ending, orientation))
    frames = decoder(tmp_path / f"p{ending}", 8, SIZE, LIMITS)
    assert frames.shape == (1, SIZE, SIZE, 3)
    assert far(frames[0], prepare(np.ascontiguousarray(EXIF_TURNS[orientation](scene(0))), SIZE)) < CLOSE


@pytest.mark.parametrize("name", ["p.jpg", "p.jpeg", "p.png", "p.mp4", "p", "50%d.png", "p%03d.jpg", "list.m3u8"])
def test_photo_of_any_name(decoder: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(encoded(".jpg"))
    assert far(decoder(tmp_path / name, 8, SIZE, LIMITS)[0], prepare(scene(0), SIZE)) < CLOSE


@pytest.mark.parametrize("name", ["v.jpg", "v.png", "v%d.png", "v.m3u8", "v.gif"])
def test_video_of_any_name(decoder: Any, tmp_path: Path, name: str) -> None:
    write(tmp_path / "v.mp4", scenes()).rename(tmp_path / name)
    assert len(decoder(tmp_path / name, 8, SIZE, LIMITS)) == 8


def test_photo_with_color_profile(decoder: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As screenshots have. It used to end the process at the next garbage collection."""
    data = encoded(".png")
    profile = b"icc\0\0" + zlib.compress(bytes(300))
    (tmp_path / "p.png").write_bytes(data[:33] + png_chunk(b"iCCP", profile) + data[33:])
    for _ in range(20):
        assert far(decoder(tmp_path / "p.png", 8, SIZE, LIMITS)[0], prepare(scene(0), SIZE)) == 0
        gc.collect()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("length", [9, 40, 500, -200])
def test_photo_that_is_cut_off(decoder: Any, tmp_path: Path, ending: str, length: int) -> None:
    (tmp_path / "p").write_bytes(encoded(ending)[:length])
    with pytest.raises(VideoUnreadableError):
        decoder(tmp_path / "p", 8, SIZE, LIMITS)


def test_photo_of_several_pictures_is_one_photo(decoder: Any, tmp_path: Path) -> None:
    """Cameras append a second picture, such as a brightness map; motion JPEG is a film all the same."""
    photo = encoded(".jpg")
    marker = b"\xff\xe2" + struct.pack(">H", 10) + b"MPF\0" + bytes(4)
    (tmp_path / "mpf.jpg").write_bytes(photo[:2] + marker + photo[2:] + encoded(".jpg"))
    (tmp_path / "film.mjpeg").write_bytes(photo * 20)
    assert len(decoder(tmp_path / "mpf.jpg", 8, SIZE, LIMITS)) == 1
    assert len(decoder(tmp_path / "film.mjpeg", 8, SIZE, LIMITS)) == 8


def test_photo_in_tiles_is_refused(decoder: Any, tmp_path: Path) -> None:
    """FFmpeg sees each tile of a HEIC photo as a video of its own: the first would be ranked by."""
    (tmp_path / "p.heic").write_bytes(
        struct.pack(">I", 24)
        + b"ftypheic"
        + bytes(4)
        + b"mif1heic"
        + b"\0\0\0\x40meta"
        + b"\0\0\0\x15infe"
        + b"\2grid" * 3
    )
    with pytest.raises(VideoUnreadableError, match="tiles"):
        decoder(tmp_path / "p.heic", 8, SIZE, LIMITS)


# -- how it is held ----------------------------------------------------------------------------------------------------

ONE = 1 << 16
MATRICES = {  # a, b, c, d → what they do to a picture
    (1, 0, 0, 1): lambda a: a,
    (-1, 0, 0, 1): lambda a: a[:, ::-1],
    (1, 0, 0, -1): lambda a: a[::-1],
    (-1, 0, 0, -1): lambda a: a[::-1, ::-1],
    (0, 1, -1, 0): lambda a: np.rot90(a, -1),
    (0, -1, 1, 0): lambda a: np.rot90(a),
    (0, 1, 1, 0): lambda a: a.swapaxes(0, 1),
    (0, -1, -1, 0): lambda a: a[::-1, ::-1].swapaxes(0, 1),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("plain") / "v.mp4", scenes())


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("box", [b"tkhd", b"mvhd"])
def test_matrix_of_mp4(decoder: Any, tmp_path: Path, plain: Path, matrix: tuple[int, ...], box: bytes) -> None:
    a, b, c, d = (x * ONE for x in matrix)
    data = bytearray(plain.read_bytes())
    where = data.index(box) + {b"tkhd": 44, b"mvhd": 40}[box]
    assert struct.unpack_from(">9i", data, where) == (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, where, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "v.mp4").write_bytes(data)
    want = np.stack([MATRICES[matrix](f) for f in decoder(plain, 8, SIZE, LIMITS)])
    assert far(decoder(tmp_path / "v.mp4", 8, SIZE, LIMITS), want) == 0


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_projection_of_matroska(decoder: Any, tmp_path: Path, degrees: int, mirrored: bool) -> None:
    """FFmpeg writes its display matrix as angles."""
    if not hasattr(av.VideoFrame, "rotation") or int(av.__version__.split(".")[0]) < 18:
        pytest.skip("this PyAV cannot write a display matrix")
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        stream.set_display_rotation(degrees, hflip=mirrored)
        for i in range(10):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(scene(i), format="rgb24")))
        out.mux(stream.encode())
    want = decoder(write(tmp_path / "plain.mp4", scenes(10)), 8, SIZE, LIMITS)
    # Turned counterclockwise, then mirrored; FFmpeg's own matrix functions say so.
    want = np.rot90(want, degrees // 90, axes=(1, 2))
    want = want[:, :, ::-1] if mirrored else want
    assert far(decoder(path, 8, SIZE, LIMITS), want) < CLOSE


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(("rotate", "flip"), [(0, "horizontal"), (0, "vertical"), (90, ""), (270, "horizontal")])
def test_orientation_inside_the_stream(decoder: Any, tmp_path: Path, codec: str, rotate: int, flip: str) -> None:
    """A message of H.264 and HEVC: mirrored first, then turned counterclockwise."""
    path = write(tmp_path / "v.mp4", scenes(10), codec={"h264": "libx264", "hevc": "libx265"}[codec])
    want = decoder(path, 8, SIZE, LIMITS)
    message = orientation_message(codec, rotate, flip)
    with av.open(str(path)) as source, av.open(str(tmp_path / "turned.ts"), "w") as out:
        stream = source.streams.video[0]
        to = av.BitStreamFilterContext(f"{codec}_mp4toannexb", stream)
        copy = out.add_stream_from_template(stream)
        first = True
        for packet in source.demux(stream):
            for plain in to.filter(packet if packet.size else None):
                data = bytes(plain)
                new = av.Packet(message + data if first else data)
                first = False
                new.pts, new.dts, new.time_base, new.stream = plain.pts, plain.dts, stream.time_base, copy
                new.is_keyframe = plain.is_keyframe
                out.mux(new)
    want = want[:, :, ::-1] if flip == "horizontal" else want[:, ::-1] if flip == "vertical" else want
    want = np.rot90(want, rotate // 90, axes=(1, 2))
    assert far(decoder(tmp_path / "turned.ts", 8, SIZE, LIMITS), want) < CLOSE


@pytest.mark.skipif(
    int(av.__version__.split(".")[0]) < 15, reason="PyAV 14 damages packets that are copied into an MP4"
)
def test_orientation_said_only_once_counts_for_all_threads(tmp_path: Path) -> None:
    """Each of several threads starts at a key frame of its own, where the message need not stand again."""
    from linkedout_edge.decode.pyav import PyAVDecoder

    path = write(tmp_path / "v.mp4", scenes(300), gop=70)
    message = orientation_message("h264", 0, "vertical")[4:]
    with av.open(str(path)) as source, av.open(str(tmp_path / "turned.mp4"), "w") as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        for n, packet in enumerate(p for p in source.demux(video=0) if p.size):
            new = av.Packet((struct.pack(">I", len(message)) + message if n == 0 else b"") + bytes(packet))
            new.pts, new.dts, new.time_base, new.stream = packet.pts, packet.dts, packet.time_base, copy
            new.is_keyframe = packet.is_keyframe
            out.mux(new)
    decode = PyAVDecoder(threads=3)
    upright, turned = (decode(p, 8, SIZE, LIMITS) for p in (path, tmp_path / "turned.mp4"))
    assert far(turned, upright[:, ::-1]) < CLOSE


def orientation_message(codec: str, rotate: int, flip: str) -> bytes:
    # not cancelled, mirrored left-right, up-down, 16 bits of angle, repeated: 0 h v aaaaaaaaaaaaaaaa 1 …
    bits = f"0{int(flip == 'horizontal')}{int(flip == 'vertical')}{rotate * 65536 // 360:016b}" + "10" + "100"
    payload = int(bits, 2).to_bytes(3, "big")
    header = {"h264": b"\x06", "hevc": b"\x4e\x01"}[codec]
    unit = header + bytes([47, len(payload)]) + payload + b"\x80"
    return b"\0\0\0\1" + unit.replace(b"\0\0\0", b"\0\0\3\0")


# -- which track, which times ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
def test_thumbnail_before_the_video(decoder: Any, tmp_path: Path, ending: str) -> None:
    """A track of one picture that nobody flagged, the file's first and its default."""
    cv2.imwrite(str(tmp_path / "red.jpg"), np.full((90, 160, 3), (0, 0, 220), np.uint8))
    plain = write(tmp_path / f"plain.{ending}", scenes())
    both = write(tmp_path / f"both.{ending}", scenes(), before=tmp_path / "red.jpg")
    assert far(decoder(both, 8, SIZE, LIMITS), decoder(plain, 8, SIZE, LIMITS)) < CLOSE


def test_only_a_thumbnail_is_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "red.jpg"), np.full((90, 160, 3), (0, 0, 220), np.uint8))
    path = write(tmp_path / "v.mp4", [scene(0)], codec="mjpeg", pixels="yuvj420p")
    assert len(get_decoder("pyav")(path, 8, SIZE, LIMITS)) == 1


def song(path: Path, codec: str, *, cover: bool) -> Path:
    """Audio, with or without a picture in the way of its container."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=48000)
        if cover:
            jpeg = encoded(".jpg")
            block = struct.pack(">II", 3, 10) + b"image/jpeg" + bytes(4) + struct.pack(">IIII", 128, 96, 24, 0)
            import base64

            comment = base64.b64encode(block + struct.pack(">I", len(jpeg)) + jpeg).decode()
            stream.metadata["METADATA_BLOCK_PICTURE"] = comment
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="flt", layout="mono")
        frame.sample_rate = 48000
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize("cover", [False, True])
def test_ogg_song(decoder: Any, tmp_path: Path, cover: bool) -> None:
    """OpenCV used to abort the process on one with a cover."""
    with pytest.raises(VideoUnreadableError, match="audio only"):
        decoder(song(tmp_path / "song.ogg", "libopus", cover=cover), 8, SIZE, LIMITS)


def set_float(data: bytearray, element: bytes, value: float) -> None:
    """Overwrite a float of a Matroska file."""
    at = data.index(element) + len(element)
    struct.pack_into({0x84: ">f", 0x88: ">d"}[data[at]], data, at + 1, value)


@pytest.mark.parametrize("stated", [1000.0, 5.0, 1e9])
def test_frame_rate_of_the_header_is_not_believed(decoder: Any, tmp_path: Path, stated: float) -> None:
    """Recorders that count in milliseconds state 1,000 frames a second."""
    data = bytearray(write(tmp_path / "v.mkv", grays(400), gop=400).read_bytes())
    at = data.index(b"\x23\xe3\x83")
    length = data[at + 3] & 0x7F
    data[at + 4 : at + 4 + length] = min(int(1e9 / stated), 256**length - 1).to_bytes(length, "big")
    (tmp_path / "v.mkv").write_bytes(data)
    want = np.array(slot_centers(8, 400))
    assert np.abs(which(decoder(tmp_path / "v.mkv", 8, SIZE, LIMITS), 400) - want).max() <= 3


@pytest.mark.parametrize("stated", [1.0, 4.0, 60.0])
def test_length_of_the_header_is_not_believed(decoder: Any, tmp_path: Path, stated: float) -> None:
    data = bytearray(write(tmp_path / "v.mkv", grays(400), gop=50).read_bytes())
    set_float(data, b"\x44\x89", stated * 1000)
    (tmp_path / "v.mkv").write_bytes(data)
    got = which(decoder(tmp_path / "v.mkv", 8, SIZE, LIMITS), 400)
    assert np.abs(got - np.array(slot_centers(8, 400))).max() <= 28  # key frames stand half a slot away


def test_frames_on_screen_at_their_times(decoder: Any, tmp_path: Path) -> None:
    """Slides: what is on screen at a slot's centre may have come long before."""
    times = [10 * slide + t for slide in range(8) for t in (0, 1, 3)]
    path = write(tmp_path / "v.mkv", grays(24), times=times, gop=100)
    got = np.rint(which(decoder(path, 8, SIZE, LIMITS), 24)).astype(int).tolist()
    end = times[-1] + 2  # the usual distance
    assert got == [max(i for i, t in enumerate(times) if t <= center) for center in slot_centers(8, end)]


@pytest.mark.parametrize("offset", [1, 4, 100, 187])
def test_transport_stream_from_inside_a_packet(decoder: Any, tmp_path: Path, offset: int) -> None:
    data = write(tmp_path / "v.ts", scenes(100), form="mpegts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(data[188 * 3 + offset :])
    assert len(decoder(tmp_path / "cut.ts", 8, SIZE, LIMITS)) == 8


# -- interlacing, colours, formats -------------------------------------------------------------------------------------

FIELDS = 0x00040000 | 0x20000000  # AV_CODEC_FLAG_INTERLACED_DCT, _ME


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("v.mp4", {"options": {"x264-params": "interlaced=1:tff=1"}}),
        ("v.ts", {"codec": "mpeg2video", "flags": FIELDS, "form": "mpegts"}),
        ("v.avi", {"codec": "mpeg4", "flags": FIELDS}),
    ],
    ids=["h264", "mpeg2", "mpeg4"],
)
def test_interlaced(decoder: Any, tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    """OpenCV 4.13 and later leave such pictures unwritten: zeros, or what lay in that memory."""
    path = write(tmp_path / name, scenes(), **how)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    if decoder.name == "opencv" and opencv._fails_on_fields():
        with pytest.raises(VideoUnreadableError, match="interlaced"):
            decoder(path, 8, SIZE, LIMITS)
        return
    want = np.stack([prepare(scene(i), SIZE) for i in (3, 9, 15, 21, 28, 34, 40, 46)])
    assert far(decoder(path, 8, SIZE, LIMITS), want) < 12


PQ, HLG = 16, 18


def hdr(images: list[np.ndarray], transfer: int) -> list[np.ndarray]:
    """BT.2020 YCbCr of 10 bits, uint16 [H * 3 / 2, W], as a camera would write the same scene; white is 203 cd/m²."""
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    found = []
    for image in images:
        light = (image / 255.0) ** 2.4 @ to_2020.T * 203
        if transfer == PQ:
            p = (np.maximum(light, 0) / 10000) ** 0.1593017578125
            signal = ((0.8359375 + 18.8515625 * p) / (1 + 18.6875 * p)) ** 78.84375
        elif transfer == HLG:
            shown = np.maximum(light, 1e-9) / 1000
            brightness = shown @ np.array([0.2627, 0.6780, 0.0593])
            e = shown * (brightness[..., None] ** (1 / 1.2 - 1))
            signal = np.where(
                e <= 1 / 12, np.sqrt(3 * e), 0.17883277 * np.log(np.maximum(12 * e - 0.28466892, 1e-9)) + 0.55991073
            )
        else:
            signal = np.clip(light / 203, 0, 1) ** (1 / 2.4)
        y = signal @ np.array([0.2627, 0.6780, 0.0593])
        cb, cr = (signal[..., 2] - y) / 1.8814, (signal[..., 0] - y) / 1.4746
        halves = [cv2.resize(c, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for c in (cb, cr)]
        planes = [64 + 876 * y, *(512 + 896 * c for c in halves)]
        packed = np.concatenate([np.rint(p).clip(0, 1023).reshape(-1) for p in planes])
        found.append(packed.astype(np.uint16).reshape(-1, image.shape[1]))
    return found


def write_bt2020(path: Path, images: list[np.ndarray], transfer: int) -> Path:
    return write(
        path,
        hdr(images, transfer),
        codec="libx265",
        pixels="yuv420p10le",
        source="yuv420p10le",
        colors=(9, transfer, 9),
        options={"x265-params": f"log-level=none:colorprim=9:transfer={transfer}:colormatrix=9", "crf": "6"},
    )


def muted(image: np.ndarray) -> np.ndarray:
    """With colours as cameras see them."""
    gray = image.mean(-1, keepdims=True)
    return np.asarray(0.45 * image + 0.35 * gray + 30).astype(np.uint8)


@pytest.mark.parametrize("transfer", [PQ, HLG, 14], ids=["pq", "hlg", "sdr"])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_bt2020_is_mapped(tmp_path: Path, transfer: int, ending: str) -> None:
    """HDR looks like the SDR it was made of, in both decoders alike, and as fast."""
    images = [muted(scene(i)) for i in range(16)]
    path = write_bt2020(tmp_path / f"v.{ending}", images, transfer)
    a, b = (get_decoder(name)(path, 8, SIZE, LIMITS) for name in ("pyav", "opencv"))
    assert far(a, b) < CLOSE
    want = np.stack([prepare(images[i], SIZE) for i in range(1, 16, 2)])
    assert far(a, want) < 6


@pytest.mark.parametrize("transfer", [PQ, HLG], ids=["pq", "hlg"])
def test_tokens_of_hdr_are_those_of_sdr(tmp_path: Path, transfer: int) -> None:
    from linkedout_edge.microworld import random_attributes, render_frames

    rng = np.random.default_rng(5)
    for i in range(3):
        images = [muted(f) for f in render_frames(random_attributes(rng), i, np.linspace(0, 1, 16), 128)]
        write(tmp_path / f"sdr{i}.mp4", images, options={"crf": "4"})
        write_bt2020(tmp_path / f"hdr{i}.mp4", images, transfer)
    for name in ("pyav", "opencv"):
        with Recommender.load("int8", decoder=name, threads=1) as rec:
            ids = [str(tmp_path / f"{k}{i}.mp4") for k in ("sdr", "hdr") for i in range(3)]
            assert not rec.encode(ids).failed
            tokens, scales = tokens_of(rec.store, ids)
        values = (tokens * scales[..., None]).reshape(2, 3, -1)
        cosine = (values[0] * values[1]).sum(-1) / np.linalg.norm(values, axis=-1).prod(0)
        assert cosine.mean() >= 0.95, (name, cosine)
        assert cosine.min() >= 0.93, (name, cosine)  # a dark scene has few steps in 8 bits of PQ


def test_av1_says_which_decoder_reads_it(decoder: Any, tmp_path: Path) -> None:
    path = write(
        tmp_path / "v.mp4", scenes(10), codec="libsvtav1" if "libsvtav1" in av.codecs_available else "libaom-av1"
    )
    if decoder.name == "opencv":
        with pytest.raises(VideoUnreadableError, match=r"AV1.*install PyAV"):
            decoder(path, 8, SIZE, LIMITS)
    else:
        assert len(decoder(path, 8, SIZE, LIMITS)) == 8


def test_pixel_format_that_changes_on_the_way(decoder: Any, tmp_path: Path) -> None:
    """Trail cameras do it. OpenCV reads beyond the picture (its issue 29699); FFmpeg by itself does not."""
    with av.open(str(tmp_path / "v.avi"), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuvj422p"
        out.start_encoding()
        for i in range(20):
            sampling = 0x211111 if i < 5 else 0x221111
            data = cv2.imencode(".jpg", scene(i)[..., ::-1], [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])[1].tobytes()
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, stream.time_base
            packet.is_keyframe = True
            out.mux(packet)
    if decoder.name == "opencv":
        with pytest.raises(VideoUnreadableError, match="format"):
            decoder(tmp_path / "v.avi", 8, SIZE, LIMITS)
    else:
        frames = decoder(tmp_path / "v.avi", 8, SIZE, LIMITS)
        assert far(frames[-1], prepare(scene(18), SIZE)) < 6


@pytest.mark.parametrize("end", [0.0, -3.0])
def test_times_that_end_before_they_begin(monkeypatch: pytest.MonkeyPatch, plain: Path, end: float) -> None:
    """As in a damaged transport stream: everything is decoded, and spread."""
    from linkedout_edge.decode.pyav import _Run

    monkeypatch.setattr(_Run, "_end", lambda *_: end)
    assert len(get_decoder("pyav")(plain, 8, SIZE, LIMITS)) == 8


# -- whose fault it is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pyav", "opencv"])
def test_an_error_of_ours_is_no_unreadable_video(monkeypatch: pytest.MonkeyPatch, plain: Path, name: str) -> None:
    module = sys.modules[f"linkedout_edge.decode.{name}"]
    monkeypatch.setattr(module, "slot_centers", lambda *_: None + 1)
    with pytest.raises(TypeError), Recommender.load("int8", decoder=name, threads=1) as rec:
        rec.encode([plain])


def test_mistake_in_an_apps_decoder_is_raised(plain: Path) -> None:
    def decode(path: str, count: int, size: int) -> np.ndarray:  # too few arguments
        raise AssertionError("not reached")

    with pytest.raises(TypeError), Recommender.load("int8", decoder=decode, threads=2) as rec:
        rec.encode([plain, plain.with_name("other.mp4")])


# -- memory ------------------------------------------------------------------------------------------------------------


def resident() -> int:
    """MB of memory that this process holds."""
    import psutil

    return int(psutil.Process().memory_info().rss) >> 20


@pytest.mark.slow
@pytest.mark.parametrize("decodes", [10_000])
def test_memory_stays(decoder: Any, tmp_path: Path, decodes: int) -> None:
    paths = [
        write(tmp_path / "a.mp4", scenes(20)),
        write(tmp_path / "b.mkv", scenes(20), codec="libx265", options={"x265-params": "log-level=none"}),
        write(tmp_path / "c.avi", scenes(20), codec="mpeg4"),
    ]
    (tmp_path / "p.png").write_bytes(with_exif(".png", 6))
    paths.append(tmp_path / "p.png")
    (tmp_path / "cut.mp4").write_bytes(paths[0].read_bytes()[:-3000])
    paths.append(tmp_path / "cut.mp4")
    after = 0
    for i in range(decodes):
        try:
            decoder(paths[i % len(paths)], 8, SIZE, LIMITS)
        except VideoError:
            assert i % len(paths) == 4
        if i == 300:
            after = resident()
    gc.collect()
    assert resident() - after <= 10
