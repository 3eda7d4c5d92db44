"""Decoding with PyAV: key frames only where that gives well-spread frames, else as little as possible besides.

1. *Probe.* Seek twice per slot and read one packet each time, undecoded: which key frames does the file have?
2. *Key frames only.* Where every slot holds one, just those packets are decoded: 8 frames, whatever the length.
3. *Forward.* Else each target is reached from the last key frame before it. On the way, frames that no other frame
   refers to are skipped, which saves a third. A budget of pixels keeps long gaps between key frames from costing
   minutes: beyond it a frame is taken earlier than its target, the same one on every run.
4. *One pass.* A stream that tells no length or times is decoded from start to end.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from linkedout_edge.decode.base import (
    Deadline,
    Frames,
    Limits,
    Picker,
    Reservoir,
    check_file,
    check_pixels,
    check_request,
    check_seconds,
    prepare,
    slot_centres,
)
from linkedout_edge.errors import ArgumentError, MissingDependencyError, VideoError, VideoUnreadableError

FORWARD_PIXELS = 3_000_000_000
"""Pixels that the forward pass decodes at most, give or take a target's share: 1,450 frames of 1080p."""

PROBE_PACKETS = 300
"""How far the probe reads on for a key frame where seeking does not lead to one."""

DENSE = 8
"""Frames per slot from which it pays to skip those that no other refers to."""

_DEMUXERS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,gif,ivf,h264,hevc,m4v,obu,png_pipe,apng,jpeg_pipe,mjpeg"
"""FFmpeg's names for what `files.sniff` lets through. Not in it: hls, dash, concat, sdp, image2: they open
other files."""

_ATTACHED_PIC = 0x0400  # AV_DISPOSITION_ATTACHED_PIC

_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS}


@dataclass(frozen=True)
class PyAVDecoder:
    """A `Decoder` on PyAV.

    Attributes:
        min_key_frames: take the key-frame path, with one frame per slot that has a key frame, as soon as this many
            slots have one. None: only where all have one, so that no frame is missing. A small number is many times
            faster on short clips with few key frames and gives fewer frames of them (docs/decoding.md).
        threads: of FFmpeg; 0 lets it choose.
    """

    min_key_frames: int | None = None
    threads: int = 0
    name: str = field(default="pyav", init=False)

    def __post_init__(self) -> None:
        if self.min_key_frames is not None and self.min_key_frames < 1:
            raise ArgumentError(f"min_key_frames is {self.min_key_frames!r}: expected None or at least 1")
        _import_av()

    def __call__(self, path: str | os.PathLike[str], count: int, size: int, limits: Limits) -> Frames:
        """See `Decoder.__call__`."""
        check_request(count, size)
        av = _import_av()
        name = os.fspath(path)
        file = check_file(path, limits)
        deadline = Deadline(limits, name)
        options = {**_OPTIONS, "max_pixels": str(limits.max_pixels)}

        def opened() -> Any:
            return av.open(f"file:{file}", options=options, metadata_errors="replace")

        def run(container: Any) -> _Run:
            stream = _video_stream(container, name)
            if self.threads:
                stream.codec_context.thread_count = self.threads
            stream.thread_type = "AUTO"
            return _Run(container, stream, size, limits, deadline, name)

        try:
            with opened() as container:
                frames = run(container).by_time(count, self.min_key_frames)
            if frames is None:
                # Opened again, as what cannot be sought in cannot be wound back either.
                with opened() as container:
                    frames = run(container).one_pass(count)
        except VideoError:
            raise
        except Exception as error:  # whatever hostile bytes make a binding raise: it is this one video's fault
            raise VideoUnreadableError(f"{name!r} cannot be decoded: {error}") from error
        if not frames:
            raise VideoUnreadableError(f"{name!r} has a video stream, but not one frame of it decodes (truncated?)")
        return np.stack(frames)


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            "PyAV is not installed: pip install 'av>=12', or choose the decoder 'opencv'"
        ) from error
    return av


def _video_stream(container: Any, name: str) -> Any:
    # A song's cover picture is a video stream to FFmpeg. Older PyAV does not tell dispositions.
    streams = [s for s in container.streams.video if not int(getattr(s, "disposition", 0)) & _ATTACHED_PIC]
    if not streams:
        if container.streams.audio:
            raise VideoUnreadableError(f"{name!r} is audio only: it has no pictures to rank by")
        raise VideoUnreadableError(f"{name!r} has no video stream")
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoUnreadableError(f"{name!r} uses a video codec that this build of FFmpeg does not decode")
    return stream


