"""Options that several commands share, and options that take several values."""

from __future__ import annotations

import difflib
import functools
import glob
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from linkedout_edge.errors import ArgumentError, unknown

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts"}
    | {".mpg", ".mpeg", ".3gp", ".3g2", ".flv", ".wmv", ".ogv", ".gif"}
)
"""Suffixes that count as videos where no content is at hand: in folders by URL, and of files that are not there."""
NO_VIDEO_INSIDE = "there is no video in this folder or in those within it; photos in folders are left out: name them"
"""What is wrong with a folder that `expand_videos` leaves as it is."""


class Group(click.Group):
    """A group whose messages list its commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As in click, but what to do about an option that belongs behind a command is said."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as e:
            close = difflib.get_close_matches(e.option_name, e.possibilities or (), n=1, cutoff=0.8)
            hint = f" (did you mean {close[0]}?)" if close else ""
            names = ", ".join(self.list_commands(ctx))
            raise click.UsageError(
                f"{e.option_name} is not an option of {ctx.command_path}{hint}: options follow the command ({names})",
                ctx,
            ) from e

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As in click, but the message lists the commands."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            raise click.UsageError(unknown("command", name, self.list_commands(ctx)), ctx)
        return super().resolve_command(ctx, args)


class SeveralValues(click.Command):
    """A command whose repeatable options take all values up to the next option: ``--history a.mp4 b.mp4``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Spell such options out as click wants them: ``--history a.mp4 --history b.mp4``."""
        names = {o for p in self.params if isinstance(p, click.Option) and p.multiple for o in p.opts}
        return super().parse_args(ctx, list(spread(args, names)))


def spread(args: Iterable[str], names: Iterable[str]) -> Iterable[str]:
    """Repeat an option of `names` before each value that follows it.

    Raises:
        click.BadOptionUsage: Such an option has no value; click would take the next option for one.
    """
    repeatable = set(names)
    current: str | None = None  # the option whose values we are reading
    bare = False  # ... and which has none yet
    rest = iter(args)
    for arg in rest:
        is_option = len(arg) > 1 and arg.startswith("-")
        if is_option and bare:
            break
        if arg == "--":
            yield arg
            yield from rest
            return
        if not is_option and current is not None:
            bare = False
            yield from (current, arg)
            continue
        name, equals, _ = arg.partition("=")
        current = name if is_option and name in repeatable else None
        bare = current is not None and not equals
        if not bare:
            yield arg
    if bare:
        raise click.BadOptionUsage(str(current), f"option {current} needs at least one value")


def expand_videos(values: Iterable[str]) -> list[str]:
    """Folders become the videos in them, patterns the files that match, both sorted; the rest stays as it is.

    `cli.library.find_videos` says what counts as a video in a folder, for all commands.
    What leads to no video stays as well: it fails by name later, beside those that can be ranked.

    Raises:
        ArgumentError: One is a URL.
    """
    values = list(values)
    refuse_urls(values)
    videos: list[str] = []
    for value in values:
        path = Path(value)
        if path.is_dir():
            from linkedout_edge.cli.library import find_videos

            videos += find_videos(value) or [value]
        elif not path.exists() and glob.has_magic(value):
            videos += sorted(glob.glob(value, recursive=True)) or [value]  # noqa: PTH207 (the pattern may be absolute)
        else:
            videos.append(value)
    return list(dict.fromkeys(videos))


def refuse_urls(values: Iterable[str]) -> None:
    """Raise `ArgumentError` for a URL: a command downloads nothing by itself."""
    for value in values:
        if re.match(r"[a-z][a-z0-9+.-]+://", value, re.IGNORECASE) and not Path(value).exists():
            raise ArgumentError(
                f"{value} is a URL, and this command reads files alone: download it first (encode --packs FOLDER reads "
                "URLs, too)"
            )


def parse_watched(value: str) -> tuple[str, float | None]:
    """``clip.mp4@0.2`` as path and watched fraction; a file that is really called so wins.

    Raises:
        ArgumentError: The fraction is not from 0 to 1.
    """
    path, at, fraction = value.rpartition("@")
    if not at or not path or Path(value).exists():
        return value, None
    try:
        watched = _fraction(fraction)
    except ValueError:  # an @ in a name
        return value, None
    if not 0 <= watched <= 1:
        raise ArgumentError(f"{value!r}: the watched fraction after @ must be from 0 to 1, or a percentage")
    return path, watched


class Fraction(click.ParamType):
    """A number from 0 to 1, or a percentage."""

    name = "fraction"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """``0.2`` and ``20%`` as 0.2."""
        try:
            fraction = _fraction(str(value))
        except ValueError:
            fraction = math.nan
        if not 0 <= fraction <= 1:
            meant = f": did you mean {value}%?" if 1 < fraction <= 100 and "%" not in str(value) else ""
            self.fail(f"{value!r} is neither a number from 0 to 1 nor a percentage{meant}", param, ctx)
        return fraction


def _fraction(text: str) -> float:
    return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)


def default_cache_dir() -> Path:
    """The platform's folder for what can be made again, such as ``~/.cache/linkedout-edge``; it need not exist."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("linkedout-edge", appauthor=False))


def named_bundle(bundle: str | None, precision: str | None) -> dict[str, Any]:
    """Keywords of `Recommender.load` for ``--bundle`` and ``--precision``, of which both may be left out."""
    return {"bundle": precision or "int8"} if bundle is None else {"bundle": bundle, "precision": precision}


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--bundle --precision --backend --device --provider --threads --strict-device --cache-dir`.

    The command gets them as one argument `model`: the keywords of `Recommender.load`. Without ``--bundle`` it is the
    built-in one. While the command runs, notices about devices are shown on stderr.
    """

    @functools.wraps(command)
    def with_model(
        *args: Any,
        bundle: str | None,
        precision: str | None,
        backend: str,
        device: str,
        provider: tuple[str, ...],
        threads: int | None,
        strict_device: bool,
        cache_dir: Path | None,
        **rest: Any,
    ) -> Any:
        from linkedout_edge.cli.output import announcements

        model = {
            **named_bundle(bundle, precision),
            "backend": backend,
            "device": device,
            "providers": list(provider) or None,
            "threads": threads,
            "strict_device": strict_device,
            "cache_dir": cache_dir or default_cache_dir(),
        }
        with announcements():
            return command(*args, model=model, **rest)

    options = [
        click.option(
            "--bundle", help="Precision of the built-in bundle, or a bundle's folder or .zip. [default: int8]"
        ),
        click.option("--precision", help="One of the bundle's precisions, such as int8 or int4."),
        click.option("--backend", help="onnxruntime or openvino. [default: onnxruntime, if it can read the bundle]"),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, tensorrt, gpu or npu."),
        click.option(
            "--provider",
            multiple=True,
            metavar="NAME...",
            help="ONNX Runtime's execution providers or OpenVINO's devices, best first; replaces --device.",
        ),
        click.option(
            "--threads", type=click.IntRange(min=1), help="CPU threads. [default: all that this process may use]"
        ),
        click.option(
            "--strict-device", is_flag=True, help="Fail if the device cannot be used, instead of using the CPU."
        ),
        click.option(
            "--cache-dir",
            type=click.Path(file_okay=False, path_type=Path),
            help="Folder for compiled engines. [default: your cache folder]",
        ),
    ]
    for option in reversed(options):
        with_model = option(with_model)
    return with_model
