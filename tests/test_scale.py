"""Folders of packs: the same bytes from every engine and after every interruption; failures are rows."""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from filelock import FileLock
from safetensors.numpy import load_file

from linkedout_edge import Recommender
from linkedout_edge.cli.main import cli
from linkedout_edge.decode import get_decoder
from linkedout_edge.errors import ArgumentError, LinkedOutError, MissingDependencyError, StorageError, TokenSpaceError
from linkedout_edge.scale import PacksResult, encode_to_packs
from linkedout_edge.scale.shards import by_shard, shard_of

SHARDS = 3


@pytest.fixture
def library(tmp_path: Path, clips: list[Path]) -> list[Path]:
    """Six clips, a file that is no video, and one that is not there."""
    folder = tmp_path / "library"
    folder.mkdir()
    videos = [Path(shutil.copy(c, folder)) for c in clips]
    text = folder / "text.mp4"
    text.write_text("no video")
    return [*videos, text, folder / "gone.mp4"]


@pytest.fixture
def model(tiny_bundle: Path) -> dict[str, Any]:
    return {"bundle": str(tiny_bundle), "precision": "fp32"}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def codes(result: PacksResult) -> dict[str, str]:
    return {Path(r["id"]).name: r["code"] for r in map(json.loads, result.failures.read_text().splitlines())}


def counts(result: PacksResult) -> tuple[int, int, int]:
    return result.encoded, result.unchanged, result.failed


def brightness(path: str, count: int, size: int, limits: Any) -> np.ndarray:
    """A decoder that looks at bytes: quick, and different for every clip."""
    return np.full((1, size, size, 3), sum(Path(path).read_bytes()) % 256, np.uint8)


def test_every_video_is_in_one_pack_or_in_the_failures(
    library: list[Path], model: dict[str, Any], tmp_path: Path, rec: Recommender
) -> None:
    steps: list[tuple[int, int]] = []
    result = encode_to_packs(
        library, tmp_path / "packs", shards=SHARDS, model=model, progress=lambda *step: steps.append(step)
    )
    assert counts(result) == (6, 0, 2)
    assert codes(result) == {"text.mp4": "unreadable", "gone.mp4": "not_found"}
    assert steps[-1] == (8, 8)
    packs = sorted((tmp_path / "packs").glob("*.safetensors"))
    imported = [i for p in packs for i in rec.store.import_pack(p)]
    assert sorted(imported) == sorted(map(str, library[:6]))
    assert len(packs) == result.packs == len(by_shard(imported, SHARDS))
    known = rec.encode(library[:6])
    assert len(known.unchanged) == 6  # the packs say what the files held


def test_packs_depend_on_the_videos_alone(library: list[Path], model: dict[str, Any], tmp_path: Path) -> None:
    at_once, bit_by_bit = tmp_path / "at_once", tmp_path / "bit_by_bit"
    encode_to_packs(library, at_once, shards=SHARDS, model=model)
    encode_to_packs(library[3:], bit_by_bit, shards=SHARDS, model=model)
    encode_to_packs(library[4::-1], bit_by_bit, model=model)
    result = encode_to_packs([*library, *library], bit_by_bit, model=model)
    assert counts(result) == (0, 6, 2)
    assert contents(bit_by_bit) == contents(at_once)


