"""Files that carry layer tokens to other devices and languages: safetensors with a fixed set of arrays.

Feature packs and saved histories are such files; docs/formats.md describes them. Every one holds ::

    tokens   int8    [V, L, M, D]
    scales   float32 [V, L, M]
    records  uint8   [bytes]       JSON: [[id, title or null, content hash], ...], V of them

and in its metadata ``format``, ``version`` ("1") and ``token_space``. Nothing in it is executed, and all of it is
checked before anything of it is used.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.errors import PackError, PackNotFoundError, StorageError, StorageFullError, TokenSpaceError
from linkedout_edge.store.fingerprint import Fingerprint
from linkedout_edge.store.tokens import Tokens

VERSION = "1"
_MAX_TEXT = 64 * 1024  # characters of an id or title


class Videos(NamedTuple):
    """What such a file says of V videos.

    Attributes:
        ids: All different.
        fingerprints: Title and content of each.
        tokens: int8 ``[V, L, M, D]``.
        scales: float32 ``[V, L, M]``, finite and not negative.
    """

    ids: list[str]
    fingerprints: list[Fingerprint]
    tokens: NDArray[np.int8]
    scales: NDArray[np.float32]


class Kind(NamedTuple):
    """What kind of file it is.

    Attributes:
        format: As in its metadata.
        name: What messages call it, such as "the pack".
        origin: Where a good one comes from, such as "a file that export_pack wrote".
        more: Further arrays: name → (safetensors dtype, columns); each has two dimensions.
    """

    format: str
    name: str
    origin: str
    more: Mapping[str, tuple[str, int]] = {}


def read_videos(store: Tokens, ids: Iterable[str]) -> Videos:
    """What a file holds of these ids, without those that left the store meanwhile."""
    known = {i: store.fingerprint(i) or Fingerprint("") for i in ids}
    with store.lock:
        here = [i for i in known if i in store]
        return Videos(here, [known[i] for i in here], *store.read(here))


def write(
    path: str | os.PathLike[str],
    kind: Kind,
    token_space: str,
    videos: Videos,
    more: Mapping[str, NDArray[Any]] | None = None,
    mode: int = 0o666,
) -> None:
    """Write a file as a whole, or not at all.

    Args:
        path: The file.
        kind: Which file it is to be.
        token_space: The model's.
        videos: Tokens and records.
        more: Further arrays.
        mode: Who may read and write it, before the umask.

    Raises:
        StorageFullError: There is no room.
        StorageError: It cannot be written for another reason.
    """
    from safetensors.numpy import save_file

    target = Path(path)
    records = [[i, f.title, f.content] for i, f in zip(videos.ids, videos.fingerprints, strict=True)]
    arrays = {
        "tokens": np.ascontiguousarray(videos.tokens),
        "scales": np.ascontiguousarray(videos.scales),
        "records": np.frombuffer(json.dumps(records).encode("ascii"), np.uint8),
        **(more or {}),
    }
    metadata = {"format": kind.format, "version": VERSION, "token_space": token_space}
    try:
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        temporary.touch(mode, exist_ok=False)
        try:
            allowed = temporary.stat().st_mode  # what the umask left of `mode`; the library saves with its own
            save_file(arrays, temporary, metadata)
            with temporary.open("rb+") as f:
                _order_header(f)
                os.fsync(f.fileno())
            temporary.chmod(allowed)
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except Exception as e:  # safetensors has its own error for what the system says
        if "space" in str(e).lower():
            raise StorageFullError(f"there is no room for {kind.name}: free some, or write it elsewhere") from e
        raise StorageError(f"{kind.name} cannot be written: {getattr(e, 'strerror', None) or e}") from e


def _order_header(file: BinaryIO) -> None:
    """Put the metadata in order of its keys: the library writes it in any, and equal contents shall be equal files."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    if len(text) == length:
        file.seek(8)
        file.write(text)
        file.flush()


