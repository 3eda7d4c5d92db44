from __future__ import annotations

import warnings

import pytest

from linkedout_edge._deprecation import deprecated, renamed_argument
from linkedout_edge.errors import ArgumentTypeError


@renamed_argument("count", "top_k", "2.0")
def best(values: list[int], *, top_k: int = 1) -> list[int]:
    """Doc."""
    return sorted(values)[-top_k:]


def old_best() -> int:
    deprecated("old_best()", "best()", "2.0")
    return 1


def test_an_old_argument_works_and_says_what_to_use() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"best\(count=…\) is deprecated .* removed in 2.0: use top_k=…"
    ) as seen:
        assert best([3, 1, 2], count=2) == [2, 3]  # type: ignore[call-arg]
    assert seen[0].filename == __file__
    assert (best.__name__, best.__doc__) == ("best", "Doc.")


def test_the_new_one_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert best([3, 1, 2], top_k=2) == [2, 3]


def test_both_are_an_error() -> None:
    with pytest.raises(ArgumentTypeError, match="give top_k alone"):
        best([1], count=1, top_k=1)  # type: ignore[call-arg]


def test_a_function_that_goes_points_at_its_caller() -> None:
    with pytest.warns(DeprecationWarning, match="old_best") as seen:
        assert old_best() == 1
    assert seen[0].filename == __file__
