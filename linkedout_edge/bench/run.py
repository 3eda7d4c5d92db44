"""Runs a benchmark: start the workers, let them take turns, compare their rankings."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from linkedout_edge.bench import exam
from linkedout_edge.bench.against import BASELINES, baseline_spec
from linkedout_edge.bench.energy import Meter, open_meter
from linkedout_edge.bench.machine import describe
from linkedout_edge.bench.plan import model_arguments, plan
from linkedout_edge.bench.results import Agreement, Baseline, Configuration, LatencyStats, Report
from linkedout_edge.bench.sustained import sustain
from linkedout_edge.bench.workers import Worker
from linkedout_edge.bundle import Bundle, open_bundle
from linkedout_edge.bundle.manifest import PRECISIONS, Manifest
from linkedout_edge.bundle.reader import embedded_precisions
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError, BackendError, BundleNotFoundError, unknown

LEAST_ROUNDS = 5
TURN_MS = 150.0
"""What one gets to run before the next has its turn."""

Progress = Callable[[str, int, int], None]


def _silent(label: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        bundle: Folder or .zip, or a precision of the built-in one; None is all of the built-in one.
        precisions, backends, devices: Of each, all that there are if left empty.
        threads: CPU threads; None is what this process may use.
        cache_dir: Where engines are kept between runs; None compiles them again, which load and warm-up then show.
        seconds: How long each configuration and baseline is timed.
        rankings: How many of the set are compared; 0 takes none.
        set: Name of the set, see `exam.SETS`.
        against: Names of `BASELINES`.
        data: Folder with the baselines' models.
        sustained: Seconds that each configuration then encodes without a pause; 0 does not.
        command: What to say makes the report again.
    """

    bundle: str | None = None
    precisions: Sequence[str] = ()
    backends: Sequence[str] = ()
    devices: Sequence[str] = ()
    threads: int | None = None
    cache_dir: str | None = None
    seconds: float = 6.0
    rankings: int = 200
    set: str = "micro-video exam"
    against: Sequence[str] = ()
    data: Path | None = None
    sustained: float = 0.0
    command: str = "linkedout-edge bench"


@dataclass
class _Runner:
    """A configuration or baseline, its process, and the milliseconds of each round by what was run."""

    worker: Worker
    measures: tuple[str, ...]
    configuration: Configuration | None = None
    baseline: Baseline | None = None
    rounds: dict[str, list[list[float]]] = field(default_factory=dict)
    joules: list[float] = field(default_factory=list)

    def fail(self, error: BackendError) -> None:
        """Note why it takes no further part."""
        target: Any = self.configuration or self.baseline
        target.error = str(error)

    @property
    def failed(self) -> bool:
        target: Any = self.configuration or self.baseline
        return bool(target.error)


def measure(settings: Settings, progress: Progress = _silent) -> Report:
    """Run a benchmark.

    Args:
        settings: What to measure.
        progress: Called as ``(what, done, total)``.

    Returns:
        The report; a configuration that could not be measured says why in its ``error``.

    Raises:
        ArgumentError: Unknown names, or arguments that contradict each other.
        BundleError: The bundle cannot be used.
        MissingDependencyError: A backend that was named is not installed.
    """
    if settings.bundle in PRECISIONS:  # as `Recommender.load` takes it
        if tuple(settings.precisions) not in ((), (settings.bundle,)):
            raise ArgumentError(f"{settings.bundle} is already a precision: leave --precision out, or --bundle")
        settings = replace(settings, bundle=None, precisions=(settings.bundle,))
    for name in settings.against:
        if name not in BASELINES:
            raise ArgumentError(unknown("baseline", name, BASELINES))
    if settings.set not in exam.SETS:
        raise ArgumentError(unknown("set", settings.set, exam.SETS))
    with _open(settings.bundle) as bundle:
        manifest = bundle.manifest
    configurations = plan(manifest, settings.precisions, settings.backends, settings.devices)
    machine = describe(settings.threads, {})
    baselines = [
        (Baseline(name=BASELINES[n]), baseline_spec(n, manifest.config, machine.threads, settings.data))
        for n in settings.against
    ]
    report = Report(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=settings.command,
        bundle=manifest.name,
        token_space=manifest.token_space,
        cached=settings.cache_dir is not None,
        machine=machine,
        configurations=configurations,
        against=[c for c, _ in baselines],
    )
    with ExitStack() as stack:
        meter, report.energy = open_meter()
        if meter is not None:
            stack.callback(meter.close)
        progress("reading the libraries from disk", 0, 1)
        _fill_page_cache(settings, manifest.config, configurations)
        runners = []
        for n, configuration in enumerate(configurations):
            progress(f"loading {configuration.name}", n, len(configurations) + len(baselines))
            worker = stack.enter_context(Worker(_configuration_spec(settings, configuration, manifest.config)))
            runners.append(_start_configuration(worker, configuration, machine.versions))
        for n, (baseline, spec) in enumerate(baselines):
            progress(f"loading {baseline.name}", len(configurations) + n, len(configurations) + len(baselines))
            runners.append(_start_baseline(stack.enter_context(Worker(spec)), baseline))
        _take_turns(runners, settings.seconds, meter, progress)
        for runner in runners:
            _note(runner)
        if settings.rankings:
            _compare(settings, manifest, runners, report, progress)
        if settings.sustained:
            for runner in [r for r in runners if r.configuration is not None and not r.failed]:
                assert runner.configuration is not None
                report.sustained.append(sustain(runner.worker, runner.configuration.name, settings.sustained, progress))
    return report


