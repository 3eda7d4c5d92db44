"""When videos are encoded: at once for a waiting caller, in the background after a deadline, and never twice.

`EncodeService` has the one loop in which videos are encoded and stored. `Background` is a queue with a thread of its
own, started when there is something to do and gone when there is not, so that an idle recommender has none; the latest
call's videos come first, because it is its user who is waiting.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from linkedout_edge.cancellation import STOP, Stop
from linkedout_edge.encode.encoder import EFFORTS, Effort, Encoded, Encoder, Job, Timings
from linkedout_edge.encode.request import RequestPlan
from linkedout_edge.errors import ArgumentError, ClosedError, VideoError, unknown
from linkedout_edge.inputs import Video
from linkedout_edge.lifetime import OneProcess
from linkedout_edge.results import EncodeResult
from linkedout_edge.store import Tokens

logger = logging.getLogger("linkedout_edge")

MAX_WAITING = 4096
"""Beyond it those that wait longest are dropped; they are encoded when they are asked for again."""
STOP_SECONDS = 0.1
"""How often a call that waits for its turn looks whether anybody waits for it."""
AT_A_TIME = 4
"""Videos handed to the encoder together, so that their decoding overlaps."""

Progress = Callable[[int, int], None]
Finished = Callable[[Job, "VideoError | None"], None]
"""Called after each video, with what was wrong or None."""
Encode = Callable[[Sequence[Job], Finished], None]
"""Encodes jobs and stores the results."""


class EncodeService(OneProcess):
    """Encodes videos into the store. Usable from several threads: one encodes at a time, so no video is encoded twice.

    Args:
        store: Where the tokens go.
        encoder: Makes them.
    """

    def __init__(self, store: Tokens, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self._store = store
        self._encoding = threading.RLock()  # held by who encodes; a progress callback may encode in its turn
        self._background = Background(self._encode_behind, self._encoding)
        self._closed = False

    def encode_all(self, videos: Sequence[Video], progress: Progress | None, effort: Effort) -> EncodeResult:
        """See `Recommender.encode`."""
        if effort not in EFFORTS:
            raise ArgumentError(unknown("effort", effort, EFFORTS))
        self._store.refresh()
        plan = RequestPlan(self._store, look_at_files=True, effort=effort)
        for video in videos:
            plan.add(video, "video")
        encoded = self.encode(plan, Timings(), progress, durable=True)
        failed = plan.failed
        left = {*encoded, *(f.id for f in failed if f.code != "conflict")}
        unchanged = tuple(i for i in plan.ids if i not in left)
        quick = self._store.quick()
        return EncodeResult(
            tuple(encoded), unchanged, tuple(failed), tuple(i for i in (*encoded, *unchanged) if i in quick)
        )

    def refine(self, progress: Progress | None) -> EncodeResult:
        """See `Recommender.refine`."""
        self._store.refresh()
        titles = {i: known.title for i in sorted(self._store.quick()) if (known := self._store.fingerprint(i))}
        videos = [Video(i, title=title) for i, title in titles.items() if Path(i).is_file()]
        return self.encode_all(videos, progress, "full")

    def encode(
        self,
        plan: RequestPlan,
        timings: Timings,
        progress: Progress | None = None,
        *,
        durable: bool = False,
    ) -> list[str]:
        """Encode what a plan needs and the store lacks, until nobody waits for it; ids that were encoded.

        With `durable`, what cannot be kept in `data_dir` is an error; without, a ranking continues from memory.

        Raises:
            BackendError: The inference library failed; what was encoded before stays.
            StorageError: With `durable`: `data_dir` cannot be written.
            ClosedError: After `close`, which also ends a call that is under way.
        """
        encoded: list[str] = []
        with self._turn(stop := STOP.get()) as is_wanted:
            if not is_wanted:
                return encoded
            self._check_open()
            jobs = plan.jobs()
            if jobs and durable:
                self._store.check_writable()
            total = len(plan.ids)
            done = total - len(jobs)
            if progress and (done or not jobs):
                progress(done, total)

            def finished(job: Job, error: VideoError | None) -> None:
                nonlocal done
                done += 1
                if error is None:
                    encoded.append(job.id)
                else:
                    plan.fail_everywhere(job.id, error)
                if progress:
                    progress(done, total)
                    self._check_process()  # it may have forked, and the threads that decode are not here

            known = plan.refinements() if plan.effort == "auto" else []
            self._run(jobs, finished, timings, stop, durable=durable)
            self._background.submit(known, behind=True)
        return encoded

    def encode_until(self, until: float, jobs: Sequence[Job], plan: RequestPlan, timings: Timings) -> set[str]:
        """Encode in the background, in order, and return at ``time.monotonic()`` `until` with the ids not yet ready.

        It returns earlier if nobody waits for it any more.

        What failed by then is noted in `plan`; what is late continues to be encoded.
        """
        start = time.perf_counter()
        tickets = self._background.submit(jobs)
        self._background.wait_for(tickets, until, STOP.get())
        late = set()
        for ticket in tickets:
            if ticket.error is not None:
                plan.fail_everywhere(ticket.job.id, ticket.error)
            elif ticket.dropped or not ticket.done:
                late.add(ticket.job.id)
        timings.encode += time.perf_counter() - start
        return late

    def ensure(self, video: Video) -> None:
        """Put one video into the store, unless it is there.

        Raises:
            VideoError: It cannot be used (see its subclasses).
            StorageError: `data_dir` cannot be written.
        """
        plan = RequestPlan(self._store)
        plan.add(video, "video")

        def finished(job: Job, error: VideoError | None) -> None:
            if error is not None:
                raise type(error)(f"{job.id}: {error}")

        with self._encoding:
            self._check_open()
            self._run(plan.jobs(), finished)

    def cancel(self, ids: Iterable[str]) -> None:
        """Drop these from the background's queue; when this returns, none of them is being encoded there."""
        self._background.cancel(list(ids))

    def wait(self, timeout: float | None = None) -> bool:
        """Whether nothing is being encoded in the background any more, within `timeout` seconds."""
        return self._background.wait(timeout)

    def warm_up(self) -> None:
        """Run the graph once in each of its shapes."""
        with self._encoding:
            self._check_open()
            self.encoder.warm_up()

    def close(self) -> None:
        """Drop what waits, and return when nothing is being encoded any more."""
        self._closed = True
        self._background.close()
        self.encoder.close()
        with self._encoding:
            self.encoder.release()

    def _check_open(self) -> None:
        self._check_process()
        if self._closed:
            raise ClosedError()

    @contextmanager
    def _turn(self, stop: Stop | None) -> Iterator[bool]:
        """Wait for the lock and hold it; gives False, perhaps without it, once `stop` is set."""
        if stop is None:
            with self._encoding:
                yield True
            return
        while not (held := self._encoding.acquire(timeout=STOP_SECONDS)) and not stop.is_set():
            pass
        try:
            yield not stop.is_set()
        finally:
            if held:
                self._encoding.release()

    def _run(
        self,
        jobs: Sequence[Job],
        finished: Finished,
        timings: Timings | None = None,
        stop: threading.Event | None = None,
        *,
        durable: bool = True,
    ) -> None:
        """The loop: encode, store, tell. The caller holds the lock."""
        with self._store.batch(durable=durable), closing(self.encoder.run(jobs, timings)) as results:
            for job, result in results:
                self._check_open()
                if isinstance(result, Encoded):
                    if not job.refines or self._is_quick(job.id):  # else it was removed, or seen well, meanwhile
                        self._store.put(job.id, *result)
                    if job.effort == "auto" and result.fingerprint.is_quick:
                        self._background.submit([Job(job.id, job.video, refines=True)], behind=True)
                    finished(job, None)
                else:
                    logger.debug("cannot use %s: %s", job.id, result)
                    finished(job, result)
                if stop is not None and stop.is_set():
                    return

    def _is_quick(self, id: str) -> bool:
        stored = self._store.fingerprint(id)
        return stored is not None and stored.is_quick

    def _encode_behind(self, jobs: Sequence[Job], finished: Finished) -> None:
        """Called by the background thread, which holds the lock: encode a few, unless they are known by now."""
        needed = []
        for job in jobs:
            if job.refines:
                pointless = not self._is_quick(job.id)
            else:
                plan = RequestPlan(self._store)
                plan.add(job.video, "candidate")
                pointless = not plan.jobs()
            if pointless:
                finished(job, None)
            else:
                needed.append(job)
        with suppress(ClosedError):  # what is left is dropped
            self._run(needed, finished, stop=self._background.stopping, durable=False)


