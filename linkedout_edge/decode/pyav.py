"""Decoding with PyAV (FFmpeg). Long videos take little time: only what is needed is decoded.

1. Look where key frames are, by seeking, without decoding.
2. If every slot has one, decode just those.
3. Else decode from the key frame before each slot's centre, within a budget of pixels, several of them side by side.
4. Streams that cannot be sought in, and those whose header promises more than there is, are decoded from start to end.

A quick look takes key frames alone, and what little more a budget of pixels allows.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from linkedout_edge import install
from linkedout_edge.decode.color import needs_mapping, to_sdr
from linkedout_edge.decode.files import BARE, STILLS, MediaFile, check_file
from linkedout_edge.decode.frames import ROUNDING, Frames, Picker, Reservoir, on_screen, prepare, slot_centers, spread
from linkedout_edge.decode.hardware import accelerator, check_device, say_once
from linkedout_edge.decode.headers import BT2020, Colors, display_orientation
from linkedout_edge.decode.limits import Deadline, Limits, check_pixels, check_request, check_seconds
from linkedout_edge.decode.orientation import UPRIGHT, Orientation
from linkedout_edge.decode.planes import prepare_planes
from linkedout_edge.decode.stills import decode_still
from linkedout_edge.decode.tracks import video_tracks
from linkedout_edge.decode.vp9 import without_loop_filter
from linkedout_edge.errors import (
    ArgumentError,
    MissingDependencyError,
    VideoError,
    VideoTooLargeError,
    VideoUnreadableError,
)
from linkedout_edge.lifetime import submit
from linkedout_edge.threads import available_cpus

FORWARD_PIXELS = 3_000_000_000
"""Pixels that the forward pass decodes at most, give or take a target's share: 1,450 frames of 1080p."""

PROBE_PACKETS = 300
"""How far the probe reads on for a key frame where seeking does not lead to one, and for the end of the video."""

SPACING_PACKETS = 12
"""Packets at a place of which the probe notes the times, to learn how far frames are apart."""

QUICK_PIXELS = 12 * 1280 * 720
"""Pixels that a quick look decodes at most; one frame at least, however large."""

QUICK_PACKETS = 2000
"""How far a quick look reads for key frames where the file gives no times to seek by."""

FINE = 19
"""Source pixels for each pixel of the small square from which the loop filter, which smooths the edges of blocks, is
left out, as at 480p: it takes a tenth to a quarter of the time, and squashing averages over the edges anyway."""

FINE_VP9 = 40
"""The same for VP9, as at 720p: there it takes up to half of the time, and more is lost without it."""

UNFILTERED = 250
"""Frames of VP9 in a row that are decoded without it, at most: each adds to what the one before it is off."""

SIDE_BY_SIDE = 4
"""Key frames from which one video is decoded at a time, at most: each takes a decoder's memory."""

DENSE = 8
"""Frames per slot from which a video that ends too early is spread anew over what there is."""

REORDERED = 16
"""Pictures that H.264 and HEVC hold back at most, to show them in another order than they are stored in."""

_DEMUXERS = {"mp4": "mov", "mjpeg": "mjpeg", "apng": "apng"} | {
    kind: kind
    for kind in ("matroska", "avi", "flv", "ogg", "asf", "mpeg", "mpegvideo", "mpegts", "h264", "hevc", "ivf", "gif")
}
"""What `files.sniff` says → the demuxer of FFmpeg that has to open it. Left to itself FFmpeg also goes by names."""

_NO_VIDEO = 0x0400 | 0x0800 | 0x100000
"""AV_DISPOSITION_ATTACHED_PIC, _TIMED_THUMBNAILS, _STILL_IMAGE."""
_DEFAULT = 0x0001

_BT709, _BT601 = 1, 6
_FULL_RANGE = 2
_MATRICES = (_BT709, 2, 5, 6, BT2020, 10)
"""What `_prepare` knows how to convert: BT.709, unknown (taken as BT.601), BT.601 twice, and HDR's, see `to_sdr`."""

