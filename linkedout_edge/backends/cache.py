"""The contents of `cache_dir`: compiled engines, and which device was the fastest.

::

    engines/<library>-<device>-<model>/key.json     and beside it what the library wrote
    choices/<key>.json

An engine fits one model on one device with one version of library and driver. All of that is its key; an engine under
another key is removed and built again, which is said. Nothing here is needed: what is damaged, foreign or cannot be
written costs time and is never an error.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from linkedout_edge.backends.notices import Notices

MAX_ENGINES = 12
"""Folders; of more, those that were not used for longest go: each new model would leave one behind."""
MAX_ENTRY_BYTES = 1 << 16

Key = Mapping[str, str]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which device runs the encoder best.

    Attributes:
        device: The fastest.
        milliseconds: Median of each device that was tried.
        key: What it was measured with.
    """

    device: str
    milliseconds: dict[str, float]
    key: dict[str, str]


def digest(*data: bytes) -> str:
    """Sixteen hex digits that stand for some bytes."""
    whole = hashlib.sha256()
    for part in data:
        whole.update(part)
    return whole.hexdigest()[:16]


class EngineCache:
    """See the module.

    Args:
        folder: `cache_dir`; None keeps nothing.
        notices: Where to say what was ignored and built again.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, notices: Notices) -> None:
        self._root = None if folder is None else Path(os.fsdecode(folder))
        self._notices = notices

    @property
    def keeps(self) -> bool:
        """Whether there is a folder at all."""
        return self._root is not None

    def engines(self, name: str, key: Key) -> Path | None:
        """The folder in which a library may keep what it compiles under a key; None where nothing can be kept.

        Args:
            name: Library, device and model, such as ``openvino-gpu-0123456789abcdef``.
            key: Versions and names of all that the compiled engine depends on.
        """
        if self._root is None:
            return None
        folder = self._root / "engines" / name
        what = _what(name)
        try:
            if folder.exists():
                reason = _changed(folder / "key.json", key)
                if not reason:
                    _touch(folder)
                    return folder
                self._notices.say(f"engines for {what} are built again: {reason}", logging.WARNING)
                if folder.is_dir() and not folder.is_symlink():
                    shutil.rmtree(folder)
                else:
                    folder.unlink()
            folder.mkdir(parents=True)
            _write(folder / "key.json", msgspec.json.encode(dict(key), order="sorted"))
            self._prune(folder.parent)
        except OSError as e:
            self._cannot_write(e)
            return None
        return folder

    def discard(self, name: str, folder: Path) -> bool:
        """Empty an engine's folder because a library could not use what lies there.

        Returns:
            Whether there was anything: otherwise it was not the cache's fault.
        """
        kept = [p for p in folder.iterdir() if p.name != "key.json"] if folder.is_dir() else []
        if not kept:
            return False
        self._notices.say(f"an engine for {_what(name)} is damaged: it is built again", logging.WARNING)
        shutil.rmtree(folder, ignore_errors=True)
        return True

    def recall(self, key: Key) -> Choice | None:
        """What was chosen under exactly this key, or None."""
        if self._root is None:
            return None
        try:
            data = _read(self._choice(key))
        except FileNotFoundError:
            return None
        except OSError as e:
            self._notices.say(f"what was measured cannot be read ({_plain(e)}): measuring again")
            return None
        try:
            choice = msgspec.json.decode(data, type=Choice)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            self._notices.say("what was measured is damaged: measuring again", logging.WARNING)
            return None
        return choice if choice.key == dict(key) else None

    def remember(self, choice: Choice) -> None:
        """Keep a choice, if there is a folder for it."""
        if self._root is None:
            return
        try:
            _write(self._choice(choice.key), msgspec.json.encode(choice))
        except OSError as e:
            self._cannot_write(e)

    def _choice(self, key: Key) -> Path:
        assert self._root is not None
        name = digest(msgspec.json.encode(dict(key), order="sorted"))
        return self._root / "choices" / f"{name}.json"

    def _cannot_write(self, error: OSError) -> None:
        self._notices.say(
            f"cache_dir cannot be written ({_plain(error)}): each start compiles and measures again. "
            "Name a folder that this process may write.",
            logging.WARNING,
        )

    def _prune(self, parent: Path) -> None:
        folders = sorted((p for p in parent.iterdir() if (p / "key.json").is_file()), key=lambda p: p.stat().st_mtime)
        for old in folders[:-MAX_ENGINES]:
            shutil.rmtree(old, ignore_errors=True)


def _what(name: str) -> str:
    """An engine's name without the model's digest."""
    return name.rpartition("-")[0]


def _changed(path: Path, key: Key) -> str:
    """Why an engine's folder does not fit a key; "" where it does."""
    try:
        found = msgspec.json.decode(_read(path), type=dict[str, str])
    except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return "what lies there is damaged or not ours"
    differ = [n for n in sorted({*found, *key}) if found.get(n) != key.get(n)]
    return ", ".join(f"{n} was {found.get(n, 'absent')!r}, is {key.get(n, 'absent')!r}" for n in differ)


def _read(path: Path) -> bytes:
    with path.open("rb") as f:
        return f.read(MAX_ENTRY_BYTES)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, also beside another process that writes the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(path)


def _touch(folder: Path) -> None:
    try:
        os.utime(folder)
    except OSError:  # read-only: its engines serve all the same
        return


def _plain(error: OSError) -> str:
    """The reason without the path."""
    return error.strerror or type(error).__name__
