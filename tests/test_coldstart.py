"""The order while nothing is known to be liked."""

import numpy as np

from linkedout_edge.rank.coldstart import PLACES, arrange_unknown
from linkedout_edge.rank.taste import Space, Taste, fit, noise

L, F, KINDS, EACH = 2, 24, 6, 8


def videos() -> np.ndarray:
    """Eight videos of each of six kinds: [48, L, F]."""
    rng = np.random.default_rng(4)
    values = rng.normal(0, 0.3, size=(KINDS, EACH, L, F))
    for kind in range(KINDS):
        values[kind, :, :, 4 * kind : 4 * kind + 4] += 1.0
    return values.reshape(-1, L, F).astype(np.float32)


def user_of(values: np.ndarray, skipped: list[int]) -> Taste:
    return fit(values[skipped], np.full(len(skipped), -0.2), noise(np.zeros(len(skipped))), Space.of(values))


def test_the_first_places_show_every_kind() -> None:
    values = videos()
    order = arrange_unknown(user_of(values, []), values, np.zeros(len(values)))
    assert sorted(order) == list(range(len(values)))
    assert len({n // EACH for n in order[:KINDS].tolist()}) == KINDS
    assert order[PLACES:].tolist() == sorted(order[PLACES:])  # what is not arranged keeps its order


def test_what_was_skipped_and_its_like_come_late() -> None:
    values = videos()
    user = user_of(values, [0, 1, EACH])  # two kinds
    rest = np.array([n for n in range(len(values)) if n not in (0, 1, EACH)])
    order = rest[arrange_unknown(user, values[rest], user.score(values[rest]))]
    assert {n // EACH for n in order[:4].tolist()} == {2, 3, 4, 5}


def test_few_equal_or_no_videos_are_fine() -> None:
    values = videos()
    same = np.repeat(values[:1], 5, 0)
    for some in (values[:0], values[:1], same):
        user = user_of(values, [])
        assert sorted(arrange_unknown(user, some, np.zeros(len(some)))) == list(range(len(some)))


def test_level_candidates_keep_their_order() -> None:
    """Two videos stand for each other equally; rounding must not decide, as it differs by language and CPU."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        values = rng.normal(0, 1, (2, L, F)).astype(np.float32)
        assert arrange_unknown(user_of(values, []), values, np.zeros(2)).tolist() == [0, 1]
