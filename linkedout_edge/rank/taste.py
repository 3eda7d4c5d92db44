"""The user model, in closed form: events → a query per layer. No training, no graph.

Gaussian-process regression (kernel ridge regression; Rasmussen and Williams, "Gaussian Processes for Machine Learning",
chapter 2) on centred layer tokens. What is predicted is how much of a video the user would watch. Each event pulls
towards its video if more than `USUAL` was watched, and pushes away if less. How hard follows from all events together:
ten near-copies do not count ten times, and two opposite events of one video cancel.

Scores are linear in the tokens, so they split exactly into [event × layer]. The average video scores 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from linkedout_edge import extension
from linkedout_edge.inputs import Event

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

USUAL = 0.3
"""Fraction of an average video that is watched. An event at this value says nothing."""
LIKED, DISLIKED = 1.2, -0.5
"""What a like or dislike counts as watched, whatever was watched: a little more than all, and as far below `USUAL` as
a whole video is above it."""
NOISE = 1.0
"""How far the watched fraction follows other things than the video, in units of a video's own variance."""
FEW_EVENTS = 20.0
"""With N events the noise is 1 + FEW_EVENTS / N times as much, and scores are multiplied by the same. Nothing tells
which of a few events is the odd one: they are averaged. In a longer history those that are alike share their effect."""
AGED_DAYS = 365.0
"""An event of this age is twice as noisy as one of today. Unknown age counts as today."""
MAX_EVENTS = 192
"""Only the latest so many events count: the time of a fit grows with the cube."""
EVIDENCE_EVENTS = 32
"""Only the latest so many events choose between layers, which costs a factorisation for each layer."""
TEMPER, TEMPER_EVENTS = 4.0, 16.0
"""Evidence that chooses between layers is multiplied by TEMPER / (1 + N / TEMPER_EVENTS)."""
LEAST_FIT = 1e-9
"""Where all events say nothing, the logarithm in a layer's evidence is that of this."""
PRIOR_VIDEOS = 10.0
"""The bundle's average video counts as so many videos of the device's own store."""


@dataclass(frozen=True, eq=False)
class Space:
    """What is known of tokens before anything is known of a user.

    Attributes:
        mean: float64 [L, M·D], the average video's tokens.
        size: float64 [L], mean squared length of a centred token; > 0.
        prior: float64 [L], how far each layer is trusted before anything is known of a user; sums to 1.
        scale: Scores are multiplied by it, so that they have about unit standard deviation.
    """

    mean: Floats
    size: Floats
    prior: Floats
    scale: float = 1.0

    @cached_property
    def log_prior(self) -> Floats:
        """Logarithms of `prior`: -inf of a layer that is not trusted at all."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.prior))

    @staticmethod
    def made(
        mean: Sequence[Sequence[float]] | Floats,
        size: Sequence[float] | Floats,
        prior: Sequence[float] = (),
        scale: float = 1.0,
    ) -> Space:
        """From plain numbers, shaped as the attributes; without `prior`, all layers are trusted alike."""
        weights = np.asarray(prior if len(prior) else np.ones(len(size)), np.float64)
        return Space(np.asarray(mean, np.float64), np.asarray(size, np.float64), weights / weights.sum(), scale)

    @staticmethod
    def of(values: NDArray[np.floating], prior: Sequence[float] = ()) -> Space:
        """From many videos' tokens [V, L, M·D], at least one. See `made` for `prior`."""
        mean = values.mean(0, dtype=np.float64)
        size = np.maximum(np.square(values - mean).sum(-1).mean(0), 1e-9)
        return Space.made(mean, size, prior)

    def following(self, total: Floats, count: int) -> Space:
        """The same with the mean drawn to `count` more videos, whose tokens sum to `total` [L, M·D].

        People's libraries differ from what a model was trained on. Against the mean of other videos all of one's own
        look alike, and rank worse (docs/experiments.md).
        """
        mean = (PRIOR_VIDEOS * self.mean + total) / (PRIOR_VIDEOS + count)
        return Space(mean, self.size, self.prior, self.scale)


def dequantize(tokens: NDArray[np.int8], scales: Singles) -> Singles:
    """Int8 [V, L, M, D] and float32 [V, L, M] → float32 [V, L, M·D]."""
    values: Singles = tokens.astype(np.float32)
    values *= scales[..., None]
    return values.reshape(*values.shape[:-2], values.shape[-2] * values.shape[-1])


def wanted(watched: Floats, liked: Floats | None = None) -> Floats:
    """How much of its video each event asks for, relative to an average video: float64 [N], > 0 attracts, < 0 repels.

    Args:
        watched: [N], clipped to [0, 1]. NaN says nothing.
        liked: [N], 1 liked, -1 disliked, 0 nothing said. None: nothing said of any.
    """
    y = np.asarray(watched, np.float64)
    y = np.where(np.isnan(y), USUAL, np.minimum(np.maximum(y, 0.0), 1.0))
    if liked is not None:
        y = np.where(liked > 0, LIKED, np.where(liked < 0, DISLIKED, y))
    return np.asarray(y - USUAL)


