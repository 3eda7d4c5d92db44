"""Steps that need the whole list: deduplication, diversity, priors; on arrays, and through `rank`."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import fill, put_tokens, tokens_of

from linkedout_edge import Event, Prior, Recommender, Video
from linkedout_edge.errors import ArgumentError, ArgumentTypeError
from linkedout_edge.rank.prior import Priors
from linkedout_edge.rank.rerank import DIVERSIFIED, deduplicate, diversify, rerank, unit_tokens
from linkedout_edge.results import best_first


def copy(rec: Recommender, source: str, target: str, noise: int = 0) -> None:
    """Store nearly the same tokens under another id."""
    (tokens,), (scales,) = tokens_of(rec.store, [source])
    noisy = tokens.astype(int) + noise * (np.arange(tokens.size) % 2).reshape(tokens.shape)
    put_tokens(rec.store, target, np.clip(noisy, -127, 127).astype(np.int8), scales)


# On arrays


def test_unit_tokens_have_length_one_and_ignore_scales() -> None:
    tokens = np.random.default_rng(0).integers(-127, 128, (5, 3, 2, 16), dtype=np.int8)
    vectors = unit_tokens(tokens)
    assert vectors.shape == (5, 96)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(unit_tokens(tokens // 2 * 2)[0] @ vectors[0], 1, atol=0.01)
    assert not unit_tokens(np.zeros((1, 3, 2, 16), np.int8)).any()


def unit(rows: list[list[float]]) -> np.ndarray:
    v = np.array(rows, np.float32)
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def test_deduplicate_keeps_the_best_of_each_group_in_order() -> None:
    v = unit([[1, 0, 0], [0, 1, 0], [1, 0.01, 0], [0, 0, 1], [0, 1, 0.02], [1, 1, 0]])
    order = np.array([2, 0, 4, 1, 3, 5])
    assert deduplicate(order, lambda p: v[p]).tolist() == [2, 4, 3, 5]
    assert deduplicate(order, lambda p: v[p], limit=2).tolist() == [2, 4]
    assert deduplicate(order[:0], lambda p: v[p]).tolist() == []
    assert deduplicate(order, lambda p: v[p], threshold=0.5).tolist() == [2, 4, 3]


def test_deduplicate_looks_across_blocks() -> None:
    rng = np.random.default_rng(1)
    base = rng.standard_normal((300, 64)).astype(np.float32)
    v = np.concatenate([base, base[::-1]])
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    assert deduplicate(np.arange(600), lambda p: v[p]).tolist() == list(range(300))


@given(st.integers(2, 12), st.integers(0, 50), st.floats(0.1, 0.9))
@settings(max_examples=40, deadline=None)
def test_diversify_is_the_greedy_map_of_the_dpp(count: int, seed: int, diversity: float) -> None:
    rng = np.random.default_rng(seed)
    v = unit(rng.standard_normal((count, 16)).tolist())
    scores = rng.standard_normal(count).astype(np.float32)
    order = best_first(scores)
    found = diversify(order, scores, lambda p: v[p], diversity)
    assert sorted(found.tolist()) == list(range(count))

    centered = v[order].astype(np.float64) - v[order].mean(0)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    similar = 0.5 + 0.5 * centered @ centered.T

    def value(chosen: list[int]) -> float:
        sign, log = np.linalg.slogdet(similar[np.ix_(chosen, chosen)])
        return (1 - diversity) * float(scores[order][chosen].sum()) + diversity * log if sign > 0 else -math.inf

    chosen: list[int] = []
    for _ in range(min(4, count - 1)):  # by brute force
        left = [n for n in range(count) if n not in chosen]
        values = [value([*chosen, n]) for n in left]
        if max(values) < -10 or (len(values) > 1 and np.diff(np.sort(values))[-1] < 1e-6):
            break
        chosen.append(left[int(np.argmax(values))])
    assert order[chosen].tolist() == found[: len(chosen)].tolist()


def test_more_diversity_means_less_alike_neighbours_and_keeps_everyone() -> None:
    rng = np.random.default_rng(3)
    centers = rng.standard_normal((6, 48))
    v = unit((centers[rng.integers(0, 6, 300)] + 0.4 * rng.standard_normal((300, 48))).tolist())
    scores = (v @ unit(centers[:1].tolist())[0]).astype(np.float32)
    alike, relevance = [], []
    for d in (0.0, 0.2, 0.5, 0.8, 1.0):
        order = rerank(scores, None, lambda p: v[p], diversity=d)
        assert sorted(order.tolist()) == list(range(300))
        assert order[DIVERSIFIED:].tolist() == best_first(scores)[DIVERSIFIED:].tolist()
        assert order[0] == np.argmax(scores)
        assert rerank(scores, 10, lambda p: v[p], diversity=d).tolist() == order[:10].tolist()
        top = v[order[:10]]
        alike.append(np.mean([a @ b for a, b in combinations(top, 2)]))
        relevance.append(scores[order[:10]].mean())
    assert all(a >= b - 1e-3 for a, b in pairwise(alike)), alike
    assert alike[0] > alike[-1] + 0.2
    assert relevance[0] > relevance[-1]


def test_identical_videos_do_not_break_diversity() -> None:
    v = unit([[1.0, 2.0, 3.0]] * 5)
    scores = np.array([1, 5, 3, 4, 2], np.float32)
    for d in (0.1, 1.0):
        assert diversify(best_first(scores), scores, lambda p: v[p], d).tolist() == [1, 3, 2, 4, 0]


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_rerank_without_options_is_best_first(count: int, limit: int, seed: int) -> None:
    scores = np.random.default_rng(seed).choice([0.0, 1.0, 2.0], count).astype(np.float32)

    def never(_: Any) -> Any:
        raise AssertionError("vectors are not needed")

    assert rerank(scores, limit, never).tolist() == best_first(scores, limit).tolist()
    assert rerank(scores, 1, never, diversity=0.5, fold_duplicates=True).tolist() == best_first(scores, 1).tolist()


def test_deduplicating_finds_enough_even_if_the_best_are_all_the_same() -> None:
    v = unit([[1.0, 0.0, 0.0]] * 100 + np.random.default_rng(0).standard_normal((20, 3)).tolist())
    scores = np.concatenate([np.full(100, 5.0), np.arange(20)[::-1] / 10]).astype(np.float32)
    order = rerank(scores, 3, lambda p: v[p], fold_duplicates=True)
    assert order.tolist()[0] == 0
    assert len(order) == 3
    assert (order[1:] >= 100).all()


# Priors


def test_a_prior_is_standardized_and_weighted() -> None:
    values = {"a": 10.0, "b": 30.0, "c": 20.0, "not ranked": 1e9}
    bonus = Priors(values).bonus(["a", "b", "c"])
    np.testing.assert_allclose(bonus, [-1.2247449, 1.2247449, 0], atol=1e-6)
    np.testing.assert_allclose(Priors(Prior(values, weight=-0.5)).bonus(["a", "b", "c"]), -0.5 * bonus)
    assert Priors({"a": 3.3, "b": 3.3, "c": 3.3}).bonus(["a", "b", "c"]).tolist() == [0, 0, 0]
    np.testing.assert_allclose(Priors({"a": 1.0, "c": 3.0}).bonus(["a", "b", "c"]), [-1, 0, 1])
    np.testing.assert_allclose(Priors({"a": 1.0, "b": math.nan, "c": 3.0}).bonus(["a", "b", "c"]), [-1, 0, 1])
    assert Priors({}).bonus([]).shape == (0,)


def test_a_prior_breaks_the_cold_start_and_is_explained_apart(rec: Recommender) -> None:
    ids = fill(rec, 4)
    cold = rec.rank([], ids, prior=[1.0, 4.0, 2.0, 3.0])
    assert cold.ids == ["v1", "v3", "v2", "v0"]
    assert {r.source for r in cold} == {"prior"}
    assert "above the average" in cold[0].explain().sentence
    assert math.isclose(cold[0].explain().prior, cold[0].score, rel_tol=1e-6)

    plain = {r.id: r.score for r in rec.rank(["v0"], ids)}
    mixed = rec.rank(["v0"], ids, prior={"v1": 5.0, "v2": 1.0}, diversity=0.3, fold_duplicates=True)
    bonus = {"v0": 0.0, "v1": 1.0, "v2": -1.0, "v3": 0.0}
    for r in mixed:
        why = r.explain()
        assert r.source == "content"
        assert math.isclose(r.score, plain[r.id] + bonus[r.id], abs_tol=1e-5)
        assert math.isclose(why.prior, bonus[r.id], abs_tol=1e-6)
        assert math.isclose(why.matrix.sum() + why.prior, r.score, abs_tol=1e-3)
        assert math.isclose(sum(r.layers) + why.prior, r.score, abs_tol=1e-4)
        assert why.to_dict()["prior"] == why.prior


def test_a_sequence_is_aligned_with_what_was_given(rec: Recommender) -> None:
    ids = fill(rec, 4)
    wanted = {i: float(n) for n, i in enumerate(ids)}
    by_id = rec.rank(["v0"], ids, prior=wanted, exclude_watched=True)
    given = ["v3", "v0", "v1", "v3", "v2"]  # a duplicate, and one that is left out
    array = np.array([wanted[i] for i in given])
    assert {r.id: r.score for r in rec.rank(["v0"], given, prior=array, exclude_watched=True)} == pytest.approx(
        {r.id: r.score for r in by_id}
    )
    as_videos = rec.rank(["v0"], [Video(id=i) for i in given], prior=array, exclude_watched=True)
    assert as_videos.ids == by_id.ids
    assert rec.rank([], ["v0", "v1", "v0"], prior=[2.0, 1.0, 0.0]).ids == ["v0", "v1"]  # given twice: the first counts
    handle = rec.store.select([*ids, "missing"])
    on_handle = rec.rank(["v0"], handle, prior=np.array([wanted[i] for i in handle.ids]))
    assert on_handle.ids == rec.rank(["v0"], ids, prior=wanted).ids
    rec.store.remove("v2")
    assert "v2" not in rec.rank(["v0"], handle, prior=[wanted[i] for i in handle.ids]).ids


@pytest.mark.parametrize(
    ("prior", "error", "words"),
    [
        ([1.0], ArgumentError, "1 values for 3 candidates"),
        ("abc", ArgumentTypeError, "must map ids to numbers"),
        (3, ArgumentTypeError, "must map ids to numbers"),
        ([1, 2, "x"], ArgumentTypeError, "numbers only"),
        ([1, 2, math.inf], ArgumentError, "finite"),
        ({"v0": "high"}, ArgumentTypeError, "numbers only"),
        (np.zeros((3, 1)), ArgumentError, "one dimension"),
    ],
)
def test_nonsense_priors_are_refused(rec: Recommender, prior: Any, error: type[Exception], words: str) -> None:
    fill(rec, 3)
    with pytest.raises(error, match=words):
        rec.rank([], ["v0", "v1", "v2"], prior=prior)


def test_a_sequence_needs_candidates_and_a_weight_a_number(rec: Recommender) -> None:
    fill(rec, 3)
    with pytest.raises(ArgumentError, match=r"candidates were left out.*mapping"):
        rec.rank([], prior=[1.0, 2.0, 3.0])
    assert rec.rank([], prior={"v2": 1.0, "v1": 0.0, "v0": -1.0}).ids == ["v2", "v1", "v0"]
    with pytest.raises(ArgumentTypeError, match="weight must be a number"):
        Prior({}, weight="much")  # type: ignore[arg-type]
    for values in ("abc", b"abc", 3, None):
        with pytest.raises(ArgumentTypeError, match="prior must map ids to numbers"):
            Prior(values)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="finite"):
        Prior({}, weight=math.nan)
    for name in ("fold_duplicates", "exclude_watched"):
        with pytest.raises(ArgumentTypeError, match=f"{name} must be True or False"):
            rec.rank([], [], **{name: 1})  # type: ignore[arg-type]


# Through rank


def test_near_duplicates_are_folded_to_the_best(rec: Recommender) -> None:
    ids = fill(rec, 8)
    copy(rec, "v3", "copy", noise=1)
    whole = rec.rank(["v0", Event("v1", watched=0.1)], [*ids, "copy"])
    folded = rec.rank(["v0", Event("v1", watched=0.1)], [*ids, "copy"], fold_duplicates=True)
    better = next(i for i in whole.ids if i in ("v3", "copy"))
    assert folded.ids == [i for i in whole.ids if i not in ("v3", "copy") or i == better]
    assert folded.failed == ()
    assert [r.rank for r in folded] == list(range(1, 9))
    for r in folded:
        assert math.isclose(r.explain().matrix.sum(), r.score, abs_tol=1e-3)


def test_large_lists_take_the_same_options(rec: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = fill(rec, 60)
    copy(rec, "v3", "copy")
    options: dict[str, Any] = {"diversity": 0.4, "fold_duplicates": True, "prior": dict.fromkeys(ids[::3], 1.0)}
    small = [rec.rank(["v0"], rec.store.select(), top_k=k, **options) for k in (7, None)]
    monkeypatch.setattr("linkedout_edge.rank.ranker.KEPT_FOR_EXPLAINING", 5)
    monkeypatch.setattr("linkedout_edge.rank.ranker.CHUNK", 16)
    large = [rec.rank(["v0"], rec.store.select(), top_k=k, **options) for k in (7, None)]
    for a, b in zip(small, large, strict=True):
        assert a.ids == b.ids
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)
        assert math.isclose(b[-1].explain().matrix.sum() + b[-1].explain().prior, b[-1].score, abs_tol=1e-3)
    assert large[0].ids == large[1].ids[:7]


def test_diversity_reorders_and_scores_stay(rec: Recommender, clips: list[Path]) -> None:
    ids = fill(rec, 30)
    plain = rec.rank(["v0"], ids)
    varied = rec.rank(["v0"], ids, diversity=0.9)
    assert varied.ids != plain.ids
    assert varied.ids[0] == plain.ids[0]
    assert dict(zip(varied.ids, varied.scores, strict=True)) == dict(zip(plain.ids, plain.scores, strict=True))
