"""Byte-level BPE in plain Python, equal to the `tokenizers` one that the bundle's vocabulary was trained with.

The rules look at ASCII only, so that every binding can repeat them without Unicode tables:

1. A–Z to a–z; tab, newline, vertical tab, form feed, carriage return to a space.
2. Split with `PIECES`.
3. Each piece: UTF-8 bytes, one character a byte (GPT-2's table), then merges: always the pair of lowest rank, leftmost
   first.
4. Look up; cut to the wanted length.

``<pad>`` (id 0) and ``<eos>`` (id 1) are in the vocabulary but text never produces them: ``<`` is split off.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from linkedout_edge.errors import BundleCorruptError

PIECES = re.compile(" ?[a-z]+| ?[0-9]+| ?[^ a-z0-9]+| +")
CACHED_PIECES = 8192
CACHED_LENGTH = 64
"""Longer pieces are rare and would only fill the cache."""

_FOLD: dict[int, int | str] = {
    **{c: c + 32 for c in range(ord("A"), ord("Z") + 1)},
    **dict.fromkeys(map(ord, "\t\n\v\f\r"), " "),
}


def byte_alphabet() -> list[str]:
    """GPT-2's printable character for each of the 256 bytes."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


_ALPHABET = byte_alphabet()


class _File(msgspec.Struct):
    vocab: dict[str, int]
    merges: list[tuple[str, str]]


class Tokenizer:
    """Text → token ids.

    Args:
        vocab: Token → id.
        merges: Pairs to join, first come first served.
    """

    def __init__(self, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
        self._vocab = vocab
        self._ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
        self._piece = lru_cache(CACHED_PIECES)(self._encode_piece)

    @classmethod
    def from_json(cls, data: bytes, vocab_size: int | None = None) -> Tokenizer:
        """From a bundle's ``tokenizer.json``.

        Raises:
            BundleCorruptError: It is not ``{"vocab": {token: id}, "merges": [[a, b], ...]}``, ids in [0, vocab_size).
        """
        try:
            loaded = msgspec.json.decode(data, type=_File)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as e:
            raise BundleCorruptError(f"the bundle's tokenizer cannot be read: {e}. Export the bundle again.") from e
        top = max(loaded.vocab.values(), default=-1)
        if min(loaded.vocab.values(), default=0) < 0 or (vocab_size is not None and top >= vocab_size):
            raise BundleCorruptError(
                f"the bundle's tokenizer has the id {top}, the model a vocabulary of {vocab_size}. "
                "Export the bundle again."
            )
        return cls(loaded.vocab, loaded.merges)

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """Ids of `text`, at most `limit` of them. Any str is accepted; lone surrogates count as ``?``."""
        ids: list[int] = []
        for match in PIECES.finditer(text.translate(_FOLD)):
            if limit is not None and len(ids) >= limit:
                break
            piece = match.group()
            ids.extend(self._piece(piece) if len(piece) <= CACHED_LENGTH else self._encode_piece(piece))
        return ids if limit is None else ids[:limit]

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        symbols = [_ALPHABET[b] for b in piece.encode("utf-8", errors="replace")]
        return tuple(self._vocab[s] for s in self._merge(symbols) if s in self._vocab)

    def _merge(self, symbols: list[str]) -> Iterator[str]:
        """Join pairs by rank. A heap over a linked list: a title that is one endless word stays cheap."""
        ranks = self._ranks
        n = len(symbols)
        parts: list[str | None] = list(symbols)
        after, before = list(range(1, n + 1)), list(range(-1, n - 1))
        heap: list[tuple[int, int, str, str]] = []

        def offer(i: int) -> None:
            j = after[i]
            if j < n:
                a, b = parts[i], parts[j]
                assert a is not None
                assert b is not None
                rank = ranks.get((a, b))
                if rank is not None:
                    heapq.heappush(heap, (rank, i, a, b))

        for i in range(n):
            offer(i)
        while heap:
            _, i, a, b = heapq.heappop(heap)
            j = after[i]
            if j >= n or parts[i] != a or parts[j] != b:
                continue  # one of the two was merged into something else meanwhile
            parts[i], parts[j] = a + b, None
            after[i] = after[j]
            if after[j] < n:
                before[after[j]] = i
            offer(i)
            if before[i] >= 0:
                offer(before[i])
        return (p for p in parts if p is not None)
