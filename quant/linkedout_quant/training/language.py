"""Stage "language": the LM learns to read and write captions before it looks at anything (next-token loss on text)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from torch import Tensor, nn

from linkedout_edge.config import ModelConfig
from linkedout_quant.model.lm import CausalLM
from linkedout_quant.tokenizer import EOS
from linkedout_quant.training.loop import StageRecipe, train_stage


def title_tokens(tokenizer: Tokenizer, texts: Sequence[str | None], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids int64 [B, length], each text closed by the end token where there is room, and mask bool [B, length].

    None is no title: a masked row.
    """
    eos = int(tokenizer.token_to_id(EOS) or 0)
    ids, mask = np.zeros((len(texts), length), np.int64), np.zeros((len(texts), length), bool)
    for row, text in enumerate(texts):
        if text is not None:
            got = [*tokenizer.encode(text).ids, eos][:length]
            ids[row, : len(got)], mask[row, : len(got)] = got, True
    return ids, mask


def train_language(
    run: Path,
    config: ModelConfig,
    recipe: StageRecipe,
    tokenizer: Tokenizer,
    lm: CausalLM,
    texts: Sequence[str],
    accelerator: Accelerator,
) -> None:
    """Train the LM's blocks and embeddings in place on sentences alone."""
    torch.manual_seed(recipe.seed)
    modules = nn.ModuleDict({"lm": lm})
    ids, mask = title_tokens(tokenizer, texts, config.title_tokens)

    def losses(draw: int, batch: int) -> dict[str, Tensor]:
        rows = np.random.default_rng([recipe.seed, draw]).integers(len(ids), size=batch)
        words = torch.from_numpy(ids[rows]).to(accelerator.device)
        there = torch.from_numpy(mask[rows]).to(accelerator.device)
        with accelerator.autocast():
            logits = lm.logits(lm.read_text(words, there)[-1])
        return {
            "captions": nn.functional.cross_entropy(logits[:, :-1][there[:, 1:]].float(), words[:, 1:][there[:, 1:]])
        }

    train_stage(run, recipe, modules, losses, accelerator=accelerator)
