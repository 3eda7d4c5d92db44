"""`linkedout-edge bench`: size, time, memory, energy and agreement of each precision × backend × device.

A configuration is one precision on one device of one backend. Each runs in its own process, so that memory and load
time are its own. All processes are alive at once and take turns, so that other load on the machine slows all of them
alike. `measure` runs the benchmark and returns a `Report`.
"""

from linkedout_edge.bench.results import Agreement, Baseline, Configuration, LatencyStats, Report, read_report
from linkedout_edge.bench.run import Settings, measure

__all__ = ["Agreement", "Baseline", "Configuration", "LatencyStats", "Report", "Settings", "measure", "read_report"]
