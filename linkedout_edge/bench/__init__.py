"""`linkedout-edge bench`: size, time, memory, energy and agreement of each precision × backend × device.

Each cell runs in a process of its own, so that memory and load time are its own; all processes are alive at once and
take turns, so that a busy machine is busy for all of them. `measure` does it, `Report` is the result.
"""

from linkedout_edge.bench.results import Agreement, Cell, Contender, Report, Spread, read_report
from linkedout_edge.bench.run import Settings, measure

__all__ = ["Agreement", "Cell", "Contender", "Report", "Settings", "Spread", "measure", "read_report"]
