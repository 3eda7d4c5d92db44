"""`Recommender`: joins bundle, backend, encoder, store, history and scoring, and nothing else."""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from linkedout_edge._version import __version__
from linkedout_edge.backends.base import Backend, Providers, Session, create_backend
from linkedout_edge.bundle import Bundle, open_bundle
from linkedout_edge.decode import get_decoder
from linkedout_edge.decode.pool import ISOLATED, DecoderPool, why_not
from linkedout_edge.encode.encoder import BATCH, EFFORTS, MANY, MAX_WORKERS, DecoderLike, Effort, Encoder, Job, Timings
from linkedout_edge.encode.request import RequestPlan
from linkedout_edge.encode.service import EncodeService, Progress
from linkedout_edge.errors import (
    ArgumentError,
    ArgumentTypeError,
    ClosedError,
    NotInTimeError,
    unknown,
)
from linkedout_edge.history import History
from linkedout_edge.inputs import EventLike, Video, VideoLike, as_events, as_video, as_videos, check_list
from linkedout_edge.lifetime import OneProcess
from linkedout_edge.options import at_least_0, flag, fraction
from linkedout_edge.options import positive as _positive
from linkedout_edge.rank.memo import find_history, find_list, keep_list
from linkedout_edge.rank.pipeline import Ranker, Wish, not_stored
from linkedout_edge.rank.prior import Prior, Priors
from linkedout_edge.rank.profile import TasteSummary
from linkedout_edge.rank.scorer import Scorer
from linkedout_edge.rank.taste import MAX_EVENTS, Space
from linkedout_edge.results import Failed, Ranking, Timing
from linkedout_edge.store import Derived, Selection, TokenStore, open_tokens
from linkedout_edge.text import Tokenizer
from linkedout_edge.threads import available_cpus

if TYPE_CHECKING:
    from linkedout_edge.storage import Database

T = TypeVar("T")
logger = logging.getLogger("linkedout_edge")

MAX_DECODERS = 8
"""Processes that decode, where the caller gives no number: each takes about 90 MB."""
MOST_DECODERS = 256

PriorLike = Prior | Mapping[str, float] | Sequence[float] | np.ndarray


