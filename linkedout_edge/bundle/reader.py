"""Find a bundle, open it as a folder or .zip, and return only files that match the manifest.

The graph is handed out as bytes: a zip needs no extraction, and what was checked is what is run.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import stat
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from linkedout_edge import install
from linkedout_edge.bundle.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    PRECISIONS,
    FileEntry,
    Manifest,
    check_path,
    parse_manifest,
)
from linkedout_edge.errors import (
    ArgumentError,
    ArgumentTypeError,
    BundleCorruptError,
    BundleNotFoundError,
    unknown,
)

if TYPE_CHECKING:
    from importlib.abc import Traversable

MAX_FILE_BYTES = (1 << 31) - 1
"""A graph is one protobuf message, and those end here."""
MAX_INFLATION = 200
"""Weights hardly compress; a zip entry that grows more than this, and beyond 16 MiB, is a bomb."""

_AGAIN = "Copy or export the bundle again."


class _Source(Protocol):
    """Where files come from; both kinds refuse to hand out more than `limit` bytes."""

    def read(self, path: str, limit: int) -> bytes:
        """Contents of one file."""

    def close(self) -> None:
        """Let the file go."""


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def read(self, path: str, limit: int) -> bytes:
        file = self._root.joinpath(*path.split("/"))
        try:
            real = file.resolve(strict=True)
            if not real.is_relative_to(self._root):
                raise BundleCorruptError(
                    f"{path} is a link that leaves the bundle's folder: replace it by the file itself"
                )
            info = real.stat()
            if not stat.S_ISREG(info.st_mode):  # a fifo would block
                raise BundleCorruptError(f"{path} in the bundle is not a regular file. {_AGAIN}")
            if info.st_size > limit:
                raise BundleCorruptError(
                    f"{path} has {info.st_size:,} bytes: at most {limit:,} were expected. {_AGAIN}"
                )
            with real.open("rb") as f:
                return f.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError) as e:
            where = f", so {self._root} is no bundle, or only a part of one" if path == MANIFEST else " from the bundle"
            raise BundleCorruptError(f"{path} is missing{where}. {_AGAIN}") from e
        except (OSError, RuntimeError) as e:  # RuntimeError: a loop of links, before Python 3.13
            raise BundleCorruptError(f"{path} in the bundle cannot be read: {e}") from e

    def close(self) -> None:
        pass


class _Zip:
    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as e:
            raise BundleCorruptError(f"{path} is neither a folder nor a readable .zip: {e}. {_AGAIN}") from e
        self._entries: dict[str, list[zipfile.ZipInfo]] = {}
        for info in self._zip.infolist():
            self._entries.setdefault(info.filename, []).append(info)

    def read(self, path: str, limit: int) -> bytes:
        found = self._entries.get(path, [])
        if not found:
            nested = next((n for n in self._entries if n.endswith("/" + path)), None) if path == MANIFEST else None
            hint = f" It has {nested}: zip the folder's contents, not the folder." if nested else f" {_AGAIN}"
            raise BundleCorruptError(f"{path} is missing from the bundle.{hint}")
        if len(found) > 1:
            raise BundleCorruptError(f"{path} is in the .zip {len(found)} times. {_AGAIN}")
        info = found[0]
        if info.file_size > limit:
            raise BundleCorruptError(f"{path} has {info.file_size:,} bytes: at most {limit:,} were expected. {_AGAIN}")
        if info.file_size > 1 << 24 and info.file_size > MAX_INFLATION * max(1, info.compress_size):
            raise BundleCorruptError(
                f"{path} would inflate {info.compress_size:,} bytes to {info.file_size:,}: refused"
            )
        try:
            with self._zip.open(info) as f:
                return f.read(limit + 1)
        except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, NotImplementedError, EOFError) as e:
            raise BundleCorruptError(f"{path} cannot be read from the .zip: {e}. {_AGAIN}") from e
        except Exception as e:  # zlib.error, lzma.LZMAError: each compressor has its own
            raise BundleCorruptError(f"{path} cannot be unpacked: {e}. {_AGAIN}") from e

    def close(self) -> None:
        self._zip.close()


class _Archived:
    """The embedded bundle where the package itself lies in an archive, such as a zipapp."""

    def __init__(self, root: Traversable) -> None:
        self._root = root

    def read(self, path: str, limit: int) -> bytes:
        try:
            with self._root.joinpath(*path.split("/")).open("rb") as f:
                data: bytes = f.read(limit + 1)
        except (OSError, KeyError, zipfile.BadZipFile) as e:
            raise BundleCorruptError(f"{path} cannot be read from the archive that holds the package: {e}") from e
        if len(data) > limit:
            raise BundleCorruptError(f"{path} in the package's archive has more than {limit:,} bytes")
        return data

    def close(self) -> None:
        pass


class Bundle:
    """An open bundle and the chosen precision. Close it when the graph has been loaded.

    Attributes:
        manifest: The checked manifest.
        precision: Name of the chosen precision.
        path: The folder or .zip.
        embedded: Whether it is the one inside the package.
    """

    def __init__(self, source: _Source, manifest: Manifest, precision: str, path: Path, *, embedded: bool) -> None:
        self._source = source
        self.manifest = manifest
        self.precision = precision
        self.path = path
        self.embedded = embedded

    def encoder(self) -> bytes:
        """The encoder graph in the chosen precision, as ONNX bytes, or of OpenVINO IR the .xml.

        Raises:
            BundleCorruptError: The file is missing, or size or SHA-256 are not the manifest's.
        """
        return self.read(self.manifest.files(self.precision)["encoder"])

    def weights(self) -> bytes:
        """The weights of OpenVINO IR; empty for ONNX, which holds its own. Raises as `encoder` does."""
        entry = self.manifest.files(self.precision).get("weights")
        return b"" if entry is None else self.read(entry)

    @property
    def backend(self) -> str:
        """The backend that reads the graph, of two the smaller one."""
        return "openvino" if self.manifest.precisions[self.precision].is_ir else "onnxruntime"

    def tokenizer(self) -> bytes:
        """The tokenizer's JSON. Raises as `encoder` does."""
        return self.read(self.manifest.tokenizer)

    def read(self, entry: FileEntry) -> bytes:
        """A listed file, checked."""
        check_path(entry.path)
        if entry.bytes > MAX_FILE_BYTES:
            raise BundleCorruptError(
                f"{entry.path} is listed with {entry.bytes:,} bytes: at most {MAX_FILE_BYTES:,} are read"
            )
        data = self._source.read(entry.path, entry.bytes)
        if len(data) != entry.bytes:
            raise BundleCorruptError(
                f"{entry.path} has {len(data):,} bytes, the manifest says {entry.bytes:,}. {_AGAIN}"
            )
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BundleCorruptError(f"{entry.path} was changed: its SHA-256 is not the manifest's. {_AGAIN}")
        return data

    def close(self) -> None:
        """Let the files go; twice is fine."""
        self._source.close()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def embedded_folder() -> Traversable:
    """Where the bundle inside the package lies, or would lie: a `Path`, unless the package is inside an archive."""
    return importlib.resources.files("linkedout_edge") / "bundles" / "base"


