"""The sum of what is stored."""

import numpy as np

from linkedout_edge.store.average import RunningSum

SHAPE = (3, 2, 8)


def some(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(-127, 128, (count, *SHAPE)).astype(np.int8)
    return tokens, rng.uniform(1e-3, 3, (count, *SHAPE[:2])).astype(np.float32)


def test_it_is_the_sum() -> None:
    tokens, scales = some(300, 0)
    total = RunningSum(SHAPE)
    total.add(tokens, scales)
    expected = (tokens * scales[..., None].astype(np.float64)).sum(0).reshape(3, 16)
    np.testing.assert_allclose(total.total(), expected, atol=1e-3)


def test_the_way_there_leaves_no_trace() -> None:
    tokens, scales = some(50, 1)
    at_once, by_turns = RunningSum(SHAPE), RunningSum(SHAPE)
    at_once.add(tokens[:40], scales[:40])
    by_turns.add(tokens, scales)
    for n in (49, 41, 40, 45, 44, 43, 42, 46, 47, 48):
        by_turns.remove(tokens[n : n + 1], scales[n : n + 1])
    for n in np.random.default_rng(0).permutation(40):
        by_turns.remove(tokens[n : n + 1], scales[n : n + 1])
        by_turns.add(tokens[n : n + 1], scales[n : n + 1])
    assert by_turns.total().tolist() == at_once.total().tolist()
    by_turns.remove(tokens[:40], scales[:40])
    assert not by_turns.total().any()


def test_made_up_scales_do_no_harm() -> None:
    total = RunningSum(SHAPE)
    tokens = np.full((4, *SHAPE), 127, np.int8)
    scales = np.ones((4, *SHAPE[:2]), np.float32)
    scales[0], scales[1], scales[2] = np.nan, np.inf, -3e38
    total.add(tokens, scales)
    assert np.isfinite(total.total()).all()
    total.remove(tokens, scales)
    assert not total.total().any()
