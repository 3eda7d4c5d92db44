"""What the tests of the bindings share: what the Python package offers, and how commands are run."""

from __future__ import annotations

import inspect
import os
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

import linkedout_edge
from linkedout_edge import Ranked, Ranking, Recommender
from linkedout_edge.history import History
from linkedout_edge.store import TokenStore


def public(kind: type) -> list[str]:
    return [n for n in vars(kind) if not n.startswith("_")]


def python_names() -> set[str]:
    """Classes, functions, options and fields."""
    options = {
        f"{call}({name}=…)"
        for call, function in (("load", Recommender.load), ("rank", Recommender.rank))
        for name in inspect.signature(function).parameters
        if name != "self"
    }
    return {
        *options,
        *(n for n in linkedout_edge.__all__ if not n.startswith("_")),
        *(f"rec.{n}" for n in (*public(Recommender), "history", "store")),
        *(f"rec.history.{n}" for n in public(History) if n not in ("close", "is_incognito")),
        *(f"rec.store.{n}" for n in public(TokenStore)),
        *(f"ranking.{n}" for n in public(Ranking)),
        *(f"ranking[i].{f.name}" for f in fields(Ranked) if not f.name.startswith("_")),
        *(f"ranking[i].{n}" for n in public(Ranked)),
    }


def missing(what: str) -> None:
    """Skip; where all bindings are to be tested, fail."""
    if os.environ.get("LINKEDOUT_BINDINGS") == "all":
        pytest.fail(what)
    pytest.skip(what)


def run(*command: str | Path, cwd: Path | None = None, timeout: float = 840, **environment: str) -> str:
    """What a command prints; it has to succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    return done.stdout
