"""Photos out of packages: found in resource files, cut-outs pasted onto others, one index for all. No network."""

import csv
import io
import subprocess

import numpy as np
import pytest

pytest.importorskip("torch", reason="the workstation half is not installed")
Image = pytest.importorskip("PIL.Image", reason="the workstation half is not installed")

from linkedout_quant import openphotos  # noqa: E402
from linkedout_quant.media import Media, find_media  # noqa: E402
from linkedout_quant.openphotos import Package, photos_of, webp_images, write_photos  # noqa: E402

from linkedout_edge.errors import ArgumentError  # noqa: E402


def picture(seed, size=(200, 150)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def webp(image):
    data = io.BytesIO()
    image.save(data, "WEBP", lossless=True)
    return data.getvalue()


@pytest.fixture
def package(tmp_path):
    """An unpacked package: two photos in a resource file (one of them twice), a cut-out with a label, an icon."""
    root = tmp_path / "unpacked"
    folder = root / "usr/share/things/animals"
    folder.mkdir(parents=True)
    one, two = webp(picture(1)), webp(picture(2))
    (folder / "all.rcc").write_bytes(b"qres" + one + b"xxRIFFxxxxWEBPno picture" + two + one)
    cut_out = picture(3).convert("RGBA")
    alpha = np.zeros((150, 200), np.uint8)
    alpha[30:120, 50:180] = 255
    cut_out.putalpha(Image.fromarray(alpha))
    cut_out.save(folder / "frog.png")
    (folder / "frog.txt").write_text("A frog.\nde=Ein Frosch.\n")
    picture(4, (16, 16)).save(folder / "icon.png")
    return root, Package("things", ("usr/share/things/**/*.rcc", "usr/share/things/**/*.png"))


def test_webp_files_are_found_where_they_lie():
    one, two = webp(picture(1)), webp(picture(2))
    assert list(webp_images(b"abc" + one + b"RIFF" + two)) == [one, two]
    assert list(webp_images(b"nothing")) == []


def test_photos_are_told_from_icons_and_come_once(package):
    root, what = package
    found = list(photos_of(what, root))
    assert [p.image.mode for p in found] == ["RGB", "RGB", "RGBA"]
    assert found[2].image.size == (130, 90)  # cropped to what is not transparent
    assert [p.label for p in found] == ["", "", "A frog."]
    assert not list(photos_of(Package("things", what.patterns, ("animals",)), root))


def test_cut_outs_are_pasted_and_an_index_names_all(package, tmp_path, monkeypatch):
    root, what = package
    monkeypatch.setattr(openphotos, "download", lambda name, folder: root)
    assert write_photos(tmp_path / "out", (what,)) == 2 + openphotos.COPIES
    with (tmp_path / "out" / "photos.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert [r["label"] for r in rows] == ["", ""] + ["A frog."] * openphotos.COPIES
    media = find_media([tmp_path / "out" / "photos.csv"], collection="open")
    assert len(media) == len(rows)
    assert {m.collection for m in media} == {"open"}
    pasted = [np.asarray(Image.open(m.path)) for m in media[2:]]
    assert all(p.shape == (320, 320, 3) for p in pasted)
    assert all(np.abs(pasted[0].astype(int) - p).mean() > 1 for p in pasted[1:])  # each somewhere else


def test_one_of_several_pictures_of_a_thing_is_not_held_back(tmp_path):
    assert any(Media(tmp_path / f"thing-{i}.jpg").held_back for i in range(40))
    assert not any(Media(tmp_path / f"thing-{i}@0.jpg").held_back for i in range(40))


def test_what_cannot_be_fetched_says_so(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise subprocess.CalledProcessError(100, "apt-get", stderr="E: Unable to locate package things\n")

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(ArgumentError, match="Unable to locate package things"):
        openphotos.download("things", tmp_path)

    def absent(*_, **__):
        raise FileNotFoundError(2, "No such file", "apt-get")

    monkeypatch.setattr(subprocess, "run", absent)
    with pytest.raises(ArgumentError, match="apt-get is missing"):
        openphotos.download("things", tmp_path)
