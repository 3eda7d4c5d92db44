"""Decoding with OpenCV, whose wheels carry an LGPL FFmpeg.

`cv2.VideoCapture` cannot skip to key frames, so it decodes all frames on the way, twice as slow as PyAV at best. `grab`
decodes without converting; only chosen frames are converted.

It also believes more than it should, so every file is surveyed before anything is decoded: all compressed packets are
read once, for their times and for what the stream's headers say. What OpenCV is known to get wrong is put right where
that can be done by changing a few bytes as the file is read (another track first; colors left unstated, to be mapped
afterwards), else refused. docs/decoding.md lists all of it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import math
import os
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from linkedout_edge import install
from linkedout_edge.decode.color import needs_mapping, to_sdr
from linkedout_edge.decode.files import BARE, STILLS, MediaFile, check_file
from linkedout_edge.decode.frames import Frames, Picker, Reservoir, on_screen, prepare, slot_centers
from linkedout_edge.decode.headers import (
    UNSPECIFIED,
    Colors,
    Format,
    display_orientation,
    read_format,
    without_colors,
)
from linkedout_edge.decode.limits import Deadline, Limits, check_pixels, check_request, check_seconds
from linkedout_edge.decode.orientation import UPRIGHT, Orientation
from linkedout_edge.decode.quiet import quiet, quiet_ffmpeg
from linkedout_edge.decode.stills import decode_still
from linkedout_edge.decode.tracks import Track, video_tracks
from linkedout_edge.errors import VideoUnreadableError

SEEK_FRAMES = 2000
"""Longer videos are sought in, shorter ones decoded from start to end.

A seek decodes from a key frame, often 250 frames back, and OpenCV starts a little before that; with 8 seeks the two
ways cost the same at about this length.
"""

MAX_TRACKS = 8
"""Video tracks that are surveyed to find the one to look at."""

_WITH_HEADERS = {b"h264": "h264", b"hevc": "hevc", b"mpg2": "mpeg2", b"FMP4": "mpeg4", b"VP90": "vp9", b"MJPG": "mjpeg"}
"""Codecs, as OpenCV names them, whose headers tell whether OpenCV can be trusted with the stream."""

_PLAIN = {b"VP80", b"h263", b"flv1", b"mpg1", b"theo", b"wmv1", b"wmv2", b"MP42", b"MP43", b"gif ", b"apng", b"MPNG"}
"""Codecs that know neither interlacing nor other colors, and keep to one pixel format."""

_BT709 = Colors(1, 1, 1)


@dataclass(frozen=True)
class OpenCVDecoder:
    """A `Decoder` on `cv2.VideoCapture`."""

    name: str = field(default="opencv", init=False)

    def __call__(self, path: str | os.PathLike[str], count: int, size: int, limits: Limits) -> Frames:
        """See `Decoder.__call__`."""
        check_request(count, size)
        file = check_file(path, limits)
        if file.kind in STILLS:
            return decode_still(file, size, limits)
        deadline = Deadline(limits, file.name)
        try:
            with quiet:
                quiet_ffmpeg()
                frames = _decode(file, count, size, limits, deadline)
        except (cv2.error, OSError) as error:  # of its own; a TypeError would be ours
            raise VideoUnreadableError(f"{file.name!r} cannot be decoded: {error}") from error
        if not frames:
            raise VideoUnreadableError(
                f"{file.name!r} has no picture that OpenCV can decode: audio only, truncated or an unknown codec"
            )
        return np.stack(frames)


def measured_seconds(file: MediaFile, limits: Limits, deadline: Deadline) -> float:
    """Length of a file's video track by the times of its packets, 0.0 where they have none; decodes nothing."""
    with quiet:
        quiet_ffmpeg()
        with contextlib.suppress(cv2.error, VideoUnreadableError):
            return _survey(file, _Edits(), limits, deadline).seconds
    return 0.0


# -- the file as OpenCV gets to see it -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Edits:
    """Changes to what is read of a file, none of which moves a byte.

    Attributes:
        at: Offset → bytes to read there.
        instead: Bytes wherever they stand → others, as many.
    """

    at: tuple[tuple[int, bytes], ...] = ()
    instead: tuple[tuple[bytes, bytes], ...] = ()


