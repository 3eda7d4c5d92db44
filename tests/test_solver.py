"""What solves the fit's equations: the extension and its twin in NumPy. With sanitizers: `make kernel-check`."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from linkedout_edge import extension
from linkedout_edge.rank.taste import BLOCK, solve, solve_with_numpy

needs_extension = pytest.mark.skipif(extension.kernel is None, reason="installed without the extension")
SIZES = [*range(1, 35), 63, 64, 65, 96, 97, 128, 191, 192, 193]


@pytest.fixture(params=["kernel", "NumPy"])
def solver(request, monkeypatch):
    if request.param == "NumPy":
        monkeypatch.setattr(extension, "kernel", None)
    elif extension.kernel is None:
        pytest.skip("installed without the extension")


def random_systems(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Positive definite systems [count, size, size + 1] of matrix and right side."""
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(count, size, size + 3))
    matrices = half @ half.transpose(0, 2, 1) / (size + 1) + np.eye(size)
    return np.concatenate([matrices, rng.normal(size=(count, size, 1))], 2)


@pytest.mark.usefixtures("solver")
@pytest.mark.parametrize(
    ("kernels", "count"), [(1, 1), (6, 2), (6, 32), (1, BLOCK), (2, BLOCK + 1), (1, 2 * BLOCK), (1, 200)]
)
def test_each_system_is_solved(kernels, count, monkeypatch):
    rng = np.random.default_rng(0)
    half = rng.normal(size=(kernels, count, count + 3))
    products, variance, y = half @ half.transpose(0, 2, 1) / count, rng.uniform(0.5, 2, count), rng.normal(size=count)
    systems = products + np.diag(variance)
    expected, factors = [np.linalg.solve(system, y) for system in systems], np.linalg.cholesky(systems)
    sizes = []
    for name in ("solve", "cholesky"):
        whole = getattr(np.linalg, name)
        monkeypatch.setattr(np.linalg, name, lambda a, *b, whole=whole: sizes.append(a.shape[-1]) or whole(a, *b))
    solutions, roots = solve(products, variance, y)
    np.testing.assert_allclose(solutions, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(roots, factors.diagonal(axis1=1, axis2=2), rtol=1e-9)
    assert max(sizes, default=0) <= BLOCK  # larger ones wake threads


@needs_extension
@pytest.mark.parametrize("size", SIZES)
def test_both_solve_systems_of_any_size(size):
    given = random_systems(3, size, size)
    expected = np.linalg.solve(given[:, :, :-1], given[:, :, -1:])[:, :, 0]
    roots = np.linalg.cholesky(given[:, :, :-1]).diagonal(axis1=1, axis2=2)
    for way in (extension.kernel.solve, solve_with_numpy):
        systems = given.copy()
        way(systems)
        np.testing.assert_allclose(systems[:, :, -1], expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(systems[:, range(size), range(size)], roots, rtol=1e-9)


@needs_extension
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 0.0, -0.0, -1e3, 1e-320, 1e308, -1e308])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 32, 65])
def test_what_cannot_be_solved_spoils_no_other_system(size, odd):
    """One entry, a row with its column, or the whole matrix is odd: the neighbors get their solutions all the same."""
    rng = np.random.default_rng(size)
    given = random_systems(5, size, size)
    expected = np.linalg.solve(given[:, :, :-1], given[:, :, -1:])[:, :, 0]
    row, column = rng.integers(size), rng.integers(size + 1)
    given[1, row, column] = given[2, row] = given[2, :, row] = given[3] = odd
    extension.kernel.solve(given)
    np.testing.assert_allclose(given[[0, 4], :, -1], expected[[0, 4]], rtol=1e-9, atol=1e-12)
    if odd < 0 or not np.isfinite(odd):  # no square root
        assert not np.isfinite(given[3, :, -1]).any()


@pytest.mark.usefixtures("solver")
def test_what_is_not_positive_definite_has_no_solution():
    with np.errstate(invalid="ignore"):
        assert np.isnan(solve(np.full((1, 4, 4), -9.0), np.ones(4), np.ones(4))[0]).any()


