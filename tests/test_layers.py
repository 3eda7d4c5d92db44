"""Modules of the runtime import each other in one direction."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import linkedout_edge

ROOT = Path(linkedout_edge.__file__).parent


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(p): p for p in ROOT.rglob("*.py")}
EXTENSION = "linkedout_edge._kernel"


def run_on_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported: those in functions and under TYPE_CHECKING do not."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            continue
        yield statement
        for part in ("body", "orelse", "finalbody"):
            yield from run_on_import(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from run_on_import(handler.body)


def imports_of(code: str) -> set[str]:
    found = set()
    for statement in run_on_import(ast.parse(code).body):
        if isinstance(statement, ast.ImportFrom):
            modules = {f"{statement.module}.{a.name}" for a in statement.names}
            found |= {m if m in MODULES or m == EXTENSION else str(statement.module) for m in modules}
        elif isinstance(statement, ast.Import):
            found |= {a.name for a in statement.names}
    return found


def test_no_import_circles() -> None:
    needs = {m: imports_of(p.read_text("utf-8")) & MODULES.keys() for m, p in MODULES.items()}
    assert "linkedout_edge.rank.pipeline" in needs["linkedout_edge.recommender"]
    graphlib.TopologicalSorter(needs).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("late", ["def f():\n    import a", "if TYPE_CHECKING:\n    import a"])
def test_what_is_imported_late_or_for_types_does_not_count(late: str) -> None:
    assert imports_of(late) == set()


@pytest.mark.parametrize(
    "early", ["import a", "try:\n    import a\nexcept ImportError:\n    pass", "class C:\n    import a"]
)
def test_what_is_imported_at_once_counts(early: str) -> None:
    assert imports_of(early) == {"a"}
