"""Decoding with GStreamer, which reaches hardware decoders: a Jetson's ``nvv4l2decoder``, VA-API, V4L2.

The file is read by ``filesrc`` alone and never named in a pipeline's text, so neither a path nor what a file says of
itself makes GStreamer open anything else. Which decoder runs is GStreamer's choice by rank, hardware first. Frames that
are not wanted are dropped before they are converted to RGB.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from linkedout_edge.decode.files import STILLS, MediaFile, check_file
from linkedout_edge.decode.frames import Frames, Picker, Reservoir, prepare, slot_centers
from linkedout_edge.decode.limits import Deadline, Limits, check_pixels, check_request, check_seconds
from linkedout_edge.decode.opencv import measured_seconds
from linkedout_edge.decode.orientation import UPRIGHT, Orientation
from linkedout_edge.decode.stills import decode_still
from linkedout_edge.decode.tracks import video_tracks
from linkedout_edge.errors import MissingDependencyError, VideoError, VideoUnreadableError

INSTALL = (
    "sudo apt install python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad "
    "gstreamer1.0-libav, and make the virtual environment with --system-site-packages"
)

_WAIT = 100_000_000
"""Nanoseconds to wait for a frame before the deadline is looked at again."""

_TURNS = {
    f"{flip}rotate-{degrees}": Orientation.turned(-degrees, mirror_x=bool(flip))
    for flip in ("", "flip-")
    for degrees in (0, 90, 180, 270)
}
"""GStreamer's names; it mirrors first and turns clockwise."""


@dataclass(frozen=True)
class GStreamerDecoder:
    """A `Decoder` on GStreamer.

    Attributes:
        converter: the element that turns decoded frames into RGBA in the CPU's memory; None is ``nvvidconv`` (Jetson)
            where it is installed, else ``videoconvert``.
    """

    converter: str | None = None
    name: str = field(default="gstreamer", init=False)

    def __post_init__(self) -> None:
        gst = _gstreamer().Gst
        for element in ("filesrc", "decodebin", "appsink", self._converter()):
            if gst.ElementFactory.find(element) is None:
                raise MissingDependencyError(f"GStreamer has no element {element!r} here: {INSTALL}")

    def __call__(self, path: str | os.PathLike[str], count: int, size: int, limits: Limits) -> Frames:
        """See `Decoder.__call__`."""
        check_request(count, size)
        file = check_file(path, limits)
        if file.kind in STILLS:
            return decode_still(file, size, limits)
        deadline = Deadline(limits, file.name)

        def run() -> _Run:
            return _Run(file, self._converter(), size, limits, deadline)

        try:
            frames, seen = run().by_time(count)
            if len(frames) < min(count, seen) or not frames:
                # The header promised more than there is, or nothing: spread over what can be decoded.
                frames = run().one_pass(count)
        except _gstreamer().GLib.Error as error:  # of its own; a TypeError would be ours
            raise VideoUnreadableError(f"{file.name!r} cannot be decoded: {error}") from error
        if not frames:
            raise VideoUnreadableError(f"{file.name!r} has no picture that GStreamer can decode: truncated?")
        return np.stack(frames)

    def _converter(self) -> str:
        if self.converter is not None:
            return self.converter
        return "nvvidconv" if _gstreamer().Gst.ElementFactory.find("nvvidconv") else "videoconvert"


@dataclass(frozen=True)
class _Modules:
    """What is used of GStreamer's binding."""

    GLib: Any
    Gst: Any
    GstApp: Any
    GstVideo: Any


@functools.cache
def _gstreamer() -> _Modules:
    try:
        import gi

        for module in ("Gst", "GstApp", "GstVideo"):
            gi.require_version(module, "1.0")
        from gi.repository import GLib, Gst, GstApp, GstVideo
    except (ImportError, ValueError) as error:  # ValueError: the binding is there, a library's description is not
        raise MissingDependencyError(
            f"GStreamer cannot be used from this Python ({error}): {INSTALL}; or choose the decoder 'pyav'"
        ) from error
    Gst.init(None)
    return _Modules(GLib, Gst, GstApp, GstVideo)


