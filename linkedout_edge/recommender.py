"""`Recommender`: joins bundle, backend, encoder, store, history and scoring, and nothing else."""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from linkedout_edge._version import __version__
from linkedout_edge.backends.base import Backend, Providers, Session, create_backend
from linkedout_edge.background import Background
from linkedout_edge.bundle import Bundle, open_bundle
from linkedout_edge.decode import get_decoder
from linkedout_edge.encoder import BATCH, MAX_WORKERS, DecoderLike, Encoded, Encoder, Job, Spent
from linkedout_edge.errors import (
    ArgumentError,
    ArgumentTypeError,
    ClosedError,
    NotInTimeError,
    VideoError,
)
from linkedout_edge.history import History
from linkedout_edge.inputs import EventLike, Video, VideoLike, as_events, as_video, as_videos, check_list
from linkedout_edge.intake import Intake
from linkedout_edge.lifetime import OneProcess
from linkedout_edge.options import at_least_0, flag, fraction
from linkedout_edge.options import positive as _positive
from linkedout_edge.prior import Prior, Priors
from linkedout_edge.profile import TasteSummary
from linkedout_edge.ranker import Ranker, Wish, not_stored
from linkedout_edge.ranking import Failed, Ranking, Timing
from linkedout_edge.scorer import Scorer
from linkedout_edge.store import Selection, TokenStore
from linkedout_edge.taste import MAX_EVENTS, Space
from linkedout_edge.text import Tokenizer
from linkedout_edge.threads import available_cpus

if TYPE_CHECKING:
    from linkedout_edge.storage import Database

T = TypeVar("T")
logger = logging.getLogger("linkedout_edge")

