"""Layer tokens by id: in memory, and in the database of a `data_dir` where there is one.

`Tokens` is what the library works with; `TokenStore` is what apps see of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.config import ModelConfig
from linkedout_edge.store.derived import Derived
from linkedout_edge.store.fingerprint import Fingerprint, content_hash, file_is_unchanged, fingerprint, not_stored
from linkedout_edge.store.rows import Mark, Positions, Snapshot
from linkedout_edge.store.store import Selection, StoreStats, TokenStore
from linkedout_edge.store.tokens import MAX_VIDEOS, Tokens

if TYPE_CHECKING:
    from linkedout_edge.storage import Database

__all__ = [
    "Derived",
    "Fingerprint",
    "Mark",
    "Positions",
    "Selection",
    "Snapshot",
    "StoreStats",
    "TokenStore",
    "Tokens",
    "content_hash",
    "file_is_unchanged",
    "fingerprint",
    "not_stored",
    "open_tokens",
    "read_tokens",
    "write_tokens",
]


def open_tokens(
    config: ModelConfig, max_videos: int = MAX_VIDEOS, *, token_space: str = "", database: Database | None = None
) -> Tokens:
    """Tokens of one token space, in memory or behind a database; see `Tokens`."""
    if database is None:
        return Tokens(config, max_videos, token_space)
    from linkedout_edge.store.sync import StoredTokens

    return StoredTokens(config, max_videos, token_space, database)


# For the tools of this repository (evaluation, golden vectors, benchmarks), not for apps: those use packs.


def read_tokens(store: TokenStore, ids: Sequence[str]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Copies of the tokens int8 ``[C, L, M, D]`` and scales float32 ``[C, L, M]`` of stored ids."""
    return store._tokens.read(ids)


def write_tokens(
    store: TokenStore,
    ids: Sequence[str],
    tokens: NDArray[np.int8],
    scales: NDArray[np.float32],
    titles: Sequence[str | None] | None = None,
) -> None:
    """Store tokens int8 ``[C, L, M, D]`` and scales float32 ``[C, L, M]`` under ids, in one batch."""
    with store._tokens.batch():
        for n, (i, t, s) in enumerate(zip(ids, tokens, scales, strict=True)):
            store._tokens.put(i, t, s, Fingerprint(f"{n:032x}", titles[n] if titles else None))
