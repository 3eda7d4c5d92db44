"""Encoding that goes on after a call with a deadline has returned.

One thread, started when there is something to do and gone when there is not, so that an idle recommender has none.
The latest call's videos come first: it is its user who is waiting.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from linkedout_edge.encoder import Job
from linkedout_edge.errors import ClosedError, VideoError
from linkedout_edge.lifetime import OneProcess

logger = logging.getLogger("linkedout_edge")

MAX_WAITING = 4096
"""Beyond it those that wait longest are dropped; they are encoded when they are asked for again."""
AT_A_TIME = 4
"""Videos handed to the encoder together, so that their decoding overlaps."""

Encode = Callable[[Sequence[Job], Callable[[Job, "VideoError | None"], None]], None]
"""Encodes jobs and stores the results; calls back after each, with what was wrong or None."""


class Ticket:
    """One video that is being encoded.

    Attributes:
        job: What is encoded.
        error: What was wrong with it, once `done`.
        done: Whether it is stored, or failed, or was dropped (then `dropped`).
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.error: VideoError | None = None
        self.done = False
        self.dropped = False


class Background(OneProcess):
    """Encodes videos in a thread of its own.

    Args:
        encode: Does the work.
    """

    def __init__(self, encode: Encode) -> None:
        super().__init__()
        self._encode = encode
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, Ticket] = OrderedDict()  # first is next
        self._running: dict[str, Ticket] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, jobs: Sequence[Job]) -> list[Ticket]:
        """Queue videos, in front of what waits already; one that waits or is being encoded is not queued twice.

        Raises:
            ClosedError: After `close`.
        """
        with self._changed:
            if self._closed:
                raise ClosedError("the recommender was closed: load a new one with Recommender.load(...)")
            tickets = []
            for job in reversed(jobs):
                running = self._running.get(job.id)
                if running is not None and not running.done and running.job.video == job.video:
                    tickets.append(running)
                    continue
                ticket = self._waiting.get(job.id)
                if ticket is None or ticket.job.video != job.video:
                    if ticket is not None:  # another content of that id: the later one counts
                        ticket.done = ticket.dropped = True
                    ticket = self._waiting[job.id] = Ticket(job)
                self._waiting.move_to_end(job.id, last=False)
                tickets.append(ticket)
            while len(self._waiting) > MAX_WAITING:
                _, dropped = self._waiting.popitem()
                dropped.done = dropped.dropped = True
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="linkedout-encode", daemon=True)
                self._thread.start()
            return tickets[::-1]

    def wait_for(self, tickets: Iterable[Ticket], until: float) -> None:
        """Return when all are done, or when ``time.monotonic()`` reaches `until`."""
        pending = list(tickets)
        with self._changed:
            self._changed.wait_for(lambda: all(t.done for t in pending), max(0.0, until - time.monotonic()))

    def encodes(self, id: str) -> bool:
        """Whether that video is being encoded right now."""
        with self._changed:
            return id in self._running and not self._running[id].done

    def wait_for_running(self, id: str) -> None:
        """Return when that video is not being encoded any more."""
        with self._changed:
            ticket = self._running.get(id)
            if ticket is not None and threading.current_thread() is not self._thread:
                self._changed.wait_for(lambda: ticket.done)

    def wait(self, timeout: float | None = None) -> bool:
        """Whether nothing is left to do, within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout)

    def cancel(self, ids: Iterable[str] | None = None) -> None:
        """Drop what waits: some ids, or all. What is being encoded right now goes on."""
        with self._changed:
            for i in list(self._waiting) if ids is None else list(ids):
                ticket = self._waiting.pop(i, None)
                if ticket is not None:
                    ticket.done = ticket.dropped = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether nothing more is to be encoded."""
        return self._closed

    def close(self, timeout: float | None = None) -> None:
        """Drop what waits, and return when the video that is being encoded is stored, or after `timeout` seconds."""
        with self._changed:
            self._closed = True
            thread = self._thread
        self.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _stop(self, until: float) -> None:
        self.close(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = {}
                if self._closed or not self._waiting:
                    self._thread = None
                    self._changed.notify_all()
                    return
                for _ in range(min(AT_A_TIME, len(self._waiting))):
                    i, ticket = self._waiting.popitem(last=False)
                    self._running[i] = ticket
                batch = list(self._running.values())
            try:
                self._encode([t.job for t in batch], self._finish)
            except Exception as e:  # no caller to tell; the next call that needs the video meets the same error
                logger.warning("encoding in the background stopped with %s", type(e).__name__)
                logger.debug("encoding in the background", exc_info=True)
            with self._changed:
                for t in batch:
                    if not t.done:
                        t.done = t.dropped = True
                self._changed.notify_all()

    def _finish(self, job: Job, error: VideoError | None) -> None:
        with self._changed:
            ticket = self._running[job.id]
            ticket.error, ticket.done = error, True
            self._changed.notify_all()
