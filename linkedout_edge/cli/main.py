"""`linkedout-edge`: the group of commands, and how errors are shown.

A command's module is imported only when that command runs: help and completion stay quick, and a library that is
missing for one command breaks no other.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any, NoReturn

import click

from linkedout_edge import install
from linkedout_edge._version import __version__
from linkedout_edge.cli import terminal
from linkedout_edge.cli.options import Group
from linkedout_edge.errors import LinkedOutError

COMMANDS = {
    "demo": "Rank 24 short videos by six that were watched, and write a web page.",
    "rank": "Rank videos by what was watched.",
    "encode": "Encode videos once, so that ranking them is fast.",
    "store": "Import feature packs that were made elsewhere.",
    "history": "Watched videos: list, add, forget, clear, export, save, load, taste.",
    "bench": "Measure precision × backend × device: size, time, memory, agreement.",
    "inspect": "Show the contents of a bundle, or what the model sees of a video.",
    "doctor": "Check this machine and installation, and explain how to fix problems.",
}
"""The device half's commands: name of module and function, and the text for `--help`."""

ENTRY_POINTS = "linkedout_edge.commands"
EXIT_ERROR, EXIT_INTERRUPTED = 2, 130


class Commands(Group):
    """A group whose commands are loaded when they are needed, and whose errors are one line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note two switches that matter before a command is found, wherever they stand."""
        ctx.color = False if terminal.no_color() else None  # click itself does not look at NO_COLOR
        ctx.meta["linkedout_edge.debug"] = "--debug" in args
        ctx.meta["linkedout_edge.json"] = "--json" in args
        try:
            return super().parse_args(ctx, [a for a in args if a != "--debug"])
        except click.UsageError as e:
            if not ctx.meta["linkedout_edge.json"]:
                raise
            return _show(ctx, e)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Our own first, then those of other packages by name."""
        return [*COMMANDS, *sorted(e.name for e in _plugins() if e.name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; a plug-in that cannot be imported becomes a command that explains how to fix it."""
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"linkedout_edge.cli.{cmd_name}")
            command: click.Command = getattr(module, cmd_name)
            return command
        for entry in _plugins():
            if entry.name == cmd_name:
                return _load(entry)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List our commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        others = [
            (n, c.get_short_help_str(80))
            for n in self.list_commands(ctx)
            if n not in COMMANDS and (c := self.get_command(ctx, n)) is not None and not c.hidden
        ]
        if others:
            with formatter.section("Workstation commands"):
                formatter.write_dl(others)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; show our own errors as one line, or as an object with `--json`."""
        try:
            with _warnings():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(EXIT_INTERRUPTED)
        except LinkedOutError as e:
            error: Exception = e
        except click.UsageError as e:
            if not ctx.meta["linkedout_edge.json"]:
                raise  # click shows the usage, and exits with 2 as we do
            error = e
        except ModuleNotFoundError as e:
            error = e
        return _show(ctx, error)


class _Notes(logging.Handler):
    """Shows what the library warns of, such as a damaged database, on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        from linkedout_edge.cli.output import note

        note(f"warning: {record.getMessage()}")


@contextlib.contextmanager
def _warnings() -> Iterator[None]:
    logger, handler = logging.getLogger("linkedout_edge"), _Notes(logging.WARNING)
    handler.addFilter(lambda record: not record.name.endswith(".backends"))  # `output.announcements` shows those
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _show(ctx: click.Context, error: Exception) -> NoReturn:
    """Show an error as one line, or as an object with `--json`, and end the command."""
    if ctx.meta["linkedout_edge.debug"]:
        raise error
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if isinstance(error, ModuleNotFoundError) and not isinstance(error, LinkedOutError):
        message = missing(error.name or "")
    if ctx.meta["linkedout_edge.json"]:
        click.echo(json.dumps({"error": {"type": type(error).__name__, "message": message}}))
    else:
        prefix = click.style("error:", fg="red", bold=True)
        click.echo(f"{prefix} {' '.join(message.split())}", err=True)
    ctx.exit(EXIT_ERROR)


def missing(module: str) -> str:
    """What to say when `module` cannot be imported: the exact line that installs it."""
    return f"this command needs {module.partition('.')[0]!r}, which is not installed: {install.missing(module)}"


def _plugins() -> list[metadata.EntryPoint]:
    return list(metadata.entry_points(group=ENTRY_POINTS))


def _load(entry: metadata.EntryPoint) -> click.Command:
    try:
        command = entry.load()
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.value} is a {type(command).__name__}, not a click command")
    except ModuleNotFoundError as e:
        return _broken(entry.name, missing(e.name or entry.module))
    except Exception as e:  # another package's command must not take ours down
        return _broken(entry.name, f"the command {entry.name!r} ({entry.value}) cannot be loaded: {e}")
    return command


def _broken(name: str, message: str) -> click.Command:
    def fail() -> None:
        raise LinkedOutError(message)

    return click.Command(
        name,
        callback=fail,
        help=f"Not available here: {message}",
        short_help=f"(not available: {message.rpartition(': ')[2]})",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="linkedout-edge")
@click.option("--debug", is_flag=True, help="Show the traceback of an error. Works anywhere in the command.")
def cli(debug: bool) -> None:
    """Rank the videos on this device by what you watched; nothing leaves it."""


def main() -> None:
    """Entry point of the `linkedout-edge` script."""
    terminal.prepare()
    try:
        cli(prog_name="linkedout-edge")
    except BrokenPipeError:
        # The reader (`head`, a pager) has left. Python would complain again when it flushes at exit.
        sys.stdout = None  # type: ignore[assignment]
        sys.exit(0)
    except OSError as e:  # of the output: what commands read and write, they check
        if "--debug" in sys.argv or e.filename is not None:
            raise
        sys.stdout = None  # type: ignore[assignment]
        with contextlib.suppress(OSError):
            click.echo(f"error: the output cannot be written: {e.strerror}", err=True)
        sys.exit(EXIT_ERROR)


if __name__ == "__main__":
    main()
