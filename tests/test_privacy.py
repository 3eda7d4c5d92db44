"""Nothing opens a socket, and the device half brings no torch along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("a socket was opened")

# The class itself too, for what was imported as `from socket import socket`.
socket.socket.__init__ = refuse
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse

from linkedout_edge import Recommender, Event, Video
import linkedout_edge

heavy = ("torch", "transformers", "onnxruntime", "openvino", "onnx", "linkedout_quant", "linkedout_export")
assert not set(heavy) & set(sys.modules), "importing brings " + str(set(heavy) & set(sys.modules))
bundle, backend, decoder, data_dir, key, *clips = sys.argv[1:]
kept = {"data_dir": data_dir, "key": key or None} if data_dir else {}
with Recommender.load(bundle, backend=backend, decoder=decoder, **kept) as rec:
    rec.warmup()
    rec.history.add(clips[0])
    rec.encode(clips)
    ranking = rec.rank([clips[0], Event(clips[1], watched=0.2)], clips[2:])
    assert len(ranking) == len(clips) - 2, ranking.failed
    ranking[0].explain()
    rec.info()
    with rec.history.incognito():
        rec.history.add(clips[2])
    if data_dir:
        rec.store.export_pack(data_dir + "/pack")
        rec.store.import_pack(data_dir + "/pack")
    rec.history.export()
    rec.history.forget(clips[0])
    rec.forget(clips[1])
    rec.history.clear()
missing = {"torch", "transformers", "linkedout_quant", "linkedout_export"} & set(sys.modules)
assert not missing, "ranking brings " + str(missing)
print("ok")
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_nothing_is_left_in_the_home_folder(backend: str, tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    """onnxruntime's telemetry writes a device id there, and the events that it has yet to send."""
    pytest.importorskip(backend)
    arguments = [str(tiny_bundle), backend, "opencv", "", "", *map(str, clips)]
    # A bare environment: neither what this process has set, nor signs of CI, which keep that telemetry quiet.
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env={**kept, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.stdout.strip() == "ok", done.stderr
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_onnxruntime_that_came_first_is_reported(tiny_bundle: Path, tmp_path: Path) -> None:
    script = (
        "import sys, types; sys.modules['onnxruntime'] = types.ModuleType('onnxruntime')\n"
        "from linkedout_edge import _telemetry; print(_telemetry.TOO_LATE)"
    )
    for setting, late in (("", "True"), ("1", "False")):
        env = {**os.environ, "ORT_DISABLE_TELEMETRY": setting}
        done = subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.stdout.strip() == late, done.stderr


@pytest.mark.parametrize(
    ("backend", "decoder", "kept"),
    [
        ("onnxruntime", "pyav", ""),
        ("onnxruntime", "opencv", "plain"),
        ("onnxruntime", "opencv", "encrypted"),
        ("openvino", "opencv", ""),
    ],
)
def test_ranking_real_clips_with_sockets_blocked(
    backend: str, decoder: str, kept: str, tiny_bundle: Path, clips: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip(backend)
    if decoder == "pyav":
        pytest.importorskip("av")
    data = [str(tmp_path / "d") if kept else "", "k" if kept == "encrypted" else ""]
    arguments = [str(tiny_bundle), backend, decoder, *data, *map(str, clips)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.stdout.strip() == "ok", done.stderr