_PLANAR = {"yuv420p": 8, "yuvj420p": 8, "yuv420p10le": 10}
"""Pixel formats of nearly all videos → bits of a value."""

_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(_DEMUXERS.values())}
"""No demuxer that opens other files or addresses: hls, dash, concat, sdp, image2."""


@dataclass(frozen=True)
class PyAVDecoder:
    """A `Decoder` on PyAV.

    Attributes:
        min_key_frames: take the key-frame path, with one frame per slot that has a key frame, as soon as this many
            slots have one. None: only where all have one, so that no frame is missing. A small number is many times
            faster on short clips with few key frames and gives fewer frames of them (docs/decoding.md).
        threads: that decode one video: from several key frames side by side, and frames of each; 0 takes a thread for
            each CPU. Of a codec that the hardware decodes it is always 1: more would only take more of the device's
            memory, until it refuses.
        hardware: a device that PyAV was built with, such as ``"cuda"``, ``"vaapi"`` or ``"videotoolbox"``; None decodes
            in software. What the device cannot decode is decoded in software, and a warning says so once.

    Raises:
        ArgumentError: a setting is out of range, or PyAV was not built with such hardware.
        MissingDependencyError: PyAV is not installed, or too old for `hardware`.
    """

    min_key_frames: int | None = None
    threads: int = 0
    hardware: str | None = None
    name: str = field(default="pyav", init=False)

    def __post_init__(self) -> None:
        if self.min_key_frames is not None and self.min_key_frames < 1:
            raise ArgumentError(f"min_key_frames is {self.min_key_frames!r}: expected None or at least 1")
        _import_av()
        if self.hardware is not None:
            check_device(self.hardware)

    def __call__(self, path: str | os.PathLike[str], count: int, size: int, limits: Limits) -> Frames:
        """See `Decoder.__call__`."""
        return self._look(path, count, size, limits, quick=False)[0]

    def quick(self, path: str | os.PathLike[str], count: int, size: int, limits: Limits) -> tuple[Frames, bool]:
        """See `QuickDecoder.quick`."""
        return self._look(path, count, size, limits, quick=True)

    def _look(
        self, path: str | os.PathLike[str], count: int, size: int, limits: Limits, *, quick: bool
    ) -> tuple[Frames, bool]:
        check_request(count, size)
        file = check_file(path, limits)
        if file.kind in STILLS:
            return decode_still(file, size, limits), True
        deadline = Deadline(limits, file.name)
        device = accelerator(self.hardware)
        if device is not None:
            try:
                return self._read(file, count, size, limits, deadline, quick=quick, device=device)
            except VideoError:  # of the device, or of the file: software tells
                found = self._read(file, count, size, limits, deadline, quick=quick)
                say_once(f"a video that {self.hardware} could not decode was decoded in software")
                return found
        return self._read(file, count, size, limits, deadline, quick=quick)

    def _read(
        self,
        file: MediaFile,
        count: int,
        size: int,
        limits: Limits,
        deadline: Deadline,
        *,
        quick: bool,
        device: Any = None,
    ) -> tuple[Frames, bool]:
        av = _import_av()
        options = {**_OPTIONS, "max_pixels": str(limits.max_pixels)}
        more = {} if device is None else {"hwaccel": device}

        def opened() -> Any:
            return av.open(
                f"file:{file.path}", format=_DEMUXERS[file.kind], options=options, metadata_errors="replace", **more
            )

        def run(container: Any, index: int, *, threads: int = self.threads) -> _Run:
            stream = container.streams[index]
            there = device is not None and stream.codec_context.is_hwaccel
            if device is not None and not there:
                codec = stream.codec_context.codec.name
                say_once(f"{self.hardware} has no decoder for {codec}: such videos are decoded in software")
            stream.codec_context.thread_count = 1 if there else threads  # on a device they take its memory
            stream.thread_type = "AUTO"
            return _Run(container, stream, size, limits, deadline, file)

        @contextmanager
        def run_beside(threads: int) -> Iterator[_Run]:
            with opened() as container:
                yield run(container, index, threads=threads)

        beside = Beside((self.threads or available_cpus()) if device is None else 1, run_beside)
        try:
            with ExitStack() as files:
                container = files.enter_context(opened())
                index, read = _video_stream(container, file.name, deadline)
                if read:
                    container = files.enter_context(opened())
                # Threads pay from the second frame of a row on.
                frames, whole = run(container, index, threads=1).key_frames(count) if quick else (None, False)
                if not frames:
                    if quick:  # without even one key frame
                        container = files.enter_context(opened())
                    frames, whole = run(container, index).by_time(count, self.min_key_frames, beside), True
            if frames is None:
                # Opened again, as what cannot be sought in cannot be wound back either.
                with opened() as container:
                    frames = run(container, index).one_pass(count)
        except av.error.FFmpegError as error:  # of its own; a TypeError would be ours
            if isinstance(error, MemoryError):
                raise VideoTooLargeError(f"decoding {file.name!r} needs more memory than is available") from error
            raise VideoUnreadableError(
                f"{file.name!r} cannot be decoded, it may be cut off or damaged: {error.strerror}"
            ) from error
        if not frames:
            raise VideoUnreadableError(f"{file.name!r} has a video stream, but no frame can be decoded (truncated?)")
        return np.stack(frames), whole


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            f"PyAV is not installed: {install.library('av')}, or choose the decoder 'opencv'"
        ) from error
    return av