def test_only_what_changed_is_encoded_again(library: list[Path], model: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "packs"
    encode_to_packs(library[:5], folder, shards=SHARDS, model=model)
    before = contents(folder)
    shutil.copy(library[5], library[0])
    assert counts(encode_to_packs(library[:5], folder, model=model)) == (1, 4, 0)
    after = contents(folder)
    assert {n for n in after if after[n] != before[n]} == {
        f"videos-{shard_of(str(library[0]), SHARDS):06d}-of-{SHARDS:06d}.safetensors"
    }


def test_a_run_that_was_cut_off_goes_on(library: list[Path], model: dict[str, Any], tmp_path: Path) -> None:
    seen: list[str] = []

    def interrupted(path: str, *rest: Any) -> np.ndarray:
        seen.append(path)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return brightness(path, *rest)

    cut, whole = tmp_path / "cut", tmp_path / "whole"
    with pytest.raises(KeyboardInterrupt):
        encode_to_packs(library[:6], cut, shards=SHARDS, model=model, decoder=interrupted)
    kept = contents(cut).keys()
    assert any(n.endswith(".safetensors") for n in kept)
    (cut / ".videos-000000-of-000003.safetensors.x1y2").write_bytes(b"half a pack")
    result = encode_to_packs(library[:6], cut, model=model, decoder=interrupted)
    assert result.encoded < 6
    assert result.encoded + result.unchanged == 6
    encode_to_packs(library[:6], whole, shards=SHARDS, model=model, decoder=brightness)
    assert contents(cut) == contents(whole)


def test_what_kills_the_process_is_a_failure_the_third_time(
    library: list[Path], model: dict[str, Any], tmp_path: Path
) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import os, signal, sys, json\n"
        "import numpy as np\n"
        "from linkedout_edge.scale import encode_to_packs\n"
        "def decoder(path, count, size, limits):\n"
        "    if path.endswith('clip2.mp4'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return np.zeros((1, size, size, 3), np.uint8)\n"
        "encode_to_packs(sys.argv[2:], sys.argv[1], shards=1, model=json.loads(os.environ['MODEL']), decoder=decoder)\n"
    )
    folder = tmp_path / "packs"
    run = [sys.executable, str(script), str(folder), *map(str, library[:6])]
    environment = {**os.environ, "MODEL": json.dumps(model)}
    codes_of_exit = [subprocess.run(run, env=environment, check=False, timeout=120).returncode for _ in range(3)]
    assert codes_of_exit == [-signal.SIGKILL, -signal.SIGKILL, 0]
    failures = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    assert [(Path(f["id"]).name, f["code"]) for f in failures] == [("clip2.mp4", "worker_died")]
    assert {p.name for p in folder.iterdir()} == {"failures.jsonl", "videos-000000-of-000001.safetensors"}


def test_a_programming_error_in_a_decoder_is_a_row(library: list[Path], model: dict[str, Any], tmp_path: Path) -> None:
    def wrong(path: str, *rest: Any) -> np.ndarray:
        if path.endswith("clip1.mp4"):
            raise TypeError("of the decoder's own")
        return brightness(path, *rest)

    result = encode_to_packs(library[:6], tmp_path / "packs", model=model, decoder=wrong)
    assert counts(result) == (5, 0, 1)
    assert codes(result) == {"clip1.mp4": "internal"}


def test_a_damaged_pack_is_set_aside_and_made_again(library: list[Path], model: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "packs"
    encode_to_packs(library[:6], folder, shards=1, model=model)
    (pack,) = folder.glob("*.safetensors")
    whole = pack.read_bytes()
    pack.write_bytes(whole[:-7])
    result = encode_to_packs(library[:6], folder, model=model)
    assert result.damaged == (pack.name,)
    assert pack.read_bytes() == whole
    assert (folder / f"{pack.name}.damaged").read_bytes() == whole[:-7]


def other_space(folder: Path, ids: list[Path]) -> None:
    """Write the first pack of a folder of 1 shard, in another token space."""
    from linkedout_edge.config import ModelConfig
    from linkedout_edge.store import TokenStore, open_tokens, write_tokens

    folder.mkdir(exist_ok=True)
    tokens = open_tokens(ModelConfig.tiny(), token_space="another")
    store, shape = TokenStore(tokens), tokens.shape
    write_tokens(store, [str(ids[0])], np.ones((1, *shape), np.int8), np.ones((1, *shape[:2]), np.float32))
    store.export_pack(folder / "videos-000000-of-000001.safetensors")
    tokens.close()


def test_packs_of_another_model_stay(library: list[Path], model: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "packs"
    other_space(folder, library)
    before = contents(folder)
    with pytest.raises(TokenSpaceError, match="another folder"):
        encode_to_packs(library[:2], folder, model=model)
    assert {n: b for n, b in contents(folder).items() if not n.startswith(".")} == before


def test_the_number_of_shards_is_that_of_the_first_run(
    library: list[Path], model: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "packs"
    encode_to_packs(library[:6], folder, shards=SHARDS, model=model)
    with pytest.raises(ArgumentError, match="begun with 3 shards"):
        encode_to_packs(library[:6], folder, shards=4, model=model)
    (folder / "videos-000001-of-000007.safetensors").write_bytes(b"")
    with pytest.raises(ArgumentError, match="begun with 3 and with 7 shards"):
        encode_to_packs(library[:6], folder, model=model)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"engine": "spark"}, "unknown engine 'spark'"),
        ({"workers": 2}, "one process"),
        ({"engine": "ray", "workers": 0}, "at least 1"),
        ({"shards": 0}, "from 1"),
        ({"model": {"threads": 4}}, "must not have threads"),
        ({"stall_seconds": 0.0}, "above 0"),
    ],
)
def test_arguments_that_make_no_sense(wrong: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=said):
        encode_to_packs([], tmp_path / "packs", **wrong)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is a file: name a folder"):
        encode_to_packs([], tmp_path / "file")


