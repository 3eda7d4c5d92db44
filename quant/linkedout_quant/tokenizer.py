"""Byte-level BPE trained with `tokenizers`, with rules so plain that every runtime can repeat them.

Case folding and word splitting look at ASCII only: no Unicode tables, whose versions differ between languages. The
runtime (`linkedout_edge.text.tokenizer`) reads the same vocabulary and merges without this library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PAD, EOS = "<pad>", "<eos>"
PIECES = " ?[a-z]+| ?[0-9]+| ?[^ a-z0-9]+| +"


def new_tokenizer() -> Tokenizer:
    """An untrained tokenizer with the project's normalization and splitting."""
    tokenizer = Tokenizer(models.BPE())
    lower = [normalizers.Replace(chr(c), chr(c + 32)) for c in range(ord("A"), ord("Z") + 1)]
    spaces = [normalizers.Replace(c, " ") for c in "\t\n\v\f\r"]
    tokenizer.normalizer = normalizers.Sequence(lower + spaces)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train on `texts`; ids 0 and 1 are ``<pad>`` and ``<eos>``, the 256 bytes are always there."""
    tokenizer = new_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def portable(tokenizer: Tokenizer) -> bytes:
    """The bundle's ``tokenizer.json``: vocabulary and merges, nothing else."""
    model = json.loads(tokenizer.to_str())["model"]
    merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    return json.dumps({"vocab": model["vocab"], "merges": merges}, ensure_ascii=True).encode()


def from_portable(data: bytes) -> Tokenizer:
    """The tokenizer of a bundle's ``tokenizer.json``."""
    loaded = json.loads(data)
    tokenizer = new_tokenizer()
    tokenizer.model = models.BPE(vocab=loaded["vocab"], merges=[tuple(m) for m in loaded["merges"]])
    return tokenizer
