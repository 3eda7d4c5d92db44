"""``linkedout-edge encode --packs FOLDER``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Any

import click

from linkedout_edge.cli.data import absolute
from linkedout_edge.cli.options import expand_videos
from linkedout_edge.cli.output import console, count, duration, plain, print_json, progress
from linkedout_edge.scale import encode_to_packs, remote


def encode_command(
    ctx: click.Context,
    videos: Iterable[str],
    folder: str,
    engine: Any,
    shards: int | None,
    model: dict[str, Any],
    decoder: str,
    as_json: bool,
) -> None:
    """Encode into a folder of packs, and print what was done. ``--threads`` counts the workers."""
    model = dict(model)
    workers = model.pop("threads")
    if engine == "local" and workers is not None:
        raise click.UsageError("--threads counts the workers of --engine ray; local is one process of one thread")
    found = expand(videos)
    start = time.perf_counter()
    # Ray prints what became of its workers; the result stands alone on stdout.
    with progress("Encoding", len(found)) as advance, redirect_stdout(sys.stderr):
        result = encode_to_packs(
            found, folder, engine=engine, workers=workers, shards=shards, model=model, decoder=decoder, progress=advance
        )
    took = time.perf_counter() - start
    if as_json:
        print_json({**asdict(result), "failures": str(result.failures), "seconds": took})
    else:
        out = console()
        for name in result.damaged:
            out.print(plain(f"{name} could not be read; it was set aside and made again", "yellow"))
        if result.failed:
            out.print(plain(f"{result.failures} says what failed, and why", "yellow"))
        out.print(
            plain(
                f"{result.encoded} encoded, {result.unchanged} already known, {result.failed} failed · "
                f"{count(result.packs, 'pack')} · {duration(took)}"
            )
        )
    if not result.encoded + result.unchanged:
        ctx.exit(1)


def expand(values: Iterable[str]) -> list[str]:
    """Folders and patterns, here or by URL, become the videos in them; paths become absolute.

    What leads to no video stays: it fails by name later, beside the others. In ``http`` URLs a question mark belongs to
    the name.

    Raises:
        FetchError: A folder or pattern by URL cannot be listed.
        MissingDependencyError: There is a URL, and no fsspec.
    """
    found: list[str] = []
    for value in values:
        if not remote.is_remote(value):
            found += absolute(expand_videos([value]))
        elif value.endswith("/") or any(c in value for c in ("*[" if value.startswith("http") else "*[?")):
            found += remote.listed(value) or [value]
        else:
            found.append(value)
    return list(dict.fromkeys(found))