def _open(bundle: str | None) -> Bundle:
    if bundle is not None:
        return open_bundle(bundle)
    names = embedded_precisions()
    if not names:
        raise BundleNotFoundError("this installation has no built-in bundle: name one with --bundle")
    return open_bundle(names[0])


def _fill_page_cache(settings: Settings, config: ModelConfig, configurations: Sequence[Configuration]) -> None:
    """Load once with each backend, so that the first row does not pay for reading its libraries from disk."""
    for backend in {c.backend for c in configurations}:
        configuration = Configuration(precision=configurations[0].precision, backend=backend, device="cpu")
        with Worker(_configuration_spec(settings, configuration, config)) as worker:
            _start_configuration(worker, configuration, {})


def _configuration_spec(settings: Settings, configuration: Configuration, config: ModelConfig) -> dict[str, Any]:
    model = {
        **model_arguments(settings.bundle, configuration.precision),
        "backend": configuration.backend,
        "device": configuration.device,
        "threads": settings.threads,
        "cache_dir": settings.cache_dir,
        # A configuration is called after its device, so nothing else may run it.
        "strict_device": configuration.device != "auto",
    }
    return {"kind": "configuration", "model": model, "config": msgspec.to_builtins(config)}


def _start_configuration(worker: Worker, configuration: Configuration, versions: dict[str, str]) -> _Runner:
    runner = _Runner(worker, ("encode", "rank", "rank_changed"), configuration=configuration)
    try:
        worker.start()
        loaded = worker.ask("load")
        configuration.load_s = loaded["seconds"]
        versions.update(loaded["versions"])
        warm = worker.ask("warmup")
        configuration.warmup_s, configuration.runs_on = warm["seconds"], warm["runs_on"]
        configuration.notices = warm["notices"]
    except BackendError as e:
        runner.fail(e)
    return runner


def _start_baseline(worker: Worker, baseline: Baseline) -> _Runner:
    runner = _Runner(worker, ("encode",), baseline=baseline)
    try:
        worker.start()
        worker.ask("encode", count=2)
    except BackendError as e:
        runner.fail(e)
    return runner


def _take_turns(runners: list[_Runner], seconds: float, meter: Meter | None, progress: Progress) -> None:
    """Rounds in which each runs for a moment, until each had about its time."""
    counts: dict[tuple[int, str], int] = {}
    start, budget = time.perf_counter(), seconds * max(1, len(runners))
    rounds = 0
    while rounds <= LEAST_ROUNDS or time.perf_counter() - start < budget:
        for n, runner in enumerate(runners):
            for what in runner.measures:
                if runner.failed:
                    break
                count = counts.get((n, what), 2)
                before = meter.joules() if meter is not None else 0.0
                try:
                    took: list[float] = runner.worker.ask(what, count=count)["ms"]
                except BackendError as e:
                    runner.fail(e)
                    break
                if meter is not None and what == "encode" and rounds:
                    runner.joules.append((meter.joules() - before) / count)
                if rounds:  # the first finds out how long each takes
                    runner.rounds.setdefault(what, []).append(took)
                share = 1 if what == "encode" else 0.3
                counts[n, what] = max(2, min(50, round(share * TURN_MS / max(1e-3, min(took)))))
        rounds += 1
        done = time.perf_counter() - start
        progress("timing all in turns, seconds", round(min(done, budget)), round(budget))


