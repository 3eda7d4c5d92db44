"""The tables that `linkedout-edge evaluate` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from linkedout_quant.evaluation.gates import EVENTS, GateReport
from linkedout_quant.evaluation.tastes import STEPS, WATCHED, WATCHED_EACH
from linkedout_quant.evaluation.yardstick import PRODUCT, Measured, TasteReport

_TITLES = {
    "one": f"one taste: {WATCHED} watched of a kind",
    "mixed": f"mixed taste: {WATCHED_EACH} watched of each of two kinds",
    "session": f"session: {STEPS} shown one after the other, nothing watched before",
}
_NAMES = {"ndcg@10": "NDCG@10", "auc": "AUC", "both@10": "both@10", "liked": "liked"}
_ROWS = {"histogram": "color histogram", "cosine": "cosine of its tokens"}


def exam_tables(report: dict[str, dict], users: int) -> Iterator[Table]:
    """One for each length of history of `linkedout_quant.evaluation.exam.take_exam`."""
    for length, rows in report.items():
        columns = ("NDCG@10", "95 %", "HR@10", "MRR@10", "AUC", "of the way from random to ceiling")
        table = _table(f"{length} watched videos, {users} users, 100 candidates", columns)
        for name, m in rows.items():
            numbers = (f"{m[key]:.3f}" for key in ("hr@10", "mrr@10", "auc"))
            low, high = m["interval"]
            cells = (f"{m['ndcg@10']:.3f}", f"{low:.3f} – {high:.3f}", *numbers, f"{m['normalised']:.2f}")
            table.add_row(name, *cells, style="bold" if name == PRODUCT else None)
        yield table


def taste_table(report: TasteReport) -> Table:
    """Who ranks, each metric with its interval, and its difference to the cosine of the same tokens."""
    metrics = report.results[PRODUCT]
    columns = [c for m in metrics for c in (_NAMES[m], "against cosine")]
    table = _table(f"{_TITLES[report.taste]} ({report.users} users)", columns)
    for name, row in report.results.items():
        cells = [cell for m in metrics for cell in _cells(row[m])]
        table.add_row(_ROWS.get(name, name), *cells, style="bold" if name == PRODUCT else None)
    return table


def gate_table(reports: Sequence[GateReport]) -> Table:
    """NDCG@10 with gates by evidence and with even ones."""
    columns = ("by evidence", "even", "difference")
    table = _table(f"{EVENTS} watched videos, {reports[0].users} users who like …: NDCG@10", columns)
    for r in reports:
        cells = (
            _interval(r.by_evidence, r.by_evidence_interval),
            _interval(r.even, r.even_interval),
            _interval(r.difference, r.difference_interval, "+"),
        )
        table.add_row(r.kind, *cells)
    return table


def mean_gates(reports: Sequence[GateReport]) -> str:
    """Where the users' tastes live: the mean gate of each layer."""
    return "mean gates: " + " · ".join(f"{r.kind} " + " ".join(f"{g:.2f}" for g in r.gates) for r in reports)


def by_kind(report: TasteReport) -> str:
    """The product's first metric of each kind, best first; "" where there is one group of users."""
    metric, measured = next(iter(report.results[PRODUCT].items()))
    if len(measured.by_kind) == 1:
        return ""
    best_first = sorted(measured.by_kind.items(), key=lambda pair: -pair[1])
    return f"{_NAMES[metric]} by kind: " + " · ".join(f"{kind} {value:.2f}" for kind, value in best_first)


def _table(title: str, columns: tuple[str, ...] | list[str]) -> Table:
    table = Table(title=title)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _cells(m: Measured) -> tuple[str, str]:
    cell = _interval(m.mean, m.interval)
    if m.difference is None or m.difference_interval is None:
        return cell, ""
    return cell, _interval(m.difference, m.difference_interval, "+")


def _interval(mean: float, ends: tuple[float, float], sign: str = "") -> str:
    return escape(f"{mean:{sign}.3f} [{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]")
