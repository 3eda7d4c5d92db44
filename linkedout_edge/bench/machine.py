"""The machine of a benchmark: processor, power mode, memory, temperature. Nothing identifies host or user."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from linkedout_edge.backends import drivers
from linkedout_edge.bench.results import Machine
from linkedout_edge.threads import available_cpus


def describe(threads: int | None, versions: dict[str, str], root: Path = Path("/")) -> Machine:
    """This machine.

    Args:
        threads: What was asked for; None is what this process may use.
        versions: Library → version, as a worker saw them.
        root: Where ``proc`` and ``sys`` lie; another folder in tests.
    """
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(root),
        cpus=os.cpu_count() or 1,
        threads=threads or available_cpus(),
        power_mode=power_mode(root),
        gpu=drivers.nvidia(root),
        versions=versions,
    )


def _processor(root: Path) -> str:
    board = _text(root / "proc/device-tree/model").strip("\0")
    if board:  # a Jetson or another board
        return board
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def power_mode(root: Path = Path("/")) -> str:
    """On a Jetson what ``nvpmodel`` says, else the governor of the first CPU; "" if neither is known."""
    tool = shutil.which("nvpmodel")
    if tool is not None:
        try:
            done = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is not None and done.returncode == 0:
            return "nvpmodel: " + " ".join(done.stdout.replace("NV Power Mode:", "").split())
    governor = _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    return f"governor: {governor}" if governor else ""


def celsius(root: Path = Path("/")) -> float | None:
    """The hottest thermal zone."""
    found = []
    for path in root.glob("sys/class/thermal/thermal_zone*/temp"):
        text = _text(path).strip()
        if text.lstrip("-").isdigit() and 0 < int(text) < 200_000:  # absent sensors say -273 or 0
            found.append(int(text) / 1000)
    return max(found, default=None)


def megahertz(root: Path = Path("/")) -> float | None:
    """Mean clock of the CPUs."""
    paths = root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    found = [int(t) / 1000 for p in paths if (t := _text(p).strip()).isdigit()]
    return sum(found) / len(found) if found else None


def memory_mb(root: Path = Path("/")) -> tuple[float | None, float | None]:
    """Resident memory of this process and its peak."""
    fields = dict(line.partition(":")[::2] for line in _text(root / "proc/self/status").splitlines())
    found = [fields[n].split()[0] if n in fields else "" for n in ("VmRSS", "VmHWM")]
    if all(f.isdigit() for f in found):
        return int(found[0]) * 1024 / 1e6, int(found[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None, None
    unit = 1 if platform.system() == "Darwin" else 1024
    return None, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