def read(
    path: str | os.PathLike[str], kind: Kind, *, token_space: str, shape: tuple[int, int, int], max_bytes: int
) -> tuple[Videos, dict[str, NDArray[Any]]]:
    """Read a file, and check all of it.

    Args:
        path: The file.
        kind: Which file is expected.
        token_space: The one expected.
        shape: L, M and D.
        max_bytes: A larger file is refused unread.

    Returns:
        The videos, and the further arrays by name.

    Raises:
        TokenSpaceError: It was made by another model.
        PackError: Anything else that is wrong with it.
    """
    file = Path(path)
    try:
        if not file.is_file():
            if file.exists():
                raise PackError(f"it is a directory or device: name {kind.origin}")
            raise PackNotFoundError(f"there is no such file: name {kind.origin}")
        size = file.stat().st_size
        if size > max_bytes:
            raise PackError(
                f"{kind.name} has {size} bytes, more than the {max_bytes} allowed: raise max_bytes if you trust it"
            )
        return _read(file, kind, token_space, shape)
    except (OSError, ValueError) as e:
        if isinstance(e, PackError):
            raise
        raise PackError(f"{kind.name} cannot be read: {e}") from e


def _read(
    file: Path, kind: Kind, token_space: str, shape: tuple[int, int, int]
) -> tuple[Videos, dict[str, NDArray[Any]]]:
    from safetensors import SafetensorError, safe_open

    name, names = kind.name, ["tokens", "scales", "records", *kind.more]
    try:
        with safe_open(file, framework="numpy") as f:
            meta = f.metadata() or {}
            if meta.get("format") != kind.format:
                raise PackError(f"this is another kind of file than {name}: name {kind.origin}")
            if meta.get("version") != VERSION:
                raise PackError(
                    f"{name} has version {meta.get('version')!r}, and this version of the library reads {VERSION!r}"
                )
            if meta.get("token_space") != token_space:
                raise TokenSpaceError(
                    f"{name} was made in token space {str(meta.get('token_space'))[:12]}…, and this model's is "
                    f"{token_space[:12]}…: make it with the same bundle (any of its precisions)"
                )
            if set(f.keys()) != set(names):
                raise PackError(f"{name} holds {sorted(f.keys())}: expected {', '.join(names)}")
            slices = {n: f.get_slice(n) for n in names}
            found = {n: (s.get_dtype(), list(s.get_shape())) for n, s in slices.items()}
            count = found["tokens"][1][0] if found["tokens"][1] else 0
            wanted = {
                "tokens": ("I8", [count, *shape]),
                "scales": ("F32", [count, *shape[:2]]),
                "records": ("U8", found["records"][1][:1]),
                **{n: (dtype, [*found[n][1][:1], columns]) for n, (dtype, columns) in kind.more.items()},
            }
            for n, (dtype, expected) in wanted.items():
                if found[n] != (dtype, expected):
                    raise PackError(f"{n} in {name} is {found[n][0]} {found[n][1]}: expected {dtype} {expected}")
            arrays = {n: f.get_tensor(n) for n in names}
    except SafetensorError as e:
        raise PackError(f"{name} is damaged or no safetensors file ({e}): name {kind.origin}") from e
    tokens, scales, text = (arrays.pop(n) for n in ("tokens", "scales", "records"))
    if not np.isfinite(scales).all() or (scales < 0).any():
        raise PackError(f"{name} has scales that are negative or no numbers: make it again")
    return Videos(*_records(text.tobytes(), count, name), tokens, scales), arrays


def _records(text: bytes, count: int, name: str) -> tuple[list[str], list[Fingerprint]]:
    try:
        records: Any = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise PackError(f"the records of {name} are no JSON: make it again") from e
    if not isinstance(records, list) or len(records) != count:
        raise PackError(f"{name} has tokens of {count} videos, and not as many records: make it again")
    ids, fingerprints = [], []
    for r in records:
        whole = isinstance(r, list) and len(r) == 3 and isinstance(r[0], str) and isinstance(r[2], str)
        if not whole or not (r[1] is None or isinstance(r[1], str)):
            raise PackError(f"a record of {name} is not [id, title or null, content hash]: make it again")
        if not r[0] or max(len(r[0]), len(r[1] or ""), len(r[2])) > _MAX_TEXT:
            raise PackError(f"a record of {name} has an empty id, or text that is too long: make it again")
        ids.append(r[0])
        fingerprints.append(Fingerprint(r[2], r[1]))
    if len(set(ids)) != count:
        raise PackError(f"an id occurs twice in {name}: make it again")
    return ids, fingerprints
