"""The folder where the commands store history and tokens, and its key."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from linkedout_edge.errors import ArgumentError

if TYPE_CHECKING:
    from linkedout_edge.history import History
    from linkedout_edge.store import Tokens

KEY_VARIABLE = "LINKEDOUT_KEY"

F = TypeVar("F", bound=Callable[..., Any])


def default_data_dir() -> Path:
    """The platform's folder for this user's data, such as ``~/.local/share/linkedout-edge``; it need not exist."""
    import platformdirs

    return Path(platformdirs.user_data_dir("linkedout-edge", appauthor=False))


def data_options(command: F) -> F:
    """`--data-dir --key-file`."""
    options = [
        click.option(
            "--data-dir",
            type=click.Path(file_okay=False, path_type=Path),
            help="Folder of history and store. [default: your data folder; doctor --privacy shows it]",
        ),
        click.option(
            "--key-file",
            type=click.Path(dir_okay=False, path_type=Path),
            help=f"File with the encryption key. Or set {KEY_VARIABLE} to a passphrase.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def data_arguments(data_dir: Path | None, key_file: Path | None) -> dict[str, Any]:
    """`Recommender.load`'s arguments for ``--data-dir`` and ``--key-file``.

    A key is never part of the command line, where other users could read it.

    Raises:
        ArgumentError: The file cannot be read, or there are two keys.
    """
    passphrase = os.environ.get(KEY_VARIABLE) or None
    if key_file is not None and passphrase is not None:
        raise ArgumentError(f"both --key-file and {KEY_VARIABLE} give a key: leave one out")
    key: str | bytes | None = passphrase
    if key_file is not None:
        try:
            key = key_file.read_bytes()
        except OSError as e:
            raise ArgumentError(f"--key-file {key_file} cannot be read: {e.strerror}") from e
    return {"data_dir": data_dir or default_data_dir(), "key": key}


def stored_arguments(data_dir: Path | None, key_file: Path | None) -> dict[str, Any]:
    """As `data_arguments`, for commands that only read: empty, said on stderr, where nothing is stored yet.

    Opening a database would make it, and its folder.
    """
    from linkedout_edge.cli.output import note

    arguments = data_arguments(data_dir, key_file)
    if not _is_empty(folder := arguments["data_dir"]):
        return arguments
    note(f"Nothing is stored in {folder} yet.")
    return {}


def _is_empty(folder: Path) -> bool:
    """Whether neither a database nor a copy of a damaged one lies there."""
    from linkedout_edge.storage import FILE_NAME

    try:
        return not any(name.startswith(FILE_NAME) for name in os.listdir(folder))  # noqa: PTH208
    except FileNotFoundError:
        return True
    except OSError:  # whoever opens it says what is wrong
        return False


def absolute(paths: Iterable[str]) -> list[str]:
    """Absolute paths, under which videos are stored."""
    found = [os.path.abspath(p) for p in paths]  # noqa: PTH100 (links stay as they are)
    if not all(p.isascii() for p in found):
        _warn_of_encoding()
    return found


def encoding_problem() -> str | None:
    """What is wrong with how this process reads file names; None in UTF-8, as nearly everywhere.

    A name that is no ASCII is another str here, and so another id.
    """
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return None
    return f"file names are read as {encoding}, so those that are not ASCII get other ids than in UTF-8"


ENCODING_FIX = "set PYTHONUTF8=1, or a UTF-8 locale such as LC_ALL=C.UTF-8"


@functools.cache
def _warn_of_encoding() -> None:
    from linkedout_edge.cli.output import note

    if problem := encoding_problem():
        note(f"warning: {problem}: {ENCODING_FIX}")


@contextmanager
def kept(data_dir: Path | None, key_file: Path | None) -> Iterator[tuple[History, Tokens]]:
    """History and store on disk, without a model: enough to list and to forget. Nothing is made there."""
    from linkedout_edge.config import ModelConfig
    from linkedout_edge.history import History
    from linkedout_edge.inputs import Video
    from linkedout_edge.storage import Database
    from linkedout_edge.store import open_tokens

    def refuse(video: Video) -> None:
        raise ArgumentError("a model is needed to add videos")

    arguments = stored_arguments(data_dir, key_file)
    database = Database(**arguments) if arguments else None
    try:
        store = open_tokens(ModelConfig(), database=database)  # of no token space: it holds nothing
        history = History(store, refuse, database=database)
        yield history, store
        history.close()
        store.close()
    finally:
        if database is not None:
            database.close()
