"""Is the LM a language model that looks? Perplexity of held-back captions, beside a trigram model's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer

from linkedout_edge import install
from linkedout_edge.errors import MissingDependencyError
from linkedout_quant.model import VideoEncoder
from linkedout_quant.training.clips import caption_logits
from linkedout_quant.training.language import title_tokens


@torch.no_grad()
def caption_perplexity(
    encoder: VideoEncoder, tokenizer: Tokenizer, clips: Sequence[np.ndarray], captions: Sequence[str]
) -> float:
    """Perplexity a token of captions as the titles of their clips.

    Args:
        encoder: the student's.
        tokenizer: its tokenizer.
        clips: uint8 [F, H, W, 3] each.
        captions: one a clip.
    """
    ids, mask = (torch.from_numpy(x) for x in title_tokens(tokenizer, captions, encoder.config.title_tokens))
    total = 0.0
    for start in range(0, len(clips), 16):
        frames = torch.from_numpy(np.stack(clips[start : start + 16]))
        part = slice(start, start + len(frames))
        there = torch.ones(frames.shape[:2], dtype=torch.bool)
        states = encoder.states(frames, there, ids[part], mask[part])
        log = torch.log_softmax(caption_logits(encoder, states[-1]).float(), -1)
        said = log.gather(-1, ids[part].unsqueeze(-1)).squeeze(-1)
        total -= float(said[mask[part]].sum())
    return float(np.exp(total / int(mask.sum())))


def trigram_perplexity(tokenizer: Tokenizer, training: Sequence[str], captions: Sequence[str], length: int) -> float:
    """The same measure for a trigram model with Witten-Bell smoothing (NLTK), trained on `training`.

    Raises:
        MissingDependencyError: NLTK is not installed.
    """
    try:
        from nltk.lm import WittenBellInterpolated
        from nltk.lm.preprocessing import padded_everygram_pipeline
        from nltk.util import ngrams
    except ImportError as e:
        raise MissingDependencyError(f"the trigram baseline needs NLTK: {install.library('nltk')}") from e

    def words(texts: Sequence[str]) -> list[list[str]]:
        ids, mask = title_tokens(tokenizer, texts, length)
        return [[str(t) for t in row[there]] for row, there in zip(ids, mask, strict=True)]

    model = WittenBellInterpolated(3)
    model.fit(*padded_everygram_pipeline(3, words(training)))
    total, count = 0.0, 0
    for sentence in words(captions):
        for *before, word in ngrams(["<s>", "<s>", *sentence], 3):
            total -= np.log(max(model.score(word, before), 1e-12))
            count += 1
    return float(np.exp(total / count))
