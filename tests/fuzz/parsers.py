"""Feeds what reads bytes of unknown origin with broken ones. Only errors of our own may come out, and soon.

    python tests/fuzz/parsers.py [--inputs 1000000] [--seed 0] [--only TARGET ...] [--findings FOLDER]
    python tests/fuzz/parsers.py --show FILE --only TARGET

Needs atheris (`make fuzz` installs it), which notes the lines that an input reaches and continues from those that reach
new ones. Half of its inputs are broken by `targets.mutate`, which keeps JSON whole while it changes what the JSON says.

Each target runs in a process of its own, until an input brings out another error, takes more than a minute or makes the
process larger than 2 GB. Such an input is left in the folder of findings; `--show` reads it again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

# It names each module that it instruments: more than anybody reads.
with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(["linkedout_edge", "zipfile", "json"]):
    from targets import TARGETS, feed, mutate

LONGEST = 1 << 14  # bytes of an input


def fuzz(name: str, runs: int, seed: int, findings: Path) -> None:
    """Run one target in this process, which ends with it: libFuzzer's status is 0 if it found nothing."""
    target = TARGETS[name]

    def broken(data: bytes, most: int, seed: int) -> bytes:
        rng = Random(seed)
        return mutate(data, rng, most) if rng.random() < 0.5 else atheris.Mutate(data, most)

    with tempfile.TemporaryDirectory() as corpus:
        for n, example in enumerate(target.examples()):
            Path(corpus, str(n)).write_bytes(example)
        options = [f"-runs={runs}", f"-seed={seed + 1}", f"-max_len={LONGEST}", "-timeout=60", "-rss_limit_mb=2048"]
        options += [f"-artifact_prefix={findings}/{name}-", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, corpus], lambda data: feed(target, data), custom_mutator=broken)
        atheris.Fuzz()


def main() -> int:
    """Run what was asked for; 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--show", type=Path, help="read one input again")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.show:
        print("read" if feed(TARGETS[options.only[0]], options.show.read_bytes()) else "refused")
        return 0
    runs = -(-options.inputs // len(options.only))
    options.findings.mkdir(parents=True, exist_ok=True)
    if options.here:
        fuzz(options.only[0], runs, options.seed, options.findings)
    total, failed = 0, []
    for name in options.only:
        command = [
            sys.executable,
            __file__,
            "--here",
            "--only",
            name,
            "--inputs",
            str(runs),
            "--seed",
            str(options.seed),
        ]
        command += ["--findings", str(options.findings)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
        )
        (options.findings / f"{name}.log").write_text(done.stdout)
        stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stdout))
        count, size = int(stats.get("number_of_executed_units", 0)), stats.get("peak_rss_mb", "?")
        total += count
        print(
            f"{name}: {count:,} inputs, at most {size} MB: {'nothing found' if not done.returncode else 'FOUND'}",
            flush=True,
        )
        if done.returncode:
            failed.append(name)
            print(re.split(r"=== Uncaught|^==\d+==", done.stdout, maxsplit=1, flags=re.MULTILINE)[-1][-2000:])
    print(f"{total:,} inputs in all; findings: {', '.join(failed) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