def noise(ages_hours: Floats) -> Floats:
    """Variance of each event's noise, float64 [N]. Ages that are unknown or in the future count as 0."""
    ages = np.fmin(np.fmax(ages_hours, 0.0), 1e9)  # of NaN and a number they take the number
    return np.asarray(NOISE * (1.0 + ages / (24 * AGED_DAYS)))


def of_events(events: Sequence[Event], now: datetime) -> tuple[Floats, Floats]:
    """`wanted` and `noise` of events, as seen at `now` (aware)."""
    y = [e.watched if e.liked is None else LIKED if e.liked else DISLIKED for e in events]
    seconds = [0.0 if e.at is None else (now - e.at).total_seconds() for e in events]
    return np.array(y, np.float64) - USUAL, noise(np.array(seconds, np.float64) / 3600)


@dataclass(frozen=True, eq=False)
class Taste:
    """A user. ``score(t) = Σ_l ⟨query[l], t[l] − mean[l]⟩``; ``query[l] = Σ_n weights[n, l] · (t_n[l] − mean[l])``.

    Its arrays are shared: do not write to them.

    Attributes:
        space: Where it was fitted.
        query: float64 [L, M·D].
        offset: float64 [L], ``⟨query[l], mean[l]⟩``.
        gates: float64 [L], sums to 1: at which depth the taste lives.
        weights: float64 [N, L], > 0 attracts, < 0 repels.
        seen: float32 [N, L, M·D], the events' centred tokens.
        products: float32 [L, N, N], their inner products by layer.
        kernel: float64 [N, N], how alike the events' videos are, gates and all.
        noise: float64 [N], variance of what each event says besides; see `FEW_EVENTS`.
    """

    space: Space
    query: Floats
    offset: Floats
    gates: Floats
    weights: Floats
    seen: Singles
    products: Singles
    kernel: Floats
    noise: Floats

    def __len__(self) -> int:
        """N."""
        return len(self.weights)

    @property
    def is_known(self) -> bool:
        """Whether anything is known to attract."""
        return bool((self.weights > 0).any())

    def centered(self, values: Singles) -> Singles:
        """Tokens [..., L, M·D] minus the average video's."""
        return np.asarray(values - self.space.mean.astype(np.float32))

    def rows(self, centered: Singles) -> Singles:
        """Centred tokens [K, L, M·D] as float32 [K, L·M·D]: their inner products are the kernel's, gates and all."""
        by_layer = np.sqrt(self.gates / self.space.size).astype(np.float32)[:, None]
        return np.asarray((centered * by_layer).reshape(len(centered), self.space.mean.size))

    def score(self, values: NDArray[np.floating]) -> Floats:
        """Scores [C] of tokens [C, L, M·D]. The runtime scores stored bytes instead, see `scorer`."""
        return np.asarray(np.einsum("clf,lf->c", values, self.query) - self.offset.sum())

    def contributions(self, value: Singles) -> Floats:
        """What each event adds by each layer to the score of one video [L, M·D]: float64 [N, L]."""
        similar = np.einsum("nlf,lf->nl", self.seen, self.centered(value), dtype=np.float64)
        return np.asarray(self.weights * similar)

    def deviation(self, values: Singles) -> Floats:
        """How unsure the scores of tokens [C, L, M·D] are: posterior standard deviations, float64 [C] ≥ 0."""
        rows = self.rows(self.centered(values))
        variance = np.square(rows).sum(1, dtype=np.float64)
        if len(self):
            shared = (self.rows(self.seen) @ rows.T).astype(np.float64)  # [N, C]
            variance -= (shared * np.linalg.solve(self.kernel + np.diag(self.noise), shared)).sum(0)
        return np.asarray(self.space.scale * np.sqrt(np.maximum(variance, 0.0)))


def fit(
    values: NDArray[np.floating],
    y: Floats,
    variance: Floats,
    space: Space,
    *,
    overwrite: bool = False,
    before: Taste | None = None,
) -> Taste:
    """Fit a user.

    Args:
        values: [N, L, M·D], tokens of the history, oldest first. N may be 0; at most `MAX_EVENTS` keeps it quick.
        y: [N], from `wanted`.
        variance: [N], from `noise`; > 0.
        space: What is known of tokens.
        overwrite: Whether float32 `values` may be overwritten: half the memory is half the time.
        before: The user in the same space before the latest event, whose tokens alone are in `values` then,
            [1, L, M·D]; of its events the latest N - 1 count. Their inner products are not computed again, and may
            differ from what they would be now by rounding.
    """
    seen = np.subtract(values, space.mean.astype(np.float32), out=values if overwrite else None)
    seen = np.asarray(seen, np.float32)
    count, late = len(y), slice(-EVIDENCE_EVENTS, None)
    if before is None:
        products = gram(seen.transpose(1, 0, 2))
    else:
        seen = np.concatenate([before.seen[1 - count :], seen])
        products = np.empty((seen.shape[1], count, count), np.float32)
        products[:, :-1, :-1] = before.products[:, 1 - count :, 1 - count :]
        products[:, -1] = products[:, :, -1] = np.einsum("nlf,lf->ln", seen, seen[-1])
    gates = _gates(products[:, late, late], y[late], variance[late], space)
    trust = gates / space.size
    kernel = np.einsum("l,lnm->nm", trust.astype(np.float32), products).astype(np.float64)
    few = 1.0 + FEW_EVENTS / max(count, 1)
    variance = few * variance
    (alpha,), _ = solve(kernel[None], variance, few * y)
    by_gate = space.scale * trust
    weights = alpha[:, None] * by_gate
    query = np.einsum("n,nlf->lf", alpha.astype(np.float32), seen) * by_gate[:, None]
    offset = np.einsum("lf,lf->l", query, space.mean)
    return Taste(space, query, offset, gates, weights, seen, products, kernel, variance)


