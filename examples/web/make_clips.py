"""The twelve clips of the demo page: slow pans over openly licensed photographs of Debian packages.

    python examples/web/make_clips.py

Needs APT and dpkg (the packages are downloaded, not installed). clips/CREDITS.md says whose photographs they are.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import av
import cv2
import numpy as np

PACKAGES = ("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04")
FOLDER = "usr/share/backgrounds"
WIDTH, HEIGHT, RATE, SECONDS = 384, 240, 24, 5
# Name of the clip: photograph, and where the pan begins and ends: center x, y and width, as parts of the photograph.
CLIPS: dict[str, tuple[str, tuple[float, float, float], tuple[float, float, float]]] = {
    "mountain-meadow": ("aitzgorri_by_Aitzol_Berasategi.jpg", (0.45, 0.55, 0.9), (0.6, 0.4, 0.5)),
    "brushes": ("Picture_1A_by_freespace.jpg", (0.3, 0.5, 0.6), (0.6, 0.5, 0.8)),
    "dandelions": ("seeding_by_Clements_Engelhardt.jpg", (0.35, 0.45, 0.6), (0.6, 0.55, 0.8)),
    "high-peaks": ("picosdeeuropa_by_Aitzol_Berasategi.jpg", (0.3, 0.55, 0.6), (0.65, 0.45, 0.7)),
    "fig": ("Picture_0B_by_freespace.jpg", (0.5, 0.5, 1.0), (0.55, 0.55, 0.5)),
    "nuthatch": ("Kleiber_by_Lukas_Baubkus.jpg", (0.5, 0.5, 1.0), (0.45, 0.5, 0.5)),
    "sunset": ("sunset_by_Aitzol_Berasategi.jpg", (0.4, 0.55, 0.8), (0.55, 0.5, 0.5)),
    "drum-and-wine": ("Wine_by_Jakkub_Mede.jpg", (0.5, 0.65, 1.0), (0.5, 0.35, 0.7)),
    "dragonfly": ("Dragonfly_by_Bolly.jpg", (0.5, 0.5, 0.9), (0.6, 0.4, 0.4)),
    "forest-stream": ("life_by_Aitzol_Berasategi.jpg", (0.5, 0.35, 0.7), (0.5, 0.65, 0.7)),
    "clock": ("greentock_by_Peter_Nerlich.jpg", (0.5, 0.5, 0.9), (0.65, 0.35, 0.6)),
    "river-bridge": ("Bridge_by_Sander_Klootwijk.jpg", (0.4, 0.6, 0.7), (0.6, 0.5, 0.9)),
}


def write(path: Path, photo: np.ndarray, start: tuple[float, ...], end: tuple[float, ...]) -> None:
    """Pan over a photograph, uint8 [H, W, 3] BGR."""
    height, width = photo.shape[:2]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libvpx-vp9", rate=RATE, options={"crf": "40", "cpu-used": "2"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 150_000
        for t in np.linspace(0, 1, RATE * SECONDS):
            x, y, part = np.array(start) + (np.array(end) - start) * (t * t * (3 - 2 * t))
            w = min(part * width, height * WIDTH / HEIGHT)
            h = w * HEIGHT / WIDTH
            left, top = np.clip((x * width - w / 2, y * height - h / 2), 0, (width - w, height - h))
            move = np.array([[WIDTH / w, 0, -left * WIDTH / w], [0, HEIGHT / h, -top * HEIGHT / h]])
            picture = cv2.warpAffine(photo, move, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)


def main() -> None:
    """Fetch the packages and write the clips."""
    out = Path(__file__).parent / "clips"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder / "files"], check=True)
        for clip, (photo, start, end) in CLIPS.items():
            picture = cv2.imread(str(folder / "files" / FOLDER / photo))
            height, width = picture.shape[:2]
            scale = 1400 / min(width, height)  # smooth, without what no clip can show
            size = (round(width * scale), round(height * scale))
            write(out / f"{clip}.webm", cv2.resize(picture, size, interpolation=cv2.INTER_AREA), start, end)


if __name__ == "__main__":
    main()