def _video_stream(container: Any, name: str, deadline: Deadline) -> tuple[int, bool]:
    """Index of the stream that players show: moving pictures before a thumbnail, then the default, then the best.

    And whether packets were read to find out.
    """
    streams = [s for s in container.streams.video if not _disposition(s) & _NO_VIDEO]
    if not streams:
        if container.streams.audio:
            raise VideoUnreadableError(f"{name!r} is audio only: it has no pictures to rank by")
        raise VideoUnreadableError(f"{name!r} has no video stream")
    usable = [s for s in streams if s.codec_context is not None]
    if not usable:
        raise VideoUnreadableError(f"{name!r} uses a video codec that this build of FFmpeg does not decode")
    if len(usable) > 1:
        seen = Counter[int]()
        best = container.streams.best("video")
        try:
            with closing(container.demux(usable)) as packets:
                for packet in packets:
                    deadline.check()
                    seen[packet.stream_index] += bool(packet.size)
                    if seen.total() > PROBE_PACKETS or all(seen[s.index] > 1 for s in usable):
                        break
        except _import_av().error.FFmpegError:  # broken further on: what came before counts
            pass
        usable.sort(
            key=lambda s: (seen[s.index] < 2, not _disposition(s) & _DEFAULT, best is None or s.index != best.index)
        )
    return int(usable[0].index), len(usable) > 1


def _disposition(stream: Any) -> int:
    """Flags; a number since PyAV 17.1, an enumeration before."""
    return int(getattr(stream.disposition, "value", stream.disposition))


class Beside(NamedTuple):
    """How a file is decoded by several threads.

    Attributes:
        cpus: How many threads there may be in all.
        open: Opens the file again, for a thread of its own; takes how many threads FFmpeg may use there.
    """

    cpus: int
    open: Callable[[int], AbstractContextManager[_Run]]


