"""What computes scores: each path of this machine gives the bits that NumPy gives, and refuses what it cannot read."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkedout_edge import extension
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import BackendError, BundleError
from linkedout_edge.rank import scorer as scorer_module
from linkedout_edge.rank import taste
from linkedout_edge.rank.scorer import FORCED, LARGEST, MOST, NUMPY, PATHS, Scorer, score_with_numpy

COMPILED = [p for p in PATHS if p != NUMPY]


def run(path: str, *arrays: Any) -> None:
    if path == NUMPY:
        score_with_numpy(*arrays)
    else:
        extension.kernel.score(path, *arrays)


def example(seed: int, layers: int, per_layer: int, width: int, stored: int, total: int, extreme: bool) -> list[Any]:
    """Arguments of a path; with `extreme`, nothing but the largest, smallest and odd values."""
    rng = np.random.default_rng(seed)
    shape = (layers, per_layer, width)
    largest = min(LARGEST, MOST // width)
    if extreme:
        digits = rng.choice(np.array([-largest, largest, 0, -1, 1, -128, 127, 128], np.int16), shape)
        tokens = rng.choice(np.array([-128, 127, 0, -1], np.int8), (stored, *shape))
        odd = np.array([0, -0.0, 1e-45, 1e-38, 3e38, 1, -1], np.float32)
        units, offsets = rng.choice(odd, shape[:2]), rng.choice(odd, layers)
        scales = rng.choice(odd, (stored, *shape[:2]))
        if rng.random() < 0.5:
            digits, tokens = np.full_like(digits, largest), np.full_like(tokens, -128)
    else:
        digits = rng.integers(-largest, largest + 1, shape, np.int16)
        tokens = rng.integers(-128, 128, (stored, *shape), np.int8)
        units = rng.random(shape[:2], np.float32) * np.float32(1e-4)
        offsets = rng.standard_normal(layers, np.float32)
        scales = rng.random((stored, *shape[:2]), np.float32)
    rows = rng.integers(0, stored, total)
    return [
        digits,
        units,
        offsets,
        tokens,
        scales,
        rows,
        np.empty(total, np.float32),
        np.empty((total, layers), np.float32),
    ]


def bits(array: np.ndarray) -> list[int]:
    """To be compared: which of the many NaN it is does not count, as processors differ there, but -0 is not 0."""
    return np.where(np.isnan(array), np.float32(np.nan), array).view(np.int32).ravel().tolist()


WIDTHS = st.sampled_from([1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 512, 513, 1024])


@pytest.mark.parametrize("path", COMPILED)
@given(
    seed=st.integers(0, 2**32 - 1),
    layers=st.integers(1, 7),
    per_layer=st.integers(1, 5),
    width=WIDTHS,
    stored=st.integers(1, 40),
    total=st.sampled_from([0, 1, 2, 15, 16, 17, 300]),
    extreme=st.booleans(),
    split=st.booleans(),
)
def test_a_path_gives_the_bits_of_numpy(
    path: str, seed: int, layers: int, per_layer: int, width: int, stored: int, total: int, extreme: bool, split: bool
) -> None:
    arrays = example(seed, layers, per_layer, width, stored, total, extreme)
    ours, theirs = ([*arrays[:6], a.copy(), b.copy() if split else None] for a, b in [arrays[6:]] * 2)
    run(path, *ours)
    with np.errstate(all="ignore"):
        run(NUMPY, *theirs)
    assert bits(ours[6]) == bits(theirs[6])
    if split:
        assert bits(ours[7]) == bits(theirs[7])


@pytest.mark.parametrize("path", PATHS)
def test_sums_are_exact(path: str) -> None:
    """Against Python's own whole numbers, with units of a power of two so that nothing is rounded but at the end."""
    arrays = example(1, 3, 2, 64, 20, 50, extreme=False)
    digits, _, _, tokens, _, rows, scores, layers = arrays
    units, scales = np.full((3, 2), 2.0**-12, np.float32), np.ones((20, 3, 2), np.float32)
    run(path, digits, units, np.zeros(3, np.float32), tokens, scales, rows, scores, layers)
    for row, got in zip(rows.tolist(), layers.tolist(), strict=True):
        for layer in range(3):
            first, second = (
                sum(q * t for q, t in zip(digits[layer, m].tolist(), tokens[row, layer, m].tolist(), strict=True))
                for m in range(2)
            )
            both = np.float32(first) * np.float32(2.0**-12) + np.float32(second) * np.float32(2.0**-12)
            assert got[layer] == both


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("which", "wrong", "error"),
    [
        (0, lambda a: a.astype(np.int32), TypeError),
        (0, lambda a: a[..., :-1].copy(), ValueError),
        (0, lambda a: a[None], ValueError),
        (0, lambda a: np.full_like(a, LARGEST + 1), ValueError),
        (0, lambda a: np.full_like(a, -32768), ValueError),
        (0, lambda a: a[:0].copy(), ValueError),
        (1, lambda a: a.astype(np.float64), TypeError),
        (1, lambda a: a.T.copy(), ValueError),
        (2, lambda a: a[:-1].copy(), ValueError),
        (3, lambda a: a.view(np.uint8), TypeError),
        (3, lambda a: a[:, :, :, ::-1], ValueError),
        (3, lambda a: np.asfortranarray(a), ValueError),
        (3, lambda a: np.repeat(a, 2, 0)[::2], ValueError),
        (4, lambda a: a.astype(">f4"), TypeError),
        (4, lambda a: a[:-1].copy(), ValueError),
        (5, lambda a: a.astype(np.int32), TypeError),
        (5, lambda a: a[:, None].copy(), ValueError),
        (5, lambda a: np.repeat(a, 2)[::2], ValueError),
        (5, lambda a: np.frombuffer(b"x" + a.tobytes(), np.int64, offset=1), ValueError),
        (5, lambda a: np.full_like(a, -1), IndexError),
        (5, lambda a: np.full_like(a, 10), IndexError),
        (5, lambda a: np.full_like(a, np.iinfo(np.int64).min), IndexError),
        (5, lambda a: np.full_like(a, np.iinfo(np.int64).max), IndexError),
        (5, lambda a: np.array([0] * 29 + [10]), IndexError),
        (6, lambda a: a[:-1].copy(), ValueError),
        (6, lambda a: a.astype(np.float64), TypeError),
        (7, lambda a: a.T.copy(), ValueError),
    ],
)
def test_what_does_not_fit_is_refused(path: str, which: int, wrong: Any, error: Any) -> None:
    arrays = example(0, 3, 2, 16, 10, 30, extreme=False)
    arrays[which] = wrong(arrays[which])
    with pytest.raises(error):
        run(path, *arrays)


