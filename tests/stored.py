"""A store and a history on a database, without a model: what the tests of persistence share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from linkedout_edge import Recommender, Video
from linkedout_edge.config import ModelConfig
from linkedout_edge.history import History
from linkedout_edge.storage import Database
from linkedout_edge.store import Fingerprint, TokenStore

CONFIG = ModelConfig.tiny()
SHAPE = (CONFIG.layers, CONFIG.tokens_per_layer, CONFIG.token_width)
SPACE = "space-a"
NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Opened(NamedTuple):
    database: Database
    store: TokenStore
    history: History

    def close(self) -> None:
        self.history.close()
        self.store.close()
        self.database.close()


def open_stored(
    folder: Path, key: str | bytes | None = None, *, space: str = SPACE, max_videos: int = 1000, **history: Any
) -> Opened:
    """Open what lies in a folder; the encoder puts tokens of `number(id)`."""
    database = Database(folder, key)
    store = TokenStore(CONFIG, max_videos, token_space=space, database=database)

    def encode(video: Video) -> None:
        if video.id not in store:
            put(store, video.id, title=video.title)

    return Opened(database, store, History(store, encode, database=database, **history))


@contextmanager
def stored(folder: Path, key: str | bytes | None = None, **options: Any) -> Iterator[Opened]:
    opened = open_stored(folder, key, **options)
    try:
        yield opened
    finally:
        opened.close()


def number(id: str) -> int:
    """A value from 1 to 120 that belongs to an id."""
    return sum(id.encode("utf-8", "surrogatepass")) % 120 + 1


def put(store: TokenStore, id: str, value: int | None = None, title: str | None = None) -> None:
    v = number(id) if value is None else value
    store.put(id, np.full(SHAPE, v, np.int8), np.full(SHAPE[:2], v, np.float32), Fingerprint(f"content {v}", title))


def value(store: TokenStore, id: str) -> int:
    """What `put` wrote; checks that tokens and scales belong together."""
    found = store.gather(store.rows([id]))
    assert (found.tokens == found.tokens.flat[0]).all()
    assert (found.scales == found.scales.flat[0]).all()
    assert found.tokens.flat[0] == found.scales.flat[0]
    return int(found.tokens.flat[0])


def raw_bytes(folder: Path) -> bytes:
    """Everything that lies in a folder."""
    return b"".join(p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file())


def fill(rec: Recommender, count: int, seed: int = 0) -> list[str]:
    """Videos of random tokens, straight into the store of a recommender of the tiny shape; their ids."""
    c = CONFIG
    rng = np.random.default_rng(seed)
    tokens = rng.integers(-127, 128, (count, c.layers, c.tokens_per_layer, c.token_width), dtype=np.int8)
    scales = np.full(tokens.shape[1:3], 0.02, np.float32)
    ids = [f"v{n}" for n in range(count)]
    for i, t in zip(ids, tokens, strict=True):
        rec.store.put(i, t, scales, Fingerprint(i))
    return ids
