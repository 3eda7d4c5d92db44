"""`Recommender`: joins what was loaded with store, history, encoding and ranking, and nothing else."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from dataclasses import replace

from linkedout_edge.backends import Providers
from linkedout_edge.cancellation import in_thread
from linkedout_edge.encode.encoder import DecoderLike, Effort
from linkedout_edge.encode.service import EncodeService, Progress
from linkedout_edge.errors import ArgumentError, ArgumentTypeError, ClosedError
from linkedout_edge.history import History
from linkedout_edge.inputs import EventLike, VideoLike, as_videos
from linkedout_edge.lifetime import OneProcess
from linkedout_edge.loading import Parts, load_parts
from linkedout_edge.options import at_least_0
from linkedout_edge.rank.pipeline import Pipeline
from linkedout_edge.rank.prior import PriorLike
from linkedout_edge.rank.profile import TasteSummary
from linkedout_edge.rank.ranker import Ranker
from linkedout_edge.rank.request import RankOptions
from linkedout_edge.results import EncodeResult, Info, Ranking
from linkedout_edge.store import Selection, TokenStore, open_tokens

logger = logging.getLogger("linkedout_edge")


class Recommender(OneProcess):
    """Ranks videos by what was watched, on this device. Make one with `Recommender.load`; usable from several threads.

    Attributes:
        store: Layer tokens of the videos that were encoded.
        history: What was watched.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self._parts = parts
        self._closed = False
        self._tokens = open_tokens(parts.config, token_space=parts.info.token_space, database=parts.database)
        self._encoding = EncodeService(self._tokens, parts.encoder)
        self._ranker = Ranker(self._tokens, parts.space, parts.scorer, parts.info.layer_names)
        self.store = TokenStore(self._tokens)
        self.history = History(self._tokens, self._encoding.ensure, database=parts.database)
        self._pipeline = Pipeline(self._tokens, self.history, self._encoding, self._ranker)

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
            bundle: A precision of the built-in bundle (``"int8"``), or the path of a folder or .zip.
            precision: Which precision of the folder or .zip; the first one by default.
            backend: ``"onnxruntime"`` or ``"openvino"``. The default is ``"onnxruntime"``, unless the bundle's graph is
                OpenVINO IR, which only ``"openvino"`` reads.
            device: ``cpu``, ``cuda``, ``tensorrt``, ``gpu``, ``npu``, or ``auto``: where the encoder was fastest when
                measured, once for each model, library and driver. `info` says what really runs it.
            providers: Execution providers of ONNX Runtime, or device names of OpenVINO, instead of `device`; each a
                name or a (name, options) tuple, such as ``[("CUDAExecutionProvider", {"device_id": 1})]``.
            threads: CPU threads; by default as many as affinity and cgroup quota allow.
            data_dir: Folder of this app alone that keeps history and store. Without it both live in memory.
            cache_dir: Folder for compiled engines and the measurements of ``auto``; nothing else. Damaged or foreign
                entries are ignored and made again.
            key: Encrypts what lies in `data_dir`: a passphrase, or random bytes from the platform's key store.
            strict_device: Whether a device that is not there is an error, not a warning.
            decoder: ``auto``, ``pyav``, ``opencv``, ``gstreamer``, ``pyav:cuda`` or another device that PyAV was built
                with (docs/decoding.md), or a callable ``(path, count, size, limits)`` that gives uint8
                ``[F, size, size, 3]`` RGB, 1 ≤ F ≤ count.
            decoders: How many other processes do all decoding, so that a file that crashes a decoder costs only one
                video; 0 decodes in the app's own process. By default, calls that encode 8 videos or more use other
                processes, if the system allows it and the decoder is one of ours.

        Raises:
            ArgumentError, ArgumentTypeError: Arguments that make no sense, alone or together.
            BundleError: No such bundle, or one that cannot be used (see its subclasses).
            DeviceError: The device is not available, and that is to be an error; or the encoder has full-range int8
                weights, which overflow on this CPU.
            MissingDependencyError: A library that was asked for is not installed.
            WrongKeyError: The key does not fit `data_dir`.
            StorageError: `data_dir` cannot be used at all. One that can only be read is no error.
        """
        parts = load_parts(
            bundle, precision, backend, device, providers, threads, data_dir, cache_dir, key, strict_device, decoder,
            decoders,
        )  # fmt: skip
        try:
            return cls(parts)
        except BaseException:
            parts.close()
            raise

    def rank(
        self,
        history: Iterable[EventLike] | None = None,
        candidates: Iterable[VideoLike] | Selection | None = None,
        options: RankOptions | None = None,
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
            options: All options below as one object. Give either this or keywords, not both.
            top_k: Return only this many.
            diversity: From 0 (by score alone) to 1: how much the best 200 are reordered so that neighbors differ.
            deadline_ms: Answer after about this many milliseconds. New videos get a quick look and are ranked by it,
                with the source ``quick``. Videos that were not looked at in time come last, ordered by `prior`, else as
                given, with the source ``pending``. Encoding continues in the background (see `wait`). Watched videos
                come first; one that is late does not count and is in ``failed`` with the code ``pending``.
            exclude_watched: Leave out candidates that are in the history.
            fold_duplicates: Keep only the best placed of near-identical videos.
            prior: What you know besides content: a mapping from id to number, numbers aligned with `candidates`, or a
                `Prior` with a weight. Standardized over the candidates and added to the score.
            explore: From 0 (off) to 1: how much it counts that little is known of a video, which resembles nothing
                that was watched or skipped. Standardized over the candidates, times `explore`, and added to the score.

        Returns:
            The ranking; videos that could not be used are in its ``failed``.

        Raises:
            ArgumentError, ArgumentTypeError: Arguments that make no sense, such as a single str for a list.
            BackendError: The inference library failed.
            ClosedError: After `close`.
            ForkedError: In a process forked from the one that loaded it.
        """
        self._check_open()
        given = RankOptions(
            top_k=top_k,
            diversity=diversity,
            deadline_ms=deadline_ms,
            exclude_watched=exclude_watched,
            fold_duplicates=fold_duplicates,
            prior=prior,
            explore=explore,
        )
        if options is not None and not isinstance(options, RankOptions):
            raise ArgumentError(
                f"options must be a RankOptions, not {type(options).__name__}: pass RankOptions(top_k=20) or top_k=20"
            )
        if options is not None and not given.is_default():
            raise ArgumentError("options are given twice: pass a RankOptions, or keywords such as top_k, not both")
        return self._pipeline.rank(history, candidates, options or given)

    arank = in_thread(
        rank,
        "`rank` for asyncio, in a thread. A cancelled task ends at once. Its thread ends after the videos that are "
        "being encoded, which are kept (`asyncio.run` waits for it at its end), or at once with `deadline_ms`: then "
        "encoding continues in the background.",
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
        return self._pipeline.taste(history)

    def encode(
        self, videos: Iterable[VideoLike], progress: Progress | None = None, *, effort: Effort = "full"
    ) -> EncodeResult:
        """Put videos into the store, so that ranking them costs next to nothing. Files that changed are encoded again.

        Args:
            videos: What to encode.
            effort: ``full`` decodes seven frames spread over the video, and looks again at what was only looked at
                quickly. ``quick`` decodes key frames and little more: several times faster, and ranks a little worse
                (docs/library.md). ``auto`` looks quickly now, and fully in the background (see `wait`).
            progress: Called as ``(done, total)`` after each video. What it raises stops the work and is raised here;
                what was encoded before stays, each video whole.

        Raises:
            ArgumentError, ArgumentTypeError: Arguments that make no sense.
            BackendError: The inference library failed; what was encoded before stays.
            StorageError: `data_dir` cannot be written; what could not be kept there is in memory.
            ClosedError: After `close`.
        """
        self._check_open()
        return self._encoding.encode_all(as_videos(videos), progress, effort)

    aencode = in_thread(encode, "`encode` for asyncio; `progress` is called in another thread. Cancelled as `arank`.")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is encoded in the background any more (see `rank`'s `deadline_ms`).

        Args:
            timeout: Seconds; None waits as long as it takes.

        Returns:
            True once that is so, False after `timeout`.
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
        return self._encoding.refine(progress)

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
        logger.info("warming up: encoder on %s", self._parts.session.device)
        seconds: dict[str, float] = {}
        for part, warm_up in (("encoder", self._encoding.warm_up), ("scorer", self._ranker.warm_up)):
            start = time.perf_counter()
            warm_up()
            seconds[part] = time.perf_counter() - start
        logger.info("warm: %s", ", ".join(f"{g} {t:.2f} s" for g, t in seconds.items()))
        return seconds

    def info(self) -> Info:
        """What runs, and on which device it really runs."""
        self._check_open()
        parts = self._parts
        devices = {"encoder": parts.session.device, "scorer": parts.scorer.device}  # OpenVINO's AUTO moves
        return replace(parts.info, devices=devices, notices=tuple(parts.backend.notices))

    def close(self) -> None:
        """Release models, history and store; twice is fine. Any later call raises `ClosedError`.

        In a forked child, whose parent still uses them, it does nothing.
        """
        if self._closed or self._forked:
            return
        self._closed = True
        self._encoding.close()
        self.history.close()
        self._tokens.close()
        self._parts.close()

    def __enter__(self) -> Recommender:
        self._check_open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self._parts.info
        open_ = f"{info.backend}, {len(self._tokens)} videos"
        state = "closed" if self._closed else "forked" if self._forked else open_
        return f"<Recommender {info.bundle} {info.precision}, {state}>"

    def _check_open(self) -> None:
        self._check_process()
        if self._closed:
            raise ClosedError()
