"""The extension in C (`_kernel.c`, `_row_index.c`), imported once for all who use it."""

from __future__ import annotations

from typing import Any

kernel: Any
"""Its module. None where the package was installed without a compiler: NumPy and a dictionary do the same there."""
try:
    from linkedout_edge import _kernel as kernel  # type: ignore[attr-defined, no-redef]
except ImportError:
    kernel = None
