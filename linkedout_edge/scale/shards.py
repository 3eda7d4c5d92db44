"""Which pack of a folder contains which video.

A folder has a fixed number of packs, and the hash of an id says which is its. So an id is in one pack at most, whoever
wrote it and when, and what a folder holds in the end depends on the videos alone: not on the engine, the order, or how
often the work was cut off.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from linkedout_edge.errors import ArgumentError

SHARD_VIDEOS = 256
"""Videos a pack, where nothing is said: what is done again when a worker dies, a few minutes of one core."""
MAX_SHARDS = 1_000_000
PULSES = ".run-"
"""Folders in which the workers of a run show that they work."""

_NAME = re.compile(r"videos-(\d{6})-of-(\d{6})\.safetensors")


def pack_name(shard: int, shards: int) -> str:
    """File name of a pack, such as ``videos-000003-of-000064.safetensors``."""
    return f"videos-{shard:06d}-of-{shards:06d}.safetensors"


def packs_in(folder: Path) -> list[Path]:
    """The packs of a folder, in order of their names."""
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name))


def shard_of(id: str, shards: int) -> int:
    """The number of the pack that an id belongs to, from 0."""
    digest = hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


def number_of_shards(folder: Path, videos: int, asked: int | None) -> int:
    """How many packs a folder is to have: as many as it has been begun with.

    Args:
        folder: The folder, which exists.
        videos: How many are to be encoded now.
        asked: What the caller wants; None: `SHARD_VIDEOS` a pack, or as the folder was begun.

    Raises:
        ArgumentError: `asked` is out of bounds or is not what the folder was begun with, or the packs in the folder
            do not belong together.
    """
    if asked is not None and not 1 <= asked <= MAX_SHARDS:
        raise ArgumentError(f"shards must be from 1 to {MAX_SHARDS}, not {asked}")
    begun = {int(m[2]) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name))}
    if len(begun) > 1:
        raise ArgumentError(
            f"the folder of packs was begun with {' and with '.join(map(str, sorted(begun)))} shards: keep those of "
            "one number, and move the others to a folder of their own"
        )
    if begun:
        (count,) = begun
        if asked not in (None, count):
            raise ArgumentError(
                f"the folder of packs was begun with {count} shards, not {asked}: leave the number out, or encode into "
                "another folder"
            )
        return count
    return asked or min(MAX_SHARDS, max(1, -(-videos // SHARD_VIDEOS)))


def by_shard(ids: Iterable[str], shards: int) -> dict[int, list[str]]:
    """Shard → its ids, both sorted; each id once."""
    found: dict[int, list[str]] = {}
    for i in sorted(set(ids)):
        found.setdefault(shard_of(i, shards), []).append(i)
    return dict(sorted(found.items()))


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left; only one run at a time may write to a folder."""
    for p in folder.glob(".videos-*-of-*.safetensors.*"):
        p.unlink(missing_ok=True)
    for p in folder.glob(f"{PULSES}*"):
        shutil.rmtree(p, ignore_errors=True)
