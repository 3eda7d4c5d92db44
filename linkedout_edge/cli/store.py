"""`linkedout-edge store`: list, remove, import, export."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from linkedout_edge.cli.data import absolute, data_arguments, data_options, stored_arguments
from linkedout_edge.cli.options import Group, model_options, refuse_urls
from linkedout_edge.errors import PackError, PackNotFoundError


@click.group(cls=Group)
def store() -> None:
    """Encoded videos: list, remove, import, export.

    They are stored in your data folder and nowhere else.
    """


@store.command("list")
@data_options
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print the videos as JSON.")
def list_(data_dir: Path | None, key_file: Path | None, model: dict[str, Any], as_json: bool) -> None:
    """List stored videos by name, and say which were encoded only quickly, and which were watched."""
    from rich.table import Table

    from linkedout_edge import Recommender
    from linkedout_edge.cli.output import console, count, plain, print_json, short_names, size

    with Recommender.load(**model, **stored_arguments(data_dir, key_file)) as rec:
        ids, quick, watched = sorted(rec.store), rec._tokens.quick(), {e.id for e in rec.history}
        stats = rec.store.stats()
    if as_json:
        videos = [{"id": i, "quick": i in quick, "watched": i in watched} for i in ids]
        print_json({"videos": videos, "disk_bytes": stats.disk_bytes})
        return
    out = console()
    if not ids:
        out.print(plain("No video is stored.", "dim"))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("video", "encoded", ""):
        table.add_column(title)
    names = short_names(ids)
    for i in ids:
        table.add_row(plain(names[i]), "quickly" if i in quick else "", "watched" if i in watched else "")
    out.print(table)
    out.print(plain(f"{count(len(ids), 'video')} · {size(stats.disk_bytes)} on disk", "dim"))


@store.command()
@click.argument("videos", nargs=-1, required=True)
@data_options
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def remove(
    ctx: click.Context,
    videos: tuple[str, ...],
    data_dir: Path | None,
    key_file: Path | None,
    model: dict[str, Any],
    as_json: bool,
) -> None:
    """Remove VIDEOS from the store.

    Takes files, which stay where they are, and ids as `store list --json` prints them. What was watched stays in the
    history; `history forget` removes it from both.

    Exit code: 0, or 1 if one of the VIDEOS was not stored.
    """
    from linkedout_edge import Recommender
    from linkedout_edge.cli.output import say

    unknown: list[str] = []
    removed = 0
    with Recommender.load(**model, **stored_arguments(data_dir, key_file)) as rec:
        for video in dict.fromkeys(videos):
            found = rec.store.remove([video, *absolute([video])])
            removed += found
            if not found:
                unknown.append(video)
    told = [f"{removed} removed", *(f"not stored: {v}" for v in unknown)]
    say({"removed": removed, "unknown": unknown}, *told, as_json=as_json)
    if unknown:
        ctx.exit(1)


@store.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("videos", nargs=-1)
@data_options
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export(
    file: Path,
    videos: tuple[str, ...],
    data_dir: Path | None,
    key_file: Path | None,
    model: dict[str, Any],
    as_json: bool,
) -> None:
    """Write stored VIDEOS into FILE, a feature pack.

    Without VIDEOS, everything stored is written. The pack is for other devices, and is not encrypted.
    """
    from linkedout_edge import Recommender
    from linkedout_edge.cli.output import count, say
    from linkedout_edge.options import new_file
    from linkedout_edge.store.store import PACK_EXAMPLE

    new_file(file, PACK_EXAMPLE)  # before the model is loaded
    with Recommender.load(**model, **stored_arguments(data_dir, key_file)) as rec:
        wanted = [v if v in rec.store else absolute([v])[0] for v in dict.fromkeys(videos)]
        exported = rec.store.export_pack(file, wanted or None)
    say({"exported": exported}, f"{count(exported, 'video')} exported to {file}", as_json=as_json)


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