class _Run:
    """One pass over a file."""

    def __init__(self, file: MediaFile, converter: str, size: int, limits: Limits, deadline: Deadline) -> None:
        self._modules = _gstreamer()
        self._file, self._converter = file, converter
        self._size, self._limits, self._deadline, self._name = size, limits, deadline, file.name
        tracks = video_tracks(file)
        # What GStreamer itself says of it leaves mirroring out, by version.
        self._stated = tracks[0].orientation if len(tracks) == 1 else UPRIGHT
        self._turn = self._stated
        # Written by GStreamer's threads, read by ours.
        self._lock = threading.Lock()
        self._count = 0
        self._seconds = 0.0
        self._picker: Picker | None = None
        self._lead = 0.0  # a frame is on screen from its time on
        self._seen = 0
        self._refused: VideoError | None = None
        self._has_video = False

    def by_time(self, count: int) -> tuple[list[Frames], int]:
        """Prepared frames at the slots' centers, and how many were seen; none where the length is not known."""
        self._count = count
        # GStreamer reports the length of the longest track, and sound often continues after the last picture.
        self._seconds = measured_seconds(self._file, self._limits, self._deadline)
        frames: list[Frames] = []
        for frame in self._frames():
            frames.append(frame)
            if len(frames) == count:
                break
        return frames, self._seen

    def one_pass(self, count: int) -> list[Frames]:
        """At most `count` prepared frames of a stream whose length cannot be trusted."""
        reservoir = Reservoir(count)
        for frame in self._frames():
            if reservoir.wants():
                reservoir.add(frame)
        return reservoir.frames()

    def _frames(self) -> Iterator[Frames]:
        """Upright squares, uint8 [size, size, 3], of the frames that are wanted."""
        gst = self._modules.Gst
        pipeline = gst.parse_launch(
            f"filesrc name=file ! decodebin name=decode expose-all-streams=false {self._converter} name=convert "
            "! video/x-raw,format=RGBA ! appsink name=frames sync=false max-buffers=2"
        )
        decode, convert, sink = (pipeline.get_by_name(n) for n in ("decode", "convert", "frames"))
        pipeline.get_by_name("file").set_property("location", self._file.path)
        decode.set_property("caps", gst.Caps.from_string("video/x-raw(ANY)"))  # sound is neither decoded nor exposed
        entry = convert.get_static_pad("sink")
        decode.connect("pad-added", self._link, entry)
        decode.connect("no-more-pads", self._complete, sink)
        entry.add_probe(gst.PadProbeType.BUFFER, self._probe)
        bus = pipeline.get_bus()
        try:
            pipeline.set_state(gst.State.PLAYING)
            while True:
                self._deadline.check()
                sample = sink.try_pull_sample(_WAIT)
                self._listen(bus)
                if self._refused is not None:
                    raise self._refused
                if sample is not None:
                    yield self._prepare(sample)
                elif sink.is_eos():
                    return
        finally:
            pipeline.set_state(gst.State.NULL)

    def _link(self, _: Any, pad: Any, entry: Any) -> None:
        if not entry.is_linked() and pad.query_caps(None).to_string().startswith("video/"):
            self._has_video = True
            pad.link(entry)

    def _complete(self, _: Any, sink: Any) -> None:
        if not self._has_video:
            self._refused = VideoUnreadableError(f"{self._name!r} has no video stream that GStreamer decodes")

    def _listen(self, bus: Any) -> None:
        """Raise what the pipeline complains about; note how a phone was held."""
        gst = self._modules.Gst
        while (message := bus.pop_filtered(gst.MessageType.ERROR | gst.MessageType.TAG)) is not None:
            if message.type == gst.MessageType.TAG:
                found, value = message.parse_tag().get_string("image-orientation")
                if found and self._stated == UPRIGHT:
                    self._turn = _TURNS.get(value, UPRIGHT)
                continue
            if self._seen and self._refused is None:
                return  # broken further on: what came before counts
            error, _ = message.parse_error()
            raise VideoUnreadableError(f"{self._name!r} cannot be decoded: {error.message}")

    def _probe(self, pad: Any, info: Any) -> Any:
        """Called by GStreamer for each decoded frame: whether it is let through."""
        gst = self._modules.Gst
        try:
            with self._lock:
                wanted = self._wants(pad, info.get_buffer())
        except VideoError as error:
            self._refused = error
            wanted = False
        return gst.PadProbeReturn.OK if wanted else gst.PadProbeReturn.DROP

    def _wants(self, pad: Any, buffer: Any) -> bool:
        gst = self._modules.Gst
        first = self._seen == 0
        self._seen += 1
        if first:
            caps = pad.get_current_caps().get_structure(0)
            check_pixels(caps.get_int("width")[1], caps.get_int("height")[1], self._limits, self._name)
            seconds = self._seconds
            if not seconds:
                known, length = pad.peer_query_duration(gst.Format.TIME)
                seconds = length / gst.SECOND if known and length > 0 else 0.0
            check_seconds(seconds, self._limits, self._name)
            rate, numerator, denominator = caps.get_fraction("framerate")
            frame_seconds = denominator / numerator if rate and numerator else 1 / 25
            if seconds and self._count:
                self._lead = 0.99 * frame_seconds
                self._picker = Picker(slot_centers(self._count, seconds))
        if not self._count:
            return True
        if self._picker is None or buffer.pts == gst.CLOCK_TIME_NONE:
            return False
        segment = pad.get_sticky_event(gst.EventType.SEGMENT, 0).parse_segment()
        time = segment.to_stream_time(gst.Format.TIME, buffer.pts)
        # Before the segment's start: pictures that an edit list hides.
        return (
            time != gst.CLOCK_TIME_NONE
            and self._picker.target < math.inf
            and self._picker.reached(time / gst.SECOND + self._lead)
        )

    def _prepare(self, sample: Any) -> Frames:
        gst, video = self._modules.Gst, self._modules.GstVideo
        buffer, caps = sample.get_buffer(), sample.get_caps()
        shape = caps.get_structure(0)
        width, height = shape.get_int("width")[1], shape.get_int("height")[1]
        meta = video.buffer_get_video_meta(buffer)
        stride = meta.stride[0] if meta is not None else 4 * width  # hardware pads its rows
        with _mapped(gst, buffer) as data:
            rows = np.frombuffer(data, np.uint8, count=stride * (height - 1) + 4 * width)
            image = np.lib.stride_tricks.as_strided(rows, (height, width, 4), (stride, 4, 1), writeable=False)
            small = prepare(np.ascontiguousarray(image), self._size)[:, :, :3]
        # Squashing and turning by right angles commute, so the smaller picture is turned.
        return self._turn.apply(small)


@contextlib.contextmanager
def _mapped(gst: Any, buffer: Any) -> Iterator[Any]:
    done, info = buffer.map(gst.MapFlags.READ)
    if not done:
        raise VideoUnreadableError("GStreamer's frame cannot be read by the CPU: set GStreamerDecoder(converter=…)")
    try:
        yield info.data
    finally:
        buffer.unmap(info)
