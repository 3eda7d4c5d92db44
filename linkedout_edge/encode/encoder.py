"""Videos → layer tokens: decode in a few threads, encode in batches, bounded memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.backends.base import Session
from linkedout_edge.config import ModelConfig
from linkedout_edge.decode import Frames, Limits, prepare_frames
from linkedout_edge.decode.pool import DecoderPool
from linkedout_edge.errors import (
    BackendError,
    InvalidFramesError,
    LinkedOutError,
    VideoError,
    VideoTooLargeError,
    VideoUnreadableError,
)
from linkedout_edge.inputs import Video
from linkedout_edge.lifetime import native, submit
from linkedout_edge.store import Fingerprint, fingerprint
from linkedout_edge.text import Tokenizer

T = TypeVar("T")

BATCH = 4
"""On accelerators. On CPUs a batch gains nothing (25.6 ms a video alone, 26.6 in a batch of 4, for the default shape on
two cores), and videos encoded one by one give the same tokens whatever their neighbors are."""
MAX_WORKERS = 4
MANY = 8
"""Videos from which it pays to set up for many: decoder processes take half a second to start, a session a tenth."""
PROGRAMMING_ERRORS = (TypeError, AttributeError, NameError, AssertionError, ImportError)
"""No content of a file is to blame for these. They are raised, not reported as an unreadable video."""

DecoderLike: TypeAlias = Callable[[str, int, int, Limits], Frames]


Effort: TypeAlias = Literal["auto", "quick", "full"]
EFFORTS = get_args(Effort)
"""``full`` looks well at once, ``quick`` at key frames alone, ``auto`` quickly first and, in the background, well."""


class Job(NamedTuple):
    """A video to encode under an id.

    Attributes:
        id: Where its tokens go.
        video: What to encode.
        effort: How closely to look.
        refines: It replaces what a quick look gave, and is pointless without.
    """

    id: str
    video: Video
    effort: Effort = "full"
    refines: bool = False


class Encoded(NamedTuple):
    """Tokens int8 ``[L, M, D]``, scales float32 ``[L, M]``, and what they were made from."""

    tokens: NDArray[np.int8]
    scales: NDArray[np.float32]
    fingerprint: Fingerprint


@dataclass
class Timings:
    """Seconds that encoding took, by part."""

    decode: float = 0.0
    encode: float = 0.0


@dataclass
class Encoder:
    """Decoder, tokenizer and encoder graph.

    Args:
        config: The model's shapes.
        session: The encoder graph.
        decoder: Called as ``(path, count, size, limits)``; gives uint8 ``[F, size, size, 3]``, 1 ≤ F ≤ count.
        tokenizer: For titles.
        workers: Threads that decode.
        batch: Videos that the graph takes at a time; what is left over runs one by one.
        limits: What a file may cost.
        pool: Decodes in processes of its own instead, where there are at least `pool_from` videos.
        pool_from: See there.
        single: Makes a session that runs in the thread that calls it and in no other, for many videos at a time: each
            of several threads then takes a video from its file to its tokens, whether decoding or the graph takes
            longer. None where the graph runs on an accelerator.
    """

    config: ModelConfig
    session: Session
    decoder: DecoderLike
    tokenizer: Tokenizer
    workers: int = 2
    batch: int = 1
    limits: Limits = field(default_factory=Limits)
    pool: DecoderPool | None = None
    pool_from: int = MANY
    single: Callable[[], Session] | None = None
    _single: Session | None = field(default=None, init=False)

    def run(
        self, jobs: Sequence[Job], timings: Timings | None = None
    ) -> Generator[tuple[Job, Encoded | VideoError], None, None]:
        """Encode videos, in order; one that cannot be used gives its error instead.

        At most a few decoded videos are held at a time. Close the iterator to stop early.
        """
        timings = timings or Timings()
        decoder, workers = self.decoder, self.workers
        if self.pool is not None and len(jobs) >= self.pool_from:
            decoder, workers = self.pool, self.pool.processes
        if self.single is not None and len(jobs) >= MANY and workers > 1:
            self._single = self._single or self.single()
            yield from self._each_in_its_thread(jobs, self._single, decoder, workers, timings)
            return
        batch: list[tuple[Job, _Inputs]] = []
        with closing(_in_order(jobs, lambda job: self._prepare(job, decoder), workers, self.batch)) as decoded:
            while True:
                start = time.perf_counter()
                item = next(decoded, None)
                timings.decode += time.perf_counter() - start
                if item is None:
                    break
                job, result = item
                if isinstance(result, VideoError):
                    yield job, result
                    continue
                batch.append((job, result))
                if len(batch) == self.batch:
                    yield from self._encode(batch, timings)
                    batch = []
        for one in batch:  # a padded batch would cost more than single ones
            yield from self._encode([one], timings)

    def warm_up(self) -> None:
        """Run the graph once in each of its shapes."""
        c = self.config
        blank = _Inputs(np.zeros((1, c.frame_size, c.frame_size, 3), np.uint8), [], Fingerprint(""))
        for count in {1, self.batch}:
            self._infer([blank] * count)

    def _each_in_its_thread(
        self, jobs: Sequence[Job], session: Session, decoder: DecoderLike, workers: int, timings: Timings
    ) -> Generator[tuple[Job, Encoded | VideoError], None, None]:
        def whole(job: Job) -> tuple[Encoded | VideoError, float, float]:
            start = time.perf_counter()
            inputs = self._prepare(job, decoder)
            decoded = time.perf_counter()
            if isinstance(inputs, VideoError):
                return inputs, decoded - start, 0.0
            (encoded,) = self._infer([inputs], session)
            return encoded, decoded - start, time.perf_counter() - decoded

        with closing(_in_order(jobs, whole, workers, workers)) as results:
            for job, (result, decode, encode) in results:
                timings.decode += decode / workers
                timings.encode += encode / workers
                yield job, result

    def close(self) -> None:
        """End the processes that decode; a call that is under way fails the videos that it is at."""
        if self.pool is not None:
            self.pool.close()

    def release(self) -> None:
        """Release what many videos needed. Nothing may be encoding."""
        if self._single is not None:
            self._single.close()
            self._single = None

    @native
    def _prepare(self, job: Job, decoder: DecoderLike) -> _Inputs | VideoError:
        """Everything that can be done apart from the graph, in a worker thread."""
        video = job.video
        try:
            known_as = fingerprint(video)
            frames, whole = self._frames(video, decoder, quick=job.effort != "full")
            if not whole:
                known_as = known_as.as_quick()
            title = self.tokenizer.encode(video.title, self.config.title_tokens) if video.title else []
            return _Inputs(frames, title, known_as)
        except VideoError as e:
            return _without_name(e, video)
        except MemoryError:
            return VideoTooLargeError("decoding it needs more memory than there is")
        except (LinkedOutError, *PROGRAMMING_ERRORS):  # such as ClosedError
            raise
        except Exception as e:  # an app's decoder, whose errors are its own
            return VideoUnreadableError(f"decoding failed with {type(e).__name__}: {e}")

    def _frames(self, video: Video, decoder: DecoderLike, *, quick: bool) -> tuple[Frames, bool]:
        """Prepared frames, and whether a full look would give the same."""
        count, size = self.config.frames, self.config.frame_size
        if video.frames is not None:
            return prepare_frames(video.frames, count, size, self.limits), True
        assert video.path is not None  # fingerprint() has refused a mere id
        glance: Callable[[str, int, int, Limits], tuple[Frames, bool]] | None = getattr(decoder, "quick", None)
        frames: Any
        if quick and glance is not None:
            frames, whole = glance(video.path, count, size, self.limits)
        else:
            frames, whole = decoder(video.path, count, size, self.limits), True
        shape: tuple[int, ...] = getattr(frames, "shape", ())
        if getattr(frames, "dtype", None) != np.uint8 or shape[1:] != (size, size, 3) or not 1 <= shape[0] <= count:
            raise InvalidFramesError(
                f"the decoder gave {getattr(frames, 'dtype', type(frames).__name__)} {list(shape)}: "
                f"expected uint8 [1..{count}, {size}, {size}, 3]"
            )
        return np.asarray(frames), whole

    def _encode(self, batch: list[tuple[Job, _Inputs]], timings: Timings) -> Iterator[tuple[Job, Encoded | VideoError]]:
        start = time.perf_counter()
        encoded = self._infer([inputs for _, inputs in batch])
        timings.encode += time.perf_counter() - start
        yield from zip((job for job, _ in batch), encoded, strict=True)

    def _infer(self, batch: list[_Inputs], session: Session | None = None) -> list[Encoded]:
        c, b = self.config, len(batch)
        frames = np.zeros((b, c.frames, c.frame_size, c.frame_size, 3), np.uint8)
        frame_mask = np.zeros((b, c.frames), bool)
        title_ids, title_mask = np.zeros((b, c.title_tokens), np.int32), np.zeros((b, c.title_tokens), bool)
        for i, inputs in enumerate(batch):
            f, t = len(inputs.frames), len(inputs.title)
            frames[i, :f], frame_mask[i, :f] = inputs.frames, True
            title_ids[i, :t], title_mask[i, :t] = inputs.title, True
        out = (session or self.session).run(
            {"frames": frames, "frame_mask": frame_mask, "title_ids": title_ids, "title_mask": title_mask}
        )
        if not np.isfinite(out["scales"]).all():
            raise BackendError("the encoder gave scales that are no numbers: check the bundle with another backend")
        return list(map(Encoded, out["tokens"], out["scales"], (inputs.known_as for inputs in batch)))


def _in_order(
    jobs: Sequence[Job], work: Callable[[Job], T], workers: int, ahead: int
) -> Generator[tuple[Job, T], None, None]:
    """Work on jobs in so many threads; results in order, of which at most `workers` + `ahead` are held."""
    if len(jobs) <= 1 or workers == 1:
        for job in jobs:
            yield job, work(job)
        return
    todo = iter(jobs)
    pool = ThreadPoolExecutor(min(workers, len(jobs)), "linkedout-decode")
    try:
        pending: deque[tuple[Job, Future[T]]] = deque()
        for job in islice(todo, workers + ahead):
            pending.append((job, submit(pool, work, job)))
        while pending:
            job, future = pending.popleft()
            result = future.result()
            for following in islice(todo, 1):
                pending.append((following, submit(pool, work, following)))
            yield job, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _without_name(error: VideoError, video: Video) -> VideoError:
    """The error of a decoder, which may be used by itself, without the path: whoever reports it names the video."""
    said = str(error)
    name = repr(video.path)
    return type(error)(said.replace(name, "the file")) if video.path is not None and name in said else error


class _Inputs(NamedTuple):
    frames: Frames  # [F, size, size, 3], not yet padded
    title: list[int]
    known_as: Fingerprint