@dataclass(frozen=True)
class EncodeResult:
    """What `Recommender.encode` did.

    Attributes:
        encoded: Ids that were encoded.
        unchanged: Ids that were in the store already.
        failed: What could not be used, and why.
        quick: Of these ids, encoded now or before, only a quick look was taken so far.
    """

    encoded: tuple[str, ...]
    unchanged: tuple[str, ...]
    failed: tuple[Failed, ...]
    quick: tuple[str, ...] = ()


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
        pool: DecoderPool | None = None,
        pool_from: int = MANY,
        single: Callable[[], Session] | None = None,
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
        encoder = Encoder(
            self._config,
            session,
            decoder,
            tokenizer,
            workers,
            batch,
            pool=pool,
            pool_from=pool_from,
            single=single if backend.threads > 1 and session.device.startswith("CPU") else None,
        )
        self._closed = False
        self._database = database
        self._tokens = open_tokens(self._config, token_space=manifest.token_space, database=database)
        self.store = TokenStore(self._tokens)
        self._encoding = EncodeService(self._tokens, encoder)
        model = manifest.user_model
        space = Space.made(model.mean, model.size, model.layer_prior, model.score_scale)
        self._ranker = Ranker(self._config, self._tokens, space, self._scorer, self._layer_names)
        self.history = History(self._tokens, self._encoding.ensure, database=database)

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
        decoders: int | None = None,
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
            decoders: Processes that decode, beside the app, so that a file that crashes a decoder costs one video and
                no more: 0 decodes in the app's own process, a number does all decoding in so many others. Left out,
                calls that need 8 videos or more use other processes, where there can be any and the decoder is one of
                ours.

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
        pool = _decoder_pool(decoder, decode, decoders, count)

        def single() -> Session:
            with open_bundle(bundle, precision) as opened:
                one = create_backend(backend or opened.backend, device="cpu", threads=1, cache_dir=cache_dir)
                config = opened.manifest.config
                return one.load(opened.encoder(), config, opened.precision, weights=opened.weights())

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
                return cls(opened, library, session, tokenizer, decode, database, pool, 1 if decoders else MANY, single)
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
            deadline_ms: Answer after about so many milliseconds. New videos get a quick look first and are ranked by
                it, with the source ``quick``; full looks follow in the background (see `wait`). What could not be
                looked at by then follows behind the rest, in order of `prior`, else of input, with the source
                ``pending``, and goes on being encoded in the background. Watched videos come first; one that was not in
                time does not count and is in ``failed`` with the code ``pending``.
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
        derived = self._tokens.derived
        self._tokens.refresh()
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
        looks_on = until is not None and not self.history.is_incognito  # there, nothing goes on in the background
        plan = RequestPlan(self._tokens, effort="full" if until is None else "auto" if looks_on else "quick")
        known = find_list(derived, candidates) if isinstance(candidates, list) else None
        # Named by nothing but str, no candidate can contradict a watched video.
        only_ids = known is not None or not isinstance(candidates, list) or {str}.issuperset(map(type, candidates))
        past = find_history(derived, given, self._tokens.revision) if only_ids else None
        every = past.events if past is not None else as_events(given)
        events = every if past is not None else every[-MAX_EVENTS:]
        if past is None and not (only_ids and plan.needs_none([e.video for e in events])):
            events = [e for e in events if plan.add(e.video, "history")]
        watched = {e.id for e in every} if exclude_watched or candidates is None else set()
        chosen = self._candidates(candidates, watched, plan, wish.priors, known, only_ids, derived)

        timings = Timings()
        jobs = plan.jobs()
        pending: list[str] = []
        with ExitStack() as while_encoding:
            if jobs:
                if isinstance(chosen, Selection) and chosen is not candidates:
                    chosen = chosen.ids  # encoding takes a while, and what is given by name stays pinned meanwhile
                held = [] if isinstance(chosen, Selection) else chosen
                while_encoding.enter_context(
                    self._tokens.pinned(dict.fromkeys([*plan.ids, *(e.id for e in events), *held]))
                )
                late: set[str] = set()
                if until is None:
                    self._encoding.encode(plan, timings, stop=stop)
                else:
                    first = _by_urgency(jobs, {e.id for e in events}, wish.priors)
                    late = self._encoding.encode_until(until - self._ranker.seconds, first, plan, timings)
                    if self.history.is_incognito:  # what is encoded later would be recorded
                        self._encoding.cancel(late)
                for i in {e.id for e in events} & late:
                    plan.fail(
                        i, "history", NotInTimeError("it was not encoded before the deadline, so it did not count")
                    )
                events = [e for e in events if e.id not in late]
                if late and not isinstance(chosen, Selection):
                    pending = [i for i in chosen if i in late]
                    chosen = [i for i in chosen if i not in late]
            looked_up = time.perf_counter()
            if past is None or jobs:
                whole = given if len(events) == len(given) and not jobs else None
                past = self._ranker.look_up(events, plan, derived, whole)
            user_seconds = time.perf_counter() - looked_up
            quick = self._tokens.quick()
            scored = self._ranker.rank(past, chosen, pending, wish, plan)
        timing = Timing(timings.decode, timings.encode, user_seconds, scored.seconds, time.perf_counter() - start)
        return Ranking(
            scored.ids,
            scored.scores,
            scored.layers,
            scored.order,
            plan.failed,
            timing,
            scored.evidence,
            _with_quick(scored.sources, scored.ids, quick) if quick else scored.sources,
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
        derived = self._tokens.derived
        self._tokens.refresh()
        given = list(self.history if history is None else check_list(history, "history"))
        past = find_history(derived, given, self._tokens.revision)
        if past is None:
            events = [e for e in as_events(given) if e.id in self._tokens]
            past = self._ranker.look_up(events[-MAX_EVENTS:], RequestPlan(self._tokens), derived)
        return self._ranker.summary(past)

    def encode(
        self, videos: Iterable[VideoLike], progress: Progress | None = None, *, effort: Effort = "full"
    ) -> EncodeResult:
        """Put videos into the store, so that ranking them costs next to nothing. Files that changed are encoded again.

        Args:
            videos: What to encode.
            effort: ``full`` decodes eight frames spread over the video, ``quick`` its key frames and little more, which
                is several times faster and ranks a little worse (docs/library.md); ``auto`` looks quickly now, and
                fully in the background (see `wait`). ``full`` also looks again at what was only looked at quickly.
            progress: Called as ``(done, total)`` after each video. What it raises stops the work and is raised here;
                what was encoded before stays, each video whole.

        Raises:
            ArgumentError, ArgumentTypeError: Arguments that make no sense.
            BackendError: The inference library failed; what was encoded before stays.
            StorageError: `data_dir` cannot be written; what could not be kept there is in memory.
            ClosedError: After `close`.
        """
        return self._encode_all(None, videos, progress, effort)

    async def aencode(
        self, videos: Iterable[VideoLike], progress: Progress | None = None, *, effort: Effort = "full"
    ) -> EncodeResult:
        """`encode` for asyncio, in a thread, where `progress` is called too.

        Cancelled, it stops after the video that is being encoded, which is kept.
        """
        return await _in_thread(lambda stop: self._encode_all(stop, videos, progress, effort))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being encoded in the background any more (see `rank`'s `deadline_ms`).

        Args:
            timeout: Seconds; None waits as long as it takes.

        Returns:
            Whether that is so; False after `timeout`.
        """
        self._check_open()
        return self._encoding.wait(None if timeout is None else at_least_0("timeout", timeout, "seconds"))

    def refine(self, progress: Progress | None = None) -> EncodeResult:
        """Take a full look at every video of which only a quick one was taken, and whose id is its file's path.

        Others, and files that are gone, stay as they are: hand them to `encode`.

        Args:
            progress: As of `encode`.

        Raises:
            BackendError, StorageError, ClosedError: As `encode`.
        """
        self._check_open()
        self._tokens.refresh()
        titles = {i: known.title for i in sorted(self._tokens.quick()) if (known := self._tokens.fingerprint(i))}
        videos = [Video(i, title=title) for i, title in titles.items() if Path(i).is_file()]
        return self._encode_all(None, videos, progress, "full")

    def _encode_all(
        self, stop: threading.Event | None, videos: Iterable[VideoLike], progress: Progress | None, effort: Effort
    ) -> EncodeResult:
        self._check_open()
        if effort not in EFFORTS:
            raise ArgumentError(unknown("effort", effort, EFFORTS))
        self._tokens.refresh()
        plan = RequestPlan(self._tokens, look_at_files=True, effort=effort)
        for video in as_videos(videos):
            plan.add(video, "video")
        encoded = self._encoding.encode(plan, Timings(), progress, stop, durable=True)
        failed = plan.failed
        left = {*encoded, *(f.id for f in failed if f.code != "conflict")}
        unchanged = tuple(i for i in plan.ids if i not in left)
        quick = self._tokens.quick()
        return EncodeResult(
            tuple(encoded), unchanged, tuple(failed), tuple(i for i in (*encoded, *unchanged) if i in quick)
        )

    def forget(self, id: str) -> bool:
        """Remove a video from history and store; whether it was in one of them."""
        self._check_open()
        if not isinstance(id, str):
            raise ArgumentTypeError(f"id must be a str, not {type(id).__name__}")
        self._encoding.cancel([id])  # else it would come back a moment later
        events = self.history.forget(id)
        return bool(self._tokens.remove([id])) or events > 0

    def warmup(self) -> dict[str, float]:
        """Run everything once, so that the first ranking does not pay for planning; seconds by part.

        Start and end are logged at INFO.
        """
        self._check_open()
        logger.info("warming up: encoder on %s", self._session.device)
        seconds: dict[str, float] = {}
        start = time.perf_counter()
        self._encoding.warm_up()
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
        self._encoding.close()
        self.history.close()
        self._tokens.close()
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
            state = f"{self._info.backend}, {len(self._tokens)} videos"
        return f"<Recommender {self._info.bundle} {self._info.precision}, {state}>"

    def _check_open(self) -> None:
        self._check_process()
        if self._closed:
            raise ClosedError("the recommender was closed: load a new one with Recommender.load(...)")

    def _candidates(
        self,
        candidates: Iterable[VideoLike] | Selection | None,
        watched: set[str],
        plan: RequestPlan,
        priors: Priors | None,
        known: Selection | None,
        only_ids: bool,
        derived: Derived,
    ) -> list[str] | Selection:
        """Distinct ids in input order, without `watched` and without those that failed already.

        `known` is what the same list was resolved to before.
        """
        if candidates is None:
            if priors:
                priors.align(None)
            return [i for i in self._tokens.ids() if i not in watched]
        if isinstance(candidates, Selection):
            if not candidates._belongs_to(self._tokens):
                raise ArgumentError(
                    "the selection was made by another recommender's store: call rec.store.select again"
                )
            for missing in candidates.missing:
                plan.fail(missing, "candidate", not_stored())
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
            with self._tokens.lock:
                rows = self._tokens.find(ids)
                selection = Selection(self._tokens, ids, rows)
            if not ids or rows.min() >= 0:  # as if it had been a handle: looked up once
                if not watched:
                    keep_list(derived, given, selection)
                return selection
            return [i for i, row in zip(ids, rows.tolist(), strict=True) if row >= 0 or plan.add(Video(i), "candidate")]
        videos = [as_video(c, f"candidates[{i}]") for i, c in enumerate(given)]
        if priors:
            priors.align([v.id for v in videos])
        admitted = [v.id for v in videos if v.id not in watched and plan.add(v, "candidate")]
        return list(dict.fromkeys(admitted))


def _with_quick(sources: str | Sequence[str], ids: Sequence[str], quick: frozenset[str]) -> list[str]:
    """Sources by id, where what was ranked by content was ranked by a quick look."""
    each = [sources] * len(ids) if isinstance(sources, str) else sources
    return ["quick" if s == "content" and i in quick else s for i, s in zip(ids, each, strict=True)]


def _by_urgency(jobs: Sequence[Job], watched: set[str], priors: Priors | None) -> list[Job]:
    """What was watched comes first, because it moves all scores; then what the prior likes best."""
    first, rest = [j for j in jobs if j.id in watched], [j for j in jobs if j.id not in watched]
    if priors and rest:
        bonus = priors.bonus([j.id for j in rest])
        rest = [rest[n] for n in np.argsort(-bonus, kind="stable")]
    return [*first, *rest]


async def _in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run `work` in a thread; when the awaiting task is cancelled, the event tells it to stop."""
    import asyncio  # 30 ms that only asyncio apps pay

    stop = threading.Event()
    try:
        return await asyncio.to_thread(work, stop)
    finally:
        stop.set()


def _decoder_pool(
    asked: str | DecoderLike, decoder: DecoderLike, decoders: int | None, threads: int
) -> DecoderPool | None:
    """Processes to decode in; None where there are to be none."""
    if decoders is None:
        if isinstance(asked, str) and asked in (*ISOLATED, "auto") and why_not() is None:
            return DecoderPool(str(getattr(decoder, "name", "")), min(threads, MAX_DECODERS), fallback=decoder)
        return None
    if isinstance(decoders, bool) or not isinstance(decoders, int):
        raise ArgumentTypeError(f"decoders must be a whole number, not {type(decoders).__name__}")
    if not 0 <= decoders <= MOST_DECODERS:
        raise ArgumentError(f"decoders must be from 0 to {MOST_DECODERS}, not {decoders}")
    if decoders == 0:
        return None
    if not (isinstance(asked, str) and asked in (*ISOLATED, "auto")):
        raise ArgumentError(
            f"decoders={decoders} needs a decoder that can run in a process of its own: decoder='auto', 'pyav' or "
            "'opencv'; leave decoders out to call your own in this process"
        )
    if reason := why_not():
        raise ArgumentError(f"{reason}: leave decoders out")
    return DecoderPool(str(getattr(decoder, "name", "")), decoders)


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
