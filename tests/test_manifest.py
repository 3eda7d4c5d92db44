"""Bundles: what is read, and every way in which a bundle can be bad."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linkedout_edge.bundle import open_bundle, reader
from linkedout_edge.bundle.manifest import MAX_MANIFEST_BYTES, check_path, parse_manifest
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import (
    ArgumentError,
    ArgumentTypeError,
    BundleCorruptError,
    BundleNotFoundError,
    BundleVersionError,
)


def entry(path: str, data: bytes) -> dict[str, Any]:
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def write(folder: Path) -> Path:
    """A bundle of a meaningless graph: nothing here runs it."""
    files: dict[str, bytes] = {"tokenizer.json": b'{"vocab": {}, "merges": []}'}
    precisions: dict[str, Any] = {}
    for precision in ("int8", "fp32"):
        path, data = f"onnx/{precision}/encoder.onnx", f"{precision} encoder".encode() * 99
        files[path] = data
        precisions[precision] = {"files": {"encoder": entry(path, data)}}
    manifest = {
        "format_version": 2,
        "name": "test",
        "token_space": "0" * 64,
        "config": json.loads(json.dumps({f: getattr(ModelConfig.tiny(), f) for f in ModelConfig.__struct_fields__})),
        "precisions": precisions,
        "tokenizer": entry("tokenizer.json", files["tokenizer.json"]),
        "user_model": {"mean": [[0.5] * 32] * 3, "size": [3, 1.5, 2e-3], "layer_prior": [0, 1, 2], "score_scale": 2.0},
        "layer_names": ["a", "b", "c"],
        "from_a_later_version": {"of": "the same format"},
    }
    files["manifest.json"] = json.dumps(manifest).encode()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(folder: Path) -> Path:
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as z:
        for file in sorted(folder.rglob("*")):
            z.write(file, file.relative_to(folder).as_posix())
    return target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "b")


def use(bundle: Path, precision: str | None = None) -> None:
    """Read everything that loading reads."""
    with open_bundle(bundle, precision) as b:
        b.tokenizer()
        b.encoder()


@pytest.mark.parametrize("kind", [lambda f: f, zipped], ids=["folder", "zip"])
def test_folder_and_zip_read_the_same(folder: Path, kind: Callable[[Path], Path]) -> None:
    with open_bundle(kind(folder)) as bundle:
        assert bundle.precision == "int8"  # the first
        assert bundle.manifest.config == ModelConfig.tiny()
        assert bundle.encoder() == b"int8 encoder" * 99
        assert not bundle.embedded
    with open_bundle(str(kind(folder)), "fp32") as bundle:
        assert bundle.encoder() == b"fp32 encoder" * 99
        assert json.loads(bundle.tokenizer()) == {"vocab": {}, "merges": []}


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return apply


def set_path(path: str) -> Callable[[Path], None]:
    return edit(lambda m: m["precisions"]["int8"]["files"]["encoder"].update(path=path))


def flip(folder: Path) -> None:
    file = folder / "onnx/int8/encoder.onnx"
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)


def raw(data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "manifest.json").write_bytes(data) and None


DEEP = b'{"format_version": 1, "x": ' + b"[" * 1000 + b"]" * 1000 + b"}"
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "changed byte": (flip, "SHA-256"),
    "shorter file": (lambda f: (f / "onnx/int8/encoder.onnx").write_bytes(b"x"), "the manifest says"),
    "longer file": (lambda f: (f / "tokenizer.json").write_bytes(b"x" * 9999), "at most"),
    "missing graph file": (lambda f: (f / "onnx/int8/encoder.onnx").unlink(), "encoder.onnx is missing"),
    "missing manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
    "missing graph entry": (edit(lambda m: m["precisions"]["fp32"]["files"].pop("encoder")), "'fp32' has no encoder"),
    "unknown graph": (edit(lambda m: m["precisions"]["int8"]["files"].update(evil=entry("x", b""))), "not valid"),
    "no precisions": (edit(lambda m: m.update(precisions={})), "no precisions"),
    "no config": (edit(lambda m: m.pop("config")), "config"),
    "wrong type": (edit(lambda m: m.update(name=3)), "name"),
    "bad sha256": (edit(lambda m: m["tokenizer"].update(sha256="zz")), "sha256"),
    "negative size": (edit(lambda m: m["tokenizer"].update(bytes=-1)), "bytes"),
    "absurd size": (edit(lambda m: m["tokenizer"].update(bytes=1 << 40)), "at most"),
    "version 0": (edit(lambda m: m.update(format_version=0)), "format_version"),
    "no user model": (edit(lambda m: m.pop("user_model")), "user_model"),
    "too few layers": (edit(lambda m: m["user_model"]["mean"].pop()), "3 lists of 32 numbers"),
    "a ragged mean": (
        edit(lambda m: m["user_model"]["mean"].append(m["user_model"]["mean"].pop()[:-1])),
        "3 lists of 32",
    ),
    "no finite mean": (edit(lambda m: m["user_model"].update(mean=[[None] * 32] * 3)), r"user_model\.mean"),
    "too few sizes": (edit(lambda m: m["user_model"]["size"].pop()), "2 numbers for 3 layers"),
    "no size": (edit(lambda m: m["user_model"].update(size=[1, 0, 1])), r"user_model\.size"),
    "a short prior": (edit(lambda m: m["user_model"].update(layer_prior=[1])), "layer_prior is"),
    "an empty prior": (edit(lambda m: m["user_model"].update(layer_prior=[0, 0, 0])), "not all 0"),
    "a negative prior": (edit(lambda m: m["user_model"].update(layer_prior=[1, -1, 1])), r"user_model\.layer_prior"),
    "no scale": (edit(lambda m: m["user_model"].update(score_scale=0)), r"user_model\.score_scale"),
    "layers": (edit(lambda m: m.update(layer_names=["one"])), "1 layers of 3"),
    "absurd shape": (edit(lambda m: m["config"].update(frame_size=60_000)), "memory"),
    "zero shape": (edit(lambda m: m["config"].update(frames=0)), "config.frames"),
    "empty manifest": (raw(b""), "not valid"),
    "not JSON": (raw(b"\xff\xfe{}"), "not valid"),
    "a list": (raw(b"[]"), "not valid"),
    "1,000 levels": (raw(DEEP), "levels deep"),
    "too large": (raw(b" " * (MAX_MANIFEST_BYTES + 1)), "at most"),
    "absolute path": (set_path("/etc/passwd"), "stays inside"),
    "parent path": (set_path("../b/onnx/int8/encoder.onnx"), "stays inside"),
    "hidden parent": (set_path("onnx/../../x"), "stays inside"),
    "drive": (set_path("C:/x"), "stays inside"),
    "backslash": (set_path("..\\x"), "stays inside"),
    "NUL": (set_path("a\0b"), "stays inside"),
}


@pytest.mark.parametrize("kind", [lambda f: f, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_bundle_is_our_own_error(folder: Path, name: str, kind: Callable[[Path], Path]) -> None:
    damage, words = BAD[name]
    damage(folder)
    with pytest.raises(BundleCorruptError, match=words):
        use(kind(folder))


def test_brackets_in_strings_do_not_count_as_nesting(folder: Path) -> None:
    edit(lambda m: m.update(provenance='[{"\\' * 500))(folder)
    use(folder)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"format_version": 3}', "pip install --upgrade"),
        (b'{"config": 7, "format_version": 99, "precisions": []}', "pip install --upgrade"),
        (
            b'{"format_version": 1}',
            r"version 1, .* reads 2: export the bundle again.* or install the version",
        ),
    ],
)
def test_another_format_is_refused_before_anything_else(data: bytes, words: str) -> None:
    with pytest.raises(BundleVersionError, match=words):
        parse_manifest(data)


def test_a_user_model_may_trust_all_layers_alike_and_holds_finite_numbers(folder: Path) -> None:
    edit(lambda m: [m["user_model"].pop(name) for name in ("layer_prior", "score_scale")])(folder)
    with open_bundle(folder) as bundle:
        model = bundle.manifest.user_model
    assert (model.layer_prior, model.score_scale) == ([], 1.0)
    text = (folder / "manifest.json").read_text()
    for infinite in ("1e999", "Infinity", "NaN"):
        (folder / "manifest.json").write_text(text.replace("1.5", infinite))
        with pytest.raises(BundleCorruptError, match="not valid"):
            use(folder)


def test_a_manifest_of_100_mb_is_not_read(folder: Path) -> None:
    with (folder / "manifest.json").open("wb") as f:
        f.truncate(100 << 20)
    with pytest.raises(BundleCorruptError, match="104,857,600 bytes"):
        use(folder)
    with pytest.raises(BundleCorruptError, match="104,857,600 bytes"):
        use(zipped(folder))


def test_links_may_not_leave_the_folder(folder: Path, tmp_path: Path) -> None:
    graph = folder / "onnx/int8/encoder.onnx"
    outside = tmp_path / "outside.onnx"
    shutil.move(graph, outside)
    graph.symlink_to(outside)
    with pytest.raises(BundleCorruptError, match="leaves the bundle"):
        use(folder)
    graph.unlink()
    shutil.move(outside, folder / "elsewhere.onnx")
    graph.symlink_to(folder / "elsewhere.onnx")  # inside is fine
    use(folder)
    graph.unlink()
    graph.symlink_to(graph)
    with pytest.raises(BundleCorruptError):
        use(folder)


def test_a_fifo_in_a_bundle_does_not_block(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(BundleCorruptError, match="regular file"):
        use(folder)


def test_zip_bombs_are_refused(folder: Path) -> None:
    bomb = bytes(64 << 20)
    (folder / "onnx/int8/encoder.onnx").write_bytes(bomb)
    edit(lambda m: m["precisions"]["int8"]["files"].update(encoder=entry("onnx/int8/encoder.onnx", bomb)))(folder)
    with pytest.raises(BundleCorruptError, match="inflate"):
        use(zipped(folder))


def test_zips_that_are_none_or_hold_a_folder(folder: Path, tmp_path: Path) -> None:
    fake = tmp_path / "fake.zip"
    fake.write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(BundleCorruptError, match=r"neither a folder nor a readable \.zip"):
        use(fake)
    nested = tmp_path / "nested.zip"
    with zipfile.ZipFile(nested, "w") as z:
        z.write(folder / "manifest.json", "b/manifest.json")
    with pytest.raises(BundleCorruptError, match="zip the folder's contents"):
        use(nested)
    twice = zipped(folder)
    with zipfile.ZipFile(twice, "a") as z, pytest.warns(UserWarning, match="Duplicate"):
        z.writestr("tokenizer.json", b"{}")
    with pytest.raises(BundleCorruptError, match="2 times"):
        use(twice)
    short = zipped(folder)
    data = short.read_bytes()
    short.write_bytes(data[:200] + bytes(200) + data[400:])
    with pytest.raises(BundleCorruptError):
        use(short)


def test_unknown_names_list_what_would_be_right(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "embedded_folder", lambda: folder)
    with open_bundle("fp32") as b:
        assert (b.embedded, b.precision) == (True, "fp32")
    assert open_bundle("int8", "int8").precision == "int8"
    with pytest.raises(BundleNotFoundError, match=r"'int8', 'fp32'\. Did you mean 'int8'\? Or pass an existing folder"):
        open_bundle("int9")
    with pytest.raises(FileNotFoundError, match="there is none at"):
        open_bundle(folder / "nope")
    with pytest.raises(BundleNotFoundError):
        open_bundle("")
    with pytest.raises(ArgumentError, match="built-in bundle 'int4': expected one of 'int8', 'fp32'"):
        open_bundle("int4")
    with pytest.raises(ArgumentError, match=r"contradicts itself.*load\('fp32'\)"):
        open_bundle("int8", "fp32")
    with pytest.raises(ArgumentError, match=r"precision of .* 'int3': expected one of 'int8', 'fp32'"):
        open_bundle(folder, "int3")
    with pytest.raises(ArgumentTypeError, match="bundle must be a str or path"):
        open_bundle(3)  # type: ignore[arg-type]


def test_an_installation_without_a_bundle_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "embedded_folder", lambda: tmp_path / "none")
    with pytest.raises(BundleNotFoundError, match="no built-in bundle"):
        open_bundle()
    with pytest.raises(BundleNotFoundError, match="existing folder or"):
        open_bundle("x")


@pytest.mark.parametrize("path", ["a", "a/b.onnx", "a/b..c", "...x/y"])
def test_harmless_paths_pass(path: str) -> None:
    check_path(path)
