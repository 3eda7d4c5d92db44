"""Invariants of the closed-form user model."""

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from linkedout_edge import Event, extension
from linkedout_edge.rank.taste import (
    BLOCK,
    DISLIKED,
    LIKED,
    PRIOR_VIDEOS,
    USUAL,
    Space,
    dequantize,
    fit,
    gram,
    noise,
    of_events,
    wanted,
)

L, M, D = 3, 2, 8


@pytest.fixture
def values():
    rng = np.random.default_rng(0)
    tokens = rng.integers(-127, 128, (60, L, M, D)).astype(np.int8)
    return dequantize(tokens, rng.uniform(0.01, 0.02, (60, L, M)).astype(np.float32)) + np.float32(0.5)


@pytest.fixture
def space(values):
    return Space.of(values)


def told(values, watched, space, liked=None):
    n = len(watched)
    said = None if liked is None else np.asarray(liked)
    return fit(values[:n], wanted(np.asarray(watched, float), said), noise(np.full(n, np.nan)), space)


@pytest.mark.parametrize(("count", "width"), [(1, 8), (64, 128), (65, 70), (150, 64)])
def test_products_in_blocks_are_the_plain_ones(count, width):
    by_layer = np.random.default_rng(0).normal(size=(count, L, width)).astype(np.float32).transpose(1, 0, 2)
    np.testing.assert_allclose(gram(by_layer), np.einsum("lif,ljf->lij", by_layer, by_layer), atol=1e-4)


@pytest.mark.parametrize("without_extension", [False, True])
def test_what_is_no_number_stays_none(without_extension, values, space, monkeypatch):
    """The scorer refuses it then."""
    if without_extension:
        monkeypatch.setattr(extension, "kernel", None)
    broken = values[:3].copy()
    broken[1, 0, 0] = np.nan
    assert np.isnan(fit(broken, np.ones(3), np.ones(3), space).query).any()


def test_values_are_overwritten_only_where_that_is_allowed(values, space):
    y, variance, before = wanted(np.linspace(0, 1, 9)), noise(np.zeros(9)), values[:9].copy()
    kept = fit(values[:9], y, variance, space)
    np.testing.assert_array_equal(values[:9], before)
    assert not np.shares_memory(kept.seen, values)
    one = fit(values[:9], y, variance, space, overwrite=True)
    assert np.shares_memory(one.seen, values)
    for name in ("query", "offset", "gates", "weights", "seen", "kernel"):
        np.testing.assert_array_equal(getattr(one, name), getattr(kept, name))


def test_contributions_sum_to_the_score(values, space):
    taste = told(values, [1.0, 0.1, 0.6, 0.0, 0.9], space)
    for score, value in zip(taste.score(values), values, strict=True):
        assert taste.contributions(value).sum() == pytest.approx(score, abs=1e-5)
    assert taste.score(space.mean[None])[0] == pytest.approx(0, abs=1e-9)


def test_scores_are_linear_in_the_tokens(values, space):
    taste = told(values, [1.0, 0.1, 0.6], space)
    a, b = values[10], values[11]
    mixed = taste.score((0.25 * a + 0.75 * b)[None])[0]
    assert mixed == pytest.approx(taste.score(np.stack([a, b])) @ [0.25, 0.75])


@pytest.mark.parametrize(
    ("watched", "liked", "sign"),
    [(1.0, None, 1), (0.1, None, -1), (0.0, [1], 1), (1.0, [-1], -1), (USUAL, None, 0), (np.nan, None, 0)],
)
def test_one_event_pulls_or_pushes(values, space, watched, liked, sign):
    assert np.sign(told(values, [watched], space, liked).score(values[:1])[0]) == sign


def test_skips_alone_never_attract(values, space):
    taste = told(values, [0.1] * 12, space)
    assert (taste.weights < 0).all()
    assert taste.score(values[:12]).mean() < 0


def test_what_is_said_counts_more_than_what_was_watched():
    assert wanted(np.array([0.0, 1.0]), np.array([1, -1])).tolist() == [LIKED - USUAL, DISLIKED - USUAL]


def test_opposite_events_of_one_video_cancel(values, space):
    twice = values[[0, 0]]
    taste = fit(twice, np.array([0.7, -0.7]), noise(np.zeros(2)), space)
    assert np.abs(taste.score(values)).max() < 1e-6


def test_ten_copies_do_not_count_ten_times(values, space):
    y = np.full(2, 0.7)
    once = fit(values[:2], y, noise(np.zeros(2)), space)
    many = fit(values[[0] * 10 + [1]], np.full(11, 0.7), noise(np.zeros(11)), space)
    first, second = once.score(values[:1])[0], many.score(values[:1])[0]
    assert first < second < 4 * first


def test_few_events_are_averaged_and_many_share_their_effect(values, space):
    """Three copies and an odd one: the odd one pulls hardest, and harder the longer the history is."""
    rows = np.array([0, 0, 0, 1])

    def odd_over_copy(rounds: int) -> float:
        seen = np.tile(rows, rounds)
        weights = fit(values[seen], np.full(len(seen), 0.7), noise(np.zeros(len(seen))), space).weights[:, 0]
        return float(weights[3] / weights[0])

    assert 1 < odd_over_copy(1) < 1.5
    assert odd_over_copy(32) > 2


def test_old_events_count_less(values, space):
    y = np.full(2, 0.7)
    taste = fit(values[:2], y, noise(np.array([24 * 3650.0, 0.0])), space)
    new, old = taste.weights.sum(1)[1], taste.weights.sum(1)[0]
    assert 0 < old < new


