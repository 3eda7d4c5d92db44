"""The index of ids → rows: the extension's and its twin on a dictionary, against a plain dictionary."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import tracemalloc

import numpy as np
import pytest

from linkedout_edge.store.index import DictIndex, RowIndex

KINDS = [
    pytest.param(DictIndex, id="dict"),
    pytest.param(RowIndex, id="C", marks=pytest.mark.skipif(RowIndex is DictIndex, reason="no extension here")),
]
every_kind = pytest.mark.parametrize("kind", KINDS)
extension = pytest.mark.parametrize("kind", KINDS[1:])
ODD = ["", "\0", "\0\0", "a", "ä", "\ud800", "\udfff", "\ud83d\ude00", "\U0001f600", "日本", "x" * 1000, "video-1", "1"]


class Odd(str):
    """Of other equality than its text; nothing of it may be called."""

    def __eq__(self, other):
        raise AssertionError

    def __hash__(self):
        raise AssertionError

    def __str__(self):
        raise AssertionError


def found(index, ids):
    rows = np.full(len(ids), -7, np.int32)
    index.find(ids, rows)
    return rows.tolist()


def copy_of(text):
    """An equal string that is another object."""
    return "".join(list(text)) if len(text) > 1 else text


def assert_same(index, known):
    assert len(index) == len(known)
    assert index.ids() == list(known)
    assert all(type(i) is str for i in index.ids())
    assert found(index, [copy_of(i) for i in known]) == list(known.values())


@every_kind
@pytest.mark.parametrize("seed", range(6))
def test_does_what_a_dictionary_does(kind, seed):
    rng = random.Random(seed)
    names = ODD + [f"video-{n}" for n in range(rng.choice([20, 300, 3000]))]
    index, known = kind(), {}
    for step in range(6000):
        name = copy_of(rng.choice(names))
        given = Odd(name) if rng.random() < 0.1 else name
        what, row = rng.random(), rng.randrange(2**31)
        if what < (0.6 if step % 2000 < 1000 else 0.2):
            index[given] = known[name] = row
        elif what < 0.8:
            if name in known:
                del index[given], known[name]
            else:
                with pytest.raises(KeyError):
                    del index[given]
        assert index.get(given) == known.get(name, -1)
        assert (given in index) == (name in known)
        if name in known:
            assert index[given] == known[name]
        if step % 500 == 0:
            assert_same(index, known)
    some = [copy_of(i) for i in rng.choices(names, k=500)]
    assert found(index, some) == [known.get(i, -1) for i in some]
    assert_same(index, known)


@every_kind
def test_many_at_once(kind):
    ids = [f"video-{n}" for n in range(20_000)]
    rows = np.random.default_rng(0).permutation(20_000).astype(np.int32)
    index = kind()
    index.update(ids, rows)
    index.update([], np.zeros(0, np.int32))
    assert_same(index, dict(zip(ids, rows.tolist(), strict=True)))
    index.update([*ids[5:7], "new", "new"], np.array([1, 2, 3, 4], np.int32))
    assert found(index, [*ids[4:8], "new"]) == [rows[4], 1, 2, rows[7], 4]
    assert index.ids() == [*ids, "new"]


@every_kind
@pytest.mark.parametrize("expected", [0, 70, 1000])
@pytest.mark.parametrize("change", ["replace", "remove", "neither"])
def test_rows_that_are_counted_up_until_one_is_not(kind, expected, change):
    index, known = kind(expected), {f"video-{n}": n for n in range(50)}
    for i, row in known.items():
        index[i] = row
    if change == "replace":
        index["video-7"] = known["video-7"] = 50
    elif change == "remove":
        del index["video-7"], known["video-7"]
    for n in range(51, 400):
        index[f"video-{n}"] = known[f"video-{n}"] = n if change == "neither" else n + 3
    assert_same(index, known)


@every_kind
@pytest.mark.parametrize("slot", [5, 62])
def test_ids_that_begin_at_one_slot(kind, slot):
    """All collide in a table of 64 slots; from the last ones on they go round its end."""
    ids = [i for n in range(10_000) if hash(i := f"video-{n}") % 64 == slot][:100]
    index, known = kind(), {}
    for n, i in enumerate(ids[:50]):
        index[i] = known[i] = n
    for i in ids[10:40:2]:
        del index[i], known[i]
    assert found(index, ids) == [known.get(i, -1) for i in ids]
    for n, i in enumerate(ids[35:]):
        index[i] = known[i] = 1000 + n
    assert_same(index, known)


@every_kind
def test_ids_whose_hashes_agree_as_far_as_they_are_kept(kind):
    """The low 32 bits: of 400,000 ids, about 19 pairs have the same."""
    seen, pairs = {}, []
    for n in range(400_000):
        i = f"video-{n}"
        if (other := seen.setdefault(hash(i) & 0xFFFFFFFF, i)) is not i:
            pairs.append((other, i))
    assert pairs
    for one, other in pairs:
        index = kind()
        index[one] = 1
        assert found(index, [one, other]) == [1, -1]
        index[other] = 2
        assert found(index, [copy_of(one), copy_of(other)]) == [1, 2]
        del index[one]
        assert found(index, [one, other]) == [-1, 2]


@every_kind
def test_replacing_for_ever_takes_no_more_room(kind):
    """Holes are closed: 500,000 ids come and go, and no more than 1,000 are there at once."""
    index = kind()
    for n in range(500_000):
        index[f"video-{n}"] = n
        if n >= 1000:
            del index[f"video-{n - 1000}"]
    assert index.ids() == [f"video-{n}" for n in range(499_000, 500_000)]
    assert found(index, ["video-499000", "video-498999"]) == [499_000, -1]


@every_kind
@pytest.mark.parametrize("thing", [5, None, b"video", 1.5, ("a",), []])
def test_what_is_no_str_is_unknown_and_refused(kind, thing):
    index = kind()
    index["a"] = 0
    assert index.get(thing) == -1
    assert thing not in index
    assert found(index, ["a", thing, "a"]) == [0, -1, 0]
    with pytest.raises(KeyError):
        index[thing]
    with pytest.raises(KeyError):
        del index[thing]
    with pytest.raises(TypeError, match="an id is a str"):
        index[thing] = 1
    with pytest.raises(TypeError, match="an id is a str"):
        index.update(["b", thing, "c"], np.arange(3, dtype=np.int32))
    assert index.ids() == ["a", "b"]


@every_kind
@pytest.mark.parametrize("row", [-1, 2**31, 2**63, -(2**70)])
def test_a_row_that_does_not_fit(kind, row):
    index = kind()
    with pytest.raises(ValueError, match="a row is a number from 0"):
        index["a"] = row
    if -(2**31) <= row < 2**31:
        with pytest.raises(ValueError, match="a row is a number from 0"):
            index.update(["a"], np.array([row], np.int32))
    assert index.ids() == []
    index["a"] = 2**31 - 1
    assert index["a"] == 2**31 - 1


@extension
@pytest.mark.parametrize(
    ("ids", "rows", "error"),
    [
        (["a"], np.zeros(1, np.int64), ValueError),
        (["a"], np.zeros(1, np.float64), ValueError),
        (["a"], np.zeros(1, ">i4"), ValueError),
        (["a"], np.zeros(2, np.int32), ValueError),
        (["a"], np.zeros((1, 1), np.int32), ValueError),
        (["a", "b"], np.zeros(4, np.int32)[::2], ValueError),
        (["a"], np.zeros(5, np.uint8)[1:].view(np.int32), ValueError),
        (["a"], [0], TypeError),
        (("a",), np.zeros(1, np.int32), TypeError),
        ("a", np.zeros(1, np.int32), TypeError),
    ],
)
def test_arrays_are_checked(kind, ids, rows, error):
    index = kind()
    with pytest.raises(error):
        index.find(ids, rows)
    with pytest.raises(error):
        index.update(ids, rows)
    assert len(index) == 0


@extension
def test_more_that_is_checked(kind):
    fixed = np.zeros(1, np.int32)
    fixed.flags.writeable = False
    with pytest.raises(ValueError):
        kind().find(["a"], fixed)
    kind().update(["a"], fixed)
    for wrong in (lambda: kind("1"), lambda: kind(room=1), lambda: kind().find(["a"])):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(TypeError):
        kind()["a"] = "1"


@every_kind
def test_ids_are_held_as_long_as_needed(kind):
    ids = [f"held-{n}" for n in range(200)]
    before = [sys.getrefcount(i) for i in ids]
    index = kind()
    for _ in range(3):
        index.update(ids, np.arange(200, dtype=np.int32))
        found(index, ids)
    assert [sys.getrefcount(i) for i in ids] == [n + 1 for n in before]
    for n in range(150):
        del index[ids[n]]
    index.update([f"other-{n}" for n in range(1000)], np.arange(1000, dtype=np.int32))
    assert [sys.getrefcount(i) for i in ids] == before[:150] + [n + 1 for n in before[150:]]
    del index
    assert [sys.getrefcount(i) for i in ids] == before


@every_kind
def test_readers_without_the_lock(kind):
    """What stays is found, whatever a writer does meanwhile."""
    index = kind()
    stays = [f"stays-{n}" for n in range(300)]
    index.update(stays, np.arange(300, dtype=np.int32))
    over, wrong = threading.Event(), []

    def read():
        while not over.is_set():
            if found(index, stays) != list(range(300)) or not set(stays) <= set(index.ids()):
                wrong.append(1)

    readers = [threading.Thread(target=read) for _ in range(2)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for r in readers:
            r.start()
        for n in range(20_000):
            index[f"goes-{n}"] = n
            if n >= 50:
                del index[f"goes-{n - 50}"]
    finally:
        over.set()
        for r in readers:
            r.join()
        sys.setswitchinterval(before)
    assert not wrong
    assert len(index) == 350


@every_kind
def test_arrays_are_let_go(kind):
    index, rows, thing = kind(), np.zeros(2, np.int32), object()
    before = sys.getrefcount(rows)
    for ids in (["a", "b"], ["a", thing], ["a"]):
        with contextlib.suppress(TypeError, ValueError):
            index.update(ids, rows)
        with contextlib.suppress(ValueError):
            index.find(ids, rows)
    assert sys.getrefcount(rows) == before


@extension
def test_memory(kind):
    ids = [f"video-{n}" for n in range(100_000)]
    rows = np.arange(100_000, dtype=np.int32)
    tracemalloc.start()
    try:
        index = kind()
        index.update(ids, rows)
        assert tracemalloc.get_traced_memory()[0] < 15 * len(index)
        for n in range(20_000):  # a full store, whose oldest leave
            del index[ids[n]]
            index[ids[n]] = n
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(index) == 100_000
    assert taken < 20 * len(index)
