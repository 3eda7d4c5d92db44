"""Rankings read the store's arrays without its lock, and the kernel lets other threads run meanwhile."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from stored import CONFIG, SHAPE, inner, new_store, put

from linkedout_edge.rank import taste
from linkedout_edge.rank.scorer import Scorer
from linkedout_edge.store import TokenStore

VIDEOS, APART = 60, 60
"""Video n is written with the tokens n + 1, or those of n + 1 + APART: each ranks as one or as the other."""
SECONDS = 1.5


def write(store: TokenStore, stop: threading.Event, seed: int) -> None:
    """Replace videos, remove some, and let others come and go, so that rows move together every now and then."""
    rng = np.random.default_rng(seed)
    while not stop.is_set():
        n = int(rng.integers(VIDEOS))
        put(store, f"v{n}", n + 1 + APART * int(rng.integers(2)))
        if rng.random() < 0.3:
            store.remove(f"v{int(rng.integers(VIDEOS))}")
        passing = f"passing {seed}"
        put(store, passing, 1)
        store.remove(passing)


@pytest.mark.parametrize("path", ["kernel", "NumPy"])
def test_what_a_snapshot_calls_current_was_never_half_written(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if path == "NumPy":
        monkeypatch.setenv("LINKEDOUT_SCORER", "NumPy")
    scorer, size = Scorer(CONFIG), SHAPE[1] * SHAPE[2]
    space = taste.Space.made(np.zeros((SHAPE[0], size)), np.ones(SHAPE[0]), [], 1.0)
    user = taste.fit(np.ones((1, SHAPE[0], size), np.float32), np.ones(1), np.ones(1), space)
    values = np.arange(121)
    every = np.broadcast_to(values[:, None, None, None], (121, *SHAPE)).astype(np.int8)
    scales = np.broadcast_to(values[:, None, None], (121, *SHAPE[:2])).astype(np.float32)
    of_value = scorer.score(user, every.copy(), scales.copy(), values.astype(np.int64))[0]
    assert len(set(of_value.tolist())) == 121

    store, stop = new_store(), threading.Event()
    for n in range(VIDEOS):
        put(store, f"v{n}", n + 1)
    tokens, wrong, counts = inner(store), [], [0, 0]

    def read() -> None:
        while not stop.is_set():
            with tokens.lock:
                ids = [i for i in tokens.ids() if i[0] == "v"]
                snapshot = tokens.rows.snapshot(tokens.find(ids))
            scores, _ = scorer.score(user, snapshot.tokens, snapshot.scales, snapshot.mark.rows)
            current = snapshot.mark.is_current()
            counts[current] += 1
            if current:
                allowed = [{of_value[int(i[1:]) + 1], of_value[int(i[1:]) + 1 + APART]} for i in ids]
                wrong.extend(i for i, s, a in zip(ids, scores, allowed, strict=True) if s not in a)

    threads = [threading.Thread(target=read) for _ in range(3)]
    threads += [threading.Thread(target=write, args=(store, stop, seed)) for seed in range(2)]
    for t in threads:
        t.start()
    time.sleep(SECONDS)
    stop.set()
    for t in threads:
        t.join()
    assert not wrong
    assert all(counts), "both kinds must have been seen, else nothing was tried"
