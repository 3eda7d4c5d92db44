"""The number of CPUs that this process may use, from affinity and cgroup quota, not the host's core count."""

from __future__ import annotations

import math
import os
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """CPUs by affinity, and by cgroup quota (rounded up) where that is less; at least 1.

    Args:
        root: Where ``proc`` and ``sys`` lie; another folder in tests.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS, Windows
        count = os.cpu_count() or 1
    quota = cgroup_quota(root)
    return max(1, count if quota is None else min(count, math.ceil(quota)))


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPUs that the cgroups of this process allow (the tightest of all levels), or None without a limit."""
    limits: list[float] = []
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":  # version 2
            limits += [q for folder in _levels(mount, path) if (q := _v2(folder)) is not None]
        elif "cpu" in controllers.split(","):  # version 1
            for base in (mount / controllers, mount / "cpu"):
                limits += [q for folder in _levels(base, path) if (q := _v1(folder)) is not None]
    return min(limits, default=None)


def _levels(mount: Path, path: str) -> list[Path]:
    """The cgroup's folder and all above it. In a container the path may be the host's: then the mount remains."""
    parts = [p for p in path.split("/") if p not in ("", "..")]
    return [mount.joinpath(*parts[:i]) for i in range(len(parts) + 1)]


def _v2(folder: Path) -> float | None:
    fields = _read(folder / "cpu.max").split()
    return _ratio(fields[0], fields[1]) if len(fields) == 2 else None


def _v1(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float | None:
    try:
        limit = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return None
    return limit if limit > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