class _Run:
    """One file, open."""

    def __init__(
        self,
        container: Any,
        stream: Any,
        size: int,
        limits: Limits,
        deadline: Deadline,
        file: MediaFile,
    ) -> None:
        self._container = container
        self._stream = stream
        self._size = size
        self._limits = limits
        self._deadline = deadline
        self._name = file.name
        self._errors = _import_av().error.FFmpegError
        self._base = 0.0 if file.kind in BARE else float(stream.time_base or 0)
        self._start = float(stream.start_time or 0) * self._base
        self._spacing = 1 / 25
        context = stream.codec_context
        self._on_device = bool(context.is_hwaccel)
        self._pixels = max(1, context.width * context.height)
        check_pixels(context.width, context.height, limits, file.name)
        if self._pixels >= FINE * size * size:
            context.options.update(skip_loop_filter="all")  # which FFmpeg does not know how to do for VP9
        self._fine_vp9 = context.name == "vp9" and self._pixels >= FINE_VP9 * size * size and not self._on_device
        self._rewrites = self._fine_vp9
        self._packets_tell = file.kind != "avi"  # when frames are shown; AVI tells when they are decoded
        self._turn = _container_orientation(container, stream, file)
        self._first_packet = True

    def by_time(self, count: int, min_key_frames: int | None, beside: Beside) -> list[Frames] | None:
        """At most `count` prepared frames in order of time, None where only one pass over everything will do.

        Args:
            count: frames wanted.
            min_key_frames: see `PyAVDecoder`.
            beside: how several threads decode.
        """
        found = self._survey(count)
        if found is None:
            return None
        keys, seeks, seconds = found
        chosen = self._one_per_slot(keys, count, seconds)
        enough = count if min_key_frames is None else min(min_key_frames, count)
        total = seconds / self._spacing
        affordable = total * self._pixels <= FORWARD_PIXELS
        if len(chosen) >= enough or (chosen and not seeks and not affordable):
            frames = self._only(chosen)
            if len(frames) >= enough or (frames and not seeks and not affordable):
                return frames
        if not seeks:
            return None
        frames, seen = self._forward(slot_centers(count, seconds), [key for key, _ in keys], total, beside)
        if len(frames) == count or (frames and len(frames) >= seen and total < DENSE * count):
            return frames
        # The header promised more than there is: the file is cut off or damaged. Spread over what can be decoded,
        # unless that takes too long.
        return frames if frames and not affordable else None

    def key_frames(self, count: int) -> tuple[list[Frames], bool]:
        """A quick look: at most `count` prepared frames in order of time, none where no key frame decodes.

        And whether a full look would give the same.
        """
        affordable = max(1, QUICK_PIXELS // self._pixels)
        surveyed = self._survey(count)
        if surveyed is None:
            keys = [packet for packet in itertools.islice(self._packets(), QUICK_PACKETS) if packet.is_keyframe]
            return self._only([keys[i] for i in spread(len(keys), min(count, affordable))]), False
        found, seeks, seconds = surveyed
        chosen = self._one_per_slot(found, count, seconds)
        if len(chosen) == count:  # all that a full look would take
            frames = self._only(chosen)
            return frames, len(frames) == count
        chosen = [chosen[i] for i in spread(len(chosen), min(count, affordable))]
        frames = self._only(chosen)
        if len(chosen) == 1 < min(count, affordable) and seeks:  # a second frame, from as far on as we may go
            frames += self._ahead(chosen[0], affordable - 1)
        return frames, False

    def _ahead(self, key: Any, packets: int) -> list[Frames]:
        """The last frame that so many packets from a key frame on give, unless there is none but the key frame."""
        if not self._seek(self._time(key) or 0.0):
            return []
        context = self._stream.codec_context
        context.flush_buffers()
        context.skip_frame = "NONREF"
        last, decoded = None, 0
        for packet in self._packets():
            for frame in self._decode(packet):
                last, decoded = frame, decoded + 1
            if decoded >= packets:
                break
        return [self._prepare(last)] if decoded > 1 else []

    def _survey(self, count: int) -> tuple[list[tuple[float, Any]], bool, float] | None:
        """What `_probe` tells, and the length; None where times are missing or make no sense."""
        seconds = self._seconds()
        if not seconds or not self._base:
            check_seconds(seconds, self._limits, self._name)
            return None
        keys, seeks = self._probe(count, seconds)
        if seeks:
            stated, seconds = seconds, self._end(seconds)
            if seconds <= 0:
                return None
            if abs(seconds - stated) > self._spacing:  # the header is wrong: look again, by what is there
                keys, seeks = self._probe(count, seconds)
        check_seconds(seconds, self._limits, self._name)
        return keys, seeks, seconds

    def _seconds(self) -> float:
        """Length as the file states it, 0 where it does not."""
        if self._stream.duration:
            return max(0.0, float(self._stream.duration) * self._base)
        return max(0.0, (self._container.duration or 0) / 1_000_000)

    def _end(self, stated: float) -> float:
        """Where the last frame ends, by the times of packets; `stated` where that cannot be found out."""
        found = stated
        # Near the end; far behind it, which is where the last key frame is if the header says too little; and from the
        # start, which is soon read where the video is short.
        for target in (stated - 1e-3, stated + self._limits.max_seconds, 0.0):
            if not self._seek(target):
                continue
            n, times = 0, []
            for n, packet in enumerate(self._packets()):
                time = self._time(packet) if packet.size else None
                if time is not None:
                    times.append(time)
                if n == PROBE_PACKETS:
                    break
            if times and n < PROBE_PACKETS:
                return max(times) + self._spacing
            found = max([found, *times])
        return found

    def _seek(self, seconds: float) -> bool:
        """Go to the last key frame at or before `seconds`."""
        self._deadline.check()
        try:
            # A hair more: rounding down must not lead to the key frame before the one whose time this is.
            ticks = int((self._start + seconds) / self._base + 1e-3)
            self._container.seek(ticks, stream=self._stream)
        except (self._errors, OverflowError, ZeroDivisionError):  # not seekable, or its clock makes no sense
            return False
        return True

    def _packets(self) -> Iterator[Any]:
        """Packets up to the end, or to the first place where the file is broken."""
        # Closed, or PyAV never frees what it reads with.
        with closing(self._container.demux(self._stream)) as packets:
            while True:
                self._deadline.check()
                try:
                    packet = next(packets)
                except (StopIteration, self._errors):
                    return
                if self._first_packet and packet.size:
                    self._first_packet = False
                    if self._turn is None:
                        self._turn = display_orientation(self._stream.codec_context.name, bytes(packet))
                yield packet

    def _decode(self, packet: Any) -> Iterator[Any]:
        """Frames that come out after `packet`; None flushes. A broken packet gives none.

        Raises:
            VideoUnreadableError: A device failed. It gives frames even so, of whatever was in its memory.
        """
        if self._rewrites and packet is not None and packet.size:
            without_loop_filter(memoryview(packet))
        try:
            frames = self._stream.codec_context.decode(packet)
        except EOFError:
            return
        except self._errors as error:
            if self._on_device:
                raise VideoUnreadableError(f"{self._name!r} cannot be decoded on the device: {error}") from error
            return
        for frame in frames:
            check_pixels(frame.width, frame.height, self._limits, self._name)
            yield frame

    def _time(self, stamped: Any) -> float | None:
        """Seconds from the start of the stream of a packet or frame, None if it has no time."""
        stamp = stamped.pts if stamped.pts is not None else stamped.dts
        return None if stamp is None else stamp * self._base - self._start

    def _probe(self, count: int, seconds: float) -> tuple[list[tuple[float, Any]], bool]:
        """Key packets by time, nothing decoded: those before each slot's centre and end.

        Notes on the way how far frames are apart, which a file's stated frame rate need not have to do with.

        Returns:
            The packets, and whether seeking leads to key frames. In an MPEG transport stream it leads anywhere; there
            these are the key packets after each place.
        """
        found: dict[float, Any] = {}
        gaps: list[float] = []
        seeks = True
        half = seconds / (2 * count)
        for i in range(2 * count):
            # A hair before the boundary, so that the last is inside the file.
            if not self._seek((i + 1) * half - 1e-3):
                seeks = False
                break
            times: list[float] = []
            key = False
            for n, packet in enumerate(self._packets()):
                if not packet.size or n == PROBE_PACKETS:
                    break
                time = self._time(packet)
                if time is not None:
                    times.append(time)
                    if packet.is_keyframe and not key:
                        found.setdefault(time, packet)
                if packet.is_keyframe:
                    key = True
                elif not key:
                    seeks = False
                if key and n >= (SPACING_PACKETS if i % 4 == 0 else 0):
                    break
            times.sort()
            gaps += [b - a for a, b in itertools.pairwise(times) if b > a]
        if gaps:
            self._spacing = statistics.median(gaps)
        return sorted(found.items(), key=lambda item: item[0]), seeks

    def _one_per_slot(self, keys: list[tuple[float, Any]], count: int, seconds: float) -> list[Any]:
        """For each slot that has a key packet, the one nearest to its centre."""
        slot = seconds / count
        best: dict[int, tuple[float, Any]] = {}
        for time, packet in keys:
            i = min(count - 1, max(0, int(time / slot)))
            distance = abs(time - (i + 0.5) * slot)
            if i not in best or distance < best[i][0]:
                best[i] = (distance, packet)
        return [best[i][1] for i in sorted(best)]

    def _only(self, packets: list[Any]) -> list[Frames]:
        """Decode these key packets and nothing else."""
        context = self._stream.codec_context
        context.skip_frame = "DEFAULT"
        frames: list[Frames] = []
        for packet in packets:
            self._deadline.check()
            # Drained after each: fed one after another, FFmpeg's HEVC decoder drops and reorders pictures.
            context.flush_buffers()
            pictures = [*self._decode(packet), *self._decode(None)]
            frames += [self._prepare(picture) for picture in pictures[:1]]
        context.flush_buffers()
        return frames

    def _forward(
        self, targets: list[float], keys: list[float], total: float, beside: Beside
    ) -> tuple[list[Frames], int]:
        """Decode from the last key frame before each target, from several key frames at a time.

        Args:
            targets: seconds, rising.
            keys: times of known key frames, rising.
            total: frames that the video has, by their distance.
            beside: how several threads decode.

        Returns:
            The frames, and how many were seen in all; both stop short where frames carry no times.
        """
        affordable = math.inf
        if total * self._pixels > FORWARD_PIXELS:
            affordable = max(1.0, FORWARD_PIXELS / self._pixels / len(targets)) * self._spacing
        spans = [
            (key, list(group))
            for key, group in itertools.groupby(
                targets, lambda t: max((k for k in keys if k <= t), default=keys[0] if keys else 0.0)
            )
        ]
        found: dict[float, tuple[list[Frames], int]] = {}
        todo = sorted(spans, key=lambda span: span[1][-1] - span[0])  # the longest is last, and begun first

        def work(run: _Run) -> None:
            while todo:
                try:
                    key, wanted = todo.pop()
                except IndexError:  # another thread was quicker
                    return
                found[key] = run._span(key, wanted, affordable)

        def work_beside() -> None:
            with beside.open(threads) as run:
                run._learn_from(self)
                work(run)

        workers = min(beside.cpus, len(spans), SIDE_BY_SIDE)
        threads = max(1, beside.cpus // workers)
        if workers > 1 and not self._stream.codec_context.is_open:
            self._stream.codec_context.thread_count = threads
        with ThreadPoolExecutor(SIDE_BY_SIDE, "linkedout-decode") as pool:  # starts none yet
            others = [submit(pool, work_beside) for _ in range(workers - 1)]
            try:
                work(self)
            finally:
                todo.clear()  # empty already, unless this failed
            for other in others:
                other.result()
        parts = [found[key] for key, _ in spans]
        return [frame for frames, _ in parts for frame in frames], sum(seen for _, seen in parts)

    def _learn_from(self, other: _Run) -> None:
        """Take over what another run of the same file found out from its packets."""
        self._spacing, self._turn, self._first_packet = other._spacing, other._turn, other._first_packet

    def _span(self, key: float, targets: list[float], affordable: float) -> tuple[list[Frames], int]:
        """Decode from one key frame on: the frames on screen at the targets, and how many there are up to the last.

        Args:
            key: seconds.
            targets: seconds, rising; all from `key` on.
            affordable: frames are taken at most so many seconds after the one before.
        """
        near, reach = list[float](), max(key, 0.0)
        for target in targets:
            reach = min(target, reach + affordable)
            near.append(reach)
        self._rewrites = self._fine_vp9 and (near[-1] - key) / self._spacing <= UNFILTERED
        times = self._times(key, max(near[-1], key)) if self._packets_tell else []
        frames = self._at(key, on_screen(near, times)) if times else None
        return self._one_by_one(key, near) if frames is None else (frames, len(times))

    def _times(self, key: float, last: float) -> list[float]:
        """Of the frames from a key frame to the one on screen at `last`, rising. Empty if a packet has no time."""
        times, after = set[float](), 0
        if not self._seek(key):
            return []
        for packet in self._packets():
            if not packet.size or packet.is_discard:
                continue
            if packet.pts is None:
                return []
            time = packet.pts * self._base - self._start
            if time > last + ROUNDING:
                after += 1
                if after > REORDERED:
                    break
            elif time > key - self._spacing / 2:  # leading pictures of an open group refer to frames before the seek
                times.add(time)
        return sorted(times)

    def _at(self, key: float, times: list[float]) -> list[Frames] | None:
        """The frames that begin at these times, and little more is decoded; None unless all come out, in order."""
        context = self._stream.codec_context
        found: dict[float, Frames] = {}
        ahead = set(times)

        def take(frames: Iterator[Any]) -> None:
            for frame in frames:
                time = self._time(frame)
                if time in times:
                    found[time] = self._prepare(frame)  # of several at one time the last stays on screen

        if not self._seek(key):
            return None
        skip = context.skip_frame = "DEFAULT"
        context.open(strict=False)  # dav1d keeps to what it is opened with
        for packet in self._packets():
            if not packet.size:
                continue
            time = self._time(packet)
            if not ahead and time not in times:
                break
            wanted = "DEFAULT" if time in times else "NONREF"  # without frames that no other refers to
            if wanted != skip:
                skip = context.skip_frame = wanted
            take(self._decode(packet))
            ahead.discard(time)
        take(self._decode(None))
        return list(found.values()) if list(found) == times else None

    def _one_by_one(self, key: float, targets: list[float]) -> tuple[list[Frames], int]:
        """The same as `_span` of files whose packets do not tell which frames will come out."""
        if not self._seek(key) and not self._seek(0.0):
            return [], 0
        picker = Picker(targets)
        frames: list[Frames] = []
        seen = 0
        held: Any = None  # on screen until the next frame comes
        for frame in self._stream_frames():
            time = self._time(frame)
            if time is None:
                return [], seen
            if time < key - self._spacing:
                continue
            seen += 1
            if held is not None and picker.passed(time):
                frames.append(self._prepare(held))
            held = frame
            if picker.target == math.inf:
                return frames, seen
        if held is not None:
            frames.append(self._prepare(held))
        return frames, seen

    def _stream_frames(self) -> Iterator[Any]:
        """Frames from here to the end, those that the decoder holds back included."""
        self._stream.codec_context.skip_frame = "DEFAULT"
        for packet in self._packets():
            yield from self._decode(packet)
        yield from self._decode(None)

    def one_pass(self, count: int) -> list[Frames]:
        """At most `count` prepared frames of a stream whose times or length cannot be trusted; call on a fresh one."""
        self._rewrites = False  # key frames may be far apart
        reservoir = Reservoir(count)
        for frame in self._stream_frames():
            if reservoir.wants():
                reservoir.add(self._prepare(frame))
        return reservoir.frames()

    def _prepare(self, frame: Any) -> Frames:
        """An upright square of ordinary colours: uint8 [size, size, 3]."""
        context = self._stream.codec_context
        transfer = getattr(frame, "color_trc", None) or context.color_trc  # of a frame since PyAV 17
        colors = Colors(int(context.color_primaries), int(transfer), int(frame.colorspace))
        mapped = needs_mapping(colors)
        matrix = _BT709 if colors.matrix == _BT709 and not mapped else _BT601
        full = frame.format.name.startswith("yuvj") or int(frame.color_range) == _FULL_RANGE
        planes = _planes(frame, self._size)
        if planes:
            image = prepare_planes(planes, self._size, matrix=matrix, full_range=full)
        else:
            known = mapped or colors.matrix in _MATRICES
            colors_said = _said(matrix, full_range=full) if known and _is_yuv(frame.format) else {}
            image = prepare(frame.to_ndarray(format="rgb24", **colors_said), self._size)
        if mapped:
            image = to_sdr(image, colors)
        turn = self._turn
        if turn is None:
            turn = Orientation.turned(frame.rotation)
        # Squashing and turning by right angles commute, so the smaller picture is turned.
        return turn.apply(image)


def _is_yuv(format: Any) -> bool:
    """Whether a pixel format has brightness and colors; not so RGB, palettes and gray."""
    return len(format.components) >= 3 and not format.is_rgb


def _said(matrix: int, *, full_range: bool) -> dict[str, str]:
    """Arguments of PyAV's conversion to RGB that say outright what PyAV 18 finds out by itself: it gives the same.

    PyAV 14 tells FFmpeg a matrix and a range only if those of source and target differ; else FFmpeg takes BT.601, and
    mostly limited range. RGB has no matrix, so another one for the target makes PyAV tell it, and changes nothing else.
    """
    source, other = ("ITU709", "ITU601") if matrix == _BT709 else ("ITU601", "ITU709")
    return {
        "src_colorspace": source,
        "dst_colorspace": other,
        "src_color_range": "JPEG" if full_range else "MPEG",
        "dst_color_range": "JPEG",
    }


def _planes(frame: Any, size: int) -> list[NDArray[Any]] | None:
    """The planes Y, Cb and Cr, not copied; None if the frame has others, or if one would have to be enlarged."""
    bits = _PLANAR.get(frame.format.name)
    if bits is None or int(frame.colorspace) not in _MATRICES or min(frame.width, frame.height) < 2 * size:
        return None
    planes = []
    for plane in frame.planes:
        values = np.frombuffer(plane, np.uint8 if bits == 8 else "<u2")
        row = plane.line_size // values.itemsize
        if row < plane.width:  # below 0: the picture is stored upside down
            return None
        planes.append(values[: plane.height * row].reshape(plane.height, row)[:, : plane.width])
    return planes


def _container_orientation(container: Any, stream: Any, file: MediaFile) -> Orientation | None:
    """What the container says of how a stream is held, None where it says nothing.

    Read from the file: PyAV reports rotation but not mirroring, except through `frame.side_data`. That builds all side
    data of a frame to read one matrix, frees some of it twice, raises for unknown kinds, and leaks memory.
    """
    tracks = video_tracks(file)
    if file.kind == "mp4":
        found = [t.orientation for t in tracks if t.id == stream.id]
    else:  # Matroska's numbers are not passed on; tracks keep their order, attached pictures follow
        order = [s.index for s in container.streams.video]
        place = order.index(stream.index)
        found = [tracks[place].orientation] if place < len(tracks) else []
    return found[0] if found and found[0] != UPRIGHT else None
