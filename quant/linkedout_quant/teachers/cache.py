"""A teacher's features on disk: what was looked at once is not looked at again, after a crash or for a second student.

Layout: ``folder/<first 16 digits of the fingerprint>/`` with ``teacher.json`` (name, fingerprint, layer names) and
shards of `SHARD_CLIPS` clips or somewhat more. A shard is one safetensors file, named by the hash of its bytes, that
holds the features of its clips stacked; their keys are in its header. It is written under another name and then
renamed, so that it is there whole or not at all, and writers in several processes do not meet. Its hash is checked when
it is first read.

Values are stored in float16 if all of a shard fit (a hidden state can exceed 65504), else in float32.
`extract_features` returns the stored values, also when they were just computed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from linkedout_edge import Video
from linkedout_edge.errors import ArgumentError
from linkedout_quant.teachers.base import Teacher, TeacherError, TeacherFeatures

SHARD_CLIPS = 64
SHARD_SECONDS = 30.0
"""New features are written when there are SHARD_CLIPS of them or SHARD_SECONDS have passed: what a crash may cost."""
ABOUT = "teacher.json"
Row = tuple[np.ndarray, ...]
"""Features of one clip: each layer, pooled, language."""


class CachedTeacher:
    """A teacher that remembers.

    Args:
        teacher: The teacher that is asked about unknown clips.
        folder: Where features are kept; made if needed. Several teachers can share one.

    Use it as a context manager, or call `close`, so that the last features are written.

    Raises:
        TeacherError: The folder holds something else under this teacher's name.
    """

    def __init__(self, teacher: Teacher, folder: str | Path) -> None:
        self._teacher = teacher
        self.name, self.fingerprint, self.layer_names = teacher.name, teacher.fingerprint, tuple(teacher.layer_names)
        self.folder = Path(folder) / self.fingerprint[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._introduce()
        self._shards: dict[str, _Shard] = {}
        self._fresh: dict[str, Row] = {}
        self._written = time.monotonic()
        for leftover in self.folder.glob("*.part"):
            if time.time() - leftover.stat().st_mtime > 3600:  # of a crash, not of a writer beside us
                leftover.unlink(missing_ok=True)
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                shard = _Shard.open(path)
            except (OSError, ValueError, KeyError) as e:
                _set_aside(path, str(e))
                continue
            self._shards.update((key, shard) for key in shard.rows)

    @classmethod
    def stored(cls, folder: str | Path) -> CachedTeacher:
        """What lies in a folder, without the model: only clips that are in it can be looked at.

        Args:
            folder: One given to `CachedTeacher` before, holding a single teacher's features.

        Raises:
            TeacherError: It holds none, or several teachers'.
        """
        found = sorted(Path(folder).glob(f"*/{ABOUT}"))
        if len(found) != 1:
            names = ", ".join(_read_about(p)["name"] for p in found) or "none"
            raise TeacherError(f"{folder}: expected the features of one teacher, found {names}")
        return cls(_OnlyStored(**_read_about(found[0])), folder)

    def extract_features(
        self,
        clips: Sequence[np.ndarray],
        titles: Sequence[str | None] | None = None,
        *,
        keys: Sequence[str] | None = None,
    ) -> TeacherFeatures:
        """As the teacher's `extract_features`, from disk where the clip is known.

        Args:
            clips: uint8 [F, H, W, 3] RGB each.
            titles: One a clip, None where there is none.
            keys: Names that identify the clips' contents, one each, such as file and crop; they spare hashing the
                frames. A title always counts beside the key.

        Raises:
            TeacherError: The teacher cannot take the clips.
            ArgumentError: The lists differ in length, or there are no clips.
        """
        if titles is None:
            titles = [None] * len(clips)
        if keys is None:
            keys = [Video(frames=c).content for c in clips]
        if not len(clips) or not len(clips) == len(titles) == len(keys):
            raise ArgumentError(
                f"{len(clips)} clips, {len(titles)} titles, {len(keys)} keys: expected as many of each, at least one"
            )
        names = [_key(k, t) for k, t in zip(keys, titles, strict=True)]
        known = {n: row for n in dict.fromkeys(names) if (row := self._recall(n)) is not None}
        unknown = {n: i for i, n in enumerate(names) if n not in known}  # a clip that comes twice is looked at once
        if unknown:
            new = list(unknown.values())
            seen = self._teacher.extract_features([clips[i] for i in new], [titles[i] for i in new])
            columns = _compact([*seen.layers, seen.pooled, seen.language])
            fresh = {n: tuple(c[i] for c in columns) for i, n in enumerate(unknown)}
            known.update(fresh)
            self._fresh.update(fresh)
            if len(self._fresh) >= SHARD_CLIPS or time.monotonic() - self._written > SHARD_SECONDS:
                self.flush()
        table = [np.stack(c).astype(np.float32) for c in zip(*(known[n] for n in names), strict=True)]
        return TeacherFeatures(layers=tuple(table[:-2]), pooled=table[-2], language=table[-1])

    def __contains__(self, key: str) -> bool:
        """Whether features are kept under a caller's key, without a title."""
        name = _key(key, None)
        return name in self._fresh or name in self._shards

    def __len__(self) -> int:
        """Clips whose features are kept."""
        return len(self._fresh.keys() | self._shards.keys())

    @property
    def nbytes(self) -> int:
        """Bytes on disk; `flush` first to count the newest."""
        return sum(p.stat().st_size for p in self.folder.glob("*.safetensors"))

    def flush(self) -> None:
        """Write what is not yet on disk; when this has returned, it survives a crash."""
        from safetensors.numpy import save

        self._written = time.monotonic()
        # A shard is stacked: rows of other dtypes (one pass did not fit float16) go into a shard of their own.
        for dtype in sorted({row[0].dtype.str for row in self._fresh.values()}):
            some = {k: row for k, row in self._fresh.items() if row[0].dtype.str == dtype}
            stacked = {f"{i:04d}": np.stack(c) for i, c in enumerate(zip(*some.values(), strict=True))}
            data = save(stacked, metadata={"keys": json.dumps(list(some))})
            path = self.folder / f"{hashlib.sha256(data).hexdigest()}.safetensors"
            _write_whole(path, data)
            shard = _Shard(path, {k: i for i, k in enumerate(some)}, checked=True)
            self._shards.update((key, shard) for key in some)
        self._fresh = {}

    def close(self) -> None:
        """Write what is left. The teacher itself stays usable."""
        self.flush()

    def __enter__(self) -> CachedTeacher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _recall(self, name: str) -> Row | None:
        if name in self._fresh:
            return self._fresh[name]
        shard = self._shards.get(name)
        if shard is None:
            return None
        try:
            return shard.read(name)
        except (OSError, ValueError) as e:
            _set_aside(shard.path, str(e))
            self._shards = {k: s for k, s in self._shards.items() if s is not shard}
            return None

    def _introduce(self) -> None:
        about = {"name": self.name, "fingerprint": self.fingerprint, "layer_names": list(self.layer_names)}
        path = self.folder / ABOUT
        if path.exists():
            if (there := _read_about(path)["fingerprint"]) != self.fingerprint:
                raise TeacherError(f"{path} belongs to another teacher ({there}): use another folder")
            return
        _write_whole(path, json.dumps(about, indent=1).encode())


