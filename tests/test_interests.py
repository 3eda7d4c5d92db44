"""Several interests in one history."""

import numpy as np
import pytest

from linkedout_edge.rank.interests import PLACES, find_interests, take_turns
from linkedout_edge.rank.taste import Space, Taste, fit, noise

L, F = 3, 16


def videos() -> np.ndarray:
    """Thirty of one kind, then thirty of another."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(60, L, F)).astype(np.float32)
    values[:30, :, :3] += 2.0
    values[30:, :, 3:6] += 2.0
    return values


def user_of(values: np.ndarray, history: list[int], y: float = 0.7) -> Taste:
    space = Space.made(np.zeros((L, F)), np.full(L, float(F)))
    return fit(values[history], np.full(len(history), y), noise(np.zeros(len(history))), space)


@pytest.mark.parametrize("history", [[0, 1, 2, 3, 30, 31], [30, 0, 31, 1, 2, 3], [0, 30, 1, 31, 2, 32, 33]])
def test_two_kinds_are_two_interests_the_larger_first(history: list[int]) -> None:
    groups = find_interests(user_of(videos(), history))
    kinds = [{history[n] >= 30 for n in group} for group in groups]
    assert [len(k) for k in kinds] == [1, 1]
    assert kinds[0] != kinds[1]
    assert [len(g) for g in groups] == sorted((sum(h < 30 for h in history), sum(h >= 30 for h in history)))[::-1]


@pytest.mark.parametrize("history", [[0, 30, 0, 30], [30, 0, 30, 0], [0, 1, 30, 31], [0, 30, 1, 31, 32, 2]])
def test_of_two_that_are_equally_large_the_one_with_the_latest_event_comes_first(history: list[int]) -> None:
    first, second = find_interests(user_of(videos(), history))
    assert len(first) == len(second)
    assert len(history) - 1 in first


def test_one_kind_is_one_interest_and_skips_are_none() -> None:
    values = videos()
    assert [g.tolist() for g in find_interests(user_of(values, [0]))] == [[0]]
    assert len(find_interests(user_of(values, list(range(30))))) == 1
    assert len(find_interests(user_of(values, [0, 1, 2, 3, 30]))) == 1  # one event may be chance
    assert find_interests(user_of(values, [0, 1, 30, 31], y=-0.2)) == ()
    assert find_interests(user_of(values, [])) == ()
    same = find_interests(user_of(values, [5] * 8))
    assert [len(g) for g in same] == [8]


def test_both_get_places_and_the_first_stays() -> None:
    values = videos()
    values[30:, :, 3:6] -= 0.8  # whose likes are less alike, so that they get fewer places than half
    user = user_of(values, [0, 1, 2, 3, 30, 31, 32, 33])
    rest = values[[*range(4, 30), *range(34, 60)]]
    scores = user.score(rest)
    order = np.argsort(-scores, kind="stable")
    shared = order[take_turns(user, find_interests(user), rest[order], scores[order])]
    assert sorted(shared) == sorted(order)
    assert shared[0] == order[0]
    before, after = ((best[:PLACES] >= 26).sum() for best in (order, shared))
    assert min(after, PLACES - after) > min(before, PLACES - before)
    rest_of_it = shared[PLACES:]
    assert (np.diff(scores[rest_of_it]) <= 0).all()  # behind them, by score


def test_a_list_may_be_shorter_than_the_places() -> None:
    values = videos()
    user = user_of(values, [0, 1, 30, 31])
    groups = find_interests(user)
    assert sorted(take_turns(user, groups, values[50:53], user.score(values[50:53]))) == [0, 1, 2]
    assert take_turns(user, groups, values[:0], np.zeros(0)).tolist() == []
