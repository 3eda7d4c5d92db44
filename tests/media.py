"""Writes little videos of every odd kind, with PyAV's encoders."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

_DEFAULTS = {"libx264": {"crf": "12", "sc_threshold": "0", "preset": "veryfast"}}


def scene(i: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A picture without symmetry: a moving square on a gradient."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 250, width, dtype=np.uint8)
    image[..., 2] = np.linspace(250, 0, height, dtype=np.uint8)[:, None]
    image[10:40, 5 + 2 * i % 80 : 25 + 2 * i % 80, 1] = 255
    return image


def scenes(count: int = 50) -> list[np.ndarray]:
    return [scene(i) for i in range(count)]


def write(
    path: Path,
    images: Iterable[Any],
    *,
    codec: str = "libx264",
    form: str | None = None,
    gop: int = 12,
    fps: int = 25,
    times: list[int] | None = None,
    pixels: str = "yuv420p",
    source: str = "rgb24",
    options: dict[str, str] | None = None,
    flags: int = 0,
    colors: tuple[int, int, int] | None = None,
    before: Path | None = None,
) -> Path:
    """A video of `images`, each uint8 [H, W, 3] or what `source` says.

    Args:
        times: of the frames, in 1/`fps` s.
        flags: of the encoder.
        colors: primaries, transfer and matrix that the encoder states.
        before: a JPEG that becomes a video track of its own, the first, as of a thumbnail.
    """
    with av.open(str(path), "w", format=form) as out:
        thumbnail = None
        if before is not None:
            picture = cv2.imread(str(before))
            thumbnail = out.add_stream("mjpeg", rate=1)
            thumbnail.height, thumbnail.width, thumbnail.pix_fmt = *picture.shape[:2], "yuvj420p"
        stream: Any = None
        for i, image in enumerate(images):
            if stream is None:
                stream = out.add_stream(codec, rate=fps, options=_DEFAULTS.get(codec, {}) | (options or {}))
                height, width = image.shape[:2]
                stream.height, stream.width, stream.pix_fmt = (
                    height if source == "rgb24" else height * 2 // 3,
                    width,
                    pixels,
                )
                stream.codec_context.gop_size = gop
                stream.codec_context.flags |= flags
                if colors:
                    context = stream.codec_context
                    context.color_primaries, context.color_trc, context.colorspace = colors
                if thumbnail is not None:
                    out.start_encoding()
                    packet = av.Packet(before.read_bytes())
                    packet.stream, packet.pts, packet.dts, packet.time_base = thumbnail, 0, 0, Fraction(1, 1)
                    packet.is_keyframe = True
                    out.mux(packet)
            frame = _frame(image, source)
            frame.pts = times[i] if times else i
            if colors and hasattr(frame, "color_trc"):  # since PyAV 17; before, the encoder's options say it
                frame.color_primaries, frame.color_trc, frame.colorspace = colors
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def _frame(image: np.ndarray, source: str) -> Any:
    if source != "yuv420p10le":
        return av.VideoFrame.from_ndarray(image, format=source)
    height, width = image.shape[0] * 2 // 3, image.shape[1]  # PyAV before 17 takes no arrays of this format
    frame = av.VideoFrame(width, height, source)
    flat, at = image.reshape(-1), 0
    for plane in frame.planes:
        size = plane.width * plane.height
        rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        rows[:, : plane.width] = flat[at : at + size].reshape(plane.height, plane.width)
        plane.update(rows.tobytes())
        at += size
    return frame


def grays(count: int, side: int = 64) -> list[np.ndarray]:
    """Frame i is a plain grey from 20 to 235 that tells i."""
    return [np.full((side, side, 3), round(20 + 215 * i / max(1, count - 1)), np.uint8) for i in range(count)]


def which(frames: np.ndarray, count: int) -> np.ndarray:
    """Index of each decoded frame of `greys`."""
    return (frames.reshape(len(frames), -1).mean(1) - 20) / 215 * max(1, count - 1)
