"""The one part of the package that is compiled; everything else is in pyproject.toml.

It is optional: where no compiler is found, NumPy computes, scores to the same bits (docs/latency.md).
LINKEDOUT_PURE=1 leaves it out, for a wheel that runs on every processor.
"""

import os
import sys
import sysconfig

from setuptools import Extension, setup

# One binary for this and all newer Pythons. Arrays can be read through that interface from 3.11 on.
ABI3 = sys.version_info >= (3, 11) and not sysconfig.get_config_var("Py_GIL_DISABLED")
KERNEL = Extension(
    "linkedout_edge._kernel",
    ["linkedout_edge/_kernel.c", "linkedout_edge/_row_index.c"],
    # Each path and NumPy give the same bits only if no product and sum are joined.
    extra_compile_args=[] if sys.platform == "win32" else ["-O3", "-ffp-contract=off"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")] if ABI3 else [],
    libraries=[] if sys.platform == "win32" else ["m"],
    py_limited_api=ABI3,
    optional=True,
)

if os.environ.get("LINKEDOUT_PURE"):
    setup()
else:
    setup(ext_modules=[KERNEL], options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {})