class _Reader(io.BufferedIOBase):
    """A file with edits. OpenCV is handed this and no name: from a name it would guess what the file is.

    Nothing may be raised here: OpenCV calls from C++, and an exception is a segmentation fault.
    """

    def __init__(self, path: str, edits: _Edits) -> None:
        self._file = open(path, "rb")  # noqa: PTH123, SIM115 (a name of any bytes; `close` closes it)
        self._size = os.fstat(self._file.fileno()).st_size
        self._at = 0
        self._edits = edits
        self._margin = max((len(old) for old, _ in edits.instead), default=0)

    def read(self, size: int | None = -1, /) -> bytes:
        start, end = self._at, self._size
        if size is not None and size >= 0:
            end = min(end, start + size)
        first = max(0, start - self._margin)
        try:
            self._file.seek(first)
            data = self._file.read(max(0, end + self._margin - first))
        except (OSError, ValueError, MemoryError):
            return b""
        for old, new in self._edits.instead:
            data = data.replace(old, new)
        data = data[start - first : max(0, end - first)]
        for offset, new in self._edits.at:
            a, b = max(start, offset), min(start + len(data), offset + len(new))
            if a < b:
                data = data[: a - start] + new[a - offset : b - offset] + data[b - start :]
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As FFmpeg's: -1 for what cannot be, and the size of the file for a `whence` of its own."""
        if whence & _AVSEEK_SIZE:
            return self._size
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}.get(whence & 3, 0)
        if not 0 <= at <= 1 << 62:
            return -1
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


_AVSEEK_SIZE = 0x10000


@contextlib.contextmanager
def _opened(file: MediaFile, edits: _Edits, *, packets: bool = False) -> Iterator[cv2.VideoCapture]:
    """An open capture; of compressed packets, or of frames as they are stored."""
    with _Reader(file.path, edits) as reader:
        # Only the FFmpeg backend: others read numbered pictures or open cameras and pipelines by name.
        source: Any = reader  # OpenCV's own word for its type exists in its stubs alone
        capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1] if packets else [])
        try:
            if not capture.isOpened():
                raise VideoUnreadableError(f"{file.name!r} cannot be decoded: OpenCV finds no video in it")
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
            yield capture
        finally:
            capture.release()


# -- survey --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Survey:
    """What all compressed packets of a file's first video track say.

    Attributes:
        tag: Codec, as OpenCV names it.
        packets: How many there are.
        times: Seconds from the start of the track, rising; empty where they cannot be trusted.
        format: What the headers say, None for a codec without any.
        without_colors: Header units that state colors, and the same without.
        orientation: What the stream says of how it is held; else what OpenCV makes of what the container says.
    """

    tag: bytes
    packets: int
    times: list[float]
    format: Format | None
    without_colors: tuple[tuple[bytes, bytes], ...]
    orientation: Orientation

    @property
    def spacing(self) -> float:
        """Seconds between frames."""
        gaps = [b - a for a, b in itertools.pairwise(self.times) if b > a]
        return statistics.median(gaps) if gaps else 1 / 25

    @property
    def seconds(self) -> float:
        """Length, 0 where it is not known."""
        return self.times[-1] + self.spacing if self.times else 0.0