def _embedded_source() -> _Source:
    root = embedded_folder()
    return _Folder(root) if isinstance(root, Path) else _Archived(root)


def embedded_precisions() -> list[str]:
    """Precisions of the embedded bundle; empty if the installation has none."""
    try:
        return list(_manifest(_embedded_source()).precisions)
    except BundleCorruptError:
        return []


def open_bundle(bundle: str | os.PathLike[str] = "int8", precision: str | None = None) -> Bundle:
    """Open a bundle.

    Args:
        bundle: A precision of the embedded bundle, else an existing folder or .zip.
        precision: Which of the folder's or .zip's precisions; its first, if left out.

    Raises:
        ArgumentError: The precision does not exist, or the two arguments contradict each other.
        ArgumentTypeError: `bundle` or `precision` is no text.
        BundleNotFoundError: There is nothing under that name or path.
        BundleCorruptError, BundleVersionError: It cannot be used.
    """
    if not isinstance(bundle, str | os.PathLike):
        raise ArgumentTypeError(f"bundle must be a str or path, not {type(bundle).__name__}")
    if precision is not None and not isinstance(precision, str):
        raise ArgumentTypeError(f"precision must be a str such as 'int8', not {type(precision).__name__}")
    if isinstance(bundle, str) and bundle in PRECISIONS:
        return _open_embedded(bundle, precision)
    path = Path(bundle)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError):  # a name that no file can have
        is_folder = exists = False
    if not exists or str(bundle) == "":
        raise BundleNotFoundError(_not_found(str(bundle)))
    source: _Source = _Folder(path) if is_folder else _Zip(path)
    try:
        manifest = _manifest(source)
        if precision is not None and precision not in manifest.precisions:
            raise ArgumentError(unknown(f"precision of {path}:", precision, manifest.precisions))
        chosen = precision or next(iter(manifest.precisions))
        return Bundle(source, manifest, chosen, path, embedded=False)
    except BaseException:
        source.close()
        raise


def _open_embedded(name: str, precision: str | None) -> Bundle:
    if precision not in (None, name):
        raise ArgumentError(
            f"load({name!r}, precision={precision!r}) contradicts itself: {name!r} is already a precision of the "
            f"built-in bundle. Use load({precision!r}), or load(folder, precision={precision!r})"
        )
    folder = embedded_folder()
    if not (folder / MANIFEST).is_file():
        raise BundleNotFoundError(
            _incomplete()
            or f"this installation has no built-in bundle: pass a bundle's folder or .zip, or {install.again()}"
        )
    source = _embedded_source()
    manifest = _manifest(source)
    if name not in manifest.precisions:
        raise ArgumentError(unknown("precision of the built-in bundle", name, manifest.precisions))
    return Bundle(source, manifest, name, Path(str(folder)), embedded=True)


def _incomplete() -> str:
    """What an app that carries the package without its bundle has to change; "" if it is not such an app."""
    other = "or pass load() a bundle's folder or .zip (docs/processes.md)"
    if getattr(sys, "frozen", False):
        return (
            "this app was frozen without the built-in bundle: add the option --collect-data linkedout_edge to "
            f"PyInstaller, or the folder linkedout_edge/bundles to another freezer's data files, {other}"
        )
    if not isinstance(embedded_folder(), Path):
        return (
            "the package is inside an archive that lacks its built-in bundle: put the whole folder linkedout_edge "
            f"into it, bundles included, {other}"
        )
    return ""


def _manifest(source: _Source) -> Manifest:
    return parse_manifest(source.read(MANIFEST, MAX_MANIFEST_BYTES))


def _not_found(value: str) -> str:
    embedded = embedded_precisions()
    names = unknown("bundle", value, embedded) if embedded else f"unknown bundle {value!r}."
    hint = " The built-in bundle is called by its precision." if value == "base" else ""
    return f"{names}{hint} Or pass an existing folder or .zip: there is none at {value!r}"
