"""Video file → a few evenly spread, square RGB frames.

`get_decoder("auto")` is PyAV where it is installed, else OpenCV. A decoder is any callable of the shape of
`Decoder`, so an app can bring its own (docs/decoding.md), or hand in frames and use none.
"""

from __future__ import annotations

from linkedout_edge.decode.base import (
    DEFAULT_LIMITS,
    Decoder,
    Frames,
    Limits,
    prepare,
    prepare_frames,
    spread,
)
from linkedout_edge.errors import ArgumentError, MissingDependencyError, unknown

__all__ = [
    "DECODERS",
    "DEFAULT_LIMITS",
    "Decoder",
    "Frames",
    "Limits",
    "get_decoder",
    "prepare",
    "prepare_frames",
    "spread",
]

DECODERS = ("auto", "pyav", "opencv", "gstreamer")


def get_decoder(name: str = "auto") -> Decoder:
    """A decoder by name.

    Args:
        name: ``"pyav"``, ``"opencv"``, or ``"auto"`` for the first of these that is installed; ``"gstreamer"`` decodes
            in hardware where there is some, and so does ``"pyav:DEVICE"``, such as ``"pyav:cuda"`` (see `PyAVDecoder`).

    Raises:
        ArgumentError: no such name, or PyAV was not built with such a device.
        MissingDependencyError: its library is not installed; the message has the line that installs it.
    """
    # Imported late: loading FFmpeg takes time and memory that an app with its own frames never needs.
    if name == "auto":
        try:
            return get_decoder("pyav")
        except MissingDependencyError:
            return get_decoder("opencv")
    if name == "pyav" or name.startswith("pyav:"):
        from linkedout_edge.decode.pyav import PyAVDecoder

        return PyAVDecoder(hardware=name.partition(":")[2] if ":" in name else None)
    if name == "opencv":
        from linkedout_edge.decode.opencv import OpenCVDecoder

        return OpenCVDecoder()
    if name == "gstreamer":
        from linkedout_edge.decode.gstreamer import GStreamerDecoder

        return GStreamerDecoder()
    raise ArgumentError(unknown("decoder", name, DECODERS))
