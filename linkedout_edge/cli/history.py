"""`linkedout-edge history`: list, add, forget, clear, export, save, load."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from linkedout_edge.cli.data import absolute, data_arguments, data_options, kept, stored_arguments
from linkedout_edge.cli.options import NO_VIDEO_INSIDE, Fraction, Group, expand_videos, model_options, parse_watched
from linkedout_edge.errors import ArgumentError, StorageError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@click.group(cls=Group)
def history() -> None:
    """Watched videos: list, add, forget, clear, export, save, load, taste.

    The history is stored in your data folder and nowhere else.
    """


@history.command("list")
@data_options
@click.option("--json", "as_json", is_flag=True, help="Print the events as JSON.")
def list_(data_dir: Path | None, key_file: Path | None, as_json: bool) -> None:
    """List what was watched, oldest first."""
    from rich.table import Table

    from linkedout_edge.cli.output import console, plain, print_json, short_names

    with kept(data_dir, key_file) as (events, _):
        found = events.export()
    if as_json:
        print_json({"events": found})
        return
    out = console()
    if not found:
        out.print(plain("Nothing was watched yet.", "dim"))
        return
    names = short_names([e["id"] for e in found])
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title, justify in (("when", "left"), ("video", "left"), ("watched", "right"), ("", "left")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for e in found:
        when = datetime.fromisoformat(e["at"]).astimezone().strftime("%Y-%m-%d %H:%M") if e["at"] else "unknown"
        said = {True: "liked", False: "disliked", None: ""}[e["liked"]]
        table.add_row(when, plain(e["title"] or names[e["id"]]), f"{e['watched']:.0%}", said)
    out.print(table)


@history.command()
@click.argument("videos", nargs=-1, required=True)
@click.option(
    "--watched", type=Fraction(), help="How much of each was watched: 0 to 1, or a percentage. [default: all of it]"
)
@click.option("--liked/--disliked", default=None, help="Whether you liked them.")
@data_options
@model_options
@click.option("--decoder", default="auto", show_default=True, help="auto, pyav or opencv.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def add(
    ctx: click.Context,
    videos: tuple[str, ...],
    watched: float | None,
    liked: bool | None,
    data_dir: Path | None,
    key_file: Path | None,
    model: dict[str, Any],
    decoder: str,
    as_json: bool,
) -> None:
    """Record that VIDEOS were watched just now, in this order.

    Takes files, folders and patterns; in a folder and its subfolders, videos are recognized by their content.
    --watched says how much of them was watched: with --watched 0.1 they were skipped. For one among several videos,
    put @ and the fraction behind it: seen/dull.mp4@0.1.

    Exit code: 0 if something was added, 1 if every video failed, 2 for a mistake in the call.
    """
    from linkedout_edge import Recommender
    from linkedout_edge.cli.output import console, plain, print_json
    from linkedout_edge.errors import VideoError

    wanted: list[tuple[str, float]] = []
    for value in videos:
        path, own = parse_watched(value)
        if None not in (own, watched) and own != watched:
            raise ArgumentError(f"{value} and --watched {watched:g} contradict each other: give one fraction only")
        fraction = next((f for f in (own, watched) if f is not None), 1.0)
        wanted += [(p, fraction) for p in absolute(expand_videos([path]))]
    added, failed = [], []
    with Recommender.load(
        **model,
        **data_arguments(data_dir, key_file),
        decoder=decoder,
    ) as rec:
        for path, fraction in wanted:
            try:
                added.append(rec.history.add(path, watched=fraction, liked=liked).id)
            except VideoError as e:  # noqa: PERF203
                reason = f"{path}: {NO_VIDEO_INSIDE}" if Path(path).is_dir() else str(e)
                failed.append({"id": path, "code": e.code, "reason": reason})
        count = len(rec.history)
    if as_json:
        print_json({"added": added, "failed": failed, "events": count})
    else:
        for f in failed:
            console().print(plain(f"{f['reason']} [{f['code']}]", "yellow"))
        console().print(plain(f"{len(added)} added, {count} in the history"))
    if not added:
        ctx.exit(1)


@history.command()
@click.argument("videos", nargs=-1)
@click.option("--since", metavar="AGE", help="Forget the last 30m, 1h, 2d or 1w; or all since 2026-05-01T18:00.")
@data_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def forget(
    ctx: click.Context,
    videos: tuple[str, ...],
    since: str | None,
    data_dir: Path | None,
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Forget that VIDEOS were watched, or everything that was watched since a time.

    It is deleted from the files on disk, not only marked as deleted. With VIDEOS, their tokens go, too; with --since,
    those that were stored only because a video was watched.

    Exit code: 0, or 1 if one of the VIDEOS was not in the history.
    """
    from linkedout_edge.cli.output import say

    if bool(videos) == (since is not None):
        raise ArgumentError("name videos, or --since: history clear forgets everything")
    unknown: list[str] = []
    with kept(data_dir, key_file) as (events, store):
        if since is not None:
            count = events.forget(since=parse_since(since))
        else:
            count = 0
            for video in dict.fromkeys(videos):
                names = list(dict.fromkeys([video, *absolute([video])]))
                found = sum(events.forget(i) for i in names)
                count += found
                if found:
                    store.remove(names)
                else:
                    unknown.append(video)
    told = [f"{count} forgotten", *(f"not in the history: {v}" for v in unknown)]
    say({"forgotten": count, "unknown": unknown}, *told, as_json=as_json)
    if unknown:
        ctx.exit(1)