def _survey(file: MediaFile, edits: _Edits, limits: Limits, deadline: Deadline) -> _Survey:
    with _opened(file, edits, packets=True) as capture:
        tag = (int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF).to_bytes(4, "little")
        codec = _WITH_HEADERS.get(tag)
        width, height = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        check_pixels(width, height, limits, file.name)
        times: list[float] = []
        formats: list[Format] = []
        bare: dict[bytes, bytes] = {}
        turned: Orientation | None = None
        count = 0
        while capture.grab():
            deadline.check()
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            count += 1
            if codec is None:
                continue
            data = [_packet(capture, 0)]
            if count == 1:
                data.append(_packet(capture, int(capture.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX))))
                turned = display_orientation(codec, data[0])
            for part in data:
                if not part or (codec in ("h264", "hevc") and not part.startswith((b"\0\0\1", b"\0\0\0\1"))):
                    continue  # nothing, or a configuration whose parameter sets the first packet repeats
                try:
                    found = read_format(codec, part)
                    if found is None:
                        continue
                    bare.update(without_colors(codec, part))
                except ValueError:
                    raise _not_trusted(file, "its headers are damaged or of a rare kind") from None
                check_pixels(found.width, found.height, limits, file.name)
                if found not in formats:
                    formats.append(found)
        if turned is None:
            turned = Orientation.turned(-capture.get(cv2.CAP_PROP_ORIENTATION_META))
    if codec and not formats:
        raise _not_trusted(file, "it has no headers")
    if len(formats) > 1:  # OpenCV keeps converting as if nothing had happened, and reads beyond the picture
        raise _not_trusted(file, "its pixel format changes within the video")
    times.sort()
    if file.kind in BARE or not times or times[0] < -60 or not math.isfinite(times[-1]) or times[-1] <= times[0]:
        times = []
    return _Survey(tag, count, times, formats[0] if formats else None, tuple(bare.items()), turned)


def _packet(capture: cv2.VideoCapture, flag: int) -> bytes:
    ok, data = capture.retrieve(flag=flag)
    return data.tobytes() if ok and data is not None else b""


def _not_trusted(file: MediaFile, why: str) -> VideoUnreadableError:
    return VideoUnreadableError(
        f"{file.name!r} cannot be decoded by OpenCV: {why}; install PyAV ({install.library('av')}), which decodes it, "
        f"or pass frames"
    )


@functools.cache
def _fails_on_fields() -> bool:
    """Whether OpenCV's FFmpeg leaves interlaced pictures unwritten and calls that success: from FFmpeg 8 (4.13) on."""
    found = re.search(r"swscale: +YES \((\d+)\.", cv2.getBuildInformation())
    return found is None or int(found[1]) >= 9


def _check_trusted(file: MediaFile, survey: _Survey) -> None:
    """Refuse what OpenCV would crash on or silently get wrong."""
    if survey.tag == b"AV01":
        raise _not_trusted(file, "it is AV1, for which OpenCV has no decoder")
    if survey.tag not in _PLAIN and survey.tag not in _WITH_HEADERS:
        raise _not_trusted(file, f"its codec is {survey.tag.decode('latin-1')!r}, which OpenCV may decode wrongly")
    if survey.packets == 1 and survey.tag in (b"MJPG", b"MPNG") and file.kind in ("asf", "flv", "ogg"):
        raise VideoUnreadableError(f"{file.name!r} is audio only: its one picture is a cover")
    if survey.format is not None and survey.format.interlaced and _fails_on_fields():
        raise _not_trusted(file, "it is interlaced, which OpenCV 4.13 and later do not convert")


# -- decoding ------------------------------------------------------------------------------------------------------


def _decode(file: MediaFile, count: int, size: int, limits: Limits, deadline: Deadline) -> list[Frames]:
    track, edits, survey = _choose_track(file, limits, deadline)
    _check_trusted(file, survey)
    colors = survey.format.colors if survey.format else UNSPECIFIED
    if colors not in (UNSPECIFIED, _BT709):
        # OpenCV 4.13 and later take seconds to convert these, in a way of their own. Unstated, they come as they are.
        edits = _Edits(edits.at, survey.without_colors)
        again = _survey(file, edits, limits, deadline)
        if again.format is None or again.format.colors != UNSPECIFIED:
            raise _not_trusted(file, "it has HDR or BT.2020 colors in a form that OpenCV converts wrongly")
    else:
        colors = UNSPECIFIED
    turn = track.orientation if track and track.orientation != UPRIGHT else survey.orientation
    check_seconds(survey.seconds, limits, file.name)

    def run(capture: cv2.VideoCapture) -> _Run:
        return _Run(capture, size, turn, colors, deadline)

    if survey.times:
        wanted = on_screen(slot_centers(count, survey.seconds), survey.times)
        if survey.packets > SEEK_FRAMES:
            with _opened(file, edits) as capture:
                frames = run(capture).seeking(wanted, survey.seconds / count / 2)
            if len(frames) == len(wanted):
                return frames
        with _opened(file, edits) as capture:
            passing = run(capture)
            frames = passing.sequential(wanted)
        if frames and len(frames) >= min(count, passing.seen):
            return frames
    # Times that cannot be trusted, or a file that is cut off or damaged. Spread over what can be decoded.
    with _opened(file, edits) as capture:
        return run(capture).one_pass(count)


