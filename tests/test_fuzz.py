"""Broken input for all that reads bytes of unknown origin: a short, repeatable part of `make fuzz`."""

from __future__ import annotations

from random import Random

import pytest
from fuzz.targets import TARGETS, feed, mutate


@pytest.mark.parametrize("name", TARGETS)
def test_broken_input_is_read_or_refused_with_an_error_of_ours(name: str) -> None:
    target, rng = TARGETS[name], Random(name)
    examples = target.examples()
    read = [feed(target, e) for e in examples]
    assert sum(read) >= len(read) / 2  # some are whole playlists and songs, which are refused
    for _ in range(200):
        data = mutate(rng.choice(examples), rng, 1 << 14)
        try:
            feed(target, data)
        except Exception as e:
            raise AssertionError(f"{name} did not refuse {data!r}") from e


def test_some_broken_input_gets_past_the_first_check() -> None:
    """Else what lies behind it would not be tried."""
    for name, target in TARGETS.items():
        rng, examples = Random(name), target.examples()
        assert any(feed(target, mutate(rng.choice(examples), rng)) for _ in range(300)), name
