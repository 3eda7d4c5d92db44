"""Builds what the runtime's TensorRT provider needs, once, and says what runs each graph.

    python export/jetson/warm_up.py --cache-dir engines [--bundle FOLDER] [--precision int8]

Run it after installing, and after each update of JetPack: minutes, in place of the app's first call. The app loads with
the same bundle, precision and cache_dir.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time

from linkedout_edge import Recommender
from linkedout_edge.errors import LinkedOutError


def main(arguments: list[str] | None = None) -> int:
    """Warm up; exit code 1, with the reason, where the device cannot run the graphs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache-dir", required=True, help="where engines are kept; the app's own folder")
    parser.add_argument("--bundle", default="int8", help="precision of the built-in bundle, or a bundle's folder")
    parser.add_argument("--precision", help="which of the bundle's, if it is a folder")
    parser.add_argument("--device", default="tensorrt", help="tensorrt, cuda or cpu")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    start = time.perf_counter()
    try:
        with Recommender.load(
            given.bundle,
            precision=given.precision,
            device=given.device,
            cache_dir=given.cache_dir,
            strict_device=True,
        ) as rec:
            rec.warmup()
            info = rec.info()
    except LinkedOutError as error:
        print(error, file=sys.stderr)
        return 1
    for graph, device in info.devices.items():
        print(f"{graph:8} {device}")
    for notice in info.notices:
        print(f"note: {notice}")
    print(f"ready after {time.perf_counter() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
