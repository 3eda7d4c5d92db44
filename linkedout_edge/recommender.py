"""`Recommender`: joins bundle, backend, encoder, store, history and scoring, and nothing else."""

from __future__ import annotations

import logging
import math
import operator
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linkedout_edge._version import __version__
from linkedout_edge.backends.base import Backend, Providers, Session, create_backend
from linkedout_edge.bundle import GRAPHS, Bundle, open_bundle
from linkedout_edge.config import EVENT_FEATURES
from linkedout_edge.decode import get_decoder
from linkedout_edge.encoder import BATCH, MAX_WORKERS, DecoderLike, Encoded, Encoder, Spent
from linkedout_edge.errors import (
    ArgumentError,
    ArgumentTypeError,
    ClosedError,
    NotYetError,
    VideoError,
    VideoNotFoundError,
)
from linkedout_edge.history import History
from linkedout_edge.inputs import Event, EventLike, Video, VideoLike, as_events, as_video, as_videos, check_list
from linkedout_edge.intake import Intake
from linkedout_edge.ranking import Evidence, Failed, Ranking, Role, Timing, best_first
from linkedout_edge.scoring import MAX_EVENTS, User, encode_user, event_features, score
from linkedout_edge.store import Rows, Selection, TokenStore
from linkedout_edge.text import Tokenizer
from linkedout_edge.threads import available_cpus

logger = logging.getLogger("linkedout_edge")

