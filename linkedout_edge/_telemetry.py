"""Switches off telemetry of the libraries that we use.

- onnxruntime's wheels, from 1.29 on, write a device id into the user's cache folder and send usage events from their
  first import on. `disable_telemetry_events` comes too late for that and leaves some on; the environment variable, set
  before that import, stops all of it. So importing any part of this package sets it.
- openvino's wheel brings ``openvino_telemetry``, which writes a client id into the home folder and sends an event to
  Google Analytics on each import of openvino. openvino does without where that package is missing, so it is hidden from
  it while it is imported.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

VARIABLE = "ORT_DISABLE_TELEMETRY"
_OPENVINO_SENDER = "openvino_telemetry"


def _silence() -> bool:
    """Set the variable; whether an app had imported onnxruntime before, without it."""
    late = "onnxruntime" in sys.modules and os.environ.get(VARIABLE) != "1"
    os.environ[VARIABLE] = "1"
    return late


TOO_LATE = _silence()
"""onnxruntime was imported before this package, with its telemetry on; that cannot be undone in this process."""
ADVICE = f"import linkedout_edge before onnxruntime, or set {VARIABLE}=1"


def import_openvino() -> ModuleType:
    """`openvino`, without what would send events.

    Raises:
        ImportError: It is not installed, or cannot be loaded.
    """
    if "openvino" in sys.modules:
        return importlib.import_module("openvino")
    hidden = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == _OPENVINO_SENDER}
    sys.modules[_OPENVINO_SENDER] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_OPENVINO_SENDER]
        sys.modules.update(hidden)