Progress = Callable[[int, int], None]
PriorLike = Prior | Mapping[str, float] | Sequence[float] | np.ndarray


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
        devices: Graph → what really runs it, whatever was asked for.
        threads: Threads on the CPU.
        decoder: What decodes files.
        layer_names: Names of the L layers.
        versions: Library → version.
        agreement: Measure → value against fp32, from the manifest.
        notices: What was worth saying about devices: what could not be used and why, what ``auto`` measured, which
            compiled engines were built again.
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
    notices: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class Recommender(OneProcess):
    """Ranks videos by what was watched, on this device. Make one with `Recommender.load`; usable from several threads.

    Attributes:
        store: Layer tokens of the videos that were encoded.
        history: What was watched.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        session: Session,
        tokenizer: Tokenizer,
        decoder: DecoderLike,
        database: Database | None = None,
    ) -> None:
        super().__init__()
        manifest = bundle.manifest
        self._config = manifest.config
        self._session = session
        self._notices = backend.notices
        self._scorer = Scorer(self._config, backend.threads)
        self._layer_names = tuple(manifest.layer_names) or tuple(f"layer {t}" for t in self._config.taps)
        self._info = Info(
            bundle=manifest.name,
            precision=bundle.precision,
            token_space=manifest.token_space,
            backend=backend.name,
            devices={},
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
        workers, batch = min(MAX_WORKERS, backend.threads), 1 if session.device.startswith("CPU") else BATCH
        self._encoder = Encoder(self._config, session, decoder, tokenizer, workers, batch)
        self._encoding = threading.RLock()
        self._closed = False
        self._database = database
        self.store = TokenStore(self._config, token_space=manifest.token_space, database=database)
        model = manifest.user_model
        space = Space.made(model.mean, model.size, model.layer_prior, model.score_scale)
        self._ranker = Ranker(self._config, self.store, space, self._scorer, self._layer_names)
        self.history = History(self.store, self._ensure, database=database, forgotten=self._ranker.forget)
        self.store.forgotten = self._ranker.forget
        self._background = Background(self._encode_behind)

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] = "int8",
        *,
        precision: str | None = None,
        backend: str | None = None,
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
            backend: ``"onnxruntime"`` or ``"openvino"``. Left out, ``"onnxruntime"``, unless the bundle's graph is
                OpenVINO IR, which ``"openvino"`` alone reads.
            device: ``cpu``, ``cuda``, ``tensorrt``, ``gpu``, ``npu``, or ``auto``: the encoder where it was measured to
                be the fastest, once for a model, library and driver. `info` says what really runs it.
            providers: Execution providers of ONNX Runtime, or device names of OpenVINO, instead of `device`; each a
                name or a (name, options) tuple, such as ``[("CUDAExecutionProvider", {"device_id": 1})]``.
            threads: CPU threads; left out, what affinity and cgroup quota allow.
            data_dir: Folder that keeps history and store, of this app alone. Without it both live in memory.
            cache_dir: Folder for compiled engines, and for what ``auto`` measured; nothing else. Damaged or foreign
                entries are ignored and made again.
            key: Encrypts what lies in `data_dir`: a passphrase, or random bytes from the platform's key store.
            strict_device: A device that is not there is an error, not a warning.
            decoder: ``auto``, ``pyav``, ``opencv``, ``gstreamer``, or a callable ``(path, count, size, limits)`` that
                gives uint8 ``[F, size, size, 3]`` RGB, 1 ≤ F ≤ count.

        Raises:
            ArgumentError, ArgumentTypeError: Arguments that make no sense, alone or together.
            BundleError: No such bundle, or one that cannot be used (see its subclasses).
            DeviceError: The device is not available, and that is to be an error; or the encoder has full-range int8
                weights, which overflow on this CPU.
            MissingDependencyError: A library that was asked for is not installed.
            WrongKeyError: The key does not fit `data_dir`.
            StorageError: `data_dir` cannot be used at all. One that can only be read is no error.
        """
        _check_folder("data_dir", data_dir)
        _check_folder("cache_dir", cache_dir)
        _check_key(key, data_dir)
        if not isinstance(strict_device, bool):
            raise ArgumentTypeError(f"strict_device must be True or False, not {type(strict_device).__name__}")
        count = available_cpus() if threads is None else _positive("threads", threads)
        most = 4 * (os.cpu_count() or 1)
        if count > max(most, 16):  # a pool of thousands takes all memory before it says anything
            raise ArgumentError(
                f"threads is {count}, and this machine has {most // 4} CPUs: leave it out, or give fewer"
            )
        decode = decoder if callable(decoder) else get_decoder(decoder)
        with open_bundle(bundle, precision) as opened:
            library = create_backend(
                opened.backend if backend is None else backend,
                device=device,
                providers=providers,
                threads=count,
                cache_dir=cache_dir,
                strict=strict_device,
            )
            config = opened.manifest.config
            full = opened.manifest.precisions[opened.precision].full_range_weights
            tokenizer = Tokenizer.from_json(opened.tokenizer(), config.vocab_size)
            session = library.load(
                opened.encoder(), config, opened.precision, full_range=full, weights=opened.weights()
            )
            database: Database | None = None
            try:
                if data_dir is not None:
                    from linkedout_edge.storage import Database

                    database = Database(data_dir, key)
                return cls(opened, library, session, tokenizer, decode, database)
            except BaseException:
                if database is not None:
                    database.close()
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
        prior: PriorLike | None = None,
        explore: float = 0.0,
    ) -> Ranking:
        """Rank videos by what was watched. The history is not changed.

        While nothing is known to be liked, the list begins with videos that differ from each other and from what was
        skipped. Where the history holds two interests, both get places among the first ten.

        Args:
            history: Watched videos or `Event`s, oldest first; None is ``rec.history``, ``[]`` a cold start. Only the
                latest 192 count.
            candidates: Videos to rank, or a handle from ``rec.store.select``; None is everything in the store that was
                not watched.
            top_k: Give only so many.
            diversity: From 0 (by score alone) to 1: how much the best 200 are reordered so that neighbours differ.
            deadline_ms: Answer after about so many milliseconds. What could not be encoded by then follows behind the
                rest, in order of `prior`, else of input, with the source ``pending``, and goes on being encoded in the
                background (see `wait`). Watched videos come first; one that was not in time does not count and is in
                ``failed`` with the code ``pending``.
            exclude_watched: Leave out candidates that are in the history.
            fold_duplicates: Of near-identical videos give the best placed one only.
            prior: What you know besides content: a mapping from id to number, numbers aligned with `candidates`, or a
                `Prior` with a weight. Standardised over the candidates and added to the score.
            explore: From 0 (off) to 1: how much it counts that little is known of a video, which resembles nothing
                that was watched or skipped. Standardised over the candidates, times `explore`, and added to the score.

        Returns:
            The ranking; videos that could not be used are in its ``failed``.

        Raises:
            ArgumentError, ArgumentTypeError: Arguments that make no sense, such as a single str for a list.
            BackendError: The inference library failed.
            ClosedError: After `close`.
            ForkedError: In a process forked from the one that loaded it.
        """
        return self._rank(
            None,
            history,
            candidates,
            top_k=top_k,
            diversity=diversity,
            deadline_ms=deadline_ms,
            exclude_watched=exclude_watched,
            fold_duplicates=fold_duplicates,
            prior=prior,
            explore=explore,
        )

    async def arank(
        self,
        history: Iterable[EventLike] | None = None,
        candidates: Iterable[VideoLike] | Selection | None = None,
        *,
        top_k: int | None = None,
        diversity: float = 0.0,
        deadline_ms: float | None = None,
        exclude_watched: bool = False,
        fold_duplicates: bool = False,
        prior: PriorLike | None = None,
        explore: float = 0.0,
    ) -> Ranking:
        """`rank` for asyncio, in a thread. Cancelled, it stops after the video that is being encoded, which is kept."""
        return await _in_thread(
            lambda stop: self._rank(
                stop,
                history,
                candidates,
                top_k=top_k,
                diversity=diversity,
                deadline_ms=deadline_ms,
                exclude_watched=exclude_watched,
                fold_duplicates=fold_duplicates,
                prior=prior,
                explore=explore,
            )
        )

    def _rank(
        self,
        stop: threading.Event | None,
        history: Iterable[EventLike] | None,
        candidates: Iterable[VideoLike] | Selection | None,
        *,
        top_k: int | None,
        diversity: float,
        deadline_ms: float | None,
        exclude_watched: bool,
        fold_duplicates: bool,
        prior: PriorLike | None,
        explore: float,
    ) -> Ranking:
        start = time.perf_counter()
        self._check_open()
        epoch = self._ranker.epoch
        self.store.refresh()
        until = None
        if deadline_ms is not None:
            until = time.monotonic() + at_least_0("deadline_ms", deadline_ms, "milliseconds") / 1000
        wish = Wish(
            None if top_k is None else _positive("top_k", top_k),
            fraction("diversity", diversity),
            flag("fold_duplicates", fold_duplicates),
            None if prior is None else Priors(prior),
            fraction("explore", explore),
        )
        flag("exclude_watched", exclude_watched)

        given: list[Any] = list(self.history if history is None else check_list(history, "history"))
        if candidates is not None and not isinstance(candidates, Selection):
            candidates = list(check_list(candidates, "candidates"))
        intake = Intake(self.store)
        known = self._ranker.lists.find(candidates) if isinstance(candidates, list) else None
        # Named by nothing but str, no candidate can contradict a watched video.
        only_ids = known is not None or not isinstance(candidates, list) or {str}.issuperset(map(type, candidates))
        past = self._ranker.recall(given) if only_ids else None
        every = past.events if past is not None else as_events(given)
        events = every if past is not None else every[-MAX_EVENTS:]
        if past is None and not (only_ids and intake.needs_none([e.video for e in events])):
            events = [e for e in events if intake.admit(e.video, "history")]
        watched = {e.id for e in every} if exclude_watched or candidates is None else set()
        chosen = self._candidates(candidates, watched, intake, wish.priors, known, only_ids, epoch)

        spent = Spent()
        jobs = intake.jobs()
        pending: list[str] = []
        with ExitStack() as while_encoding:
            if jobs:
                if isinstance(chosen, Selection) and chosen is not candidates:
                    chosen = chosen.ids  # encoding takes a while, and what is given by name stays pinned meanwhile
                held = [] if isinstance(chosen, Selection) else chosen
                while_encoding.enter_context(
                    self.store.pinned(dict.fromkeys([*intake.ids, *(e.id for e in events), *held]))
                )
                late: set[str] = set()
                if until is None:
                    self._encode(intake, spent, stop=stop)
                else:
                    late = self._encode_until(until, jobs, {e.id for e in events}, wish.priors, intake, spent)
                for i in {e.id for e in events} & late:
                    intake.fail(
                        i, "history", NotInTimeError("it was not encoded before the deadline, so it did not count")
                    )
                events = [e for e in events if e.id not in late]
                if late and not isinstance(chosen, Selection):
                    pending = [i for i in chosen if i in late]
                    chosen = [i for i in chosen if i not in late]
            looked_up = time.perf_counter()
            if past is None or jobs:
                whole = given if len(events) == len(given) and not jobs else None
                past = self._ranker.look_up(events, intake, epoch, whole)
            user_seconds = time.perf_counter() - looked_up
            scored = self._ranker.rank(past, chosen, pending, wish, intake, epoch)
        timing = Timing(spent.decode, spent.encode, user_seconds, scored.seconds, time.perf_counter() - start)
        return Ranking(
            scored.ids,
            scored.scores,
            scored.layers,
            scored.order,
            intake.failed,
            timing,
            scored.evidence,
            scored.sources,
        )

    def taste(self, history: Iterable[EventLike] | None = None) -> TasteSummary:
        """What is believed of the user, to be shown to them: what they like, what they avoid.

        Args:
            history: As of `rank`; None is ``rec.history``. Videos that are not in the store do not count.

        Raises:
            ArgumentError, ArgumentTypeError: Arguments that make no sense.
            ClosedError: After `close`.
        """
        self._check_open()
        epoch = self._ranker.epoch
        self.store.refresh()
        given = list(self.history if history is None else check_list(history, "history"))
        past = self._ranker.recall(given)
        if past is None:
            events = [e for e in as_events(given) if e.id in self.store]
            past = self._ranker.look_up(events[-MAX_EVENTS:], Intake(self.store), epoch)
        return self._ranker.summary(past)

    def encode(self, videos: Iterable[VideoLike], progress: Progress | None = None) -> EncodeResult:
        """Put videos into the store, so that ranking them costs next to nothing. Files that changed are encoded again.

        Args:
            videos: What to encode.
            progress: Called as ``(done, total)`` after each video. What it raises stops the work and is raised here;
                what was encoded before stays, each video whole.

        Raises:
            ArgumentError, ArgumentTypeError: Arguments that make no sense.
            BackendError: The inference library failed; what was encoded before stays.
            StorageError: `data_dir` cannot be written; what could not be kept there is in memory.
            ClosedError: After `close`.
        """
        return self._encode_all(None, videos, progress)

    async def aencode(self, videos: Iterable[VideoLike], progress: Progress | None = None) -> EncodeResult:
        """`encode` for asyncio, in a thread, where `progress` is called too.

        Cancelled, it stops after the video that is being encoded, which is kept.
        """
        return await _in_thread(lambda stop: self._encode_all(stop, videos, progress))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being encoded in the background any more (see `rank`'s `deadline_ms`).

        Args:
            timeout: Seconds; None waits as long as it takes.

        Returns:
            Whether that is so; False after `timeout`.
        """
        self._check_open()
        return self._background.wait(None if timeout is None else at_least_0("timeout", timeout, "seconds"))

    def _encode_all(
        self, stop: threading.Event | None, videos: Iterable[VideoLike], progress: Progress | None
    ) -> EncodeResult:
        self._check_open()
        self.store.refresh()
        intake = Intake(self.store, look_at_files=True)
        for video in as_videos(videos):
            intake.admit(video, "video")
        encoded = self._encode(intake, Spent(), progress, stop, durable=True)
        failed = intake.failed
        left = {*encoded, *(f.id for f in failed if f.code != "conflict")}
        return EncodeResult(tuple(encoded), tuple(i for i in intake.ids if i not in left), tuple(failed))

    def forget(self, id: str) -> bool:
        """Remove a video from history and store; whether it was in one of them."""
        self._check_open()
        if not isinstance(id, str):
            raise ArgumentTypeError(f"id must be a str, not {type(id).__name__}")
        self._background.cancel([id])
        if self._background.encodes(id):  # else it would come back a moment later
            self._background.wait_for_running(id)
        events = self.history.forget(id)
        return bool(self.store.remove(id)) or events > 0

    def warmup(self) -> dict[str, float]:
        """Run everything once, so that the first ranking does not pay for planning; seconds by part.

        Start and end are logged at INFO.
        """
        self._check_open()
        logger.info("warming up: encoder on %s", self._session.device)
        seconds: dict[str, float] = {}
        start = time.perf_counter()
        with self._encoding:
            self._encoder.warm_up()
        seconds["encoder"] = time.perf_counter() - start
        start = time.perf_counter()
        self._ranker.warm_up()
        seconds["scorer"] = time.perf_counter() - start
        logger.info("warm: %s", ", ".join(f"{g} {t:.2f} s" for g, t in seconds.items()))
        return seconds

    def info(self) -> Info:
        """What runs, and on which device it really runs."""
        self._check_open()
        # Asked anew: OpenVINO's AUTO moves to what is ready.
        devices = {"encoder": self._session.device, "scorer": self._scorer.device}
        return replace(self._info, devices=devices, notices=tuple(self._notices))

    def close(self) -> None:
        """Release models, history and store; twice is fine. Any later call raises `ClosedError`.

        In a forked child, whose parent goes on using them, it does nothing.
        """
        if self._closed or self._forked:
            return
        self._closed = True
        self._background.close()
        with self._encoding:
            self._ranker.forget()
            self.history.close()
            self.store.close()
            if self._database is not None:
                self._database.close()
            self._scorer.close()
            self._session.close()

    def __enter__(self) -> Recommender:
        self._check_open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._closed or self._forked:
            state = "closed" if self._closed else "forked"
        else:
            state = f"{self._info.backend}, {len(self.store)} videos"
        return f"<Recommender {self._info.bundle} {self._info.precision}, {state}>"

    def _check_open(self) -> None:
        self._check_process()
        if self._closed:
            raise ClosedError("the recommender was closed: load a new one with Recommender.load(...)")

    def _candidates(
        self,
        candidates: Iterable[VideoLike] | Selection | None,
        watched: set[str],
        intake: Intake,
        priors: Priors | None,
        known: Selection | None,
        only_ids: bool,
        epoch: int,
    ) -> list[str] | Selection:
        """Distinct ids in input order, without `watched` and without those that failed already.

        `known` is what the same list was resolved to before.
        """
        if candidates is None:
            if priors:
                priors.align(None)
            return [i for i in self.store if i not in watched]
        if isinstance(candidates, Selection):
            if not candidates.belongs_to(self.store):
                raise ArgumentError(
                    "the selection was made by another recommender's store: call rec.store.select again"
                )
            for missing in candidates.missing:
                intake.fail(missing, "candidate", not_stored())
            if priors:
                priors.align(candidates.ids)
            return [i for i in candidates.ids if i not in watched] if watched else candidates
        given: list[Any] = list(candidates)
        if only_ids:  # the usual case, without an object for every candidate
            if priors:
                priors.align(given)
            if known is not None and not watched:
                return known
            ids = [i for i in dict.fromkeys(given) if i not in watched] if watched else list(dict.fromkeys(given))
            with self.store.lock:
                rows, version = self.store.rows(ids), self.store.version
            if not ids or rows.min() >= 0:  # as if it had been a handle: looked up once
                selection = Selection(self.store, ids, rows, (), version)
                if not watched:
                    self._ranker.keeper(epoch)(lambda: self._ranker.lists.keep(given, selection))
                return selection
            return [
                i for i, row in zip(ids, rows.tolist(), strict=True) if row >= 0 or intake.admit(Video(i), "candidate")
            ]
        videos = [as_video(c, f"candidates[{i}]") for i, c in enumerate(given)]
        if priors:
            priors.align([v.id for v in videos])
        admitted = [v.id for v in videos if v.id not in watched and intake.admit(v, "candidate")]
        return list(dict.fromkeys(admitted))

    def _encode(
        self,
        intake: Intake,
        spent: Spent,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
        *,
        durable: bool = False,
    ) -> list[str]:
        """Encode what an intake needs and the store lacks, until `stop` is set; ids that were encoded.

        With `durable`, what cannot be kept in `data_dir` is an error; without, a ranking goes on from memory.
        """
        encoded: list[str] = []
        # A video that two threads want is encoded once.
        with self._encoding, self.store.batch(durable=durable):
            self._check_open()
            jobs = intake.jobs()
            if jobs and durable:
                self.store.check_writable()
            total = len(intake.ids)
            done = total - len(jobs)
            if progress and (done or not jobs):
                progress(done, total)
            with closing(self._encoder.run(jobs, spent)) as results:
                for job, result in results:
                    self._check_open()
                    if isinstance(result, Encoded):
                        self.store.put(job.id, *result)
                        encoded.append(job.id)
                    else:
                        intake.fail_everywhere(job.id, result)
                    done += 1
                    if progress:
                        progress(done, total)
                        self._check_process()  # it may have forked, and the threads that decode are not here
                    if stop is not None and stop.is_set():
                        break
        return encoded

    def _encode_until(
        self,
        until: float,
        jobs: list[Job],
        watched: set[str],
        priors: Priors | None,
        intake: Intake,
        spent: Spent,
    ) -> set[str]:
        """Encode in the background, and return the ids that were not ready in time.

        What was watched comes first, because it moves all scores; then what the prior likes best.
        """
        start = time.perf_counter()
        first, rest = [j for j in jobs if j.id in watched], [j for j in jobs if j.id not in watched]
        if priors and rest:
            bonus = priors.bonus([j.id for j in rest])
            rest = [rest[n] for n in np.argsort(-bonus, kind="stable")]
        tickets = self._background.submit([*first, *rest])
        self._background.wait_for(tickets, until - self._ranker.seconds)
        late = set()
        for t in tickets:
            if t.error is not None:
                intake.fail_everywhere(t.job.id, t.error)
            elif t.dropped or not t.done:
                late.add(t.job.id)
        if self.history.is_incognito:  # what is encoded later would be recorded
            self._background.cancel(late)
            for i in late:
                self._background.wait_for_running(i)
        spent.encode += time.perf_counter() - start
        return late

    def _encode_behind(self, jobs: Sequence[Job], finished: Callable[[Job, VideoError | None], None]) -> None:
        """Called by the background thread: encode a few, unless they are known by now."""
        while not self._encoding.acquire(timeout=0.1):
            if self._background.closed:
                return
        try:
            needed = []
            for job in jobs:
                intake = Intake(self.store)
                intake.admit(job.video, "candidate")
                if intake.jobs():
                    needed.append(job)
                else:
                    finished(job, None)
            with self.store.batch(durable=False), closing(self._encoder.run(needed)) as results:
                for job, result in results:
                    if self._background.closed:
                        return
                    if isinstance(result, Encoded):
                        self.store.put(job.id, *result)
                        finished(job, None)
                    else:
                        finished(job, result)
        finally:
            self._encoding.release()

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


async def _in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run `work` in a thread; when the awaiting task is cancelled, the event tells it to stop."""
    import asyncio  # 30 ms that only asyncio apps pay

    stop = threading.Event()
    try:
        return await asyncio.to_thread(work, stop)
    finally:
        stop.set()


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
