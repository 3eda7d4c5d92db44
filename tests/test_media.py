"""What a training learns from: folders, index files, and what to say of those that are wrong."""

import csv

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="the workstation half is not installed")

from linkedout_quant.media import Media, find_media, load_frames, new_media

from linkedout_edge.errors import ArgumentError


@pytest.fixture
def folder(tmp_path):
    """Two photos, one of them in a subfolder, and a text."""
    rng = np.random.default_rng(0)
    (tmp_path / "more").mkdir()
    for name in ("a.png", "more/b.jpg"):
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    (tmp_path / "notes.txt").write_text("no video")
    return tmp_path


def write_index(folder, rows):
    index = folder / "index.csv"
    with index.open("w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return index


def names(media):
    return [m.path.name for m in media]


def test_a_folder_gives_its_photos_and_videos_and_no_texts(folder):
    assert names(find_media([folder])) == ["a.png", "b.jpg"]
    assert names(find_media([folder, folder / "more"])) == ["a.png", "b.jpg"]  # each once


def test_what_is_known_by_another_way_is_not_new(folder):
    known = find_media([folder / "more"])
    found = find_media([folder / "more" / ".."])
    assert names(new_media(found, known)) == ["a.png"]
    assert names(new_media(found, [])) == ["a.png", "b.jpg"]


def test_an_index_gives_captions_and_finds_files_below_it(folder):
    index = write_index(
        folder,
        [
            {"image": "a.png", "caption": "noise", "split": "train"},
            {"image": "a.png", "caption": "more noise", "split": "train"},
            {"image": "b.jpg", "caption": "grey", "split": "test"},
        ],
    )
    both = find_media([index])
    assert both[0] == Media(folder / "a.png", ("noise", "more noise"))
    assert both[1].path == folder / "more" / "b.jpg"
    assert names(find_media([index], split="train")) == ["a.png"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"image": "gone.png", "caption": "x"}], r"line 2: there is no gone\.png"),
        ([{"name": "a.png"}], "one of video, image, path, file must name the files"),
    ],
)
def test_a_wrong_index_is_told_what_is_wrong(folder, rows, said):
    with pytest.raises(ArgumentError, match=said):
        find_media([write_index(folder, rows)])


def test_nothing_to_learn_from_is_an_error(tmp_path):
    with pytest.raises(ArgumentError, match="no videos or photos found"):
        find_media([tmp_path])
    with pytest.raises(ArgumentError, match=r"neither a folder nor a \.csv"):
        find_media([tmp_path / "absent"])


def test_unreadable_files_are_skipped_and_listed(folder):
    (folder / "broken.jpg").write_bytes(b"not a photo")
    (folder / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    media, frames, skipped = load_frames(find_media([folder]), 4, 32)
    assert names(media) == ["a.png", "b.jpg"]
    assert [f.shape for f in frames] == [(1, 40, 60, 3)] * 2
    assert {s.path.name for s in skipped} == {"broken.jpg", "cut.mp4"}
    assert all(s.reason for s in skipped)
    with pytest.raises(ArgumentError, match="none of the 1 files"):
        load_frames([Media(folder / "broken.jpg")], 4, 32)


def test_what_is_held_back_does_not_depend_on_the_folder(tmp_path):
    shares = [Media(tmp_path / f"{i}.jpg").held_back for i in range(2000)]
    assert 150 < sum(shares) < 250
    assert shares == [Media(tmp_path / "elsewhere" / f"{i}.jpg").held_back for i in range(2000)]