@dataclass(eq=False)
class Ticket:
    """One video that is being encoded.

    Attributes:
        job: What is encoded.
        error: What was wrong with it, once `done`.
        done: Whether it is stored, or failed, or was dropped (then `dropped`).
    """

    job: Job
    error: VideoError | None = None
    done: bool = False
    dropped: bool = False

    def drop(self) -> None:
        """It will not be encoded."""
        self.done = self.dropped = True


class Background(OneProcess):
    """Encodes videos in a thread of its own.

    Args:
        encode: Does the work; it is to return soon after `stopping` is set.
        turn: Held while it does. What waits for its turn can still be cancelled, and overtaken.

    Attributes:
        stopping: Set once nothing more is to be encoded.
    """

    def __init__(self, encode: Encode, turn: threading.RLock) -> None:
        super().__init__()
        self._encode = encode
        self._turn = turn
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, Ticket] = OrderedDict()  # first is next
        self._running: dict[str, Ticket] = {}
        self._thread: threading.Thread | None = None
        self.stopping = threading.Event()

    def submit(self, jobs: Sequence[Job], *, behind: bool = False) -> list[Ticket]:
        """Queue videos, in front of what waits already, or `behind` it.

        One that waits or is being encoded is not queued twice.

        Raises:
            ClosedError: After `close`; not for what is queued `behind`, for which nobody waits.
        """
        with self._changed:
            if self.stopping.is_set():
                if behind:
                    return []
                raise ClosedError()
            tickets = [self._queue(job, behind) for job in (jobs if behind else reversed(jobs))]
            while len(self._waiting) > MAX_WAITING:
                self._waiting.popitem()[1].drop()
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="linkedout-encode", daemon=True)
                self._thread.start()
            return tickets if behind else tickets[::-1]

    def _queue(self, job: Job, behind: bool) -> Ticket:
        running, ticket = self._running.get(job.id), self._waiting.get(job.id)
        if running is not None and not running.done and running.job == job:
            return running
        if ticket is not None and behind:  # what was asked for comes before what is done besides
            return ticket
        if ticket is None or ticket.job != job:
            if ticket is not None:  # another content of that id: the later one counts
                ticket.drop()
            ticket = self._waiting[job.id] = Ticket(job)
        self._waiting.move_to_end(job.id, last=behind)
        return ticket

    def wait_for(self, tickets: Iterable[Ticket], until: float, stop: Stop | None = None) -> None:
        """Return when all are done, when ``time.monotonic()`` reaches `until`, or when `stop` is set."""
        pending, stop = list(tickets), stop or Stop()
        with stop.waking(self._wake), self._changed:
            self._changed.wait_for(
                lambda: stop.is_set() or all(t.done for t in pending), max(0.0, until - time.monotonic())
            )

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether nothing is left to do, within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout)

    def cancel(self, ids: Sequence[str]) -> None:
        """Drop these ids where they wait, and return when none of them is being encoded here."""
        with self._changed:
            for ticket in [self._waiting.pop(i) for i in ids if i in self._waiting]:
                ticket.drop()
            self._changed.notify_all()
            running = [self._running[i] for i in ids if i in self._running]
            if threading.current_thread() is not self._thread:
                self._changed.wait_for(lambda: all(t.done for t in running))

    def close(self, timeout: float | None = None) -> None:
        """Drop what waits, and return when the video that is being encoded is stored, or after `timeout` seconds."""
        with self._changed:
            self.stopping.set()
            for ticket in self._waiting.values():
                ticket.drop()
            self._waiting.clear()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _stop(self, until: float) -> None:
        self.close(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._changed:
                if self.stopping.is_set() or not self._waiting:
                    self._thread = None
                    self._changed.notify_all()
                    return
            if self._turn.acquire(timeout=0.1):
                try:
                    self._encode_next()
                finally:
                    self._turn.release()

    def _encode_next(self) -> None:
        with self._changed:
            while self._waiting and len(self._running) < AT_A_TIME:
                i, ticket = self._waiting.popitem(last=False)
                self._running[i] = ticket
            batch = list(self._running.values())
        try:
            self._encode([t.job for t in batch], self._finish)
        except Exception as e:  # no caller to tell; the next call that needs the video meets the same error
            logger.warning("encoding in the background stopped with %s", type(e).__name__)
            logger.debug("encoding in the background", exc_info=True)
        with self._changed:
            self._running = {}
            for t in batch:
                if not t.done:
                    t.drop()
            self._changed.notify_all()

    def _finish(self, job: Job, error: VideoError | None) -> None:
        with self._changed:
            ticket = self._running[job.id]
            ticket.error, ticket.done = error, True
            self._changed.notify_all()