@pytest.mark.parametrize("path", PATHS)
def test_digits_whose_sums_would_overflow_are_refused(path: str) -> None:
    arrays = example(0, 1, 1, 515, 4, 4, extreme=False)
    arrays[0][...] = LARGEST
    with pytest.raises(ValueError, match="overflow"):
        run(path, *arrays)
    arrays[0][..., 0] = 0  # 514 of them fit
    run(path, *arrays)


@pytest.mark.parametrize("path", PATHS)
def test_an_empty_store_has_no_row(path: str) -> None:
    arrays = example(0, 3, 2, 16, 10, 30, extreme=False)
    arrays[3], arrays[4] = arrays[3][:0], arrays[4][:0]
    with pytest.raises(IndexError):
        run(path, *arrays)
    for n in (5, 6, 7):
        arrays[n] = arrays[n][:0]
    run(path, *arrays)  # nothing of nothing


@pytest.mark.parametrize("path", COMPILED)
def test_what_is_no_array_is_refused(path: str) -> None:
    arrays = example(0, 3, 2, 16, 10, 30, extreme=False)
    for n in range(7):
        with pytest.raises(TypeError):
            run(path, *arrays[:n], None, *arrays[n + 1 :])
    read_only = arrays[6]
    read_only.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        run(path, *arrays)
    with pytest.raises(ValueError, match="no path"):
        run("no path", *arrays)


# The scorer

CONFIG = ModelConfig.tiny()
SHAPE = (CONFIG.layers, CONFIG.tokens_per_layer, CONFIG.token_width)


