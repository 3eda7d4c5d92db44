"""`linkedout-edge encode`."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linkedout_edge import install
from linkedout_edge.cli.data import absolute, data_arguments, data_options
from linkedout_edge.cli.options import expand_videos, model_options
from linkedout_edge.errors import MissingDependencyError

if TYPE_CHECKING:
    from linkedout_edge.cli.library import Library, Outcome

SHOWN = 3
"""Failures of a kind that are shown by name."""
SETTLED_MS = 2000
"""Milliseconds for which changes of a watched folder are collected before they are processed."""
LOOK_EVERY_MS = 5_000
"""Milliseconds without a change after which we check whether a file has been gone for long enough."""


@click.command()
@click.argument("videos", nargs=-1, required=True)
@data_options
@model_options
@click.option(
    "--decoder", default="auto", show_default=True, help="auto, pyav, opencv, or pyav:cuda (or another device)."
)
@click.option(
    "--decoders", type=click.IntRange(min=0), help="Number of decoder processes; 0 for none. [default: as needed]"
)
@click.option(
    "--effort",
    type=click.Choice(["auto", "quick", "full"]),
    default="auto",
    show_default=True,
    help="quick: key frames only. full: seven frames. auto: first quick for all videos, then full for all.",
)
@click.option("--watch", is_flag=True, help="Keep running, and update the store when the folders change.")
@click.option(
    "--forget-after",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="MINUTES",
    help="With --watch: how long after its removal a file is forgotten.",
)
@click.option(
    "--export-pack",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write these videos' tokens into a file for other devices.",
)
@click.option("--packs", metavar="FOLDER", help="Write packs into a folder instead of the store (docs/scale.md).")
@click.option("--shards", type=click.IntRange(min=1), help="With --packs: number of packs. [default: 256 videos each]")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="With --packs: use this process, or the workers of a Ray cluster.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each finished video, and a summary.")
@click.pass_context
def encode(
    ctx: click.Context,
    videos: tuple[str, ...],
    data_dir: Path | None,
    key_file: Path | None,
    model: dict[str, Any],
    decoder: str,
    decoders: int | None,
    effort: Any,
    watch: bool,
    forget_after: float,
    export_pack: Path | None,
    packs: str | None,
    shards: int | None,
    engine: str,
    as_json: bool,
) -> None:
    """Encode VIDEOS once, so that ranking them is fast.

    Takes files, folders and patterns. In a folder and its subfolders, videos are recognized by their content. Unchanged
    videos are not encoded again, and moved files are recognized. You can interrupt the command at any time: what was
    encoded is kept, and the same command continues from there.

    With --watch it keeps running: it encodes new and changed files, and forgets removed ones after a while.

    Exit code: 0 if something is stored, 1 if every video failed, 2 for a mistake in the call.
    """
    if packs is not None:
        if data_dir or key_file or export_pack:
            raise click.UsageError("--packs does not use the store: leave out --data-dir, --key-file and --export-pack")
        if watch or decoders is not None or effort == "quick":
            raise click.UsageError("--packs always takes full looks, once: leave out --watch, --decoders and --effort")
        from linkedout_edge.scale.cli import encode_command

        encode_command(ctx, videos, packs, engine, shards, model, decoder, as_json)
        return
    if engine != "local" or shards:
        raise click.UsageError("--engine and --shards need --packs FOLDER, the folder for the packs")
    from linkedout_edge import Recommender
    from linkedout_edge.cli.library import Library
    from linkedout_edge.cli.output import console, duration, note, plain
    from linkedout_edge.options import new_file
    from linkedout_edge.store.store import PACK_EXAMPLE

    if export_pack:
        new_file(export_pack, PACK_EXAMPLE)  # before everything is encoded
    watched = [v for v in videos if Path(v).is_dir()]
    changes = _changes(watched) if watch else None
    paths = absolute(v for v in expand_videos(videos) if not Path(v).is_dir())  # an empty folder is no failure
    if not paths and not watch:
        note(f"No video found in {', '.join(videos)}; photos in folders are left out.")
    start = time.perf_counter()
    with Recommender.load(**model, **data_arguments(data_dir, key_file), decoder=decoder, decoders=decoders) as rec:
        library = Library(rec, effort, forget_after * 60)
        last = _run(library, paths, as_json=as_json)
        stored = [i for i in last if i in rec.store]
        if export_pack:
            rec.store.export_pack(export_pack, stored)
        stats = rec.store.stats()
        took = time.perf_counter() - start
        counts = Counter(o.status for o in last.values())
        if as_json:
            summary = {"counts": counts, "stored": stats.videos, "quick": stats.quick, "seconds": took}
            click.echo(json.dumps({"summary": summary}))
        else:
            out = console()
            for line in _failures(last.values()):
                out.print(plain(line, "yellow"))
            known = counts["unchanged"] + counts["moved"]
            out.print(
                plain(
                    f"{counts['encoded'] + counts['refined']} encoded, {known} already known, "
                    f"{counts['failed']} failed · {stats.videos} in the store"
                    + (f", {stats.quick} of them by a quick look" if stats.quick else "")
                    + f" · {duration(took)}"
                )
            )
        if changes is not None:
            note("Watching; Ctrl-C ends it.")
            _follow(library, watched, changes, as_json=as_json)
    if not stored:
        ctx.exit(1)


def _run(library: Library, paths: Sequence[str], *, as_json: bool) -> dict[str, Outcome]:
    """Encode all, with progress; id → its final outcome."""
    from linkedout_edge.cli.output import stages

    last: dict[str, Outcome] = {}
    begun: dict[str, float] = {}
    with stages(patience=2.0) as report:

        def advance(what: str, done: int, total: int) -> None:
            rate = done / max(1e-3, time.perf_counter() - begun.setdefault(what, time.perf_counter()))
            report("Encoding" if what == "encoded" else "Full looks", done, total, f" · {rate:.3g} per second")

        advance("encoded", 0, len(paths))
        for outcome in library.encode(paths, advance):
            if as_json:
                click.echo(json.dumps(outcome._asdict()))
            last[outcome.id] = outcome
    return last


def _failures(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Failures by code, the most common first, with a few examples of each."""
    by_code: dict[str, list[Outcome]] = {}
    for o in outcomes:
        if o.status == "failed":
            by_code.setdefault(o.code, []).append(o)
    for code, group in sorted(by_code.items(), key=lambda item: -len(item[1])):
        if len(group) > SHOWN:
            yield f"{len(group)} videos [{code}], such as:"
        for o in group[:SHOWN]:
            yield f"{o.id}: {o.reason} [{code}]"


