"""Feature packs: the layer tokens of many videos as one safetensors file.

A server encodes, ships about 1 KiB a video, and the device encodes nothing. The file holds ::

    tokens   int8    [C, L, M, D]
    scales   float32 [C, L, M]
    records  uint8   [bytes]       JSON: [[id, title or null, content hash], ...]

and in its metadata ``format`` ("linkedout-pack"), ``version`` ("1") and ``token_space``. Nothing in it is executed, and
all of it is checked before anything of it is taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from linkedout_edge.errors import (
    PackError,
    PackNotFoundError,
    StorageError,
    StorageFullError,
    TokenSpaceError,
    VideoNotFoundError,
)
from linkedout_edge.store import Fingerprint

if TYPE_CHECKING:
    from linkedout_edge.store import TokenStore

FORMAT, VERSION = "linkedout-pack", "1"
_MAX_TEXT = 64 * 1024  # characters of an id or title


class _Pack(NamedTuple):
    ids: list[str]
    fingerprints: list[Fingerprint]
    tokens: NDArray[np.int8]  # [C, L, M, D]
    scales: NDArray[np.float32]  # [C, L, M]


def export_pack(store: TokenStore, path: str | os.PathLike[str], ids: Iterable[str] | None = None) -> int:
    """See `TokenStore.export_pack`."""
    from safetensors.numpy import save_file

    target = Path(path)
    selection = store.select(ids)
    if selection.missing:
        raise VideoNotFoundError(
            f"{len(selection.missing)} of the ids are not in the store, the first is {selection.missing[0]!r}: encode "
            "them first, or leave them out"
        )
    known = [store.fingerprint(i) or Fingerprint("") for i in selection.ids]
    with store.lock:
        rows = selection.rows()
        here = rows >= 0
        found = store.gather(rows[here]).copies()
    kept = [(i, f) for i, f, h in zip(selection.ids, known, here, strict=True) if h]
    text = json.dumps([[i, f.title, f.content] for i, f in kept]).encode("ascii")
    arrays = {
        "tokens": np.ascontiguousarray(found.tokens),
        "scales": np.ascontiguousarray(found.scales),
        "records": np.frombuffer(text, np.uint8),
    }
    metadata = {"format": FORMAT, "version": VERSION, "token_space": store.token_space}
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        try:
            save_file(arrays, name, metadata)
            with Path(name).open("rb+") as f:
                os.fsync(f.fileno())
            umask = os.umask(0)
            os.umask(umask)
            Path(name).chmod(0o666 & ~umask)
            Path(name).replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except Exception as e:  # safetensors has its own error for what the system says
        if "space" in str(e).lower():
            raise StorageFullError("there is no room for the pack: free some, or write it elsewhere") from e
        raise StorageError(f"the pack cannot be written: {getattr(e, 'strerror', None) or e}") from e
    return len(kept)


def import_pack(store: TokenStore, path: str | os.PathLike[str], max_bytes: int) -> tuple[str, ...]:
    """See `TokenStore.import_pack`."""
    pack = read_pack(path, token_space=store.token_space, shape=store.shape, max_bytes=max_bytes)
    if len(pack.ids) > store.max_videos:
        raise PackError(f"the pack holds {len(pack.ids)} videos, and the store at most {store.max_videos}")
    store.check_writable()
    with store.batch():
        for i, known_as, tokens, scales in zip(pack.ids, pack.fingerprints, pack.tokens, pack.scales, strict=True):
            store.put(i, tokens, scales, known_as)
    return tuple(pack.ids)


def read_pack(path: str | os.PathLike[str], *, token_space: str, shape: tuple[int, int, int], max_bytes: int) -> _Pack:
    """Read a pack, and check all of it.

    Args:
        path: The file.
        token_space: The one expected.
        shape: L, M and D.
        max_bytes: A larger file is refused unread.

    Raises:
        TokenSpaceError: It was made by another model.
        PackError: Anything else that is wrong with it.
    """
    file = Path(path)
    try:
        if not file.is_file():
            if file.exists():
                raise PackError("it is a directory or device: name a file that export_pack wrote")
            raise PackNotFoundError("there is no such pack: name a file that export_pack wrote")
        size = file.stat().st_size
        if size > max_bytes:
            raise PackError(
                f"the pack has {size} bytes, more than the {max_bytes} allowed: raise max_bytes if you trust it"
            )
        return _read(file, token_space, shape)
    except (OSError, ValueError) as e:
        if isinstance(e, PackError):
            raise
        raise PackError(f"the pack cannot be read: {e}") from e


def _read(file: Path, token_space: str, shape: tuple[int, int, int]) -> _Pack:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as pack:
            meta = pack.metadata() or {}
            if meta.get("format") != FORMAT:
                raise PackError("the file is no feature pack: it must come from export_pack")
            if meta.get("version") != VERSION:
                raise PackError(
                    f"the pack has version {meta.get('version')!r}, and this version of the library reads {VERSION!r}"
                )
            if meta.get("token_space") != token_space:
                raise TokenSpaceError(
                    f"the pack was made in token space {str(meta.get('token_space'))[:12]}…, and this model's is "
                    f"{token_space[:12]}…: make it with the same bundle (any of its precisions)"
                )
            if set(pack.keys()) != {"tokens", "scales", "records"}:
                raise PackError(f"the pack holds {sorted(pack.keys())}: expected tokens, scales and records")
            slices = {name: pack.get_slice(name) for name in ("tokens", "scales", "records")}
            found = {name: (s.get_dtype(), list(s.get_shape())) for name, s in slices.items()}
            count = found["tokens"][1][0] if found["tokens"][1] else 0
            wanted = {
                "tokens": ("I8", [count, *shape]),
                "scales": ("F32", [count, *shape[:2]]),
                "records": ("U8", found["records"][1][:1]),
            }
            for name, (dtype, expected) in wanted.items():
                if found[name] != (dtype, expected):
                    raise PackError(
                        f"{name} in the pack is {found[name][0]} {found[name][1]}: expected {dtype} {expected}"
                    )
            tokens, scales, text = (pack.get_tensor(name) for name in ("tokens", "scales", "records"))
    except SafetensorError as e:
        raise PackError(f"the pack is damaged or no safetensors file: {e}") from e
    if not np.isfinite(scales).all() or (scales < 0).any():
        raise PackError("the pack has scales that are negative or no numbers: make it anew")
    ids, fingerprints = _records(text.tobytes(), count)
    return _Pack(ids, fingerprints, tokens, scales)


def _records(text: bytes, count: int) -> tuple[list[str], list[Fingerprint]]:
    try:
        records: Any = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise PackError("the pack's records are no JSON: make it anew") from e
    if not isinstance(records, list) or len(records) != count:
        raise PackError(f"the pack has tokens of {count} videos, and not as many records: make it anew")
    ids, fingerprints = [], []
    for r in records:
        whole = isinstance(r, list) and len(r) == 3 and isinstance(r[0], str) and isinstance(r[2], str)
        if not whole or not (r[1] is None or isinstance(r[1], str)):
            raise PackError("a record of the pack is not [id, title or null, content hash]: make it anew")
        if not r[0] or max(len(r[0]), len(r[1] or ""), len(r[2])) > _MAX_TEXT:
            raise PackError("a record of the pack has an empty id, or text that is too long: make it anew")
        ids.append(r[0])
        fingerprints.append(Fingerprint(r[2], r[1]))
    if len(set(ids)) != count:
        raise PackError("an id occurs twice in the pack: make it anew")
    return ids, fingerprints