@dataclass
class _OnlyStored:
    """Stands in for a teacher whose model is not there."""

    name: str
    fingerprint: str
    layer_names: tuple[str, ...]

    def extract_features(
        self, clips: Sequence[np.ndarray], titles: Sequence[str | None] | None = None
    ) -> TeacherFeatures:
        raise TeacherError(
            f"{len(clips)} clips have no stored features of {self.name}: look at them with the model "
            "(CachedTeacher(load_teacher(...), folder)), or leave them out"
        )


@dataclass
class _Shard:
    path: Path
    rows: dict[str, int]
    checked: bool = False

    @classmethod
    def open(cls, path: Path) -> _Shard:
        """Read the header alone."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as f:
                keys = json.loads((f.metadata() or {})["keys"])
        except SafetensorError as e:
            raise ValueError(str(e)) from e
        return cls(path, {k: i for i, k in enumerate(keys)})

    def read(self, key: str) -> Row:
        from safetensors import SafetensorError, safe_open

        if not self.checked:
            if hashlib.sha256(self.path.read_bytes()).hexdigest() != self.path.stem:
                raise ValueError("its bytes have changed since it was written")
            self.checked = True
        row = self.rows[key]
        try:
            with safe_open(self.path, "numpy") as f:
                return tuple(f.get_slice(name)[row] for name in sorted(f.keys()))
        except SafetensorError as e:
            raise ValueError(str(e)) from e


def _key(key: str, title: str | None) -> str:
    # A length in front, so that no key can imitate one with a title.
    return hashlib.blake2b(f"{len(key)} {key} {title or ''}".encode(), digest_size=16).hexdigest()


def _compact(columns: list[np.ndarray]) -> list[np.ndarray]:
    """The columns in float16 if all values fit, else in float32."""
    fit = all(np.abs(c).max(initial=0) <= np.finfo(np.float16).max for c in columns)
    return [c.astype(np.float16 if fit else np.float32) for c in columns]


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)  # the new name is durable only when the folder is
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _set_aside(path: Path, why: str) -> None:
    """Rename a damaged shard, so that it is looked at again and nothing is lost without a trace."""
    path.rename(path.with_suffix(".damaged"))
    warnings.warn(f"{path} was damaged ({why}): set aside as .damaged, its clips are looked at again", stacklevel=3)


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_bytes())
        return {k: about[k] for k in ("name", "fingerprint", "layer_names")}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise TeacherError(f"{path} cannot be read ({e}): remove its folder, features are computed again") from e
