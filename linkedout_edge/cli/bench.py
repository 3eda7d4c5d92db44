"""`linkedout-edge bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from linkedout_edge.cli.options import SeveralValues
from linkedout_edge.errors import ArgumentError

if TYPE_CHECKING:
    from linkedout_edge.bench import Report, Settings
    from linkedout_edge.bench.compare import Comparison

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(cls=SeveralValues)
@click.option("--bundle", help="A bundle's folder or .zip, or a precision of the built-in one. [default: built in]")
@click.option(
    "--precision", multiple=True, metavar="NAME...", help="int8, int4, fp16, fp32. [default: all in the bundle]"
)
@click.option("--backend", multiple=True, metavar="NAME...", help="onnxruntime, openvino. [default: those installed]")
@click.option(
    "--device", multiple=True, metavar="NAME...", help="auto, cpu, cuda, tensorrt, gpu, npu. [default: those found]"
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: all that this process may use]")
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for compiled engines; otherwise they are compiled again.",
)
@click.option("--full", is_flag=True, help="As in README's table: longer, and on the whole exam. Takes minutes.")
@click.option("--seconds", type=click.FloatRange(0.1), help="How long each row is timed. [default: 1, with --full 6]")
@click.option(
    "--rankings", type=click.IntRange(0), help="Rankings to compare; 0 for none. [default: 30, with --full 200]"
)
@click.option(
    "--set",
    "set_name",
    help="Set of rankings to compare. [default: micro-video sample, with --full micro-video exam]",
)
@click.option(
    "--against", multiple=True, metavar="NAME...", help="Baselines to time in turns with the rest: torch, mobilenet."
)
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), help="Folder with teacher/*.tflite, for mobilenet."
)
@click.option("--sustained", metavar="TIME", help="Then encode for this long (10m) in each row, to detect throttling.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the report as Markdown.")
@click.option("--save", type=_FILE, help="Also write the report as JSON into a file.")
@click.option("--from", "saved", type=_FILE, help="Show a saved report instead of measuring.")
@click.option(
    "--update",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Write the table into a Markdown file, between its markers.",
)
@click.option("--plot", type=_FILE, help="Draw accuracy against latency against size: .png, .svg or .pdf.")
@click.option("--compare", nargs=2, type=_FILE, metavar="A B", help="Two saved reports: ratios and a verdict.")
@click.pass_context
def bench(
    ctx: click.Context,
    bundle: str | None,
    precision: tuple[str, ...],
    backend: tuple[str, ...],
    device: tuple[str, ...],
    threads: int | None,
    cache_dir: Path | None,
    full: bool,
    seconds: float | None,
    rankings: int | None,
    set_name: str | None,
    against: tuple[str, ...],
    data: Path | None,
    sustained: str | None,
    as_json: bool,
    as_markdown: bool,
    save: Path | None,
    saved: Path | None,
    update: Path | None,
    plot: Path | None,
    compare: tuple[Path, Path] | None,
) -> None:
    """Measure precision × backend × device on this machine.

    Size, load, warm-up, encode and rank time, memory, energy where the platform reports it, and agreement with fp32.
    Each row runs in its own process; all take turns, so that other load slows all of them alike. Takes half a minute,
    with --full some minutes.

    Exit code: 0, or 1 if a row could not be measured, or 2 for a mistake in the call.
    """
    from linkedout_edge.bench import read_report
    from linkedout_edge.bench import report as shown
    from linkedout_edge.bench.plot import check_target
    from linkedout_edge.bench.plot import plot as draw
    from linkedout_edge.options import new_file

    if as_json and as_markdown:
        raise ArgumentError("--json and --markdown contradict each other: leave one out, or use --save for the JSON")
    if compare is not None:
        if saved or update or plot or save:
            raise ArgumentError("--compare only reads two reports: leave --from, --update, --plot and --save out")
        _show_comparison(compare, as_json=as_json, as_markdown=as_markdown)
        return
    for target in (save, plot):
        if target is not None:
            new_file(target, "report.json")
    if plot is not None:
        check_target(plot)
    if saved is not None:
        report = read_report(saved)
    else:
        from linkedout_edge.bench import Settings
        from linkedout_edge.bench.sustained import parse_duration

        report = _measure(
            Settings(
                bundle=bundle,
                precisions=precision,
                backends=backend,
                devices=device,
                threads=threads,
                cache_dir=None if cache_dir is None else str(cache_dir),
                seconds=seconds or (6.0 if full else 1.0),
                rankings=(200 if full else 30) if rankings is None else rankings,
                set=set_name or ("micro-video exam" if full else "micro-video sample"),
                against=against,
                data=data,
                sustained=0.0 if sustained is None else parse_duration(sustained),
                command=_command(ctx),
            )
        )
    if save is not None:
        _write(save, report)
    if update is not None:
        shown.update(update, shown.markdown(report))
    if plot is not None:
        draw(report, plot)
    _show(report, as_json=as_json, as_markdown=as_markdown)
    if any(c.error for c in report.configurations) or any(c.error for c in report.against):
        ctx.exit(1)


def _command(ctx: click.Context) -> str:
    """What was called, without files that are written and folders of this machine."""
    left_out = {"save", "saved", "update", "plot", "compare", "cache_dir", "as_json", "as_markdown", "data", "bundle"}
    words = ["linkedout-edge bench"]
    for option in ctx.command.params:
        name = option.name or ""
        source = ctx.get_parameter_source(name)
        if name in left_out or source is None or source.name == "DEFAULT":
            continue
        value = ctx.params[name]
        if value is True:
            words.append(option.opts[0])
        else:
            words += [option.opts[0], *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return " ".join(words)


def _measure(settings: Settings) -> Report:
    from linkedout_edge.bench import measure
    from linkedout_edge.cli.output import stages

    with stages() as report:
        return measure(settings, report)


def _write(target: Path, report: Report) -> None:
    import msgspec

    try:
        target.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    except OSError as e:
        raise ArgumentError(f"{target} cannot be written: {e.strerror}") from e


def _show(report: Report, *, as_json: bool, as_markdown: bool) -> None:
    import msgspec
    from rich.table import Table

    from linkedout_edge.bench import report as shown
    from linkedout_edge.cli.output import console, plain, print_json

    if as_json:
        print_json(msgspec.to_builtins(report))
        return
    if as_markdown:
        click.echo(shown.markdown(report), nl=False)
        return
    out = console()
    for row in shown.rows(report):
        if len(row) == 2:
            out.print(plain(f"{row[0]}: {row[1]}", "yellow"))
    table = [r for r in shown.rows(report) if len(r) == len(shown.COLUMNS)]
    kept = shown.kept_columns(table)
    for columns in ([n for n in kept if n < shown.AGREEMENT], [0, *(n for n in kept if n >= shown.AGREEMENT)]):
        if len(columns) < 2 or not table:
            continue
        grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for n in columns:
            grid.add_column(shown.COLUMNS[n], no_wrap=n == 0)
        for row in table:
            grid.add_row(*(plain(row[n]) for n in columns))
        out.print(grid)
        out.print()
    for line in [*shown.ratios(report), *(f"{s.configuration}: {s.verdict}" for s in report.sustained)]:
        out.print(plain(line))
    for line in shown.footnotes(report):
        out.print(plain(line.replace("\\*", "*"), "dim"))


def _show_comparison(files: tuple[Path, Path], *, as_json: bool, as_markdown: bool) -> None:
    import msgspec
    from rich.table import Table

    from linkedout_edge.bench import read_report
    from linkedout_edge.bench.compare import compare
    from linkedout_edge.bench.report import compared_markdown
    from linkedout_edge.cli.output import console, plain, print_json

    found: Comparison = compare(*map(read_report, files))
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    if as_markdown:
        click.echo(compared_markdown(found), nl=False)
        return
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("configuration", "measure", "before", "after", "ratio", "verdict"):
        grid.add_column(column)
    for d in found.differences:
        style = {"faster": "green", "slower": "red", "worse": "red", "better": "green"}.get(d.verdict.split()[-1], "")
        grid.add_row(
            plain(d.configuration),
            d.measure,
            f"{d.before:.4g}",
            f"{d.after:.4g}",
            f"{d.ratio:.3f}",
            plain(d.verdict, style),
        )
    console().print(grid)
    for note in found.notes:
        console().print(plain(note, "dim"))