def stored(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    tokens = rng.integers(-127, 128, (count, *SHAPE), np.int8)
    return tokens, rng.random((count, *SHAPE[:2]), np.float32) * np.float32(0.02)


def user_of(tokens: np.ndarray, scales: np.ndarray) -> taste.Taste:
    space = taste.Space.made(np.zeros((SHAPE[0], SHAPE[1] * SHAPE[2])), np.ones(SHAPE[0]))
    return taste.fit(taste.dequantize(tokens, scales), np.linspace(-0.5, 1, len(tokens)), np.ones(len(tokens)), space)


@pytest.mark.parametrize("path", PATHS)
def test_a_long_list_is_shared_by_threads(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCED, path)
    tokens, scales = stored(5000)
    user = user_of(tokens[:9], scales[:9])
    rows = np.random.default_rng(0).permutation(5000)[:2400]
    one, two = Scorer(CONFIG), Scorer(CONFIG, threads=3)
    monkeypatch.setattr(scorer_module, "SHARED_FROM", 100)
    monkeypatch.setattr(scorer_module, "PART", 700)
    used: set[str] = set()
    compute = two._compute
    monkeypatch.setattr(two, "_compute", lambda *a: (used.add(threading.current_thread().name), compute(*a))[1])
    alone, shared = one.score(user, tokens, scales, rows), two.score(user, tokens, scales, rows)
    assert len(used) > 1
    for a, b in zip(alone, shared, strict=True):
        assert a is not None
        assert b is not None
        assert bits(a) == bits(b)
    with pytest.raises(IndexError):
        two.score(user, tokens, scales, np.append(rows, 5000))
    two.close()


@pytest.mark.parametrize("path", PATHS)
def test_most_of_a_store_is_scored_in_its_order(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCED, path)
    tokens, scales = stored(1000)
    user, scorer = user_of(tokens[:9], scales[:9]), Scorer(CONFIG)
    mixed = np.random.default_rng(0).permutation(1000)[:700]
    read: list[int] = []
    compute = scorer._compute
    monkeypatch.setattr(scorer, "_compute", lambda *a: (read.append(len(a[5])), compute(*a))[1])
    one_by_one = scorer.score(user, tokens, scales, mixed)
    monkeypatch.setattr(scorer_module, "IN_ORDER_FROM", 100)
    scales[np.setdiff1d(np.arange(1000), mixed)] = np.nan  # rows that nobody asks for may hold anything
    in_order = scorer.score(user, tokens, scales, mixed)
    assert read == [700, 1000]
    for a, b in zip(one_by_one, in_order, strict=True):
        assert a is not None
        assert b is not None
        assert bits(a) == bits(b)
    short = scorer.score(user, tokens, scales, mixed.astype(np.int32))  # as the store gives them
    assert bits(short[0]) == bits(in_order[0])
    assert read[2:] == [1000]
    scorer.score(user, tokens, scales, np.sort(mixed))
    scorer.score(user, tokens, scales, mixed[:499])
    assert read[3:] == [700, 499]
    for wrong in (-1, 1000):
        with pytest.raises(IndexError):
            scorer.score(user, tokens, scales, np.append(mixed, wrong))
    with pytest.raises(TypeError):
        scorer.score(user, tokens, scales, mixed.astype(np.float32))


@pytest.mark.parametrize("path", PATHS)
def test_a_score_that_is_no_number_is_an_error(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCED, path)
    tokens, scales = stored(20)
    user, scorer = user_of(tokens[:4], scales[:4]), Scorer(CONFIG)
    scales[7, 1, 0] = np.nan
    assert scorer.score(user, tokens, scales, np.arange(7))[0].shape == (7,)
    with pytest.raises(BackendError, match="no number"):
        scorer.score(user, tokens, scales, np.arange(8))
    with pytest.raises(BackendError, match="no number"):
        scorer.score(user_of(tokens[:9], scales[:9]), tokens, scales, np.arange(7))


@pytest.mark.parametrize("path", PATHS)
def test_scoring_while_others_write(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is not held: what is written meanwhile may be read in part, other rows are not touched by it."""
    monkeypatch.setenv(FORCED, path)
    tokens, scales = stored(3000)
    user, scorer = user_of(tokens[:9], scales[:9]), Scorer(CONFIG)
    still = np.arange(0, 3000, 2)
    wanted = bits(scorer.score(user, tokens, scales, still)[0])
    stop = threading.Event()

    def write(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            row = 2 * int(rng.integers(1500)) + 1
            tokens[row] = rng.integers(-127, 128, SHAPE, np.int8)
            scales[row] = rng.random(SHAPE[:2], np.float32)

    def rank(seed: int) -> None:
        rows = np.random.default_rng(seed).permutation(3000)
        for _ in range(30):
            scores = scorer.score(user, tokens, scales, rows, split=False)[0]
            assert bits(scores[np.argsort(rows)][::2]) == wanted

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, n) for n in range(2)]
        try:
            for ranker in [pool.submit(rank, n) for n in range(2)]:
                ranker.result()
        finally:
            stop.set()
        for writer in writers:
            writer.result()


def test_the_path_is_the_best_or_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FORCED, raising=False)
    assert Scorer(CONFIG).path == PATHS[0]
    assert PATHS[-1] == NUMPY
    for path in PATHS:
        monkeypatch.setenv(FORCED, path)
        assert Scorer(CONFIG).device == ("NumPy" if path == "NumPy" else f"{path} kernel")
    monkeypatch.setenv(FORCED, "abacus")
    with pytest.raises(BackendError, match=r"abacus: here are .*NumPy"):
        Scorer(CONFIG)


def test_tokens_that_are_too_wide_are_refused() -> None:
    import msgspec

    with pytest.raises(BundleError, match="1025"):
        Scorer(msgspec.structs.replace(CONFIG, token_width=1025))
