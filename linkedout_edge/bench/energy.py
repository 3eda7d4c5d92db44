"""Energy, if the platform reports it: RAPL on PCs, the INA3221 or ``tegrastats`` on a Jetson.

A meter counts joules of a whole package or board, idle share included. Where there is none, we say why.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

_BOARD = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0")
"""Rails that feed a whole Jetson, by board."""
_TEGRASTATS = re.compile(rf"(?:{'|'.join(_BOARD)}) (\d+)(?:mW)?/")


class Meter(Protocol):
    """Counts joules."""

    @property
    def source(self) -> str:
        """What is measured, and where it is read."""

    def joules(self) -> float:
        """Since the meter was made; only differences mean something."""

    def close(self) -> None:
        """Stop counting."""


class Rapl:
    """Intel's and AMD's own counters of their packages, through powercap. Usually root alone may read them."""

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._last = [self._read(z) for z in zones]
        self._ranges = [int((z / "max_energy_range_uj").read_text()) for z in zones]
        self._total = 0
        self.source = f"RAPL, {len(zones)} package{'s' if len(zones) > 1 else ''}, idle share included"

    def joules(self) -> float:
        """See `Meter`."""
        for n, zone in enumerate(self._zones):
            now = self._read(zone)
            self._total += (now - self._last[n]) % (self._ranges[n] + 1)  # the counter wraps around
            self._last[n] = now
        return self._total / 1e6

    def close(self) -> None:
        """Nothing to stop."""

    @staticmethod
    def _read(zone: Path) -> int:
        return int((zone / "energy_uj").read_text())


class Sampled:
    """A power sensor, read ten times a second and summed up.

    Args:
        watts: Reads the sensor.
        source: What it measures.
        stop: Called by `close`.
    """

    def __init__(self, watts: Callable[[], float], source: str, stop: Callable[[], None] = lambda: None) -> None:
        self.source = source
        self._watts, self._stop = watts, stop
        self._total, self._at = 0.0, time.monotonic()
        self._lock, self._done = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._sample, name="linkedout-energy", daemon=True)
        self._thread.start()

    def joules(self) -> float:
        """See `Meter`."""
        with self._lock:
            now = time.monotonic()
            self._total += self._watts() * (now - self._at)
            self._at = now
            return self._total

    def close(self) -> None:
        """Stop sampling."""
        self._done.set()
        self._thread.join()
        self._stop()

    def _sample(self) -> None:
        while not self._done.wait(0.1):
            with contextlib.suppress(OSError, ValueError):  # a sensor that is busy: the next reading covers the gap
                self.joules()


def open_meter(root: Path = Path("/")) -> tuple[Meter | None, str]:
    """A meter, or None, and where it reads or why there is none.

    Args:
        root: Where ``sys`` lies; another folder in tests.
    """
    zones = sorted(p for p in root.glob("sys/class/powercap/*:*") if _is_package(p))
    if zones:
        try:
            meter: Meter = Rapl(zones)
        except PermissionError:
            return None, "RAPL is here, but only root may read it (sudo chmod a+r /sys/class/powercap/*/energy_uj)"
        except (OSError, ValueError) as e:
            return None, f"RAPL is here, but cannot be read ({type(e).__name__})"
        return meter, meter.source
    for label in sorted(root.glob("sys/class/hwmon/hwmon*/in*_label")):
        if _text(label) in _BOARD:
            rail = label.name.removeprefix("in").removesuffix("_label")
            volts, amperes = label.with_name(f"in{rail}_input"), label.with_name(f"curr{rail}_input")
            if volts.is_file() and amperes.is_file():
                source = f"the board's {_text(label)} by its power sensor, idle share included"
                meter = Sampled(partial(_watts, volts, amperes), source)
                return meter, meter.source
    tool = shutil.which("tegrastats")
    if tool is not None:
        return _tegrastats(tool)
    return None, "this platform reports none"


def _tegrastats(tool: str) -> tuple[Meter | None, str]:
    process = subprocess.Popen([tool, "--interval", "100"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    stream, latest = process.stdout, [0.0]
    first = threading.Event()

    def follow() -> None:
        for line in stream:
            found = _TEGRASTATS.search(line)
            if found:
                latest[0] = int(found[1]) / 1000
                first.set()

    thread = threading.Thread(target=follow, name="linkedout-tegrastats", daemon=True)
    thread.start()

    def stop() -> None:
        process.terminate()
        process.wait()
        thread.join()
        stream.close()

    if not first.wait(3):
        stop()
        return None, "tegrastats is here, but does not report the power of the board"
    meter = Sampled(lambda: latest[0], "the board by tegrastats, idle share included", stop)
    return meter, meter.source


def _watts(millivolts: Path, milliamperes: Path) -> float:
    return int(_text(millivolts)) * int(_text(milliamperes)) / 1e6


def _is_package(zone: Path) -> bool:
    return _text(zone / "name").startswith("package") and zone.name.count(":") == 1


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
