from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from stored import CONFIG, SPACE, new_store, put, stored, value

from linkedout_edge import Recommender, errors
from linkedout_edge.store import Fingerprint, TokenStore


def filled(count: int = 5) -> TokenStore:
    store = new_store()
    for n in range(count):
        put(store, f"v{n}.mp4", n % 120 + 1, title="ü\udcff" if n else None)
    return store


def test_packs_travel(tmp_path: Path) -> None:
    path = tmp_path / "pack.safetensors"
    assert filled().export_pack(path) == 5
    with stored(tmp_path / "d", "k") as s:
        put(s.store, "v1.mp4", 100)
        put(s.store, "mine", 7)
        assert s.store.import_pack(path) == tuple(f"v{n}.mp4" for n in range(5))
        assert s.store.stats().unsaved == 0
    with stored(tmp_path / "d", "k") as s:
        assert [value(s.store, f"v{n}.mp4") for n in range(5)] == [1, 2, 3, 4, 5]
        assert value(s.store, "mine") == 7
        assert s.tokens.fingerprint("v2.mp4") == Fingerprint("content 3", "ü\udcff")
        assert s.store.export_pack(path, ["mine", "v4.mp4"]) == 2
    other = new_store()
    assert other.import_pack(path) == ("mine", "v4.mp4")
    assert new_store().export_pack(path) == 0
    assert other.import_pack(path) == ()
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["pack.safetensors"]


def test_a_video_costs_about_a_kilobyte(tmp_path: Path) -> None:
    path = tmp_path / "p"
    filled(1000).export_pack(path)
    assert path.stat().st_size < 1000 * (CONFIG.payload_bytes + 64)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_a_pack_may_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    """And the umask, which belongs to all threads of the app, stays as it is meanwhile."""
    before = os.umask(0o027)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "umask", None)
            filled().export_pack(tmp_path / "pack.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "pack.safetensors").stat().st_mode & 0o777 == 0o640


def test_another_models_pack_is_refused(tmp_path: Path) -> None:
    filled().export_pack(tmp_path / "p")
    other = new_store(space="another")
    with pytest.raises(errors.TokenSpaceError, match="with the same bundle"):
        other.import_pack(tmp_path / "p")
    assert len(other) == 0


def spoil(path: Path, what: str) -> None:
    arrays, count = load_file(path), 5
    meta = {"format": "linkedout-pack", "version": "1", "token_space": SPACE}
    records = json.loads(arrays["records"].tobytes())
    match what:
        case "format":
            meta["format"] = "pt"
        case "version":
            meta["version"] = "2"
        case "shape":
            arrays["tokens"] = arrays["tokens"][:, :, :, 1:].copy()
        case "dtype":
            arrays["scales"] = arrays["scales"].astype(np.float64)
        case "count":
            arrays["scales"] = arrays["scales"][1:].copy()
        case "nan":
            arrays["scales"][2, 0, 0] = np.nan
        case "negative":
            arrays["scales"][2, 0, 0] = -1
        case "names":
            arrays["more"] = arrays["scales"]
        case "twice":
            records[1] = records[0]
        case "fewer":
            records.pop()
        case "record":
            records[0] = ["id", 3, "content"]
        case "empty id":
            records[0][0] = ""
        case "long":
            records[0][1] = "x" * 100_000
        case "object":
            records = {"a": count}  # type: ignore[assignment]
    text = b"{" if what == "json" else b"[" * 100_000 if what == "deep" else json.dumps(records).encode()
    arrays["records"] = np.frombuffer(text, np.uint8)
    save_file(arrays, path, meta)


SPOILT = {
    "format": "another kind of file than the pack",
    "version": "version '2'",
    "shape": r"tokens in the pack is I8 \[5, 3, 2, 15\]: expected",
    "dtype": "scales in the pack is F64",
    "count": "scales in the pack",
    "nan": "no numbers",
    "negative": "negative",
    "names": "expected tokens, scales, records",
    "twice": "occurs twice",
    "fewer": "not as many records",
    "record": "title or null",
    "empty id": "empty id",
    "long": "too long",
    "object": "not as many records",
    "json": "no JSON",
    "deep": "no JSON",
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_pack_changes_nothing(tmp_path: Path, what: str) -> None:
    filled().export_pack(tmp_path / "p")
    spoil(tmp_path / "p", what)
    store = new_store()
    with pytest.raises(errors.PackError, match=SPOILT[what]):
        store.import_pack(tmp_path / "p")
    assert len(store) == 0


def test_files_that_are_no_packs(tmp_path: Path) -> None:
    store, path = filled(), tmp_path / "p"
    with pytest.raises(errors.PackNotFoundError, match="no such file"):
        store.import_pack(path)
    with pytest.raises(errors.PackError, match="it is a directory"):
        store.import_pack(tmp_path)
    store.export_pack(path)
    with pytest.raises(errors.PackError, match="more than the 100 allowed"):
        store.import_pack(path, max_bytes=100)
    whole = path.read_bytes()
    for part in (b"", whole[:7], whole[:50], whole[:-1], b"\xff" * 100, whole + b"x"):
        path.write_bytes(part)
        with pytest.raises(errors.PackError):
            store.import_pack(path)
    path.write_bytes(whole)
    with pytest.raises(errors.PackError, match="at most 4"):
        new_store(4).import_pack(path)


def test_exporting_mistakes(tmp_path: Path) -> None:
    store = filled()
    with pytest.raises(errors.VideoNotFoundError, match="the first is 'nope'"):
        store.export_pack(tmp_path / "p", ["v0.mp4", "nope"])
    with pytest.raises(errors.StorageError, match=r"there is no folder .*nowhere: make it first"):
        store.export_pack(tmp_path / "nowhere" / "p")
    with pytest.raises(errors.StorageError, match=r"is a folder: name a file inside it, such as .*videos\.safetensors"):
        store.export_pack(tmp_path)
    for call in (store.export_pack, store.import_pack):
        with pytest.raises(errors.ArgumentTypeError, match=r"path must be a str or os\.PathLike, not int"):
            call(7)  # type: ignore[arg-type]
    with pytest.raises(errors.ArgumentTypeError):
        store.export_pack(tmp_path / "p", "v0.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_device_ranks_from_a_servers_pack(tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    names = [str(c) for c in clips]
    with Recommender.load(tiny_bundle, precision="fp32", decoder="opencv") as server:
        server.encode(names)
        expected = server.rank(names[:1], names[1:])
        server.store.export_pack(tmp_path / "p")
    with Recommender.load(tiny_bundle, precision="int8", decoder="opencv", data_dir=tmp_path / "d") as device:
        device.store.import_pack(tmp_path / "p")
        ranking = device.rank(names[:1], names[1:])
        assert ranking.timing.encode == 0
        assert ranking.ids == expected.ids
        assert device.encode(names).unchanged == tuple(names)
