"""`arank` and `aencode`: the loop stays free, and cancelling never leaves half a record."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored import tokens_of

from linkedout_edge import Recommender
from linkedout_edge.decode import Limits
from linkedout_edge.errors import ArgumentTypeError, ClosedError


class Slow:
    """Takes 20 ms a video, and from the third one on until `go` is set."""

    name = "slow"

    def __init__(self, *, held: bool = False) -> None:
        self.count = 0
        self.go = threading.Event()
        if not held:
            self.go.set()

    def __call__(self, path: str, count: int, size: int, limits: Limits) -> np.ndarray:
        time.sleep(0.02)
        self.count += 1
        assert self.count < 3 or self.go.wait(60)
        rng = np.random.default_rng(len(Path(path).read_bytes()))
        return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def ends_while_held(app: Coroutine[Any, Any, None], decoder: Slow) -> bool:
    """Whether a loop and the threads of its calls end while the decoder is held, which is let go afterwards."""
    loop = threading.Thread(target=lambda: asyncio.run(app), daemon=True)  # ends after its calls' threads
    loop.start()
    loop.join(60)
    ended = not loop.is_alive()
    decoder.go.set()
    loop.join(60)
    return ended


def files(folder: Path, count: int) -> list[str]:
    paths = [folder / f"v{n}" for n in range(count)]
    for n, p in enumerate(paths):
        p.write_bytes(b"x" * (n + 1))
    return [str(p) for p in paths]


def test_arank_and_aencode_do_what_rank_and_encode_do(tiny_bundle: Path, tmp_path: Path) -> None:
    paths = files(tmp_path, 6)

    async def app(rec: Recommender) -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticker = asyncio.create_task(tick())
        seen: list[tuple[int, int]] = []
        result = await rec.aencode(paths[:5], progress=lambda done, total: seen.append((done, total)))
        assert list(result.encoded) == paths[:5]
        assert seen[-1] == (5, 5)
        assert ticks > 2
        ticker.cancel()
        several = await asyncio.gather(*(rec.arank(paths[:2], paths, top_k=k) for k in (1, 3, 6)))
        assert [len(r) for r in several] == [1, 3, 6]
        assert several[2].ids == rec.rank(paths[:2], paths).ids
        with pytest.raises(ArgumentTypeError, match="candidates"):
            await rec.arank([], "a.mp4")

    with Recommender.load(tiny_bundle, precision="fp32", decoder=Slow(), threads=1) as rec:
        asyncio.run(app(rec))
    with pytest.raises(ClosedError):
        asyncio.run(rec.arank([], []))


@pytest.mark.parametrize("call", ["arank", "aencode"])
def test_cancelling_stops_soon_and_keeps_whole_videos_only(tiny_bundle: Path, tmp_path: Path, call: str) -> None:
    paths = files(tmp_path, 60)
    decoder = Slow(held=True)

    async def app(rec: Recommender) -> None:
        work = rec.arank([], paths) if call == "arank" else rec.aencode(paths)
        task = asyncio.create_task(work)  # type: ignore[arg-type]
        while decoder.count < 3:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.sleep(0)  # it is told
        decoder.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Recommender.load(tiny_bundle, precision="fp32", decoder=decoder, threads=1) as rec:
        asyncio.run(app(rec))  # waits for the thread
        stored = list(rec.store)
        assert 0 < len(stored) < 30
        assert decoder.count < 40
        handle = rec.store.select()
        assert [r.id for r in rec.rank(stored[:1], handle)]
        whole = rec.encode(paths)
        assert len(whole.encoded) + len(stored) == 60
        with Recommender.load(tiny_bundle, precision="fp32", decoder=Slow(), threads=1) as other:
            other.encode(paths[:4])
            mine, theirs = (tokens_of(r.store, paths[:4]) for r in (rec, other))
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_cancelled_arank_does_not_wait_for_its_deadline(tiny_bundle: Path, tmp_path: Path) -> None:
    paths = files(tmp_path, 6)
    decoder = Slow(held=True)

    async def app(rec: Recommender) -> None:
        task = asyncio.create_task(rec.arank([], paths, deadline_ms=600_000))
        while decoder.count < 3:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Recommender.load(tiny_bundle, precision="fp32", decoder=decoder, threads=1) as rec:
        assert ends_while_held(app(rec), decoder)
        assert rec.wait(60)  # what was begun continues in the background
        assert sorted(rec.store) == paths


@pytest.mark.parametrize("call", ["arank", "aencode"])
def test_a_call_that_is_cancelled_before_its_turn_encodes_nothing(tiny_bundle: Path, tmp_path: Path, call: str) -> None:
    (tmp_path / "other").mkdir()
    paths, others = files(tmp_path, 3), files(tmp_path / "other", 2)
    decoder = Slow(held=True)

    async def app(rec: Recommender) -> None:
        work = rec.arank([], others) if call == "arank" else rec.aencode(others)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(work, 0.05)  # type: ignore[arg-type]

    with Recommender.load(tiny_bundle, precision="fp32", decoder=decoder, threads=1) as rec:
        encoding = threading.Thread(target=rec.encode, args=(paths,), daemon=True)
        encoding.start()
        while decoder.count < 3:
            time.sleep(0.005)
        assert ends_while_held(app(rec), decoder)
        encoding.join(60)
        assert list(rec.store) == paths
        assert decoder.count == 3


def test_a_coroutine_that_is_closed_elsewhere_stops_too(tiny_bundle: Path, tmp_path: Path) -> None:
    paths = files(tmp_path, 60)
    decoder = Slow(held=True)

    async def app(rec: Recommender) -> None:
        work = rec.aencode(paths)
        contextvars.copy_context().run(work.send, None)
        while decoder.count < 3:
            await asyncio.sleep(0.005)
        work.close()  # as the garbage collector does, in the context of whatever runs then
        decoder.go.set()

    with Recommender.load(tiny_bundle, precision="fp32", decoder=decoder, threads=1) as rec:
        asyncio.run(app(rec))  # waits for the thread
        assert 0 < len(rec.store) < 30


def test_progress_may_stop_encode(tiny_bundle: Path, tmp_path: Path) -> None:
    paths = files(tmp_path, 10)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with Recommender.load(tiny_bundle, precision="fp32", decoder=Slow()) as rec:
        with pytest.raises(KeyboardInterrupt):
            rec.encode(paths, progress=stop)
        assert list(rec.store) == paths[:3]
        assert not [t for t in threading.enumerate() if t.name.startswith("linkedout-decode")]
        assert len(rec.encode(paths).encoded) == 7


def test_close_ends_an_encode_that_is_under_way(tiny_bundle: Path, tmp_path: Path) -> None:
    paths = files(tmp_path, 200)
    decoder = Slow(held=True)
    rec = Recommender.load(tiny_bundle, precision="fp32", decoder=decoder, threads=1)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            rec.encode(paths)
        except ClosedError as e:
            errors.append(e)

    thread = threading.Thread(target=work)
    thread.start()
    while decoder.count < 3:
        time.sleep(0.005)
    threading.Timer(0.2, decoder.go.set).start()
    rec.close()
    thread.join(60)
    assert len(errors) == 1
    assert decoder.count < 100