def _note(runner: _Runner) -> None:
    """Sum up what was timed."""
    if runner.failed:
        return
    if runner.baseline is not None:
        runner.baseline.encode = LatencyStats.of(runner.rounds["encode"])
        return
    configuration = runner.configuration
    assert configuration is not None
    stats = [LatencyStats.of(runner.rounds[m]) for m in runner.measures]
    configuration.encode, configuration.rank, configuration.rank_changed = stats
    if runner.joules:
        configuration.energy_mj = float(np.median(runner.joules)) * 1e3
    try:
        memory = runner.worker.ask("memory")
    except BackendError as e:
        runner.fail(e)
        return
    configuration.rss_mb, configuration.peak_mb = memory["rss_mb"], memory["peak_mb"]


def _compare(
    settings: Settings, manifest: Manifest, runners: list[_Runner], report: Report, progress: Progress
) -> None:
    """Let each configuration rank for the users of a set, and compare with fp32 and with ONNX Runtime."""
    chosen = exam.SETS[settings.set](settings.rankings)
    report.set = settings.set
    relevant = [u.relevant for u in chosen.users]
    config = manifest.config
    with tempfile.TemporaryDirectory(prefix="linkedout-bench-") as scratch:
        folder = Path(scratch)
        clips, users = exam.write_set(
            chosen, config.frames, config.frame_size, folder, lambda done, of: progress("rendering the set", done, of)
        )

        def scores(worker: Worker, name: str) -> np.ndarray:
            path = folder / f"{name}.npy"
            worker.ask("exam", frames=str(clips), users=str(users), scores=str(path))
            found: np.ndarray = np.load(path)
            return found

        answers: dict[tuple[str, str, str], np.ndarray] = {}
        measured = [r for r in runners if r.configuration is not None and not r.failed]
        for n, runner in enumerate(measured):
            configuration = runner.configuration
            assert configuration is not None
            progress(f"ranking the set with {configuration.name}", n, len(measured))
            try:
                found = scores(runner.worker, str(n))
                answers[configuration.precision, configuration.backend, configuration.device] = found
            except BackendError as e:
                runner.fail(e)
        reference = answers.get(("fp32", "onnxruntime", "cpu"))
        if reference is None and "fp32" in manifest.precisions and answers:
            hidden = Configuration(precision="fp32", backend="onnxruntime", device="cpu")
            progress(f"ranking the set with {hidden.name}", len(measured), len(measured))
            with Worker(_configuration_spec(settings, hidden, config)) as worker:
                runner = _start_configuration(worker, hidden, {})
                reference = None if runner.failed else scores(worker, "fp32")
        for runner in measured:
            configuration = runner.configuration
            assert configuration is not None
            mine = answers.get((configuration.precision, configuration.backend, configuration.device))
            if mine is not None:
                other = answers.get((configuration.precision, "onnxruntime", "cpu"))
                configuration.agreement = agreement(configuration, manifest, mine, relevant, reference, other)


def agreement(
    configuration: Configuration,
    manifest: Manifest,
    scores: np.ndarray,
    relevant: Sequence[np.ndarray],
    reference: np.ndarray | None,
    onnxruntime: np.ndarray | None,
) -> Agreement:
    """What a configuration's scores float64 ``[users, C]`` say beside fp32's and ONNX Runtime's.

    Without fp32's, what the manifest says of the precision stands in, and is marked as such.
    """
    found = _mean(exam.ndcg(s, r) for s, r in zip(scores, relevant, strict=True))
    tau = None
    if onnxruntime is not None and (configuration.backend, configuration.device) != ("onnxruntime", "cpu"):
        tau = _mean(exam.kendall_tau(a, b) for a, b in zip(scores, onnxruntime, strict=True))
    if reference is None:
        stated = manifest.precisions[configuration.precision].agreement
        return Agreement(
            source="manifest",
            ndcg=found,
            ndcg_ratio=stated.get("exam_ndcg@10_ratio"),
            kendall_tau=stated.get("kendall_tau"),
            top10_overlap=stated.get("top10_overlap"),
            onnxruntime_tau=tau,
            rankings=len(scores),
        )
    wanted = _mean(exam.ndcg(s, r) for s, r in zip(reference, relevant, strict=True))
    return Agreement(
        source="measured",
        ndcg=found,
        ndcg_ratio=found / wanted if wanted else None,
        kendall_tau=_mean(exam.kendall_tau(a, b) for a, b in zip(scores, reference, strict=True)),
        top10_overlap=_mean(exam.top_overlap(a, b) for a, b in zip(scores, reference, strict=True)),
        onnxruntime_tau=tau,
        rankings=len(scores),
    )


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