@pytest.mark.parametrize(
    ("rows", "watched"),
    [
        ([], []),
        ([0] * 200, [1.0] * 200),
        (list(range(50)), [0.0] * 50),
        ([3, 3, 3, 3], [1.0, 0.0, 1.0, 0.0]),
        (list(range(60)) * 20, np.linspace(0, 1, 1200)),
        ([0, 1], [np.nan, np.inf]),
    ],
)
def test_whatever_happened_scores_are_finite(values, space, rows, watched):
    seen = values[np.array(rows, int)]
    ages = np.resize([np.nan, -5.0, np.inf, 1e6], len(rows))
    taste = fit(seen, wanted(np.asarray(watched, float)), noise(ages), space)
    assert len(taste) == len(rows)
    assert np.isfinite(taste.score(values)).all()
    assert np.isfinite(taste.deviation(values)).all()
    assert taste.gates.sum() == pytest.approx(1)


def test_tokens_without_any_difference_are_finite(values):
    flat = np.repeat(values[:1], 5, 0)
    taste = fit(flat, np.full(5, 0.7), noise(np.zeros(5)), Space.of(flat))
    np.testing.assert_allclose(taste.score(flat), 0, atol=1e-6)


def test_watching_makes_surer_of_what_is_alike(values):
    space = Space.of(values, [1.0, 0.0, 0.0])  # with more layers the gates move as well
    nothing, some = told(values, [], space), told(values, [USUAL] * 5, space)
    assert (nothing.score(values) == 0).all()
    before, after = nothing.deviation(values), some.deviation(values)
    kept = after / before
    assert (kept < 1).all()
    assert kept[:5].max() < kept[5:].mean()


def test_the_layer_that_tells_likes_from_skips_gets_the_gate():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(400, L, M * D))
    kind = rng.random(400) < 0.5
    values[:, 1, :4] += np.where(kind, 1.5, -1.5)[:, None]
    space = Space.of(values)
    taste = fit(values[:16], wanted(np.where(kind[:16], 1.0, 0.0)), noise(np.zeros(16)), space)
    assert taste.gates.argmax() == 1
    assert taste.gates[1] > 0.5


def test_the_unit_of_what_was_watched_moves_no_gate(values, space):
    y = wanted(np.array([1.0, 0.1, 0.6, 0.9, 0.0, 0.5]))
    gates = [fit(values[:6], unit * y, noise(np.zeros(6)), space).gates for unit in (1.0, 0.1)]
    np.testing.assert_allclose(*gates)
    one = fit(values[:1], wanted(np.ones(1)), noise(np.zeros(1)), space).gates
    np.testing.assert_allclose(one, space.prior)  # one event tells nothing apart


def test_a_layer_that_is_not_trusted_has_no_say(values):
    taste = told(values, [1.0, 0.1], Space.of(values, [1.0, 0.0, 3.0]))
    assert taste.gates[1] == 0
    assert not taste.query[1].any()


def test_the_scale_multiplies_scores_and_what_they_are_made_of(values, space):
    twice = Space(space.mean, space.size, space.prior, 2.0)
    one, other = told(values, [1.0, 0.1], space), told(values, [1.0, 0.1], twice)
    np.testing.assert_allclose(other.score(values), 2 * one.score(values), rtol=1e-9)
    np.testing.assert_allclose(other.contributions(values[7]), 2 * one.contributions(values[7]), rtol=1e-9)


def test_the_mean_follows_the_store(values, space):
    here = np.asarray(values[:40] + 3.0, np.float64)
    moved = space.following(here.sum(0), 40)
    expected = (PRIOR_VIDEOS * space.mean + here.sum(0)) / (PRIOR_VIDEOS + 40)
    np.testing.assert_allclose(moved.mean, expected)
    np.testing.assert_allclose(space.following(np.zeros_like(space.mean), 0).mean, space.mean)


def test_events_are_told_by_what_was_said_and_when():
    now = datetime(2026, 5, 1, tzinfo=timezone.utc)
    events = [
        Event("a", watched=0.1),
        Event("b", liked=False),
        Event("c", watched=0.0, liked=True),
        Event("d", at=now - timedelta(days=365)),
        Event("e", at=now + timedelta(days=30)),
    ]
    y, variance = of_events(events, now)
    assert y.tolist() == pytest.approx([0.1 - USUAL, DISLIKED - USUAL, LIKED - USUAL, 1 - USUAL, 1 - USUAL])
    assert variance.tolist() == pytest.approx([1, 1, 1, 2, 1])
    liked = np.array([{None: 0, True: 1, False: -1}[e.liked] for e in events])
    assert y.tolist() == wanted(np.array([e.watched for e in events]), liked).tolist()
    assert [part.shape for part in of_events([], now)] == [(0,), (0,)]


@pytest.mark.parametrize(("count", "known"), [(2, 1), (9, 8), (9, 9), (40, 60), (BLOCK + 6, BLOCK + 5)])
def test_one_event_more_gives_what_all_of_them_give(values, space, count, known):
    """Only the latest event's inner products are computed; what is older than the others is left out."""
    rows = np.arange(known + 1) % len(values)
    watched, ages = np.linspace(0, 1, count), np.linspace(9000, 0, count)
    y, variance = wanted(watched), noise(ages)
    before = fit(values[rows[:-1]], np.zeros(known), np.ones(known), space)  # what was said of them may change
    after = fit(values[rows[-1:]], y, variance, space, before=before)
    whole = fit(values[rows[-count:]], y, variance, space)
    assert after.space is space
    np.testing.assert_array_equal(after.seen, whole.seen)
    for name in ("products", "kernel", "query", "offset", "gates", "weights", "noise"):
        expected = getattr(whole, name)
        np.testing.assert_allclose(getattr(after, name), expected, rtol=0, atol=3e-6 * np.abs(expected).max())
