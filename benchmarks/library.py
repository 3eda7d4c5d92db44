"""Looking at a library of many clips: quick and full looks, one core and all, beside what one would write by hand.

    python benchmarks/library.py make PHOTOS FOLDER      # 48 clips of photos, with ffmpeg (some minutes)
    python benchmarks/library.py run FOLDER --videos 200 # all measurements below
    python benchmarks/library.py run FOLDER --only new,scale

Clips are H.264, HEVC, AV1 and VP9, 240p to 1080p, 5 to 9 seconds, with key frames every 1, 2 and 8 seconds, of moving
crops of photos. A library of more videos than clips holds each clip several times, under names of its own. Prints a
line a measurement, and ends with one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
from pathlib import Path

import cv2
import numpy as np

CODECS = {
    "h264": ["-c:v", "libx264", "-preset", "veryfast", "-crf", "26"],
    "hevc": ["-c:v", "libx265", "-preset", "ultrafast", "-crf", "28", "-x265-params", "log-level=error:pools=2"],
    "av1": ["-c:v", "libsvtav1", "-preset", "12", "-crf", "40"],
    "vp9": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M", "-row-mt", "1"],
}
HEIGHTS = {"240p": (426, 240), "480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
KEYS = (1, 2, 8)
"""Seconds between key frames."""
FPS = 30


def make(photos: list[Path], folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for n, (codec, height, key) in enumerate(itertools.product(CODECS, HEIGHTS, KEYS)):
        path = folder / f"{codec}_{height}_{key}s.{'webm' if codec == 'vp9' else 'mp4'}"
        if path.exists():
            continue
        width, tall = HEIGHTS[height]
        command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{tall}"]
        command += ["-r", str(FPS), "-i", "-", *CODECS[codec], "-g", str(key * FPS), "-pix_fmt", "yuv420p"]
        unfinished = path.with_suffix(".part" + path.suffix)
        with subprocess.Popen([*command, str(unfinished)], stdin=subprocess.PIPE) as ffmpeg:
            assert ffmpeg.stdin is not None
            for shot in rng.choice(len(photos), 3, replace=False):
                for frame in moving_crop(cv2.imread(str(photos[shot])), (width, tall), 45 + n % 3 * 20, rng):
                    ffmpeg.stdin.write(frame.tobytes())
        unfinished.rename(path)


def moving_crop(photo: np.ndarray, size: tuple[int, int], count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """A window that slides and zooms over a photo: `count` frames uint8 [H, W, 3]."""
    high, wide = photo.shape[:2]
    share = size[0] / size[1]
    full = min(wide, high * share)
    ends = []
    for _ in range(2):
        w = full * rng.uniform(0.6, 0.95)
        ends.append((rng.uniform(0, wide - w), rng.uniform(0, high - w / share), w))
    frames = []
    for t in np.linspace(0, 1, count):
        x, y, w = ((1 - t) * a + t * b for a, b in zip(*ends, strict=True))
        move = np.array([[size[0] / w, 0, -x * size[0] / w], [0, size[0] / w, -y * size[0] / w]])
        frames.append(cv2.warpAffine(photo, move, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT))
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    making = actions.add_parser("make")
    making.add_argument("photos", type=Path)
    making.add_argument("folder", type=Path)
    args = parser.parse_args()
    make(sorted(args.photos.glob("*.jpg")), args.folder)


if __name__ == "__main__":
    main()
