"""`linkedout-edge encode`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from linkedout_edge.cli.data import absolute, data_arguments, data_options
from linkedout_edge.cli.options import expand_videos, model_options


@click.command()
@click.argument("videos", nargs=-1, required=True)
@data_options
@model_options
@click.option("--decoder", default="auto", show_default=True, help="auto, pyav or opencv.")
@click.option("--export-pack", metavar="FILE", help="Write these videos' tokens into a file for other devices.")
@click.option("--packs", metavar="FOLDER", help="Write packs into a folder in place of the store (docs/scale.md).")
@click.option("--shards", type=click.IntRange(min=1), help="With --packs: how many. [default: 256 videos each]")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="With --packs: this process, or the workers of a Ray cluster.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def encode(
    ctx: click.Context,
    videos: tuple[str, ...],
    data_dir: Path | None,
    key_file: Path | None,
    model: dict[str, Any],
    decoder: str,
    export_pack: str | None,
    packs: str | None,
    shards: int | None,
    engine: str,
    as_json: bool,
) -> None:
    """Encode VIDEOS once, so that ranking them costs next to nothing.

    Takes files, folders and patterns. What is known and has not changed is not encoded again. It can be interrupted:
    what was encoded stays.

    Exit code: 0 if something is stored, 1 if every video failed, 2 for a mistake in the call.
    """
    if packs is not None:
        if data_dir or key_file or export_pack:
            raise click.UsageError("--packs leaves the store alone: leave out --data-dir, --key-file and --export-pack")
        from linkedout_edge.scale.cli import encode_command

        encode_command(ctx, videos, packs, engine, shards, model, decoder, as_json)
        return
    if engine != "local" or shards:
        raise click.UsageError("--engine and --shards need --packs FOLDER: where the packs are to be written")
    from linkedout_edge import Recommender
    from linkedout_edge.cli.output import console, duration, plain, print_json, progress

    paths = absolute(expand_videos(videos))
    start = time.perf_counter()
    with Recommender.load(
        **model,
        **data_arguments(data_dir, key_file),
        decoder=decoder,
    ) as rec:
        with progress("Encoding", len(paths)) as advance:
            done = rec.encode(paths, advance)
        stored = [*done.encoded, *done.unchanged]
        if export_pack:
            rec.store.export_pack(export_pack, stored)
        stats = rec.store.stats()
    took = time.perf_counter() - start
    if as_json:
        print_json(
            {
                "encoded": list(done.encoded),
                "unchanged": list(done.unchanged),
                "failed": [asdict(f) for f in done.failed],
                "stored": stats.videos,
                "seconds": took,
            }
        )
    else:
        out = console()
        for f in done.failed:
            out.print(plain(f"{f.id}: {f.reason} [{f.code}]", "yellow"))
        out.print(
            plain(
                f"{len(done.encoded)} encoded, {len(done.unchanged)} known already, {len(done.failed)} failed · "
                f"{stats.videos} in the store · {duration(took)}"
            )
        )
    if not stored:
        ctx.exit(1)
