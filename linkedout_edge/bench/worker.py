"""The process in which one configuration runs: commands as JSON lines on stdin, answers on stdout.

    python -m linkedout_edge.bench.worker

The first line says what to be, see ``run.py`` and ``against.py``. Whatever a library prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import IO, Any

CANDIDATES, EVENTS, TOP_K = 1000, 64, 50

Command = Callable[..., dict[str, Any]]


def main() -> None:
    """Answer commands until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    commands: dict[str, Command] = {}
    for line in sys.stdin:
        message: dict[str, Any] = json.loads(line)
        name = message.pop("do")
        try:
            if name == "be":
                commands = _be(**message)
                answer: dict[str, Any] = {}
            else:
                answer = commands[name](**message)
        except Exception as e:  # whatever it is, the others continue
            answer = {"error": f"{type(e).__name__}: {' '.join(str(e).split())}"}
        _send(answers, answer)


def _send(out: IO[str], answer: dict[str, Any]) -> None:
    out.write(json.dumps(answer) + "\n")
    out.flush()


def _be(kind: str, **spec: Any) -> dict[str, Command]:
    if kind == "configuration":
        configuration = ConfigurationWorker(**spec)
        names = ("load", "warmup", "encode", "rank", "rank_changed", "memory", "exam")
        return {name: getattr(configuration, name) for name in names}
    from linkedout_edge.bench.against import baseline

    run = baseline(kind, **spec)

    def encode(count: int) -> dict[str, Any]:
        return {"ms": [_timed(run) for _ in range(count)]}

    return {"encode": encode}


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


class ConfigurationWorker:
    """A recommender and what is measured of it.

    Args:
        model: Arguments of `Recommender.load`.
        config: The model's shapes, as plain values.
    """

    def __init__(self, model: dict[str, Any], config: dict[str, Any]) -> None:
        self._model, self._config = model, config
        self._count = 0

    def load(self) -> dict[str, Any]:
        """Import the library and load the model."""
        start = time.perf_counter()
        from linkedout_edge import Recommender

        self.rec = Recommender.load(**self._model)
        seconds = time.perf_counter() - start
        info = self.rec.info()
        return {"seconds": seconds, "versions": info.versions, "threads": info.threads}

    def warmup(self) -> dict[str, Any]:
        """Run everything once; then fill the store for what follows."""
        seconds = sum(self.rec.warmup().values())
        info = self.rec.info()
        self._fill()
        return {"seconds": seconds, "runs_on": info.devices, "notices": list(info.notices)}

    def _fill(self) -> None:
        import msgspec
        import numpy as np

        from linkedout_edge import Event
        from linkedout_edge.backends.examples import example_feeds
        from linkedout_edge.config import ModelConfig
        from linkedout_edge.store import write_tokens

        config = msgspec.convert(self._config, ModelConfig)
        rng, shape = np.random.default_rng(0), (config.layers, config.tokens_per_layer, config.token_width)
        self.ids = [f"stored-{n:04}" for n in range(CANDIDATES)]
        tokens = rng.integers(-127, 128, (CANDIDATES, *shape), dtype=np.int8)
        scales = rng.random((CANDIDATES, *shape[:2]), dtype=np.float32) * 0.02
        write_tokens(self.rec.store, self.ids, tokens, scales)
        self.events = [
            Event(i, watched=(n % 10) / 10, liked=[None, True, None, False][n % 4])
            for n, i in enumerate(self.ids[:EVENTS])
        ]
        self.frames = example_feeds(config)["frames"][0]

    def encode(self, count: int) -> dict[str, Any]:
        """Encode that many new videos, one by one."""
        from linkedout_edge import Video

        took = []
        for _ in range(count):
            self._count += 1
            name = f"new-{self._count}"
            ranking = self.rec.rank([], [Video(frames=self.frames, id=name)])
            took.append(ranking.timing.encode * 1e3)
            self.rec.store.remove(name)
        return {"ms": took}

    def rank(self, count: int) -> dict[str, Any]:
        """Rank the stored videos; the history is always the same."""
        lists = self.ids, self.ids[::-1]  # in turns: the latest one would only be given again
        return {
            "ms": [_timed(lambda n=n: self.rec.rank(self.events, lists[n % 2], top_k=TOP_K).ids) for n in range(count)]  # type: ignore[misc]
        }

    def rank_changed(self, count: int) -> dict[str, Any]:
        """Rank the stored videos; each time one event is new."""
        from linkedout_edge import Event

        took = []
        for _ in range(count):
            self._count += 1
            events = [*self.events[1:], Event(self.ids[EVENTS + self._count % 900])]
            took.append(_timed(lambda events=events: self.rec.rank(events, self.ids, top_k=TOP_K).ids))  # type: ignore[misc]
        return {"ms": took}

    def memory(self) -> dict[str, Any]:
        """Resident memory now and at its peak, in MB."""
        from linkedout_edge.bench.machine import memory_mb

        now, peak = memory_mb()
        return {"rss_mb": now, "peak_mb": peak}

    def exam(self, frames: str, users: str, scores: str) -> dict[str, Any]:
        """Encode a set's clips, rank for each of its users, and write the scores."""
        from linkedout_edge.bench.exam import take

        take(self.rec, frames, users, scores)
        return {}


if __name__ == "__main__":
    main()
