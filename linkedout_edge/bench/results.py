"""The results of a benchmark, as typed JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from linkedout_edge import install
from linkedout_edge.errors import ArgumentError

FORMAT = 1

# Checked when a report is read: what is divided by is not 0.
Time = Annotated[float, Meta(gt=0)]
Size = Annotated[int, Meta(ge=0)]


class LatencyStats(msgspec.Struct, frozen=True, kw_only=True):
    """Latency of one operation, in milliseconds.

    Attributes:
        median: Of all samples.
        p95: 95th percentile of all samples.
        samples: Number of samples.
        rounds: Median of each round, for comparing with what ran in the same round.
    """

    median: Time
    p95: Time
    samples: int
    rounds: Annotated[list[Time], Meta(min_length=1)]

    @classmethod
    def of(cls, rounds: Sequence[Sequence[float]]) -> LatencyStats:
        """From the samples of each round."""
        samples = sorted(x for r in rounds for x in r)
        p95 = samples[min(len(samples) - 1, round(0.95 * (len(samples) - 1)))]
        return cls(
            median=statistics.median(samples),
            p95=p95,
            samples=len(samples),
            rounds=[statistics.median(r) for r in rounds],
        )

    def over(self, other: LatencyStats) -> float:
        """How many times as long as `other`: the median over rounds in which both ran."""
        return statistics.median(a / b for a, b in zip(self.rounds, other.rounds, strict=False))

    @property
    def noise(self) -> float:
        """Half the distance of the rounds' quartiles, relative to the median: what a difference must exceed."""
        if len(self.rounds) < 4:
            return 0.0
        low, _, high = statistics.quantiles(self.rounds, n=4)
        return (high - low) / 2 / self.median


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How close the rankings are to fp32's.

    Attributes:
        source: ``measured`` in this run against the bundle's fp32 graph, or ``manifest``: as the exporter measured it,
            because the bundle has no fp32.
        ndcg: NDCG@10 on the set, measured in this run; None where no set was taken.
        ndcg_ratio: Over fp32's.
        kendall_tau: Mean over the rankings.
        top10_overlap: Mean share of fp32's ten best that are among the ten best.
        onnxruntime_tau: Kendall's tau with ONNX Runtime on the CPU in the same precision, measured in this run.
        rankings: How many were compared in this run; 0 if none.
    """

    source: Literal["measured", "manifest"]
    ndcg: float | None = None
    ndcg_ratio: float | None = None
    kendall_tau: float | None = None
    top10_overlap: float | None = None
    onnxruntime_tau: float | None = None
    rankings: int = 0


class Configuration(msgspec.Struct, kw_only=True):
    """One precision on one device of one library.

    Attributes:
        precision, backend, device: What was asked for.
        runs_on: What really ran the encoder graph, and what computed the scores.
        notices: What the backend said.
        error: Why it could not be measured; "" if it could.
        bytes: Size of the graph's file.
        load_s: From `import linkedout_edge` to a loaded recommender, in a new process.
        warmup_s: Running it once after that.
        encode: One video: its frames, resized already, to tokens.
        rank: 1,000 stored candidates by ids, 64 events, nothing new since the last ranking.
        rank_changed: The same just after one more event, so that the user is fitted again.
        rss_mb: Resident memory after that, the stored candidates included.
        peak_mb: Its peak.
        energy_mj: Millijoules a video while encoding, the idle share included; None where the platform reports none.
        agreement: With fp32.
    """

    precision: str
    backend: str
    device: str
    runs_on: dict[str, str] = {}
    notices: list[str] = []
    error: str = ""
    bytes: Size = 0
    load_s: float | None = None
    warmup_s: float | None = None
    encode: LatencyStats | None = None
    rank: LatencyStats | None = None
    rank_changed: LatencyStats | None = None
    rss_mb: float | None = None
    peak_mb: float | None = None
    energy_mj: float | None = None
    agreement: Agreement | None = None

    @property
    def name(self) -> str:
        """``int8, onnxruntime, cpu``."""
        return f"{self.precision}, {self.backend}, {self.device}"


class Baseline(msgspec.Struct, kw_only=True):
    """Another model that was run in turns with the configurations.

    Attributes:
        name: What.
        encode: Its time for what stands in for one video.
        error: Why it could not be measured.
    """

    name: str
    encode: LatencyStats | None = None
    error: str = ""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a sustained run.

    Attributes:
        at_s: Seconds from the start.
        encode_ms: Median in this part.
        celsius: The hottest sensor; None without any.
        megahertz: Mean clock of the CPUs; None where the platform does not report it.
    """

    at_s: float
    encode_ms: float
    celsius: float | None = None
    megahertz: float | None = None


class Sustained(msgspec.Struct, kw_only=True):
    """One configuration, encoding without a pause: does it slow down as it heats up?

    Attributes:
        configuration: Which.
        seconds: For how long.
        windows: Time over time.
        slowdown: Median of the last fifth over that of the first fifth.
        verdict: In words.
    """

    configuration: str = msgspec.field(name="cell")
    seconds: float
    windows: list[Window]
    slowdown: float
    verdict: str


class Machine(msgspec.Struct, kw_only=True):
    """Where it ran. A report names no host and no user."""

    system: str
    processor: str
    cpus: int
    threads: int
    power_mode: str = ""
    gpu: dict[str, str] = {}
    versions: dict[str, str] = {}


class Report(msgspec.Struct, kw_only=True):
    """A whole run.

    Attributes:
        command: What makes it again.
        bundle: Name of the bundle.
        token_space: Of the bundle.
        cached: Whether compiled engines were kept from an earlier run, so that load shows a later start.
        set: Name of the set of rankings; "" if none was taken.
        energy: Where energy was read, or why it was not.
    """

    format: int = FORMAT
    created: str
    command: str
    bundle: str
    token_space: str
    cached: bool = False
    set: str = ""
    energy: str = ""
    machine: Machine
    configurations: list[Configuration] = msgspec.field(name="cells")
    against: list[Baseline] = []
    sustained: list[Sustained] = []

    def find(self, precision: str, backend: str, device: str) -> Configuration | None:
        """That configuration, if it was measured."""
        named = (c for c in self.configurations if (c.precision, c.backend, c.device) == (precision, backend, device))
        return next((c for c in named if not c.error), None)

    def reference(self) -> Configuration | None:
        """What others are compared with: fp32 in ONNX Runtime on the CPU."""
        return self.find("fp32", "onnxruntime", "cpu")

    def best(self) -> Configuration | None:
        """The configuration that encodes fastest."""
        timed = [c for c in self.configurations if c.encode is not None]
        return min(timed, key=lambda c: c.encode.median if c.encode else 0, default=None)


def read_report(path: Path) -> Report:
    """A report as ``bench --json`` printed it.

    Raises:
        ArgumentError: There is none, or it is none.
    """
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except OSError as e:
        raise ArgumentError(f"{path} cannot be read ({e.strerror}): name a file that bench --json wrote") from e
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
        raise ArgumentError(f"{path} is no report of bench --json: {e}") from e
    if report.format > FORMAT:
        raise ArgumentError(f"{path} was written by a newer linkedout-edge: {install.newer()}")
    return report
