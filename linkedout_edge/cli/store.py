"""`linkedout-edge store`: import feature packs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from linkedout_edge.cli.data import data_arguments, data_options
from linkedout_edge.cli.options import Group, model_options, refuse_urls
from linkedout_edge.errors import PackError, PackNotFoundError


@click.group(cls=Group)
def store() -> None:
    """Import feature packs that were made elsewhere."""


@store.command("import")
@click.argument("packs", nargs=-1, required=True)
@data_options
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def import_(
    packs: tuple[str, ...],
    data_dir: Path | None,
    key_file: Path | None,
    model: dict[str, Any],
    as_json: bool,
) -> None:
    """Import feature packs: files, or folders of them.

    Stored videos with the same ids are replaced. Each pack is imported completely or not at all. The command stops at
    the first pack that cannot be read, and can safely be repeated. The store holds 100,000 videos; beyond that the
    least recently used are evicted, and the command says how many.
    """
    from linkedout_edge import Recommender
    from linkedout_edge.cli.output import console, count, duration, plain, print_json, progress

    files = _files(packs)
    start = time.perf_counter()
    with Recommender.load(**model, **data_arguments(data_dir, key_file)) as rec:
        imported = 0
        with progress("Importing", len(files)) as advance:
            for n, file in enumerate(files, 1):
                try:
                    imported += len(rec.store.import_pack(file))
                except PackError as e:
                    raise type(e)(f"{file}: {e}") from e
                advance(n, len(files))
        stats = rec.store.stats()
    took = time.perf_counter() - start
    if as_json:
        print_json({"imported": imported, "stored": stats.videos, "evicted": stats.evicted, "seconds": took})
        return
    out = console()
    if stats.evicted:
        out.print(plain(f"{stats.evicted} evicted: the store holds at most {stats.max_videos} videos", "yellow"))
    out.print(
        plain(f"{imported} imported from {count(len(files), 'pack')} · {stats.videos} in the store · {duration(took)}")
    )


def _files(values: tuple[str, ...]) -> list[Path]:
    """Folders become the packs in them, sorted."""
    refuse_urls(values)
    files: list[Path] = []
    for value in map(Path, values):
        inside = sorted(value.glob("[!.]*.safetensors")) if value.is_dir() else [value]
        if not inside:
            raise PackNotFoundError(f"there is no pack in {value}: name a folder that encode --packs wrote")
        files += inside
    return files
