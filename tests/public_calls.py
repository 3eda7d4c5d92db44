"""All that an app can call, with arguments that do no harm: what has to answer the same way wherever it is called."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from linkedout_edge import Recommender
from linkedout_edge.history import History
from linkedout_edge.store import TokenStore

RECOMMENDER: dict[str, Callable[[Recommender], Any]] = {
    "rank": lambda r: r.rank(["a"], ["b"]),
    "arank": lambda r: asyncio.run(r.arank(["a"], ["b"])),
    "encode": lambda r: r.encode([]),
    "aencode": lambda r: asyncio.run(r.aencode([])),
    "refine": lambda r: r.refine(),
    "wait": lambda r: r.wait(),
    "forget": lambda r: r.forget("a"),
    "warmup": lambda r: r.warmup(),
    "info": lambda r: r.info(),
    "taste": lambda r: r.taste(),
}
HISTORY: dict[str, Callable[[History], Any]] = {
    "save": lambda h: h.save("h"),
    "load": lambda h: h.load("h"),
    "add": lambda h: h.add("a"),
    "forget": lambda h: h.forget("a"),
    "clear": lambda h: h.clear(),
    "export": lambda h: h.export(),
    "incognito": lambda h: h.incognito().__enter__(),
}
STORE: dict[str, Callable[[TokenStore], Any]] = {
    "select": lambda s: s.select(),
    "remove": lambda s: s.remove("a"),
    "stats": lambda s: s.stats(),
    "export_pack": lambda s: s.export_pack("/nowhere"),
    "import_pack": lambda s: s.import_pack("/nowhere"),
}
OTHERS: list[Callable[[Recommender], Any]] = [
    lambda r: r.__enter__(),
    lambda r: list(r.history),
    lambda r: len(r.history),
    lambda r: "a" in r.store,
    lambda r: len(r.store),
    lambda r: list(r.store),
    lambda r: r.store.select(["a"]),
]


def all_calls() -> list[Callable[[Recommender], Any]]:
    """Every one of them, as a call on a recommender. Checks that none is missing."""
    assert public_calls(Recommender) == set(RECOMMENDER)
    assert public_calls(History) == set(HISTORY)
    assert public_calls(TokenStore) == set(STORE)
    return [
        *RECOMMENDER.values(),
        *(lambda r, c=c: c(r.history) for c in HISTORY.values()),
        *(lambda r, c=c: c(r.store) for c in STORE.values()),
        *OTHERS,
    ]


def public_calls(kind: type) -> set[str]:
    names = {n for n, _ in inspect.getmembers(kind, inspect.isfunction) if not n.startswith("_")}
    return names - {"close"}
