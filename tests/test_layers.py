"""Modules of the runtime import each other in one direction, late imports included."""

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


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """All but those under TYPE_CHECKING, which never run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.stmt):
            yield child
        yield from statements(child)


def imports_of(code: str) -> set[str]:
    found = set()
    for statement in statements(ast.parse(code)):
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


def test_what_is_imported_for_types_does_not_count() -> None:
    assert imports_of("if TYPE_CHECKING:\n    import a") == set()


@pytest.mark.parametrize(
    "code",
    [
        "import a",
        "try:\n    import b\nexcept ImportError:\n    import a",
        "class C:\n    import a",
        "def f():\n    if x:\n        import a",
        "with x:\n    import a",
        "match x:\n    case 1:\n        import a",
    ],
)
def test_what_is_imported_now_or_later_counts(code: str) -> None:
    """Later: a library that is heavy is no circle, and one of ours that is late to avoid one is."""
    assert "a" in imports_of(code)
