"""Which provider runs each operation of an ONNX Runtime graph: the requested one may run none.

Newer versions tell. Of older ones (a Jetson's, say) the profile of one run is read: what ran, and by which provider.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray


class _Arguments(msgspec.Struct):
    provider: str = ""


class _Event(msgspec.Struct):
    cat: str = ""
    args: _Arguments = msgspec.field(default_factory=_Arguments)


class Record:
    """What is noted of one session.

    Args:
        ort: The module `onnxruntime`.
        options: Of the session that will be made; changed.
    """

    def __init__(self, ort: Any, options: Any) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            return
        self._folder = tempfile.TemporaryDirectory(prefix="linkedout-edge-")
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self._folder.name) / "run")

    def read(self, session: Any, feeds: dict[str, NDArray[Any]]) -> Counter[str]:
        """Provider → operations that it was given; empty if that cannot be found out. Once only.

        Args:
            session: The session.
            feeds: Inputs to run it with, where a profile is needed.
        """
        found: Counter[str] = Counter()
        if self._folder is None:
            for part in session.get_provider_graph_assignment_info():
                found[str(part.ep_name)] += len(part.get_nodes())
            return found
        with contextlib.suppress(Exception):  # the library's own: who runs it later gets to see it
            session.run(None, feeds)
        profile = Path(session.end_profiling())  # else it would write for as long as the session lives
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            events = msgspec.json.decode(profile.read_bytes(), type=list[_Event])
            found.update(e.args.provider for e in events if e.cat == "Node" and e.args.provider)
        return found

    def close(self) -> None:
        """Remove what was written."""
        if self._folder is not None:
            self._folder.cleanup()


def described(placed: Counter[str]) -> str:
    """``A``, or ``A (90 of 100 operations), B (10)``; "" if nothing is known."""
    ranked = placed.most_common()
    if len(ranked) < 2:
        return ranked[0][0] if ranked else ""
    (first, most), *rest = ranked
    others = ", ".join(f"{name} ({count})" for name, count in rest)
    return f"{first} ({most} of {sum(placed.values())} operations), {others}"