@needs_extension
def test_nothing_to_solve():
    for shape in [(0, 4, 5), (4, 0, 1), (0, 0, 1), (0, 1, 2)]:
        extension.kernel.solve(np.ones(shape))
    one = np.array([[[4.0, 6.0]]])
    extension.kernel.solve(one)
    assert one.tolist() == [[[2.0, 1.5]]]


def beside(systems: np.ndarray, offset: int) -> np.ndarray:
    """A copy that begins `offset` bytes into memory of its own."""
    memory = np.zeros(systems.nbytes + offset, np.uint8)
    view = memory[offset:].view(np.float64).reshape(systems.shape)
    view[...] = systems
    return view


@needs_extension
@pytest.mark.parametrize(
    ("systems", "error"),
    [
        (np.ones((1, 2, 3), np.float32), TypeError),
        (np.ones((1, 2, 3), np.int64), TypeError),
        (np.ones((1, 2, 3), np.complex128), TypeError),
        (np.ones((1, 2, 3), ">f8"), TypeError),
        (np.ones((1, 2, 3), object), TypeError),
        (np.ones((1, 2), "f8,f8"), TypeError),
        (np.array(1.0), ValueError),
        (np.ones(2), ValueError),
        (np.ones((2, 3)), ValueError),
        (np.ones((1, 1, 2, 3)), ValueError),
        (np.ones((1, 2, 2)), ValueError),
        (np.ones((1, 3, 2)), ValueError),
        (np.ones((0, 3, 3)), ValueError),
        (np.ones((0, 0, 0)), ValueError),
        (np.ones((3, 2, 1)).T, ValueError),
        (np.ones((4, 4, 5))[::2], ValueError),
        (np.ones((2, 6, 4))[:, ::2], ValueError),
        (np.ones((2, 3, 8))[:, :, ::2], ValueError),
        (np.ones((2, 3, 4))[::-1], ValueError),
        (np.ones((2, 3, 5))[:, :, :4], ValueError),
        (np.broadcast_to(np.ones((1, 3, 4)), (2, 3, 4)), ValueError),
        (beside(np.ones((1, 2, 3)), 1), ValueError),
        (beside(np.ones((1, 2, 3)), 4), ValueError),
        ([[[1.0, 1.0]]], TypeError),
        (b"12345678" * 6, (BufferError, TypeError)),
        (None, TypeError),
    ],
)
def test_other_arrays_are_refused_and_left_alone(systems: Any, error: Any):
    before = systems.copy() if isinstance(systems, np.ndarray) else systems
    with pytest.raises(error):
        extension.kernel.solve(systems)
    assert np.array_equal(before, systems)


@needs_extension
def test_what_is_read_only_is_refused():
    fixed = np.ones((1, 1, 2))
    fixed.setflags(write=False)
    with pytest.raises((BufferError, ValueError)):
        extension.kernel.solve(fixed)


@needs_extension
def test_part_of_an_array_is_solved_in_its_place():
    """Contiguous, though it begins and ends inside other memory, which stays as it was."""
    whole = np.full((5, 7, 8), -1.0)
    whole[1:4] = random_systems(3, 7)
    expected = np.linalg.solve(whole[1:4, :, :-1], whole[1:4, :, -1:])[:, :, 0]
    extension.kernel.solve(whole[1:4])
    np.testing.assert_allclose(whole[1:4, :, -1], expected, rtol=1e-9)
    assert (whole[[0, 4]] == -1).all()


@needs_extension
def test_threads_solve_side_by_side():
    """The interpreter's lock is let go meanwhile; equal systems get equal bits."""
    given = random_systems(8, 64)
    alone = given.copy()
    extension.kernel.solve(alone)
    every = [given.copy() for _ in range(4)]
    threads = [threading.Thread(target=extension.kernel.solve, args=(s,)) for s in every]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for systems in every:
        np.testing.assert_array_equal(systems, alone)
