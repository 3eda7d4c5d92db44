"""Damages real media files at random and decodes each in a process of its own.

    python tests/fuzz/media.py --files 5000 [--seed 1] [--samples FOLDER] [--keep FOLDER]

A file passes where each decoder gives frames, the same ones twice, or one of our errors, within the time limit. What
fails is named with its seed, and kept if asked to. Where both decoders give frames, how far these lie apart is told at
the end: a sign of pictures made of memory that nobody wrote, though damage alone can cause it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
from media import scenes, write

from linkedout_edge.decode import Limits, get_decoder
from linkedout_edge.errors import VideoError

SECONDS = 30
"""After which a process counts as hanging; `Limits` stops decoding long before."""
LIMITS = Limits(max_decode_seconds=4, max_pixels=2_000_000)
NAMES = ("pyav", "opencv")

SEEDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264.mkv": {},
    "h264.ts": {},
    "h264.flv": {},
    "h264.avi": {},
    "fields.mp4": {"options": {"x264-params": "interlaced=1:tff=1"}},
    "ten.mp4": {"pixels": "yuv420p10le"},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "hevc.ts": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "hdr.mp4": {
        "codec": "libx265",
        "pixels": "yuv420p10le",
        "colors": (9, 16, 9),
        "options": {"x265-params": "log-level=none:colorprim=9:transfer=16:colormatrix=9"},
    },
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "mpeg2.ts": {"codec": "mpeg2video"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "flv1.flv": {"codec": "flv"},
    "anim.gif": {"codec": "gif", "pixels": "rgb8"},
    "anim.apng": {"codec": "apng", "pixels": "rgb24", "form": "apng"},
    "raw.h264": {"form": "h264"},
}


def samples(folder: Path) -> list[bytes]:
    """A little real file of each kind."""
    found = [write(folder / name, scenes(24), **how).read_bytes() for name, how in SEEDS.items()]
    return found + [cv2.imencode(ending, scenes(1)[0])[1].tobytes() for ending in (".png", ".jpg")]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The same file with a few things wrong; headers are hit more often than their size says."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 10, 40))):
        if len(content) < 64:
            break
        boxes = (b"moov", b"stsd", b"\x16\x54\xae\x6b", b"tkhd", b"avcC", b"hvcC", b"IHDR", b"\xff\xc0")
        places = [0, max(0, len(content) - 3000), rng.randrange(len(content))]
        places += [at for box in boxes if (at := content.find(box)) >= 0]
        at = min(len(content) - 1, rng.choice(places) + int(rng.expovariate(1 / 120)))
        what = rng.randrange(8)
        if what < 3:
            content[at] = rng.randrange(256)
        elif what == 3:
            content[at] ^= 1 << rng.randrange(8)
        elif what == 4:
            content[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 65536)))
        elif what == 5:
            del content[at : at + rng.choice((1, 4, 64, 1000))]
        elif what == 6:
            start = rng.randrange(len(content))
            content[at:at] = content[start : start + rng.choice((1, 8, 200, 3000))]
        else:
            end = at + rng.choice((8, 64, 2000))
            content[at:end] = bytes(len(content[at:end]))
    if rng.random() < 0.15:
        del content[rng.randrange(len(content)) :]
    return bytes(content)


def look(path: Path) -> str:
    """What both decoders make of a file; runs in a child."""
    said, got = [], []
    for name in NAMES:
        decode = get_decoder(name)
        try:
            frames = decode(path, 8, 32, LIMITS)
            again = decode(path, 8, 32, LIMITS)
        except VideoError as error:
            said.append(error.code)
            continue
        if frames.dtype != np.uint8 or frames.shape[1:] != (32, 32, 3) or not 1 <= len(frames) <= 8:
            raise AssertionError(f"{name} gave {frames.dtype} {frames.shape}")
        said.append("frames")
        got.append(frames.astype(int))
        if not np.array_equal(frames, again):
            said[-1] = "frames, others the second time"
    if len(got) == 2:
        same = got[0].shape == got[1].shape
        said.append("alike" if same and np.abs(got[0] - got[1]).mean() < 8 else "apart")
    return " | ".join(said)


def in_child(path: Path) -> str:
    """`look`, or how the process ended instead."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError):
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
        try:
            text = look(path)
        except BaseException as error:
            text = f"RAISED {type(error).__name__}: {error}"
        os.write(writer, text.encode()[:4000])
        os._exit(0)
    os.close(writer)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.002)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        return "HANGS"
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    return text if os.WIFEXITED(status) and text else f"CRASHED with status {status}"


def main() -> int:
    """Command line; 1 where a file crashed a decoder, hung it or made it raise something that is not ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples", type=Path, help="a folder of more files to damage")
    parser.add_argument("--keep", type=Path, help="where files that fail are kept")
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        originals = samples(Path(folder))
        if options.samples:
            originals += [p.read_bytes() for p in sorted(options.samples.iterdir()) if p.stat().st_size < 3_000_000]
        path = Path(folder) / "v"
        for n in range(options.files):
            rng = random.Random(f"{options.seed}/{n}")
            data = damaged(originals[n % len(originals)], rng)
            path.write_bytes(data)
            outcome = in_child(path)
            outcomes[outcome if outcome[0].islower() else outcome.split(":")[0]] += 1
            if outcome[0].isupper():
                failures.append(f"file {n} of seed {options.seed}: {outcome}")
                print(failures[-1], flush=True)
            if options.keep and (outcome[0].isupper() or "others" in outcome or "apart" in outcome):
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{options.seed}-{n}").write_bytes(data)
            if (n + 1) % 500 == 0:
                print(f"{n + 1} of {options.files} files", flush=True)
    for outcome, count in outcomes.most_common():
        print(f"{count:6} {outcome}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
