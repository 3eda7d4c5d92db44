"""Shards on Ray Data: a pool of actors, each of which loads the model once.

What Ray does badly is kept away from it. Errors come back as rows, because an exception in a function ends the run.
What is written is keyed by id and done again without harm, because Ray runs a task again when its actor dies. Actors
never ask for all CPUs, and a watchdog looks at progress, because Ray waits for ever where it cannot place an actor.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import queue
import shutil
import threading
import time
import uuid
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when Ray is imported, and when it starts its processes

from linkedout_edge import errors, install
from linkedout_edge.encode.encoder import DecoderLike
from linkedout_edge.errors import (
    ArgumentError,
    ClusterError,
    LinkedOutError,
    MissingDependencyError,
    StalledError,
    StorageError,
)
from linkedout_edge.scale.shards import PULSES
from linkedout_edge.scale.worker import Done, Task, Worker

try:
    import ray
    import ray.data
except ImportError as e:
    raise MissingDependencyError(f"the engine ray needs Ray Data: {install.extra('scale')}") from e

BLOCKS = 4096
"""Tasks that Ray is given at most: it keeps books of each."""
_LOOK_SECONDS = 1.0
_PULSE_SECONDS = 1.0


class _Actor:
    """A `Worker` whose rows and errors are JSON: an id may hold half a character, which Arrow refuses.

    Args:
        folder: The folder of packs.
        pulses: A folder in it. In a file there each worker shows that it works. When the folder is gone, so is the
            run: what Ray has still in store is refused.
        model, decoder: As of `Worker`.
    """

    def __init__(self, folder: str, pulses: str, model: dict[str, Any], decoder: str | DecoderLike) -> None:
        self._pulse, self._beaten = Path(pulses) / f"{platform.node()}-{os.getpid()}", 0.0
        self._worker = Worker(folder, model, decoder, self._beat)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"result": [json.dumps(self._result(Task(**json.loads(str(text))))) for text in batch["task"]]}

    def _result(self, task: Task) -> dict[str, Any]:
        try:
            self._beat()
            return {"done": asdict(self._worker.run(task))}
        except LinkedOutError as e:  # of the whole run: the driver raises it
            return {"error": [type(e).__name__, str(e)]}

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._beaten >= _PULSE_SECONDS:
            self._beaten = now
            try:
                self._pulse.touch()
            except OSError as e:
                raise StorageError(f"the run has ended, or {self._pulse.parent} is not seen here: {e.strerror}") from e


def run_on_ray(
    tasks: list[Task],
    folder: Path,
    model: dict[str, Any],
    decoder: str | DecoderLike,
    workers: int | None,
    stall_seconds: float,
) -> Generator[Done, None, None]:
    """Do shards on a cluster, in any order. Close the iterator to stop early.

    Raises:
        ArgumentError: More workers than the cluster has CPUs.
        StalledError: Nothing was done for `stall_seconds`.
        LinkedOutError: What a worker raised.
    """
    if not tasks:
        return
    started = not ray.is_initialized()
    if started:
        start()
    pulses = folder / f"{PULSES}{uuid.uuid4().hex}"
    try:
        cpus = ray.cluster_resources().get("CPU", 0.0)
        count, share = _pool(cpus, len(tasks), workers)
        pulses.mkdir()
        yield from _results(tasks, pulses, (str(folder), str(pulses), model, decoder), count, share, stall_seconds)
    finally:
        shutil.rmtree(pulses, ignore_errors=True)
        if started:
            ray.shutdown()


def start(**options: Any) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, else start one here: no dashboard, nothing sent, nothing printed.

    Left alone, Ray would join whatever cluster was last started on this machine.

    Raises:
        ClusterError: It cannot be started or joined.
    """
    address = os.environ.get("RAY_ADDRESS") or "local"
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, RuntimeError, ValueError) as e:
        raise ClusterError(
            f"Ray cannot be started or joined: {e}. The address was {address}; a "
            "cluster that asks for a token needs RAY_AUTH_MODE=token here, and the token where Ray looks for it"
        ) from e


def _pool(cpus: float, tasks: int, workers: int | None) -> tuple[int, float]:
    """How many actors, and what each reserves of a CPU; together always less than there is, or Ray hangs."""
    if cpus < 1:
        raise ArgumentError("the cluster has no CPU: start one with at least one")
    if workers is not None and workers > cpus:
        raise ArgumentError(f"workers is {workers}, and the cluster has {cpus:g} CPUs: leave it out, or give fewer")
    return min(workers or int(cpus), tasks), int(10_000 * (cpus - 0.5) / cpus) / 10_000


def _results(
    tasks: list[Task], pulses: Path, arguments: tuple[Any, ...], count: int, share: float, stall_seconds: float
) -> Iterator[Done]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"task": json.dumps(asdict(t))} for t in tasks]
    found = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS)).map_batches(
        _Actor,
        fn_constructor_args=arguments,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2),
        num_cpus=share,
    )
    arrived: queue.Queue[str | BaseException | None] = queue.Queue()

    def consume() -> None:
        try:
            for row in found.iter_rows():
                arrived.put(row["result"])
            arrived.put(None)
        except BaseException as e:
            arrived.put(e)

    # A daemon: where Ray hangs, so does this thread, until the process ends.
    threading.Thread(target=consume, name="linkedout-ray", daemon=True).start()
    for item in _watched(arrived, pulses, stall_seconds):
        result = json.loads(item)
        if "error" in result:
            name, message = result["error"]
            raise getattr(errors, name, LinkedOutError)(message)
        yield Done(**result["done"])


def _watched(arrived: queue.Queue[str | BaseException | None], folder: Path, stall_seconds: float) -> Iterator[str]:
    """What arrives, as long as something does or a worker shows that it works."""
    last, pulses = time.monotonic(), _pulses(folder)
    while True:
        try:
            item = arrived.get(timeout=min(_LOOK_SECONDS, stall_seconds))
        except queue.Empty:
            if (now := _pulses(folder)) != pulses:
                last, pulses = time.monotonic(), now
            elif time.monotonic() - last > stall_seconds:
                raise StalledError(
                    f"nothing was done for {stall_seconds:g} s. Free of the cluster's CPUs are "
                    f"{ray.available_resources().get('CPU', 0.0):g} of {ray.cluster_resources().get('CPU', 0.0):g}: "
                    "if others hold them, wait for them or ask for fewer workers. What was written stays, and the same "
                    "call continues from there"
                ) from None
            continue
        last = time.monotonic()
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        yield item


def _pulses(folder: Path) -> dict[str, int]:
    """When each worker last showed that it works; the times are compared with each other and with no clock here."""
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
