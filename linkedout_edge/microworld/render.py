"""Frames and files of a micro-video.

What is drawn follows from the attributes; where, how large, how fast and how bright follows from the seed. Only the
frames asked for are drawn, and everything is in fractions of the frame, so 256 pixels show what 128 do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from linkedout_edge import install
from linkedout_edge.errors import ArgumentError, BackendError
from linkedout_edge.microworld.attributes import Attributes
from linkedout_edge.microworld.lettering import draw_word
from linkedout_edge.microworld.objects import OBJECTS
from linkedout_edge.microworld.palette import Color, colors
from linkedout_edge.microworld.scenes import HIGH, LOW, SCENES
from linkedout_edge.microworld.shapes import Pen

_CUTS = {"none": 0, "one": 1, "three": 3, "many": 7}
_TAU = 2 * np.pi
_NOISE_SIDE = 128


@cache
def _noise() -> np.ndarray:
    """Gray levels around 128, uint8 [256, 256, 3]: windows of it are cheaper than new noise for every frame."""
    return np.clip(np.random.default_rng(7).normal(128, 40, (256, 256, 3)), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class _Nuisance:
    """What the seed decides of the whole clip."""

    size: float  # of the object, half its height
    speed: float  # cycles of the motion within the clip
    phase: float
    reach: float  # of the motion
    tilt: float  # degrees
    aspect: float
    camera_sign: int
    shake: np.ndarray  # float64 [4, 2]: phases
    gain: float
    lift: float
    noise: float
    text_at: tuple[float, float]
    text_size: float
    cut_jitter: np.ndarray  # float64 [8]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Nuisance:
        return cls(
            size=rng.uniform(0.2, 0.26),
            speed=rng.uniform(1.0, 1.5),
            phase=rng.uniform(0, 1),
            reach=rng.uniform(0.19, 0.25),
            tilt=rng.uniform(-9, 9),
            aspect=rng.uniform(0.93, 1.08),
            camera_sign=1 if rng.random() < 0.5 else -1,
            shake=rng.uniform(0, 1, (4, 2)),
            gain=rng.uniform(0.9, 1.06),
            lift=rng.uniform(-8, 8),
            noise=rng.uniform(0.02, 0.1),
            text_at=(rng.uniform(0.36, 0.64), float(rng.choice([0.12, 0.87])) + rng.uniform(-0.02, 0.02)),
            text_size=rng.uniform(0.12, 0.15),
            cut_jitter=rng.uniform(-0.12, 0.12, 8),
        )


@dataclass(frozen=True)
class _Shot:
    """What lies between two cuts."""

    background: np.ndarray  # uint8 [S, S, 3], showing LOW to HIGH of the world
    mirrored: bool
    zoom: float
    center: tuple[float, float]  # of the object's motion, in the frame
    size: float  # of the object, relative


def _motion(kind: str, cycles: float, reach: float) -> tuple[float, float, float]:
    """Offset x and y in frame widths, and relative size, after so many cycles."""
    wave = np.sin(_TAU * cycles)
    if kind == "left-right":
        return 1.15 * reach * wave, 0.0, 1.0
    if kind == "up-down":
        return 0.0, 1.1 * reach * wave, 1.0
    if kind == "circle":
        return reach * np.cos(_TAU * cycles), reach * wave, 1.0
    if kind == "zigzag":
        saw = [2 * abs(2 * (c % 1.0) - 1) - 1 for c in (cycles * 0.75, cycles * 2.25)]
        return 1.2 * reach * saw[0], 0.75 * reach * saw[1], 1.0
    if kind == "grow-shrink":
        return 0.0, 0.0, 1.0 + 0.48 * wave
    return 0.0, 0.0, 1.0


def _draw_object(
    frame: np.ndarray, name: str, paint: dict[str, Color], at: tuple[float, float], matrix: np.ndarray
) -> None:
    """Draw an object whose unit box is mapped by `matrix` [2, 2], to frame widths, around `at`."""
    pen = Pen(frame, frame.shape[0])
    shapes = [(role, (points @ matrix.T + at).astype(np.float32)) for role, points in OBJECTS[name]]
    rim = 0.16 * float(np.sqrt(abs(np.linalg.det(matrix)))) + 0.008
    for _, points in shapes:
        pen.stroke(points, paint["pale"], rim, closed=True)
    for role, points in shapes:
        pen.fill(points, paint[role])


def render_frames(attributes: Attributes, seed: int, times: np.ndarray, size: int) -> np.ndarray:
    """Draw some frames of a clip.

    Args:
        attributes: What the clip shows.
        seed: Everything else: positions, sizes, speeds, small changes of color, noise. At least 0.
        times: float [F] in [0, 1], from the clip's start to its end.
        size: Side of the frames in pixels, at least 16.

    Returns:
        uint8 [F, size, size, 3] RGB.

    Raises:
        ArgumentError: A time outside [0, 1], a negative seed or a size that is too small.
    """
    times = np.asarray(times, np.float64).reshape(-1)
    if not np.all((times >= 0) & (times <= 1)):
        raise ArgumentError("times must lie in [0, 1]: 0 is the clip's start and 1 its end")
    if seed < 0 or size < 16:
        raise ArgumentError(f"seed must be at least 0 and size at least 16, not {seed} and {size}")
    clip = _Clip(attributes, int(seed), int(size))
    frames = np.empty((len(times), size, size, 3), np.uint8)
    for i, t in enumerate(times):
        clip.draw(float(t), frames[i])
    return frames


class _Clip:
    """One clip at one size; backgrounds are painted when a frame needs them."""

    def __init__(self, attributes: Attributes, seed: int, size: int) -> None:
        self.attributes, self.seed, self.size = attributes, seed, size
        # The seed alone decides the nuisance, so that two clips of one seed differ by nothing but their attributes.
        rng = np.random.default_rng([seed, 0])
        self.nuisance = _Nuisance.draw(rng)
        self.paint = colors(attributes.palette, rng, night=attributes.scene == "night city")
        self.paint["pale"] = colors(attributes.palette, rng, night=False)["pale"]
        cuts = _CUTS[attributes.cuts]
        self.cuts = (np.arange(1, cuts + 1) + self.nuisance.cut_jitter[:cuts]) / (cuts + 1)
        self._shots: dict[int, _Shot] = {}

    def shot(self, index: int) -> _Shot:
        if index not in self._shots:
            rng = np.random.default_rng([self.seed, 1, index])
            side = round((HIGH - LOW) * self.size)
            canvas = np.empty((side, side, 3), np.uint8)
            layout = np.random.default_rng([self.seed, 2, index])
            SCENES[self.attributes.scene](Pen(canvas, self.size, -LOW * self.size), self.paint, layout)
            flip = self.seed % 2 == 1
            self._shots[index] = _Shot(
                background=canvas,
                mirrored=bool((index + flip) % 2),
                # Every other shot is a close one, so that each cut is a change.
                zoom=rng.uniform(1.0, 1.12) if index % 2 == 0 else rng.uniform(1.35, 1.6),
                center=(rng.uniform(0.42, 0.58), rng.uniform(0.46, 0.58)),
                size=rng.uniform(0.92, 1.05) if index % 2 == 0 else rng.uniform(1.15, 1.3),
            )
        return self._shots[index]

    def draw(self, t: float, frame: np.ndarray) -> None:
        """Draw the frame at time t into uint8 [size, size, 3]."""
        a, n, size = self.attributes, self.nuisance, self.size
        shot = self.shot(int(np.searchsorted(self.cuts, t, side="right")))
        zoom, pan = shot.zoom, (0.0, 0.0)
        object_zoom, jolt = 1.0, np.zeros(2)
        if a.camera == "pan":
            pan = (0.42 * n.camera_sign * (t - 0.5), 0.0)
        elif a.camera == "zoom":
            push = t if n.camera_sign > 0 else 1 - t
            zoom *= 1 + 0.6 * push
            object_zoom = 0.9 + 0.3 * push
        elif a.camera == "shake":
            jolt = 0.022 * np.sin(_TAU * (np.array([[7.3], [11.9], [17.1], [5.1]]) * t + n.shake)).sum(0)
        self._background(shot, zoom, pan, jolt, frame)

        x, y, grown = _motion(a.motion, t * n.speed + n.phase, n.reach)
        at = (shot.center[0] + x + jolt[0], shot.center[1] + y + jolt[1])
        radius = n.size * shot.size * grown * object_zoom
        c, s = np.cos(np.radians(n.tilt)), np.sin(np.radians(n.tilt))
        face = -1.0 if shot.mirrored else 1.0
        matrix = radius * np.array([[c * face * n.aspect, -s], [s * face * n.aspect, c]])
        _draw_object(frame, a.object, self.paint, at, matrix)
        if a.text != "none":
            draw_word(Pen(frame, size), a.text, n.text_at, n.text_size, self.paint["pale"], self.paint["o_dark"])
        self._grain(t, frame)

    def _background(
        self, shot: _Shot, zoom: float, pan: tuple[float, float], jolt: np.ndarray, frame: np.ndarray
    ) -> None:
        """What the camera sees of the shot's background."""
        size = self.size
        half = 0.5 / zoom
        sign = -1.0 if shot.mirrored else 1.0
        center = [min(max(0.5 + p, LOW + half), HIGH - half) for p in (sign * pan[0], pan[1])]
        # Canvas pixel q shows the world at (q + 0.5) / size + LOW; the world at w is seen at (w - center) · zoom + 0.5.
        shift = [
            (sg * zoom * ((0.5 / size) + LOW - m) + 0.5 + j) * size - 0.5
            for sg, m, j in zip((sign, 1.0), center, jolt, strict=True)
        ]
        matrix = np.array([[sign * zoom, 0, shift[0]], [0, zoom, shift[1]]])
        cv2.warpAffine(
            shot.background, matrix, (size, size), dst=frame, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )

    def _grain(self, t: float, frame: np.ndarray) -> None:
        """Brightness, contrast and noise of the clip, in place."""
        n = self.nuisance
        at = np.random.default_rng([self.seed, 3, int(t * 1e6)]).integers(256 - _NOISE_SIDE, size=2)
        grain = _noise()[at[0] : at[0] + _NOISE_SIDE, at[1] : at[1] + _NOISE_SIDE]
        if self.size != _NOISE_SIDE:
            grain = cv2.resize(grain, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        cv2.addWeighted(frame, n.gain, grain, n.noise, n.lift - 128 * n.noise, dst=frame)


def write_clip(
    path: str | os.PathLike[str],
    attributes: Attributes,
    seed: int,
    size: int = 256,
    fps: int = 12,
    seconds: float = 4.0,
) -> None:
    """Write a clip as an mp4 file: H.264 with a key frame every half second, or MPEG-4 where PyAV is missing.

    Raises:
        ArgumentError: An odd size, which H.264 cannot hold, or less than one frame.
        BackendError: Neither PyAV nor OpenCV can write the file here.
    """
    count = round(fps * seconds)
    if size % 2 or count < 1:
        raise ArgumentError(f"size must be even and fps · seconds at least 1, not {size} and {fps} · {seconds}")
    times = (np.arange(count) + 0.5) / count
    clip = _Clip(attributes, seed, size)

    def frames() -> Iterator[np.ndarray]:
        for t in times:
            frame = np.empty((size, size, 3), np.uint8)
            clip.draw(float(t), frame)
            yield frame

    if not _write_h264(Path(path), frames(), size, fps):
        _write_mpeg4(Path(path), frames(), size, fps)


def _write_h264(path: Path, frames: Iterator[np.ndarray], size: int, fps: int) -> bool:
    """Write with PyAV; False where it, or its H.264 encoder, is missing."""
    try:
        import av

        av.codec.Codec("libx264", "w")
    except (ImportError, ValueError):
        return False
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(fps), options={"preset": "veryfast", "crf": "20", "threads": "1"}
        )
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = max(1, round(fps / 2))
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return True


def _write_mpeg4(path: Path, frames: Iterator[np.ndarray], size: int, fps: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (size, size))
    if not writer.isOpened():
        raise BackendError(f"cannot write {path}: check that its folder exists, or {install.library('av')}")
    try:
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
