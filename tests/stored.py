"""A store and a history on a database, without a model: what the tests of persistence share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from linkedout_edge import Recommender, Video
from linkedout_edge.config import ModelConfig
from linkedout_edge.history import History
from linkedout_edge.storage import Database
from linkedout_edge.store import Fingerprint, Tokens, TokenStore, open_tokens, read_tokens

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

    @property
    def tokens(self) -> Tokens:
        """What lies behind the store's public methods."""
        return inner(self.store)

    def close(self) -> None:
        self.history.close()
        self.tokens.close()
        self.database.close()


def open_stored(
    folder: Path, key: str | bytes | None = None, *, space: str = SPACE, max_videos: int = 1000, **history: Any
) -> Opened:
    """Open what lies in a folder; the encoder puts tokens of `number(id)`."""
    database = Database(folder, key)
    store = new_store(max_videos, space=space, database=database)

    def encode(video: Video) -> None:
        if video.id not in store:
            put(store, video.id, title=video.title)

    return Opened(database, store, History(inner(store), encode, database=database, **history))


def new_store(max_videos: int = 1000, *, space: str = SPACE, database: Database | None = None) -> TokenStore:
    """A store of the tiny shape."""
    return TokenStore(open_tokens(CONFIG, max_videos, token_space=space, database=database))


@contextmanager
def stored(folder: Path, key: str | bytes | None = None, **options: Any) -> Iterator[Opened]:
    opened = open_stored(folder, key, **options)
    try:
        yield opened
    finally:
        opened.close()


def inner(store: TokenStore) -> Tokens:
    """What lies behind the public methods of a store: the one place where tests reach for it."""
    return store._tokens


def tokens_of(store: TokenStore, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Copies of what is stored: int8 ``[C, L, M, D]`` and float32 ``[C, L, M]``."""
    return read_tokens(store, ids)


def put_tokens(
    store: TokenStore, id: str, tokens: np.ndarray, scales: np.ndarray | None = None, known_as: str | None = None
) -> None:
    """Store tokens int8 ``[L, M, D]`` under an id, by default with scales of 0.02."""
    filled = np.full(tokens.shape[:2], 0.02, np.float32) if scales is None else scales
    inner(store).put(id, tokens, filled, Fingerprint(known_as or id))


def copy(store: TokenStore, source: str, target: str, known_as: str | None = None) -> None:
    """Store the same tokens under another id."""
    tokens, scales = tokens_of(store, [source])
    put_tokens(store, target, tokens[0], scales[0], known_as)


def limit_store(store: TokenStore, max_videos: int, used: Sequence[str] = ()) -> None:
    """Let a store hold fewer videos from now on; `used` ones were used last."""
    tokens = inner(store)
    tokens.max_videos = max_videos
    with tokens.lock:
        tokens.touch(tokens.find(list(used)))


def number(id: str) -> int:
    """A value from 1 to 120 that belongs to an id."""
    return sum(id.encode("utf-8", "surrogatepass")) % 120 + 1


def put(store: TokenStore, id: str, value: int | None = None, title: str | None = None) -> None:
    v = number(id) if value is None else value
    known_as = Fingerprint(f"content {v}", title)
    inner(store).put(id, np.full(SHAPE, v, np.int8), np.full(SHAPE[:2], v, np.float32), known_as)


def value(store: TokenStore, id: str) -> int:
    """What `put` wrote; checks that tokens and scales belong together."""
    tokens, scales = tokens_of(store, [id])
    assert (tokens == tokens.flat[0]).all()
    assert (scales == scales.flat[0]).all()
    assert tokens.flat[0] == scales.flat[0]
    return int(tokens.flat[0])


def raw_bytes(folder: Path) -> bytes:
    """Everything that lies in a folder."""
    return b"".join(p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file())


def fill(rec: Recommender, count: int, seed: int = 0, prefix: str = "v") -> list[str]:
    """Videos of random tokens, straight into the store of a recommender of the tiny shape; their ids."""
    c = CONFIG
    rng = np.random.default_rng(seed)
    tokens = rng.integers(-127, 128, (count, c.layers, c.tokens_per_layer, c.token_width), dtype=np.int8)
    ids = [f"{prefix}{n}" for n in range(count)]
    for i, t in zip(ids, tokens, strict=True):
        put_tokens(rec.store, i, t)
    return ids
