"""`linkedout-edge doctor --privacy`: every stored file, what is in it, and how to remove it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from linkedout_edge.cli.data import default_data_dir
from linkedout_edge.cli.options import default_cache_dir


@dataclass(frozen=True)
class KeptFile:
    """One file.

    Attributes:
        path: Where.
        bytes: How large.
        holds: What is in it.
        remove: How to remove what is in it.
    """

    path: str
    bytes: int
    holds: str
    remove: str


@click.command()
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Another folder than the user's.")
@click.option("--json", "as_json", is_flag=True, help="Print the files as JSON.")
def privacy(data_dir: Path | None, as_json: bool) -> None:
    """Show every file that these commands keep, what is in it, and how to remove it.

    Nothing is sent anywhere, ever. An app that uses the library keeps what it keeps in a folder of its own; point
    --data-dir there.
    """
    from linkedout_edge.cli.output import console, plain, print_json, size

    folder = data_dir or default_data_dir()
    files = [*kept_files(folder), *([] if data_dir else kept_engines(default_cache_dir()))]
    if as_json:
        print_json({"data_dir": str(folder), "files": [asdict(f) for f in files]})
        return
    out = console()
    out.print(plain(f"Folder: {folder}", "bold"))
    if not files:
        out.print(plain("Nothing is kept there."))
    for f in files:
        out.print(plain(f"{Path(f.path).name} ({size(f.bytes)})", "bold"))
        out.print(plain(f"    {f.holds}"))
        out.print(plain(f"    → {f.remove}", "dim"))
    out.print(plain("Remove all of it by removing the folder. Nothing leaves this device.", "dim"))


def kept_files(folder: Path) -> Iterator[KeptFile]:
    """Everything that lies in a data folder."""
    from linkedout_edge.storage import FILE_NAME

    if not folder.is_dir():
        return
    found = [(p, p.stat().st_size) for p in sorted(folder.rglob("*")) if p.is_file()]
    for path, length in found:  # listed before: looking into the database may tidy its other files up
        name, remove = path.name, "history clear, or remove the file while nothing runs"
        if name == FILE_NAME:
            holds = describe(path)
            remove = "store remove VIDEO, history forget VIDEO or --since 1h, history clear; or remove the file"
        elif name == f"{FILE_NAME}-wal":
            holds = "what was written last, on its way into the database; it goes when the last program closes it"
        elif name == f"{FILE_NAME}-shm":
            holds = "a table of contents of the -wal file, for programs that run at the same time; nothing of yours"
        elif name.startswith(f"{FILE_NAME}.damaged-"):
            holds = "a damaged database that was set aside, with all that was in it"
            remove = "history clear or history forget remove it as well; or remove the file"
        else:
            holds, remove = "not ours", "see who wrote it"
        yield KeptFile(str(path), length, holds, remove)


def kept_engines(folder: Path) -> Iterator[KeptFile]:
    """What the commands keep in the cache folder."""
    if not folder.is_dir():
        return
    holds = "the model as compiled for a device of this machine, or how fast each device was; nothing of yours"
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        yield KeptFile(str(path), path.stat().st_size, holds, "remove it at any time: it is made again")


def describe(path: Path) -> str:
    """What a database holds, found out without its key."""
    from linkedout_edge.cli.output import count

    with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
        con = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1)
        with contextlib.closing(con):
            if not con.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return "nothing yet"
            videos, events, locked = (
                con.execute(f"SELECT count(*) FROM {what}").fetchone()[0]
                for what in ("videos", "events", "meta WHERE name = 'check'")
            )
        protection = (
            "encrypted; without the key only how many, how large and in which order they were used can be seen"
            if locked
            else "not encrypted"
        )
        return (
            f"{count(events, 'watched video')} (path, title, when, how much, liked or not) and the tokens of "
            f"{count(videos, 'video')} "
            f"(path, title, content hash, about 1 kB of features each); {protection}"
        )
    return "a database that cannot be read at present"