def _changes(folders: Sequence[str]) -> Iterator[set[str]]:
    """Changed paths, in groups; an empty group if nothing changed for a while."""
    if not folders:
        raise click.UsageError("--watch needs a folder")
    try:
        import watchfiles
    except ImportError as error:
        raise MissingDependencyError(f"--watch needs watchfiles: {install.library('watchfiles')}") from error
    return (
        {path for _, path in group}
        for group in watchfiles.watch(
            *folders, debounce=SETTLED_MS, step=SETTLED_MS // 4, rust_timeout=LOOK_EVERY_MS, yield_on_timeout=True
        )
    )


def _follow(library: Library, folders: Sequence[str], changes: Iterator[set[str]], *, as_json: bool) -> None:
    """Process changes until Ctrl-C."""
    from linkedout_edge.cli.library import find_videos, is_video
    from linkedout_edge.cli.output import note

    changed: set[str] = set(folders)  # once all: of what changed before the watching began nothing is said
    for group in changes:
        changed |= group
        found = [find_videos(p) if Path(p).is_dir() else [p] * is_video(p) for p in sorted(changed)]
        changed = set()
        paths = absolute(p for part in found for p in part if not Path(p).name.startswith("."))
        for outcome in (*library.encode(paths), *library.forget_gone(folders)):
            if as_json:
                click.echo(json.dumps(outcome._asdict()))
            elif outcome.status != "unchanged":
                why = f" ({outcome.reason})" if outcome.reason else ""
                note(f"{outcome.status}: {outcome.id}{why}")
