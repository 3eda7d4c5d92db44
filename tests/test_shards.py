"""Photo shards: read like a folder of photos; what is damaged is skipped and named."""

import io

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="the workstation half is not installed")

from linkedout_quant.media import find_media, load_frames
from linkedout_quant.shards import DamagedShardError, list_shard

from linkedout_edge.errors import ArgumentError

COLOURS = [(10, 200, 30), (240, 10, 20), (0, 0, 250), (128, 128, 128)]


def encoded(color, side=16):
    picture = np.full((side, side, 3), color[::-1], np.uint8)
    return cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 95])[1].ravel()


def write_shard(path, blobs=None, groups=("birds", "birds", "boats", "boats"), **replaced):
    blobs = [encoded(c) for c in COLOURS] if blobs is None else blobs
    arrays = {"data": np.concatenate(blobs), "ends": np.cumsum([len(b) for b in blobs]), "group": np.array(groups)}
    np.savez(path, **(arrays | replaced))
    return path


def test_a_shard_is_read_like_a_folder_of_photos(tmp_path):
    write_shard(tmp_path / "shard_00.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))  # not called as a shard: not touched
    media = find_media([tmp_path], collection="1")
    assert [m.path.name for m in media] == [f"shard_00-0000{i}.webp" for i in range(4)]
    assert [m.collection for m in media] == ["birds", "birds", "boats", "boats"]
    assert all(m.still for m in media)
    good, frames, skipped = load_frames(media, 8, 64)
    assert good == media
    assert not skipped
    for picture, color in zip(frames, COLOURS, strict=True):
        assert picture.shape == (1, 16, 16, 3)
        assert np.abs(picture.astype(int) - color).max() < 12
    assert find_media([tmp_path / "shard_00.npz"]) == find_media([tmp_path])


def test_a_photo_that_is_none_is_skipped_by_name(tmp_path):
    blobs = [encoded(COLOURS[0]), np.frombuffer(b"no picture", np.uint8), np.zeros(0, np.uint8), encoded(COLOURS[1])]
    write_shard(tmp_path / "shard_00.npz", blobs)
    good, _, skipped = load_frames(find_media([tmp_path]), 8, 64)
    assert [m.path.name for m in good] == ["shard_00-00000.webp", "shard_00-00003.webp"]
    assert [s.path.name for s in skipped] == ["shard_00-00001.webp", "shard_00-00002.webp"]


def npy():
    """A single array, which is no archive of several."""
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    return out.getvalue()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """A byte in the middle of the photos, which only the file's checksum sees."""
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 4] ^= 0xFF
    path.write_bytes(whole)


@pytest.mark.parametrize(
    "harm",
    [
        cut,
        flip,
        lambda p: p.write_bytes(b"no archive"),
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(npy()),
        lambda p: np.savez(p, data=np.zeros(3, np.uint8)),
        lambda p: write_shard(p, ends=np.array([5, 3, 8, 9])),
        lambda p: write_shard(p, ends=np.array([1, 2, 3, 10**9])),
        lambda p: write_shard(p, ends=np.array(["a", "b", "c", "d"])),
        lambda p: write_shard(p, groups=("birds",)),
        lambda p: write_shard(p, data=np.zeros(9000)),
        lambda p: write_shard(p, group=np.array([{"run": "me"}] * 4, dtype=object)),
    ],
)
def test_a_damaged_shard_is_named_once_and_the_others_are_read(tmp_path, harm):
    write_shard(tmp_path / "shard_00.npz", [np.tile(encoded(c, 64), 40) for c in COLOURS])
    harm(tmp_path / "shard_00.npz")
    write_shard(tmp_path / "shard_01.npz")
    good, frames, skipped = load_frames(find_media([tmp_path]), 8, 64)
    assert [m.path.parent.name for m in good] == ["shard_01.npz"] * 4
    assert len(frames) == 4
    assert [s.path.name for s in skipped] == ["shard_00.npz"]
    assert "shard_00.npz is" in skipped[0].reason


def test_damaged_shards_alone_are_an_error(tmp_path):
    (tmp_path / "shard_00.npz").write_bytes(b"no archive")
    with pytest.raises(ArgumentError, match=r"none of the 1 files can be read.*shard_00\.npz is damaged"):
        load_frames(find_media([tmp_path]), 8, 64)
    with pytest.raises(DamagedShardError):
        list_shard(tmp_path / "shard_00.npz")
