from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkedout_edge.errors import BundleCorruptError
from linkedout_edge.text import Tokenizer
from linkedout_edge.text.tokenizer import byte_alphabet

MERGES = [("a", "b"), ("ab", "c"), ("Ġ", "ab"), ("b", "c"), ("Ġab", "c"), ("Ã", "©"), ("1", "2")]


def small() -> Tokenizer:
    tokens = ["<pad>", "<eos>", *byte_alphabet(), *(a + b for a, b in MERGES)]
    return Tokenizer({t: i for i, t in enumerate(dict.fromkeys(tokens))}, MERGES)


def text_of(tokenizer: Tokenizer, ids: list[int]) -> str:
    names = {i: t for t, i in tokenizer._vocab.items()}
    to_byte = {c: b for b, c in enumerate(byte_alphabet())}
    return bytes(to_byte[c] for i in ids for c in names[i]).decode()


@given(st.text())
def test_round_trip_but_for_ascii_case_and_spaces(text: str) -> None:
    folded = "".join(c.lower() if c.isascii() else " " if c in "\t\n\v\f\r" else c for c in text)
    folded = folded.translate(dict.fromkeys(map(ord, "\t\n\v\f\r"), " "))
    assert text_of(small(), small().encode(text)) == folded


def test_merges_by_rank_case_folded() -> None:
    t = small()
    names = {i: k for k, i in t._vocab.items()}
    assert [names[i] for i in t.encode("ABC abc\tab bc 12é")] == ["abc", "Ġ", "abc", "Ġab", "Ġ", "bc", "Ġ", "12", "Ã©"]


@given(st.text(), st.integers(0, 20))
def test_a_limit_cuts(text: str, limit: int) -> None:
    assert small().encode(text, limit) == small().encode(text)[:limit]


def test_specials_never_come_from_text_and_surrogates_are_question_marks() -> None:
    assert not {0, 1} & set(small().encode("<pad> <eos>"))
    assert small().encode("\ud800") == small().encode("?")
    assert small().encode("") == []


def test_an_endless_word_is_cheap() -> None:
    assert len(small().encode("ab" * 100_000)) == 100_000


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.text(alphabet="abcdogs 123,.AB\té<>", max_size=40)))
def test_equal_to_the_tokenizers_library(text: str) -> None:
    tokenizer = pytest.importorskip("linkedout_quant.tokenizer")
    data = _trained(tokenizer)
    assert (
        Tokenizer.from_json(data).encode(text)
        == tokenizer.from_portable(data).encode(text, add_special_tokens=False).ids
    )


_cache: list[bytes] = []


def _trained(tokenizer) -> bytes:  # type: ignore[no-untyped-def]
    if not _cache:
        texts = ["two dogs, 3 cats and a ball", "dogs and cats in the street", "a café at 12.30"] * 3
        _cache.append(tokenizer.portable(tokenizer.train_tokenizer(texts, 330)))
    return _cache[0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"vocab": {"a": "x"}, "merges": []}',
        b'{"vocab": {}}',
        b"\xff",
        b"[" * 5000,
        b'{"vocab": {"a": 9}, "merges": []}',
    ],
)
def test_a_damaged_file_is_our_own_error(data: bytes) -> None:
    with pytest.raises(BundleCorruptError, match="tokenizer"):
        Tokenizer.from_json(data, vocab_size=5)


def test_from_json() -> None:
    t = Tokenizer.from_json(json.dumps({"vocab": {"a": 2, "b": 3, "ab": 4}, "merges": [["a", "b"]]}).encode(), 5)
    assert t.encode("abba") == [4, 3, 2]
    assert t.encode("axb") == [2, 3]  # bytes that the vocabulary lacks are left out