KEPT_FOR_EXPLAINING = 4096
"""Tokens of that many best places stay with a ranking; the others' are looked up in the store when explained."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EncodeResult:
    """What `Recommender.encode` did.

    Attributes:
        encoded: Ids that were encoded.
        unchanged: Ids that were in the store already.
        failed: What could not be used, and why.
    """

    encoded: tuple[str, ...]
    unchanged: tuple[str, ...]
    failed: tuple[Failed, ...]


@dataclass(frozen=True)
class Info:
    """What runs, and where.

    Attributes:
        bundle: Name of the bundle.
        precision: Which of its precisions.
        token_space: Tokens are interchangeable within one.
        backend: Inference library.
        devices: Graph → what really runs it.
        threads: Threads on the CPU.
        decoder: What decodes files.
        layer_names: Names of the L layers.
        versions: Library → version.
        agreement: Measure → value against fp32, from the manifest.
    """

    bundle: str
    precision: str
    token_space: str
    backend: str
    devices: dict[str, str]
    threads: int
    decoder: str
    layer_names: tuple[str, ...]
    versions: dict[str, str]
    agreement: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class Recommender:
    """Ranks videos by what was watched, on this device. Make one with `Recommender.load`; usable from several threads.

    Attributes:
        store: Layer tokens of the videos that were encoded.
        history: What was watched.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, sessions: dict[str, Session], tokenizer: Tokenizer, decoder: DecoderLike
    ) -> None:
        manifest = bundle.manifest
        self._config = manifest.config
        self._sessions = sessions
        self._layer_names = tuple(manifest.layer_names) or tuple(f"layer {t}" for t in self._config.taps)
        self._info = Info(
            bundle=manifest.name,
            precision=bundle.precision,
            token_space=manifest.token_space,
            backend=backend.name,
            devices={g: s.device for g, s in sessions.items()},
            threads=backend.threads,
            decoder=str(getattr(decoder, "name", None) or getattr(decoder, "__name__", type(decoder).__name__)),
            layer_names=self._layer_names,
            versions={
                "linkedout-edge": __version__,
                backend.name: backend.version,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            agreement=dict(manifest.precisions[bundle.precision].agreement),
        )
        encoder = sessions["encoder"]
        workers, batch = min(MAX_WORKERS, backend.threads), 1 if encoder.device.startswith("CPU") else BATCH
        self._encoder = Encoder(self._config, encoder, decoder, tokenizer, workers, batch)
        self._encoding = threading.RLock()
        self._closed = False
        self.store = TokenStore(self._config)
        self.history = History(self.store, self._ensure)

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] = "int8",
        *,
        precision: str | None = None,
        backend: str = "onnxruntime",
        device: str = "auto",
        providers: Providers | None = None,
        threads: int | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        key: str | bytes | None = None,
        strict_device: bool = False,
        decoder: str | DecoderLike = "auto",
    ) -> Recommender:
        """Load a bundle. Nothing opens a socket.

        Args:
            bundle: A precision of the embedded bundle (``"int8"``), else an existing folder or .zip.
            precision: Which of the folder's or .zip's precisions; its first, if left out.
            backend: ``"onnxruntime"`` or ``"openvino"``.
            device: ``auto``, ``cpu``, ``cuda``, ``tensorrt``, ``gpu`` or ``npu``.
            providers: ONNX Runtime execution providers, instead of `device`.
            threads: CPU threads; left out, what affinity and cgroup quota allow.
            data_dir: Not yet: folder that keeps history and store. Without it both live in memory.
            cache_dir: Folder for compiled engines only.
            key: Not yet: encrypts what lies in `data_dir`.
            strict_device: A device that is not there is an error, not a warning.
            decoder: ``auto``, ``pyav``, ``opencv``, or a callable ``(path, count, size, limits)`` that gives uint8
                ``[F, size, size, 3]`` RGB, 1 ≤ F ≤ count.

        Raises:
            ArgumentError, ArgumentTypeError: Arguments that make no sense, alone or together.
            BundleError: No such bundle, or one that cannot be used (see its subclasses).
            DeviceError: The device is not available, and that is to be an error.
            MissingDependencyError: A library that was asked for is not installed.
            NotYetError: `data_dir` or `key`.
        """
        _check_folder("data_dir", data_dir)
        _check_folder("cache_dir", cache_dir)
        _check_key(key, data_dir)
        if not isinstance(strict_device, bool):
            raise ArgumentTypeError(f"strict_device must be True or False, not {type(strict_device).__name__}")
        count = available_cpus() if threads is None else _positive("threads", threads)
        if data_dir is not None:
            raise NotYetError("data_dir is not there yet: leave it out, history and store then live in memory")
        decode = decoder if callable(decoder) else get_decoder(decoder)
        library = create_backend(
            backend, device=device, providers=providers, threads=count, cache_dir=cache_dir, strict=strict_device
        )
        with open_bundle(bundle, precision) as opened:
            config = opened.manifest.config
            tokenizer = Tokenizer.from_json(opened.tokenizer(), config.vocab_size)
            sessions: dict[str, Session] = {}
            try:
                for graph in GRAPHS:
                    sessions[graph] = library.load(graph, opened.graph(graph), config)
                return cls(opened, library, sessions, tokenizer, decode)
            except BaseException:
                for session in sessions.values():
                    session.close()
                raise

    def rank(
        self,
        history: Iterable[EventLike] | None = None,
        candidates: Iterable[VideoLike] | Selection | None = None,
        *,
        top_k: int | None = None,
        diversity: float = 0.0,
        deadline_ms: float | None = None,
        exclude_watched: bool = False,
        fold_duplicates: bool = False,
        prior: Any = None,
    ) -> Ranking:
        """Rank videos by what was watched. The history is not changed.

        Args:
            history: Watched videos or `Event`s, oldest first; None is ``rec.history``, ``[]`` a cold start. Of more
                than 2,048 the latest count.
            candidates: Videos to rank, or a handle from ``rec.store.select``; None is everything in the store that was
                not watched.
            top_k: Give only so many.
            diversity: Not yet: 0 only.
            deadline_ms: Not yet.
            exclude_watched: Leave out candidates that are in the history.
            fold_duplicates: Not yet.
            prior: Not yet.

        Returns:
            The ranking; videos that could not be used are in its ``failed``.

        Raises:
            ArgumentError, ArgumentTypeError: Arguments that make no sense, such as a single str for a list.
            BackendError: The inference library failed.
            ClosedError: After `close`.
            NotYetError: An option that this version does not have.
        """
        start = time.perf_counter()
        self._check_open()
        limit = None if top_k is None else _positive("top_k", top_k)
        _check_not_yet(diversity, deadline_ms, fold_duplicates, prior)

        given = list(self.history) if history is None else as_events(history)
        intake = Intake(self.store)
        events = [e for e in given[-MAX_EVENTS:] if intake.admit(e.video, "history")]
        watched = {e.id for e in given} if exclude_watched or candidates is None else set()
        chosen = self._candidates(candidates, watched, intake)

        spent = Spent()
        held = [] if isinstance(chosen, Selection) else chosen
        if intake.jobs():
            with self.store.pinned(dict.fromkeys([*intake.ids, *held])):
                self._encode(intake, spent)
                result = self._score(events, chosen, limit, intake)
        else:
            result = self._score(events, chosen, limit, intake)
        ids, scores, layers, order, evidence, took = result
        timing = Timing(spent.decode, spent.encode, *took, time.perf_counter() - start)
        return Ranking(ids, scores, layers, order, intake.failed, timing, evidence)

    def encode(self, videos: Iterable[VideoLike], progress: Progress | None = None) -> EncodeResult:
        """Put videos into the store, so that ranking them costs next to nothing. Files that changed are encoded again.

        Args:
            videos: What to encode.
            progress: Called as ``(done, total)`` after each video.

        Raises:
            ArgumentError, ArgumentTypeError: Arguments that make no sense.
            BackendError: The inference library failed; what was encoded before stays.
            ClosedError: After `close`.
        """
        self._check_open()
        intake = Intake(self.store, look_at_files=True)
        for video in as_videos(videos):
            intake.admit(video, "video")
        encoded = self._encode(intake, Spent(), progress)
        failed = intake.failed
        left = {*encoded, *(f.id for f in failed if f.code != "conflict")}
        return EncodeResult(tuple(encoded), tuple(i for i in intake.ids if i not in left), tuple(failed))

    def forget(self, id: str) -> bool:
        """Remove a video from history and store; whether it was in one of them."""
        self._check_open()
        if not isinstance(id, str):
            raise ArgumentTypeError(f"id must be a str, not {type(id).__name__}")
        events = self.history.forget(id)
        return bool(self.store.remove(id)) or events > 0

    def warmup(self) -> dict[str, float]:
        """Run each graph once, so that the first ranking does not pay for planning; seconds by graph."""
        self._check_open()
        c = self._config
        tokens = np.zeros((1, c.layers, c.tokens_per_layer, c.token_width), np.int8)
        scales = np.zeros((1, c.layers, c.tokens_per_layer), np.float32)
        seconds: dict[str, float] = {}
        start = time.perf_counter()
        with self._encoding:
            self._encoder.warm_up()
        seconds["encoder"] = time.perf_counter() - start
        start = time.perf_counter()
        user = encode_user(self._sessions["user"], tokens, scales, np.zeros((1, len(EVENT_FEATURES)), np.float32))
        seconds["user"] = time.perf_counter() - start
        start = time.perf_counter()
        score(self._sessions["scorer"], user, tokens, scales)
        seconds["scorer"] = time.perf_counter() - start
        return seconds

    def info(self) -> Info:
        """What runs, and on which device each graph really runs."""
        self._check_open()
        return self._info

    def close(self) -> None:
        """Release models, history and store; twice is fine. Any later call raises `ClosedError`."""
        if self._closed:
            return
        self._closed = True
        with self._encoding:
            self.history.close()
            self.store.close()
            for session in self._sessions.values():
                session.close()

    def __enter__(self) -> Recommender:
        self._check_open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._info.backend}, {len(self.store)} videos"
        return f"<Recommender {self._info.bundle} {self._info.precision}, {state}>"

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the recommender was closed: load a new one with Recommender.load(...)")

    def _candidates(
        self, candidates: Iterable[VideoLike] | Selection | None, watched: set[str], intake: Intake
    ) -> list[str] | Selection:
        """Distinct ids in input order, without `watched` and without those that failed already."""
        if candidates is None:
            return [i for i in self.store if i not in watched]
        if isinstance(candidates, Selection):
            if not candidates.belongs_to(self.store):
                raise ArgumentError(
                    "the selection was made by another recommender's store: call rec.store.select again"
                )
            for missing in candidates.missing:
                intake.fail(missing, "candidate", _not_stored())
            return [i for i in candidates.ids if i not in watched] if watched else candidates
        given = list(check_list(candidates, "candidates"))
        if all(type(c) is str for c in given):  # the usual case, without an object for every candidate
            ids = [i for i in dict.fromkeys(given) if i not in watched]
            return [i for i in ids if i in self.store or intake.admit(Video(i), "candidate")]
        videos = [as_video(c, f"candidates[{i}]") for i, c in enumerate(given)]
        admitted = [v.id for v in videos if v.id not in watched and intake.admit(v, "candidate")]
        return list(dict.fromkeys(admitted))

    def _encode(self, intake: Intake, spent: Spent, progress: Progress | None = None) -> list[str]:
        """Encode what an intake needs and the store lacks; ids that were encoded."""
        encoded: list[str] = []
        with self._encoding:  # a video that two threads want is encoded once
            self._check_open()
            jobs = intake.jobs()
            total = len(intake.ids)
            done = total - len(jobs)
            if progress and (done or not jobs):
                progress(done, total)
            for job, result in self._encoder.run(jobs, spent):
                if isinstance(result, Encoded):
                    self.store.put(job.id, *result)
                    encoded.append(job.id)
                else:
                    intake.fail_everywhere(job.id, result)
                done += 1
                if progress:
                    progress(done, total)
        return encoded

    def _ensure(self, video: Video) -> None:
        """Put one video into the store, or raise why it cannot be."""
        intake = Intake(self.store)
        intake.admit(video, "video")
        with self._encoding:
            self._check_open()
            for job, result in self._encoder.run(intake.jobs()):
                if isinstance(result, VideoError):
                    raise type(result)(f"{job.id}: {result}")
                self.store.put(job.id, *result)

    def _score(
        self, events: list[Event], chosen: list[str] | Selection, limit: int | None, intake: Intake
    ) -> tuple[
        Sequence[str], NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], Evidence, tuple[float, float]
    ]:
        """Ids, scores and contributions in input order, the order, evidence, and seconds of user and scorer."""
        start = time.perf_counter()
        with self.store.lock:
            rows = self.store.rows([e.id for e in events])
            usable = self._usable([e.id for e in events], rows, "history", intake)
            events, rows = [events[n] for n in usable], rows[usable]
            past = self.store.gather(rows).copies()
            self.store.touch(rows)
        user = self._user(past, events)
        after_user = time.perf_counter()

        with self.store.lock:
            ids: Sequence[str] = chosen.ids if isinstance(chosen, Selection) else chosen
            rows = chosen.rows() if isinstance(chosen, Selection) else self.store.rows(ids)
            if intake.unusable or (rows.size and rows.min() < 0):
                usable = self._usable(ids, rows, "candidate", intake)
                ids, rows = [ids[n] for n in usable], rows[usable]
            self.store.touch(rows)
            found = self.store.gather(rows)
            large = len(ids) > KEPT_FOR_EXPLAINING
            if not large:
                found = found.copies()
            else:  # scored where they lie, without a copy
                scores, layers = self._run_scorer(user, found)
                order = best_first(scores, limit)
                kept = order[:KEPT_FOR_EXPLAINING]
                read = self._reader(ids, kept, found.tokens[kept], found.scales[kept], found.stamps.copy())
        if not large:
            scores, layers = self._run_scorer(user, found)
            order = best_first(scores, limit)
            read = self._reader(ids, None, found.tokens, found.scales, found.stamps)
        evidence = Evidence(
            events, past.tokens, past.scales, user.weights, user.query, user.bias, self._layer_names, read
        )
        return ids, scores, layers, order, evidence, (after_user - start, time.perf_counter() - after_user)

    @staticmethod
    def _usable(ids: Sequence[str], rows: NDArray[np.int64], role: Role, intake: Intake) -> list[int]:
        """Positions that can be scored; what another thread removed meanwhile is noted as failed."""
        for i, row in zip(ids, rows, strict=True):
            if row < 0 and not intake.has_failed(i, role):
                intake.fail(i, role, _not_stored())
        return [n for n, i in enumerate(ids) if rows[n] >= 0 and i not in intake.unusable]

    def _user(self, past: Rows, events: list[Event]) -> User:
        c = self._config
        if not events:  # a cold start: all scores are 0
            query = np.zeros((1, 2, c.layers, c.tokens_per_layer * c.token_width), np.float32)
            return User(query, np.zeros((1, c.layers), np.float32), np.zeros((0, c.layers), np.float32))
        return encode_user(self._sessions["user"], past.tokens, past.scales, event_features(events))

    def _run_scorer(self, user: User, found: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if not len(user.weights) or not len(found.tokens):
            count = len(found.tokens)
            return np.zeros(count, np.float32), np.zeros((count, self._config.layers), np.float32)
        return score(self._sessions["scorer"], user, found.tokens, found.scales)

    def _reader(
        self,
        ids: Sequence[str],
        kept: NDArray[np.int64] | None,
        tokens: NDArray[np.int8],
        scales: NDArray[np.float32],
        stamps: NDArray[np.int64],
    ) -> Callable[[int], tuple[NDArray[np.int8], NDArray[np.float32]]]:
        """Finds the tokens that a candidate was scored with: kept ones, else the store's if they are still the same."""

        def read(position: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
            if kept is None:
                return tokens[position], scales[position]
            at = np.flatnonzero(kept == position)
            if at.size:
                return tokens[at[0]], scales[at[0]]
            with self.store.lock:
                row = self.store.rows([ids[position]])
                found = self.store.gather(row) if row[0] >= 0 else None
                if found is None or found.stamps[0] != stamps[position]:
                    raise ArgumentError(
                        "the video left the store or changed since it was ranked: rank again to explain it"
                    )
                return found.tokens[0].copy(), found.scales[0].copy()

        return read


def _not_stored() -> VideoNotFoundError:
    return VideoNotFoundError("the id is not in the store: encode the video first, or pass its path or frames")


def _positive(name: str, value: object) -> int:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ArgumentTypeError(f"{name} must be a whole number, not {type(value).__name__}") from None
    if isinstance(value, bool) or number < 1:
        raise ArgumentError(f"{name} must be at least 1, not {value}; leave it out for the default")
    return number


def _check_folder(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str | os.PathLike):
        raise ArgumentTypeError(f"{name} must be a folder's path, not {type(value).__name__}")
    if os.fspath(value) in ("", b""):
        raise ArgumentError(f"{name} must not be empty: leave it out, or name a folder")
    if Path(os.fsdecode(value)).is_file():
        raise ArgumentError(f"{name} is a file: name a folder")


def _check_key(key: object, data_dir: object) -> None:
    if key is None:
        return
    if not isinstance(key, str | bytes):
        raise ArgumentTypeError(f"key must be str or bytes, not {type(key).__name__}")
    if data_dir is None:
        raise ArgumentError("key encrypts what lies in data_dir: without data_dir nothing is written, leave key out")
    raise NotYetError("key is not there yet: leave key and data_dir out, history and store then live in memory")


def _check_not_yet(diversity: object, deadline_ms: object, fold_duplicates: object, prior: object) -> None:
    """Options of the stable API that this version does not have; nonsense is called nonsense all the same."""
    if isinstance(diversity, bool) or not isinstance(diversity, int | float | np.number):
        raise ArgumentTypeError(f"diversity must be a number from 0 to 1, not {type(diversity).__name__}")
    if not (math.isfinite(diversity) and 0 <= diversity <= 1):
        raise ArgumentError(f"diversity must be from 0 to 1, not {diversity}")
    wanted = {
        "diversity": diversity > 0,
        "deadline_ms": deadline_ms is not None,
        "fold_duplicates": bool(fold_duplicates),
        "prior": prior is not None,
    }
    for name, is_set in wanted.items():
        if is_set:
            raise NotYetError(f"{name} is not there yet: leave it out to rank by content alone")