def test_the_runtime_imports_nothing_of_it() -> None:
    code = (
        "import sys, linkedout_edge; from linkedout_edge.cli.encode import encode\n"
        "assert not [m for m in sys.modules if m.startswith(('linkedout_edge.scale', 'ray', 'fsspec'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# By URL.


def test_files_by_url_are_fetched_and_removed(
    library: list[Path], model: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec", reason="the extra scale is not installed")
    fetched: list[str] = []
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def decoder(path: str, *rest: Any) -> np.ndarray:
        fetched.append(path)
        assert Path(path).parent == temporary
        return brightness(path, *rest)

    memory = fsspec.filesystem("memory")
    for v in library[:2]:
        memory.pipe(f"/{tmp_path.name}/{v.name}", v.read_bytes())
    urls = [f"memory://{tmp_path.name}/{n}" for n in ("clip0.mp4", "clip1.mp4", "gone.mp4")]
    urls += [library[3].as_uri(), "nosuch://host/clip.mp4"]
    folder = tmp_path / "packs"
    try:
        result = encode_to_packs(urls, folder, shards=1, model=model, decoder=decoder)
        assert counts(result) == (3, 0, 2)
        assert codes(result) == {"gone.mp4": "not_found", "clip.mp4": "fetch_failed"}
        assert len(fetched) == 3
        assert not list(temporary.iterdir())
        again = encode_to_packs(urls, folder, model=model, decoder=decoder)
        assert (counts(again), len(fetched)) == ((0, 3, 2), 3)  # three reads say that nothing changed
        memory.pipe(f"/{tmp_path.name}/clip0.mp4", library[4].read_bytes())
        assert counts(encode_to_packs(urls, folder, model=model, decoder=decoder)) == (1, 2, 2)
    finally:
        memory.rm(f"/{tmp_path.name}", recursive=True)


def test_a_url_of_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec", reason="the extra scale is not installed")
    from linkedout_edge.errors import VideoTooLargeError
    from linkedout_edge.scale.remote import fetched

    (tmp_path / "large.mp4").write_bytes(bytes(1000))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(VideoTooLargeError, match="1000 bytes"), fetched((tmp_path / "large.mp4").as_uri(), 999):
        pass
    with fetched((tmp_path / "large.mp4").as_uri(), 1000) as path:
        assert Path(path).read_bytes() == bytes(1000)
    assert [p.name for p in tmp_path.iterdir()] == ["large.mp4"]


def test_without_fsspec_a_url_ends_the_run(
    model: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '.\[scale\]'"):
        encode_to_packs(["memory://clip.mp4"], tmp_path / "packs", model=model)


def test_folders_and_patterns_by_url(library: list[Path]) -> None:
    pytest.importorskip("fsspec", reason="the extra scale is not installed")
    from linkedout_edge.scale.cli import expand

    folder = library[0].parent.as_uri()
    (library[0].parent / "notes.txt").write_text("")
    assert expand([f"{folder}/"]) == sorted(v.as_uri() for v in library[:7])
    assert expand([f"{folder}/clip[01].mp4"]) == [v.as_uri() for v in library[:2]]
    assert expand(["http://host/clip?name=1"]) == ["http://host/clip?name=1"]


class Ranges(SimpleHTTPRequestHandler):
    """Answers with the part of a file that is asked for, as most servers do and Python's own does not."""

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not asked:
            return super().do_GET()
        data = Path(self.translate_path(self.path)).read_bytes()
        first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(data[first : last + 1])
        return None


@pytest.mark.parametrize("answers", [SimpleHTTPRequestHandler, Ranges])
def test_the_command_takes_files_and_folders_from_a_web_server(
    library: list[Path],
    model: dict[str, Any],
    tmp_path: Path,
    run: Callable[..., Any],
    answers: type[SimpleHTTPRequestHandler],
) -> None:
    pytest.importorskip("fsspec", reason="the extra scale is not installed")
    pytest.importorskip("aiohttp", reason="the extra scale is not installed")
    handler = functools.partial(answers, directory=str(library[0].parent))
    packs, here = tmp_path / "packs", tmp_path / "here"

    def encoded(*urls: str) -> dict[str, int]:
        bundle = ("--bundle", model["bundle"], "--precision", "fp32")
        made = run("encode", *urls, *bundle, "--packs", packs, "--shards", 1, "--json")
        assert made.exit_code == 0, made.output
        return {k: v for k, v in json.loads(made.stdout).items() if k in ("encoded", "unchanged", "failed")}

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        one = encoded(f"{root}/clip0.mp4", f"{root}/gone.mp4")
        assert one == {"encoded": 1, "unchanged": 0, "failed": 1}
        assert json.loads((packs / "failures.jsonl").read_text())["code"] == "not_found"
        assert encoded(f"{root}/") == {"encoded": 5, "unchanged": 1, "failed": 1}
        server.shutdown()
    encode_to_packs(library[:6], here, shards=1, model=model)
    (by_url,), (by_path,) = ([load_file(p) for p in folder.glob("*.safetensors")] for folder in (packs, here))
    np.testing.assert_array_equal(by_url["tokens"], by_path["tokens"])


def test_packs_are_not_written_to_a_url(library: list[Path], tmp_path: Path, run: Callable[..., Any]) -> None:
    refused = run("encode", library[0], "--packs", "https://host/packs/")
    assert (refused.exit_code, "write them here, then copy them to https://host/packs/" in refused.stderr) == (2, True)


# The commands.


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    return lambda *args: CliRunner().invoke(cli, list(map(str, args)))


def test_commands_encode_into_packs_and_take_them_over(
    library: list[Path], model: dict[str, Any], tmp_path: Path, run: Callable[..., Any]
) -> None:
    bundle = ("--bundle", model["bundle"], "--precision", "fp32")
    folder = tmp_path / "packs"
    made = run("encode", *library, *bundle, "--packs", folder, "--shards", SHARDS, "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["encoded"] == 6
    assert "6 already known, 2 failed" in run("encode", *library, *bundle, "--packs", folder).stdout
    data = ("--data-dir", tmp_path / "data")
    taken = run("store", "import", folder, *bundle, *data, "--json")
    assert taken.exit_code == 0, taken.output
    assert (json.loads(taken.stdout)["imported"], json.loads(taken.stdout)["stored"]) == (6, 6)
    assert "6 already known" in run("encode", *library[:6], *bundle, *data).stdout


def test_commands_refuse_what_makes_no_sense(library: list[Path], tmp_path: Path, run: Callable[..., Any]) -> None:
    assert "need --packs" in run("encode", library[0], "--engine", "ray").stderr
    refused = run("encode", library[0], "--packs", tmp_path / "packs", "--data-dir", tmp_path / "data")
    assert (refused.exit_code, "does not use the store" in refused.stderr) == (2, True)
    assert "--threads counts" in run("encode", library[0], "--packs", tmp_path / "packs", "--threads", 2).stderr
    (tmp_path / "empty").mkdir()
    assert "there is no pack in" in run("store", "import", tmp_path / "empty", "--data-dir", tmp_path / "data").stderr


# On Ray.


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two CPUs of this machine, for one process of the tests at a time."""
    ray = pytest.importorskip("ray", reason="the extra scale is not installed: make test-scale")
    from linkedout_edge.scale import ray_engine

    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text(secrets.token_hex())
    with FileLock(tmp_path_factory.getbasetemp().parent / "ray.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))  # or Ray writes one into the home folder
        patch.delenv("RAY_ADDRESS", raising=False)
        ray_engine.start(num_cpus=2)
        yield ray
        ray.shutdown()


def test_on_ray_the_packs_are_the_same_whoever_dies(
    cluster: Any, library: list[Path], model: dict[str, Any], tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()

    def deadly(path: str, *rest: Any) -> np.ndarray:
        """Kills its process at the first look at clip1, and at every look at clip2."""
        name = Path(path).name
        if name == "clip2.mp4" or (name == "clip1.mp4" and not list(marks.glob("clip1*"))):
            (marks / f"{name}-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return get_decoder("opencv")(path, *rest)

    on_ray, here = tmp_path / "on_ray", tmp_path / "here"
    result = encode_to_packs(library, on_ray, engine="ray", shards=SHARDS, model=model, decoder=deadly)
    assert counts(result) == (5, 0, 3)
    assert codes(result) == {"clip2.mp4": "worker_died", "text.mp4": "unreadable", "gone.mp4": "not_found"}
    assert sorted(p.name[:5] for p in marks.iterdir()) == ["clip1", "clip2", "clip2"]
    # With a sound decoder it continues from there.
    again = encode_to_packs(library, on_ray, engine="ray", model=model, decoder="opencv")
    assert counts(again) == (1, 5, 2)
    encode_to_packs(library, here, shards=SHARDS, model=model, decoder="opencv")
    assert contents(on_ray) == contents(here)
    assert not [p for p in on_ray.iterdir() if p.is_dir()]
    assert cluster.is_initialized()  # who started it stops it


def test_on_ray_a_cluster_that_cannot_be_joined(
    library: list[Path], tmp_path: Path, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="the extra scale is not installed: make test-scale")

    def unreachable(address: str, **options: Any) -> None:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", unreachable)  # Ray itself tries for minutes
    monkeypatch.setenv("RAY_ADDRESS", "host:1")
    with pytest.raises(LinkedOutError, match=r"nobody answers. The address was host:1; .* RAY_AUTH_MODE=token"):
        encode_to_packs(library[:1], tmp_path / "packs", engine="ray", model=model)


def test_on_ray_errors_of_the_run_are_themselves(
    cluster: Any, library: list[Path], model: dict[str, Any], tmp_path: Path
) -> None:
    other_space(tmp_path / "packs", library)
    with pytest.raises(TokenSpaceError, match="another folder"):
        encode_to_packs(library[:2], tmp_path / "packs", engine="ray", model=model)
    with pytest.raises(ArgumentError, match="the cluster has 2 CPUs"):
        encode_to_packs(library[:2], tmp_path / "more", engine="ray", model=model, workers=3)


def test_on_ray_a_cluster_without_room_is_an_error_and_no_wait(
    cluster: Any, library: list[Path], model: dict[str, Any], tmp_path: Path
) -> None:
    from linkedout_edge.scale import StalledError

    @cluster.remote(num_cpus=2)
    class Greedy:
        def hold(self) -> bool:
            return True

    greedy = Greedy.remote()
    assert cluster.get(greedy.hold.remote())
    try:
        with pytest.raises(StalledError, match="0 of 2"):
            encode_to_packs(library[:2], tmp_path / "packs", engine="ray", model=model, stall_seconds=4)
    finally:
        cluster.kill(greedy)
    # There is room again. What the first call left in Ray's hands is refused, and the same call continues.
    result = encode_to_packs(library[:2], tmp_path / "packs", engine="ray", model=model)
    assert counts(result) == (2, 0, 0)
