"""``device="auto"``: the encoder runs where it was measured to be the fastest.

An accelerator can be slower than the CPU (a small graph costs more to hand over than to compute), and it can be wrong.
So it is run, once for a model, library and driver, on every device that is there: those whose answers are not the CPU's
are left out, the others take turns, and the fastest is remembered in `cache_dir`, or as long as the process lasts.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from linkedout_edge._version import __version__
from linkedout_edge.backends import cpu as this_cpu
from linkedout_edge.backends.base import Backend, Session
from linkedout_edge.backends.cache import Choice, EngineCache, digest
from linkedout_edge.backends.examples import distance, example_feeds
from linkedout_edge.backends.notices import Notices
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import BackendError, DeviceError

CPU = "cpu"
WORTH = 0.9
"""An accelerator that takes more than this share of the CPU's time is not worth its memory and its power."""
MOST_DISTANCE = 0.02
"""Answers further than this from the CPU's (see `distance`) are wrong, not rounded."""
MINUTES = ("tensorrt",)
"""Devices that compile for minutes: without a `cache_dir` they would do so at every start."""
SECONDS, RUNS = 0.5, 25


class AutoBackend:
    """See `linkedout_edge.backends.base.Backend`.

    Args:
        cpu: The CPU's backend, which always works.
        others: Device → makes its backend, in strict mode.
        cache_dir: Where to remember; None remembers as long as the process lasts.
        notices: What is said, shared with the others.
    """

    _measured: ClassVar[dict[str, Choice]] = {}

    def __init__(
        self,
        cpu: Backend,
        others: Mapping[str, Callable[[], Backend]],
        cache_dir: str | os.PathLike[str] | None,
        notices: Notices,
    ) -> None:
        self.name, self.version, self.threads, self.notices = cpu.name, cpu.version, cpu.threads, notices
        self._cache = EngineCache(cache_dir, notices)
        self._backends: dict[str, Backend] = {CPU: cpu}
        for device, create in others.items():
            if device in MINUTES and not self._cache.keeps:
                notices.say(f"auto leaves {device} out: without cache_dir it would compile for minutes at every start")
                continue
            try:
                self._backends[device] = create()
            except DeviceError as e:
                notices.say(f"auto leaves {device} out: {e.reason}", logging.WARNING)

    def fingerprint(self) -> dict[str, str]:
        """That of every device."""
        return {f"{d} {k}": v for d, b in self._backends.items() for k, v in b.fingerprint().items()}

    def load(
        self, model: bytes, config: ModelConfig, precision: str = "", *, full_range: bool = False, weights: bytes = b""
    ) -> Session:
        """Load the graph where it runs fastest.

        Raises:
            BundleCorruptError: The bytes are no graph of the contract.
            DeviceError: The CPU, whose answers the others are compared with, gets the graph wrong.
        """
        if full_range and this_cpu.instruction_set().overflows:
            raise this_cpu.refusal()
        key = {
            "linkedout-edge": __version__,
            "model": digest(model, weights),
            "threads": str(self.threads),
            **self.fingerprint(),
        }
        name = digest(repr(sorted(key.items())).encode())
        choice = self._cache.recall(key) or self._measured.get(name)
        if choice is not None and choice.device in self._backends:
            try:
                session = self._backends[choice.device].load(model, config, precision, weights=weights)
            except DeviceError as e:
                self.notices.say(f"auto measures again: {e.reason}", logging.WARNING)
            else:
                self._say(choice, "remembered")
                return session
        session, choice = self._measure(model, config, precision, key, weights)
        self._measured[name] = choice
        self._cache.remember(choice)
        self._say(choice, "measured")
        return session

    def _measure(
        self, model: bytes, config: ModelConfig, precision: str, key: dict[str, str], weights: bytes
    ) -> tuple[Session, Choice]:
        feeds = example_feeds(config)
        sessions = {CPU: self._backends[CPU].load(model, config, precision, weights=weights)}
        try:
            wanted = sessions[CPU].run(feeds)
            for device in [d for d in self._backends if d != CPU]:
                try:
                    sessions[device] = self._backends[device].load(model, config, precision, weights=weights)
                    gap = distance(sessions[device].run(feeds), wanted)
                except BackendError as e:
                    reason = e.reason if isinstance(e, DeviceError) else str(e)
                    self.notices.say(f"auto leaves {device} out: {reason}", logging.WARNING)
                    self._drop(sessions, device)
                    continue
                if gap > MOST_DISTANCE:
                    self.notices.say(f"auto leaves {device} out: its answers are wrong by {gap:.1%}", logging.WARNING)
                    self._drop(sessions, device)
            took = side_by_side(sessions, feeds)
            fastest = min(took, key=lambda d: took[d])
            if took[fastest] > WORTH * took[CPU]:
                fastest = CPU
        except BaseException:
            for session in sessions.values():
                session.close()
            raise
        for device in [d for d in sessions if d != fastest]:
            self._drop(sessions, device)
        return sessions[fastest], Choice(device=fastest, milliseconds=took, key=key)

    @staticmethod
    def _drop(sessions: dict[str, Session], device: str) -> None:
        if device in sessions:
            sessions.pop(device).close()

    def _say(self, choice: Choice, how: str) -> None:
        times = ", ".join(f"{d} {ms:.3g} ms" for d, ms in choice.milliseconds.items())
        self.notices.say(f"auto runs the encoder graph on {choice.device} ({how}: {times})")


def side_by_side(sessions: Mapping[str, Session], feeds: dict[str, NDArray[Any]]) -> dict[str, float]:
    """Median milliseconds of each, taking turns, so that a busy machine is busy for all of them."""
    times: dict[str, list[float]] = {device: [] for device in sessions}
    until = time.perf_counter() + SECONDS * len(sessions)
    for turn in range(RUNS):
        if turn >= 3 and time.perf_counter() > until:
            break
        for device, session in sessions.items():
            start = time.perf_counter()
            session.run(feeds)
            times[device].append((time.perf_counter() - start) * 1e3)
    return {device: statistics.median(t) for device, t in times.items()}
