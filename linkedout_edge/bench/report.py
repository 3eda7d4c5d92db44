"""A report for people: a Markdown table, its footnotes, and the README's copy of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from linkedout_edge.bench.compare import Comparison
from linkedout_edge.bench.results import Agreement, Configuration, LatencyStats, Report
from linkedout_edge.errors import ArgumentError

START, END = "<!-- bench: start -->", "<!-- bench: end -->"
"""What `update` writes between."""

COLUMNS = (
    "precision, backend, device",
    "size",
    "load",
    "warm-up",
    "encode, ms",
    "rank, ms",
    "after an event, ms",
    "RSS",
    "energy a video",
    "NDCG@10",
    "of fp32's",
    "Kendall's tau",
    "top 10",
    "tau to ONNX Runtime",
)
AGREEMENT = COLUMNS.index("NDCG@10")
"""The first of the columns about agreement; with what belongs to it, `footnotes` says what they mean."""


def rows(report: Report) -> list[list[str]]:
    """One row for each configuration, as in `COLUMNS`; a failed one has its reason in the second column."""
    return [[c.name, f"not measured: {c.error}"] if c.error else _row(c) for c in report.configurations]


def _row(c: Configuration) -> list[str]:
    a = c.agreement or Agreement(source="measured")
    mark = "*" if a.source == "manifest" else ""
    return [
        c.name,
        f"{c.bytes / 1e6:.1f} MB",
        _number(c.load_s, "{:.2f} s"),
        _number(c.warmup_s, "{:.2f} s"),
        _latency(c.encode),
        _latency(c.rank),
        _latency(c.rank_changed),
        _number(c.rss_mb, "{:.0f} MB"),
        _number(c.energy_mj, "{:.0f} mJ"),
        _number(a.ndcg, "{:.3f}"),
        _number(a.ndcg_ratio, "{:.1%}", mark),
        _number(a.kendall_tau, "{:.3f}", mark),
        _number(a.top10_overlap, "{:.1%}", mark),
        _number(a.onnxruntime_tau, "{:.4f}"),
    ]


def kept_columns(table: Sequence[Sequence[str]]) -> list[int]:
    """Columns in which some cell has something to say."""
    full = [r for r in table if len(r) == len(COLUMNS)]
    return [n for n in range(len(COLUMNS)) if n < 2 or any(r[n] != "–" for r in full)]


def ratios(report: Report) -> list[str]:
    """How the configurations compare with each other and with the baselines, in sentences."""
    found = []
    reference, best = report.reference(), report.best()
    if reference is not None and reference.encode is not None:
        for c in report.configurations:
            if c.encode is not None and c is not reference and (c.backend, c.device) == ("onnxruntime", "cpu"):
                speed = 1 / c.encode.over(reference.encode)
                size = f", {c.bytes / reference.bytes:.0%} of its size" if reference.bytes else ""
                found.append(f"{c.name}: encodes {speed:.2f} × as fast as fp32{size}")
    eight, four = (report.find(p, "onnxruntime", "cpu") for p in ("int8", "int4"))
    if eight is not None and four is not None and eight.bytes:
        found.append(f"int4 has {four.bytes / eight.bytes:.0%} of int8's size")
    for baseline in report.against:
        if baseline.error:
            found.append(f"{baseline.name}: not measured: {baseline.error}")
        elif best is not None and best.encode is not None and baseline.encode is not None:
            share = best.encode.over(baseline.encode)
            found.append(
                f"{baseline.name}: {baseline.encode.median:.1f} ms (p95 {baseline.encode.p95:.1f}); "
                f"the fastest configuration ({best.name}) takes {share:.2f} of that, {1 / share:.2f} × as fast"
            )
    return found


def footnotes(report: Report) -> list[str]:
    """What the table's figures mean and where they come from."""
    m = report.machine
    versions = ", ".join(f"{k} {v}" for k, v in m.versions.items())
    where = [m.processor, m.system, f"{m.threads} of {m.cpus} CPUs", m.power_mode, *m.gpu.values(), versions]
    notes = [
        f"`{report.command}`, {report.created[:10]}: {' · '.join(w for w in where if w)}.",
        "Times are median (95th percentile). Each row is a process of its own; all take turns within one run. "
        "Encode: one video's resized frames to tokens. Rank: 1,000 stored candidates "
        "by ids, 64 events, nothing new; after an event, all is scored again; RSS after that. "
        "Load: with the files in the system's cache, engines "
        f"{'as cache_dir has them' if report.cached else 'compiled again'}.",
    ]
    measured = [c.agreement for c in report.configurations if c.agreement is not None]
    if report.set:
        count = max((a.rankings for a in measured), default=0)
        notes.append(f"Agreement with fp32 over {count} rankings of the {report.set}.")
    if any(a.source == "manifest" for a in measured):
        notes.append("\\* as the exporter measured it: this bundle has no fp32 graph to compare with here.")
    notes.append(f"Energy: {report.energy}.")
    said = dict.fromkeys(n for c in report.configurations for n in c.notices)
    return [*notes, *said]


def markdown(report: Report) -> str:
    """The table with what belongs to it."""
    table = rows(report)
    kept = kept_columns(table)
    lines = ["| " + " | ".join(COLUMNS[n] for n in kept) + " |", "|" + "---|" * len(kept)]
    for row in table:
        cells = [row[n] for n in kept] if len(row) == len(COLUMNS) else [*row, *[""] * (len(kept) - len(row))]
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    lines += ["", *(f"- {r}" for r in ratios(report))] if ratios(report) else []
    sustained = [f"- {s.configuration}, {s.seconds:.0f} s: {s.verdict}" for s in report.sustained]
    lines += ["", *sustained] if sustained else []
    return "\n".join([*lines, "", " ".join(footnotes(report))]) + "\n"


def compared_markdown(found: Comparison) -> str:
    """A comparison as a Markdown table."""
    lines = ["| configuration | measure | before | after | ratio | verdict |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {d.configuration} | {d.measure} | {d.before:.4g} | {d.after:.4g} | {d.ratio:.3f} | {d.verdict} |"
        for d in found.differences
    ]
    return "\n".join([*lines, "", *(f"- {n}" for n in found.notes)]).rstrip() + "\n"


def update(path: Path, text: str) -> None:
    """Put a text between the markers of a Markdown file.

    Raises:
        ArgumentError: The file has not exactly one pair of markers, in order.
    """
    try:
        old = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as e:
        raise ArgumentError(f"{path} cannot be read ({e}): name a Markdown file") from e
    before, found, rest = old.partition(START)
    _, closed, after = rest.partition(END)
    if not (found and closed) or START in rest or END in after:
        raise ArgumentError(f"{path} needs a line {START} and, below it, a line {END}, each once")
    path.write_text(f"{before}{START}\n{text.strip()}\n{END}{after}", encoding="utf-8")


def _latency(stats: LatencyStats | None) -> str:
    return "–" if stats is None else f"{stats.median:.3g} ({stats.p95:.3g})"


def _number(value: float | None, form: str, mark: str = "") -> str:
    return "–" if value is None else form.format(value) + mark