class _Run:
    """One file, open."""

    def __init__(self, container: Any, stream: Any, size: int, limits: Limits, deadline: Deadline, name: str) -> None:
        self._container = container
        self._stream = stream
        self._size = size
        self._limits = limits
        self._deadline = deadline
        self._name = name
        self._errors = _import_av().error.FFmpegError
        self._base = float(stream.time_base or 0)
        self._start = float(stream.start_time or 0) * self._base
        self._fps = float(stream.average_rate or stream.guessed_rate or 25)
        context = stream.codec_context
        self._pixels = max(1, context.width * context.height)
        check_pixels(context.width, context.height, limits, name)

    def by_time(self, count: int, min_key_frames: int | None) -> list[Frames] | None:
        """At most `count` prepared frames in order of time, None where only one pass over everything will do."""
        seconds = self._seconds()
        check_seconds(seconds, self._limits, self._name)
        if not seconds or not self._base:
            return None
        keys, seeks = self._probe(count, seconds)
        chosen = self._one_per_slot(keys, count, seconds)
        enough = count if min_key_frames is None else min(min_key_frames, count)
        total = seconds * self._fps
        affordable = total * self._pixels <= FORWARD_PIXELS
        if len(chosen) >= enough or (chosen and not seeks and not affordable):
            frames = self._only(chosen)
            if len(frames) >= enough or (frames and not seeks and not affordable):
                return frames
        if not seeks:
            return None
        frames, seen = self._forward(slot_centres(count, seconds), [key for key, _ in keys], total)
        if len(frames) == count or (frames and len(frames) >= seen and total < DENSE * count):
            return frames
        # The header promised more than there is: the file is cut off or damaged. Spread over what can be decoded,
        # unless that takes too long.
        return frames if frames and not affordable else None

    def _seconds(self) -> float:
        if self._stream.duration:
            return max(0.0, float(self._stream.duration) * self._base)
        return max(0.0, (self._container.duration or 0) / 1_000_000)

    def _seek(self, seconds: float) -> bool:
        """Go to the last key frame at or before `seconds`."""
        self._deadline.check()
        try:
            self._container.seek(int((self._start + seconds) / self._base), stream=self._stream)
        except (self._errors, OverflowError, ZeroDivisionError):  # not seekable, or its clock makes no sense
            return False
        return True

    def _packets(self) -> Iterator[Any]:
        """Packets up to the end, or to the first place where the file is broken."""
        packets = self._container.demux(self._stream)
        while True:
            self._deadline.check()
            try:
                yield next(packets)
            except (StopIteration, self._errors):
                return

    def _decode(self, packet: Any) -> Iterator[Any]:
        """Frames that come out after `packet`; None flushes. A broken packet gives none."""
        try:
            frames = self._stream.codec_context.decode(packet)
        except (self._errors, EOFError):
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

        Returns:
            The packets, and whether seeking leads to key frames. In an MPEG transport stream it leads anywhere; there
            these are the key packets after each place.
        """
        found: dict[float, Any] = {}
        seeks = True
        half = seconds / (2 * count)
        for i in range(2 * count):
            # A hair before the boundary, so that the last is inside the file.
            if not self._seek((i + 1) * half - 1e-3):
                return sorted(found.items(), key=lambda item: item[0]), False
            for n, packet in enumerate(self._packets()):
                if not packet.size or n == PROBE_PACKETS:
                    break
                if packet.is_keyframe:
                    time = self._time(packet)
                    if time is not None:
                        found.setdefault(time, packet)
                    break
                seeks = False
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

    def _forward(self, targets: list[float], keys: list[float], total: float) -> tuple[list[Frames], int]:
        """Decode from the last key frame before each target.

        Args:
            targets: seconds, rising.
            keys: times of known key frames, rising.
            total: frames that the video claims to have.

        Returns:
            The frames, and how many were seen in all; both stop short where frames carry no times.
        """
        count = len(targets)
        dense = total >= DENSE * count
        affordable = math.inf
        if total * self._pixels > FORWARD_PIXELS:
            affordable = max(1.0, FORWARD_PIXELS / self._pixels / count) / self._fps
        frames: list[Frames] = []
        seen, position = 0, -math.inf
        todo = list(targets)
        while todo:
            key = max((k for k in keys if k <= todo[0]), default=0.0)
            if key > position or position == -math.inf:
                if not self._seek(key) and position == -math.inf and not self._seek(0.0):
                    return [], seen
                position = key
            # All targets up to the next key frame that a seek would jump to.
            group = [t for t in todo if max((k for k in keys if k <= t), default=0.0) <= max(key, position)]
            todo = todo[len(group) :]
            reach = position
            near = []
            for target in group:
                reach = min(target, reach + affordable)
                near.append(reach)
            picker = Picker(near, 1 / self._fps)
            for frame in self._stream_frames(near if dense else None):
                time = self._time(frame)
                if time is None:
                    return [], seen
                if time < key - 1 / self._fps:
                    continue  # leading pictures of an open group refer to frames before the seek
                seen += 1
                position = time
                if picker.wants(time):
                    frames.append(self._prepare(frame))
                if picker.target == math.inf:
                    break
        return frames, seen

    def _stream_frames(self, targets: list[float] | None = None) -> Iterator[Any]:
        """Frames from here to the end, those that the decoder holds back included.

        With `targets`, frames that no other refers to are left out unless one of these times is near.
        """
        context = self._stream.codec_context
        skip = context.skip_frame = "DEFAULT"
        for packet in self._packets():
            if targets is not None:
                time = self._time(packet) if packet.size else None
                near = time is None or any(abs(time - target) * self._fps < 2.5 for target in targets)
                wanted = "DEFAULT" if near else "NONREF"
                if wanted != skip:
                    skip = context.skip_frame = wanted
            yield from self._decode(packet)
        yield from self._decode(None)

    def one_pass(self, count: int) -> list[Frames]:
        """At most `count` prepared frames of a stream whose times or length cannot be trusted; call on a fresh one."""
        reservoir = Reservoir(count)
        for frame in self._stream_frames():
            if reservoir.wants():
                reservoir.add(self._prepare(frame))
        return reservoir.frames()

    def _prepare(self, frame: Any) -> Frames:
        """An upright square: uint8 [size, size, 3]."""
        image = prepare(cast(Frames, frame.to_ndarray(format="rgb24")), self._size)
        turns = round(_rotation(frame) / 90) % 4
        # Squashing and turning by right angles commute, so the smaller picture is turned.
        return np.ascontiguousarray(np.rot90(image, turns))


def _rotation(frame: Any) -> float:
    """Degrees counterclockwise by which a frame must be turned to be upright."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 0.0
    # int32 [9] in row order, 16.16 fixed point; the angle is that of the first column.
    values = np.frombuffer(bytes(matrix), np.int32, 9).astype(np.float64)
    if not (values[0] or values[3]):
        return 0.0
    return -math.degrees(math.atan2(values[1], values[0]))
