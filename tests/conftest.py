"""What several test files need: a tiny bundle of random weights, and a few real clips."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from linkedout_edge import Recommender
from linkedout_edge.rank import taste

# PyAV loads these with its first stream. Some tests hide PyAV, and a stream must not be the first there.
with contextlib.suppress(ImportError):
    import av.audio.stream
    import av.subtitles.stream
    import av.video.stream  # noqa: F401

# In the background of a script or under nohup, Ctrl-C is ignored, and so in all processes that are started from here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PRECISIONS = ("fp32", "int8")
# The same examples in every run, and no word about time: a test that fails does so on every machine, however slow.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def no_history_of_this_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands look into the user's data folder; tests must neither find nor leave anything there."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle folder of random weights in int8 and fp32, made by the real exporter.

    Where there is no torch, a copy of the one that LINKEDOUT_TINY_BUNDLE names, made elsewhere (docs/aarch64.md).
    """
    made = os.environ.get("LINKEDOUT_TINY_BUNDLE") or _made_once(tmp_path_factory)
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("bundle") / "tiny"))


def _made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle, from the first process of the test run that wants it."""
    pytest.importorskip("torch", reason="the workstation half is not installed, and LINKEDOUT_TINY_BUNDLE is not set")
    from filelock import FileLock
    from linkedout_export.tiny import write_tiny_bundle

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():  # it gets its name when it is whole
            write_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six short mp4 files that differ in colour and motion."""
    folder = tmp_path_factory.mktemp("clips")
    paths = []
    for n in range(6):
        path = folder / f"clip{n}.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
        for t in range(12):
            frame = np.full((48, 64, 3), (40 * n, 255 - 30 * n, 90), np.uint8)
            cv2.circle(frame, (5 + 4 * t, 8 + 6 * n), 6, (255, 40 * n, 20 * t), -1)
            writer.write(frame)
        writer.release()
        paths.append(path)
    return paths


@pytest.fixture
def fixed_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """The average video is the bundle's, whatever is stored: scores can be compared while the store changes."""
    monkeypatch.setattr(taste, "PRIOR_VIDEOS", 1e12)


@pytest.fixture
def rec(tiny_bundle: Path) -> Iterator[Recommender]:
    """A recommender on the tiny fp32 bundle."""
    with Recommender.load(tiny_bundle, precision="fp32", decoder="opencv") as recommender:
        yield recommender


@pytest.fixture
def frames() -> np.ndarray:
    """uint8 [3, 20, 30, 3], random."""
    return np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