@history.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@data_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def clear(ctx: click.Context, yes: bool, data_dir: Path | None, key_file: Path | None, as_json: bool) -> None:
    """Forget everything that was watched, and delete copies of damaged databases. Encoded candidates stay.

    Exit code: 0, or 1 if you did not agree.
    """
    from linkedout_edge.cli.output import say

    if not (yes or _agreed("Forget everything that was watched?")):
        say({"forgotten": 0}, "nothing was forgotten: answer y, or use --yes", as_json=as_json)
        ctx.exit(1)
    with kept(data_dir, key_file) as (events, _):
        count = events.clear()
    say({"forgotten": count}, f"{count} forgotten", as_json=as_json)


@history.command()
@data_options
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def taste(data_dir: Path | None, key_file: Path | None, model: dict[str, Any], as_json: bool) -> None:
    """Show what the model believes you like, from what you watched."""
    from linkedout_edge import Recommender
    from linkedout_edge.cli.output import say

    with Recommender.load(**model, **stored_arguments(data_dir, key_file)) as rec:
        found = rec.taste()
    say(found.to_dict(), f"{found.sentence} ({found.events} watched)", as_json=as_json)


@history.command()
@click.argument("file", default="-")
@data_options
@click.option("--json", is_flag=True, expose_value=False, help="The output is always JSON.")
def export(file: str, data_dir: Path | None, key_file: Path | None) -> None:
    """Write all events as JSON, into FILE or to the terminal. The file is not encrypted."""
    import json

    from linkedout_edge.cli.output import note
    from linkedout_edge.options import new_file

    if file != "-":
        new_file(file, "history.json")
    with kept(data_dir, key_file) as (events, _):
        found = events.export()
    text = json.dumps({"events": found}, indent=2)
    if file == "-":
        click.echo(text)
        return
    try:
        Path(file).write_text(text + "\n", "utf-8")
    except OSError as e:
        raise StorageError(f"{file} cannot be written: {e.strerror}") from e
    note(f"{len(found)} written to {file}")


@history.command()
@click.argument("file", type=click.Path(path_type=Path))
@data_options
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def save(file: Path, data_dir: Path | None, key_file: Path | None, model: dict[str, Any], as_json: bool) -> None:
    """Write all events and their videos' tokens into FILE, for a backup or another device. It is not encrypted."""
    from linkedout_edge import Recommender
    from linkedout_edge.cli.output import say
    from linkedout_edge.history_file import EXAMPLE
    from linkedout_edge.options import new_file

    new_file(file, EXAMPLE)  # before the model is loaded
    with Recommender.load(**model, **stored_arguments(data_dir, key_file)) as rec:
        count = rec.history.save(file)
    say({"saved": count}, f"{count} saved", as_json=as_json)


@history.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@data_options
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def load(file: Path, data_dir: Path | None, key_file: Path | None, model: dict[str, Any], as_json: bool) -> None:
    """Add the events of FILE, which `history save` or another binding wrote. Existing events stay as they are."""
    from linkedout_edge import Recommender
    from linkedout_edge.cli.output import say

    with Recommender.load(**model, **data_arguments(data_dir, key_file)) as rec:
        added, count = rec.history.load(file), len(rec.history)
    say({"added": added, "events": count}, f"{added} added, {count} in the history", as_json=as_json)


def _agreed(question: str) -> bool:
    """Ask on stderr; no answer (Ctrl-C, or nobody is there) is no agreement."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
        return False


def parse_since(value: str) -> datetime | timedelta:
    """``30m``, ``1h``, ``2d``, ``1w`` as how long ago; an ISO 8601 time without a zone is local.

    Raises:
        ArgumentError: It is neither.
    """
    age = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", value.strip())
    try:
        if age:
            return timedelta(**{_UNITS[age[2]]: float(age[1])})
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError, OSError):
        raise ArgumentError(
            f"--since {value!r} is not a time: use an age such as 30m, 1h, 2d or 1w, or a time like 2026-05-01T18:00"
        ) from None
