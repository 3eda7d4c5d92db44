"""Two reports side by side: ratios, and a verdict in words."""

from __future__ import annotations

import msgspec

from linkedout_edge.bench.results import Configuration, LatencyStats, Report
from linkedout_edge.errors import ArgumentError

SAME = 0.05
"""Smaller differences are not called differences, even where the rounds are steadier than that."""
SAME_QUALITY = 0.005


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of one configuration in two reports.

    Attributes:
        configuration: Which.
        measure: What, with its unit.
        before, after: Its values.
        ratio: After over before.
        verdict: In a few words.
    """

    configuration: str = msgspec.field(name="cell")
    measure: str
    before: float
    after: float
    ratio: float
    verdict: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two reports side by side.

    Attributes:
        differences: Of the configurations that both have.
        notes: What makes the two hard to compare.
    """

    differences: list[Difference]
    notes: list[str]


def compare(before: Report, after: Report) -> Comparison:
    """Compare two reports, configuration by configuration.

    Raises:
        ArgumentError: They have no configuration in common.
    """
    mine = {c.name: c for c in before.configurations if not c.error}
    theirs = {c.name: c for c in after.configurations if not c.error}
    common = [n for n in mine if n in theirs]
    if not common:
        raise ArgumentError(
            f"the two reports have no configuration in common: the first has {'; '.join(mine) or 'none'}, "
            f"the second {'; '.join(theirs) or 'none'}"
        )
    notes = [f"only in the first: {n}" for n in mine if n not in theirs]
    notes += [f"only in the second: {n}" for n in theirs if n not in mine]
    for what in ("processor", "threads", "power_mode"):
        a, b = getattr(before.machine, what), getattr(after.machine, what)
        if a != b:
            notes.append(f"{what.replace('_', ' ')}: {a or 'unknown'} → {b or 'unknown'}")
    if before.token_space != after.token_space:
        notes.append("the two are of different models: quality can be compared, agreement with fp32 cannot")
    return Comparison(differences=[d for n in common for d in _differences(mine[n], theirs[n])], notes=notes)


def _differences(a: Configuration, b: Configuration) -> list[Difference]:
    found = []
    for measure, words, x, y, margin in (
        ("encode ms", ("faster", "slower"), _median(a.encode), _median(b.encode), _noise(a.encode, b.encode)),
        ("rank ms", ("faster", "slower"), _median(a.rank), _median(b.rank), _noise(a.rank, b.rank)),
        ("load s", ("faster", "slower"), a.load_s, b.load_s, 0.15),
        ("size MB", ("smaller", "larger"), a.bytes / 1e6, b.bytes / 1e6, 0.005),
        ("peak RSS MB", ("smaller", "larger"), a.peak_mb, b.peak_mb, SAME),
        ("energy mJ", ("less", "more"), a.energy_mj, b.energy_mj, 0.1),
        ("NDCG@10", ("worse", "better"), _ndcg(a), _ndcg(b), SAME_QUALITY),
    ):
        if x and y:
            ratio = y / x
            word = words[0] if ratio < 1 - margin else words[1] if ratio > 1 + margin else "about the same"
            found.append(
                Difference(
                    configuration=a.name, measure=measure, before=x, after=y, ratio=ratio, verdict=_verdict(word, ratio)
                )
            )
    return found


def _verdict(word: str, ratio: float) -> str:
    if word in ("faster", "slower"):
        return f"{1 / ratio if ratio < 1 else ratio:.2f} × {word}"
    return word if word == "about the same" else f"{abs(ratio - 1):.0%} {word}"


def _median(stats: LatencyStats | None) -> float | None:
    return None if stats is None else stats.median


def _noise(*stats: LatencyStats | None) -> float:
    return max(SAME, sum(s.noise for s in stats if s is not None))


def _ndcg(configuration: Configuration) -> float | None:
    return None if configuration.agreement is None else configuration.agreement.ndcg
