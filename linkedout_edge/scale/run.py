"""`encode_to_packs`: a list of videos into a folder of packs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from linkedout_edge.encode.encoder import DecoderLike
from linkedout_edge.errors import ArgumentError, StalledError, StorageError, unknown
from linkedout_edge.scale import remote
from linkedout_edge.scale.shards import by_shard, number_of_shards, pack_name, packs_in, remove_leftovers
from linkedout_edge.scale.worker import Done, Task, Worker

Engine: TypeAlias = Literal["local", "ray"]

FAILURES = "failures.jsonl"
STALL_SECONDS = 600.0
"""How long nothing may be done anywhere. A video may take 20 s to decode, and a cluster minutes to start machines."""


@dataclass(frozen=True)
class PacksResult:
    """What `encode_to_packs` did.

    Attributes:
        encoded: How many videos were encoded.
        unchanged: How many the packs held already, with the content that they have now.
        failed: How many could not be used; ``failures.jsonl`` in the folder names them.
        failures: That file.
        packs: How many packs the folder holds now.
        damaged: Packs that could not be read, were set aside as ``….damaged`` and made again.
    """

    encoded: int
    unchanged: int
    failed: int
    failures: Path
    packs: int
    damaged: tuple[str, ...]


def encode_to_packs(
    videos: Iterable[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    engine: Engine = "local",
    workers: int | None = None,
    shards: int | None = None,
    model: dict[str, Any] | None = None,
    decoder: str | DecoderLike = "auto",
    progress: Callable[[int, int], None] | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> PacksResult:
    """Encode videos into a folder of feature packs. Unchanged videos of the packs are not encoded again.

    It can be interrupted at any time: packs are written completely, and the same call continues from them. Videos
    that are only in the packs stay. Only one run at a time may write to a folder.

    Args:
        videos: Paths of files, or URLs that fsspec opens. A path counts, and is the id, in its absolute form.
        folder: Where the packs lie, made if need be. All machines must see it under the same path.
        engine: ``local``: this process. ``ray``: Ray Data, on the cluster that ``RAY_ADDRESS`` names, else on this
            machine. Both write the same bytes.
        workers: Of Ray: processes of one thread each; None: one a CPU of the cluster.
        shards: How many packs the folder has, fixed by its first run; None: 256 videos each.
        model: Keywords of `Recommender.load`, such as ``{"bundle": "int8"}``; not `threads`, `data_dir`, `key`.
        decoder: As of `Recommender.load`; Ray pickles a callable.
        progress: Called as ``(done, total)`` after each shard.
        stall_seconds: Of Ray: when nothing was done for so long, it ends with an error in place of waiting for ever.

    Raises:
        ArgumentError: Arguments that make no sense, alone or together.
        LinkedOutError: The model cannot be loaded, as in `Recommender.load`.
        TokenSpaceError: The folder holds packs of another model.
        StorageError: The folder cannot be written, or not every machine sees it.
        MissingDependencyError: Ray or fsspec is not installed.
        StalledError: See `stall_seconds`.
    """
    if engine not in ("local", "ray"):
        raise ArgumentError(unknown("engine", engine, ("local", "ray")))
    if engine == "local" and workers not in (None, 1):
        raise ArgumentError("the engine local is one process of one thread: leave workers out, or take ray")
    if workers is not None and workers < 1:
        raise ArgumentError(f"workers must be at least 1, not {workers}")
    if not stall_seconds > 0:
        raise ArgumentError(f"stall_seconds must be above 0, not {stall_seconds}")
    if kept := sorted({"threads", "data_dir", "key"} & set(model or ())):
        raise ArgumentError(f"model must not have {', '.join(kept)}: workers have one thread and keep nothing")
    if remote.is_remote(os.fspath(folder)):
        raise ArgumentError(f"packs are written to a folder, not to a URL: write them here, then copy them to {folder}")
    ids = [_absolute(os.fspath(v)) for v in videos]
    packs = Path(folder).absolute()
    try:
        packs.mkdir(parents=True, exist_ok=True)
        remove_leftovers(packs)
    except OSError as e:
        what = "is a file: name a folder" if packs.is_file() else f"cannot be written: {e.strerror}"
        raise StorageError(f"{packs} {what}") from e
    count = number_of_shards(packs, len(ids), shards)
    tasks = [Task(s, count, mine) for s, mine in by_shard(ids, count).items()]
    # Loaded here too, with Ray: what is wrong with the model or the decoder is said at once, by the error that it is.
    with closing(Worker(str(packs), model or {}, decoder)) as worker:
        if engine == "local":
            results: Iterator[Done] = map(worker.run, tasks)
            return _collect(results, tasks, packs, progress)
    from linkedout_edge.scale.ray_engine import run_on_ray

    with closing(run_on_ray(tasks, packs, model or {}, decoder, workers, stall_seconds)) as found:
        return _collect(found, tasks, packs, progress)


def _absolute(path: str) -> str:
    return path if remote.is_remote(path) else os.path.abspath(path)  # noqa: PTH100 (links stay as they are)


def _collect(
    results: Iterator[Done], tasks: list[Task], folder: Path, progress: Callable[[int, int], None] | None
) -> PacksResult:
    total, finished = sum(len(t.ids) for t in tasks), 0
    sizes = {t.shard: len(t.ids) for t in tasks}
    all_done: dict[int, Done] = {}
    failed: list[list[str]] = []
    count = tasks[0].shards if tasks else 1
    for done in results:
        if done.encoded and not (folder / pack_name(done.shard, count)).is_file():
            raise StorageError(
                f"a worker wrote {pack_name(done.shard, count)}, and it is not in {folder} here: put the packs where "
                "every machine of the cluster sees them under the same path"
            )
        all_done[done.shard] = done
        failed += done.failed
        finished += sizes[done.shard]
        if progress:
            progress(finished, total)
    if missing := sizes.keys() - all_done.keys():
        raise StalledError(
            f"{len(missing)} of {len(tasks)} shards were not finished: run it again to continue from there"
        )
    failures = folder / FAILURES
    _write_failures(failures, sorted(failed))
    return PacksResult(
        encoded=sum(d.encoded for d in all_done.values()),
        unchanged=sum(d.unchanged for d in all_done.values()),
        failed=len(failed),
        failures=failures,
        packs=len(packs_in(folder)),
        damaged=tuple(pack_name(d.shard, count) for d in all_done.values() if d.damaged),
    )


def _write_failures(path: Path, failed: list[list[str]]) -> None:
    """A line of JSON for each failure of this run; the file is replaced as a whole."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="ascii", dir=path.parent, prefix=".failures.", delete=False
        ) as f:
            for i, code, reason in failed:
                f.write(json.dumps({"id": i, "code": code, "reason": reason}) + "\n")
        Path(f.name).chmod(0o644)
        Path(f.name).replace(path)
    except OSError as e:
        raise StorageError(f"{path} cannot be written: {e.strerror}") from e
