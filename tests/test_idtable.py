"""Ids and rows, against a dictionary and a list that do the same."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from linkedout_edge.idtable import IdTable

IDS = st.integers(0, 60).map("v{}".format)  # few of many, so that they come again; most share a slot's neighbourhood


class Ids(RuleBasedStateMachine):
    """Appends and removals in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.table = IdTable()
        self.names: list[str] = []

    @rule(id=IDS)
    def append(self, id: str) -> None:
        if id not in self.names:
            assert self.table.append(id) == len(self.names)
            self.names.append(id)

    @rule(id=IDS)
    def remove(self, id: str) -> None:
        if id in self.names:
            row = self.names.index(id)
            assert self.table.remove(id) == row
            self.names[row] = self.names[-1]
            self.names.pop()

    @rule(count=st.integers(0, 300))
    def reserve(self, count: int) -> None:
        self.table.reserve(count)

    @invariant()
    def same(self) -> None:
        every = [f"v{n}" for n in range(61)]
        expected = [self.names.index(i) if i in self.names else -1 for i in every]
        assert self.table.names == self.names
        assert len(self.table) == len(self.names)
        assert self.table.rows(every).tolist() == expected
        assert [self.table.row(i) for i in every] == expected
        assert [i in self.table for i in every] == [row >= 0 for row in expected]


TestIds = Ids.TestCase


def test_it_grows_and_finds_all() -> None:
    table, ids = IdTable(), [f"video-{n}" for n in range(5000)]
    for n, i in enumerate(ids):
        assert table.append(i) == n
    assert table.rows(ids[::-1]).tolist() == list(range(5000))[::-1]
    for i in ids[:4000]:
        table.remove(i)
    assert (table.rows(ids[:4000]) == -1).all()
    assert [table.names[row] for row in table.rows(ids[4000:]).tolist()] == ids[4000:]


def test_what_is_no_str_is_not_in_it() -> None:
    table = IdTable()
    table.append("a")
    assert None not in table
    assert [] not in table
