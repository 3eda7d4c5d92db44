#!/usr/bin/env python3
"""Check that no large file comes into the repository, or changes in it, without somebody having decided so.

A file's bytes stay in the history for ever. `large_files.txt` beside this lists what may be large, as ``sha256sum``
writes it; ``--accept`` writes that list again. docs/development.md says where masters go instead.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

LIMIT = 1_000_000
LIST = ".ci/large_files.txt"


def main(accept: bool) -> int:
    """Compare the tracked files with the list; gives the exit status."""
    asked = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=False)
    if asked.returncode:
        print("large files: not looked for, this is no git checkout")
        return 0
    tracked = [Path(name) for name in asked.stdout.decode().split("\0") if name]
    large = {p.as_posix(): p for p in tracked if p.is_file() and p.stat().st_size > LIMIT}
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in large.items()}
    if accept:
        Path(LIST).write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(found.items())))
        return 0
    lines = Path(LIST).read_text(encoding="utf-8").splitlines() if Path(LIST).exists() else []
    listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    for name, digest in found.items():
        if listed.get(name) != digest:
            what = "has other bytes than" if name in listed else "is not in"
            print(
                f"error: {name} ({large[name].stat().st_size / 1e6:.1f} MB) {what} {LIST}. A master or the like is a "
                "release asset (docs/development.md); if it has to be here: python .ci/large_files.py --accept"
            )
    for name in listed.keys() - found.keys():
        print(f"error: {LIST} lists {name}, which is not there or not large: python .ci/large_files.py --accept")
    return int(listed != found)


if __name__ == "__main__":
    sys.exit(main("--accept" in sys.argv[1:]))
