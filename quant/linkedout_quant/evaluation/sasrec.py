"""What a recommender by item ids does: SASRec (Kang & McAuley 2018), small, for comparison.

It learns which items follow each other in many users' histories. An item that nobody has watched has an embedding that
nothing has trained, and that is the case a device with its own videos is always in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from linkedout_quant.progress import track

WIDTH, LENGTH = 64, 32


class SASRec(nn.Module):
    """Self-attention over a history of item ids → scores of items.

    Args:
        items: how many; ids are 0 … items − 1.
    """

    def __init__(self, items: int) -> None:
        super().__init__()
        self.items = items
        self.embedding = nn.Embedding(items + 1, WIDTH, padding_idx=items)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.position = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, dropout=0.1, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH), enable_nested_tensor=False)

    def forward(self, histories: Tensor) -> Tensor:
        """Ids [B, LENGTH], padded in front with `items` → what comes next, float32 [B, LENGTH, WIDTH]."""
        causal = nn.Transformer.generate_square_subsequent_mask(LENGTH)
        return self.blocks(self.embedding(histories) + self.position, mask=causal)

    def scores(self, history: Sequence[int], candidates: np.ndarray) -> np.ndarray:
        """Scores float32 [C] of candidates after a history, oldest first."""
        with torch.no_grad():
            state = self(padded([history], self.items))[0, -1]
            return (self.embedding.weight[torch.from_numpy(candidates)] @ state).numpy()


def padded(histories: Sequence[Sequence[int]], items: int) -> Tensor:
    """Histories as ids [B, LENGTH], the latest last, padded in front."""
    out = torch.full((len(histories), LENGTH), items)
    for row, history in enumerate(histories):
        kept = list(history)[-LENGTH:]
        out[row, LENGTH - len(kept) :] = torch.tensor(kept)
    return out


def train_sasrec(histories: Sequence[Sequence[int]], items: int, steps: int = 600, seed: int = 0) -> SASRec:
    """Train on next items of histories, each against all items that occur in them."""
    torch.manual_seed(seed)
    model = SASRec(items)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)
    ids = padded(histories, items)
    known = torch.from_numpy(np.unique(np.concatenate([np.asarray(h) for h in histories])))
    place = torch.full((items + 1,), -100)
    place[known] = torch.arange(len(known))
    model.train()
    for _ in track(range(steps), "SASRec"):
        batch = ids[torch.randint(len(ids), (128,))]
        states = model(batch[:, :].roll(1, 1).index_fill(1, torch.tensor([0]), items))
        target = place[batch]  # padding is −100, which cross-entropy leaves out
        logits = states @ model.embedding.weight[known].T
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