def _choose_track(file: MediaFile, limits: Limits, deadline: Deadline) -> tuple[Track | None, _Edits, _Survey]:
    """The track to look at, as players choose, and what hides all others: OpenCV takes the first there is."""
    if file.kind == "ogg":
        _check_ogg(file)
    if file.kind not in ("mp4", "matroska"):
        return None, _Edits(), _survey(file, _Edits(), limits, deadline)
    tracks = video_tracks(file)[:MAX_TRACKS]
    if not tracks:  # what OpenCV finds there is the cover of a song
        raise VideoUnreadableError(
            f"{file.name!r} has no video track that can be found: it is audio only, truncated or damaged"
        )
    if len(tracks) == 1:
        return tracks[0], _Edits(), _survey(file, _Edits(), limits, deadline)
    found: list[tuple[Track, _Edits, _Survey]] = []
    failed: VideoUnreadableError | None = None
    for track in tracks:
        edits = _Edits(tuple((other.hide_at, other.hide) for other in tracks if other is not track))
        try:
            found.append((track, edits, _survey(file, edits, limits, deadline)))
        except VideoUnreadableError as error:
            failed = error
    if not found:
        raise failed or VideoUnreadableError(f"{file.name!r} has no video track that OpenCV can read")
    return min(found, key=lambda one: (one[2].packets < 2, not one[0].default))


def _check_ogg(file: MediaFile) -> None:
    """Every stream of an Ogg file introduces itself on its first pages. OpenCV aborts on a song with a cover."""
    with open(file.path, "rb") as stream:  # noqa: PTH123
        head = stream.read(4096)
    if b"\x80theora" not in head and b"OVP80" not in head:
        raise VideoUnreadableError(f"{file.name!r} is audio only, or of a codec that OpenCV does not decode in Ogg")


class _Run:
    """One pass over an open file."""

    def __init__(
        self, capture: cv2.VideoCapture, size: int, turn: Orientation, colors: Colors, deadline: Deadline
    ) -> None:
        self._capture = capture
        self._size = size
        self._turn = turn
        self._colors = colors
        self._deadline = deadline
        self.seen = 0

    def _grab(self) -> bool:
        self._deadline.check()
        grabbed = self._capture.grab()
        self.seen += grabbed
        return grabbed

    @property
    def _time(self) -> float:
        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000

    def sequential(self, wanted: list[float]) -> list[Frames]:
        """Decode everything up to the last frame wanted."""
        picker = Picker(wanted)
        frames: list[Frames] = []
        while picker.target < math.inf and self._grab():
            if picker.reached(self._time):
                frames += self._retrieve()
        return frames

    def seeking(self, wanted: list[float], tolerance: float) -> list[Frames]:
        """Seek to each frame wanted. Gives up early, with fewer frames, where the file does not seek well."""
        frames: list[Frames] = []
        for time in wanted:
            self._deadline.check()
            self._capture.set(cv2.CAP_PROP_POS_MSEC, max(0.0, time) * 1000)
            if not self._grab() or abs(self._time - time) > tolerance:
                break
            frames += self._retrieve()
        return frames

    def one_pass(self, count: int) -> list[Frames]:
        """At most `count` prepared frames of a stream whose times or length cannot be trusted."""
        reservoir = Reservoir(count)
        while self._grab():
            if reservoir.wants():
                for frame in self._retrieve():
                    reservoir.add(frame)
        return reservoir.frames()

    def _retrieve(self) -> list[Frames]:
        """The frame that was grabbed, uint8 [size, size, 3] RGB, upright; empty where it cannot be converted."""
        ok, image = self._capture.retrieve()
        if not ok or image is None or image.ndim != 3:
            return []
        # Squashed first, so that fewer bytes are reordered.
        small = prepare(np.asarray(image, np.uint8), self._size)[:, :, ::-1]
        if needs_mapping(self._colors):
            small = to_sdr(small, self._colors)
        return [self._turn.apply(small)]