BLOCK = 64


def gram(by_layer: Singles) -> Singles:
    """Inner products float32 [L, N, N] of the rows of each layer, float32 [L, N, F].

    In blocks so small that a BLAS stays in one thread: waking others takes longer than the work, and where other
    programs keep the cores busy a hundred times as long (OpenBLAS waits for its threads by spinning).
    """
    layers, count, width = by_layer.shape
    parts = [by_layer[:, :, start : start + BLOCK] for start in range(0, width, BLOCK)]
    out = np.empty((layers, count, count), np.float32)
    for i in range(0, count, BLOCK):
        for j in range(0, i + 1, BLOCK):
            block = out[:, i : i + BLOCK, j : j + BLOCK]
            np.matmul(parts[0][:, i : i + BLOCK], parts[0][:, j : j + BLOCK].transpose(0, 2, 1), out=block)
            for part in parts[1:]:
                block += part[:, i : i + BLOCK] @ part[:, j : j + BLOCK].transpose(0, 2, 1)
            if j < i:
                out[:, j : j + BLOCK, i : i + BLOCK] = block.transpose(0, 2, 1)
    return out


def solve(kernels: Floats, variance: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Solve ``(kernel + noise) @ x = y`` for each of some kernels.

    Args:
        kernels: float64 [K, N, N], positive semidefinite.
        variance: [N], of the noise; > 0.
        y: [N].

    Returns:
        Solutions float64 [K, N], and the diagonals of the Cholesky factors, float64 [K, N].
    """
    count = len(y)
    systems = np.empty((len(kernels), count, count + 1))
    systems[:, :, :-1], systems[:, :, -1] = kernels, y
    diagonals = systems.reshape(len(kernels), -1)[:, :: count + 2]
    diagonals += variance
    if extension.kernel is None:
        solve_with_numpy(systems)
    else:
        extension.kernel.solve(systems)
    return systems[:, :, -1], diagonals


def solve_with_numpy(systems: Floats) -> None:
    """Solve positive definite systems float64 [K, N, N + 1] of matrix and right side, in place: the extension's twin.

    Right sides become the solutions, and diagonals those of the Cholesky factors; what else there is becomes anything.
    In blocks, as `gram` is computed: from about 100 rows on OpenBLAS solves in several threads. NaN where one is not
    positive definite.
    """
    count = systems.shape[1]
    blocks = [slice(start, min(start + BLOCK // 2, count)) for start in range(0, count, BLOCK // 2)]
    roots = []
    for n, own in enumerate(blocks):
        try:
            roots.append(np.linalg.cholesky(systems[:, own, own]))
        except np.linalg.LinAlgError:
            systems[:] = np.nan
            return
        right = systems[:, own, own.stop :] = np.linalg.solve(roots[n], systems[:, own, own.stop :])
        for below in blocks[n + 1 :]:
            left = right[:, :, below.start - own.stop : below.stop - own.stop].transpose(0, 2, 1)
            systems[:, below, own.stop :] -= left @ right
    for own, root in zip(blocks[::-1], roots[::-1], strict=True):
        known = systems[:, own, own.stop : -1] @ systems[:, own.stop :, -1:]
        systems[:, own, -1:] = np.linalg.solve(root.transpose(0, 2, 1), systems[:, own, -1:] - known)
        systems[:, range(own.start, own.stop), range(own.start, own.stop)] = root.diagonal(axis1=1, axis2=2)


def _gates(products: Singles, y: Floats, variance: Floats, space: Space) -> Floats:
    """Trust in each layer after what its kernel alone makes of the events, float64 [L].

    A layer's evidence is the logarithm of the density of y under N(0, s · (K + noise)), with the scale s integrated out
    under the prior 1 / s (Gramacy, "Surrogates", 2020, section 5.2): -N/2 · log(yᵀ (K + noise)⁻¹ y) - 1/2 · log |K +
    noise|. With a fixed scale, small y would count for little beside the determinant, which knows nothing of them.
    """
    solutions, roots = solve(products * (1.0 / space.size)[:, None, None], variance, y)
    evidence = -0.5 * len(y) * np.log(np.maximum(solutions @ y, LEAST_FIT)) - np.log(roots).sum(1)
    logits = space.log_prior + TEMPER / (1.0 + len(y) / TEMPER_EVENTS) * evidence
    gates = np.exp(logits - logits.max())
    return np.asarray(gates / gates.sum())
