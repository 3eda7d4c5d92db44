"""One worker and one shard: read its pack, encode the missing videos, write the whole pack."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linkedout_edge import Recommender, Video
from linkedout_edge.encode.encoder import DecoderLike
from linkedout_edge.errors import LinkedOutError, PackError, StorageError, TokenSpaceError, VideoError
from linkedout_edge.scale import remote
from linkedout_edge.scale.shards import pack_name

DEATHS = 2
"""Workers that may die of one video before it counts as failed."""


@dataclass
class Task:
    """One shard of a run.

    Attributes:
        shard: Its number, from 0.
        shards: How many the folder has.
        ids: The videos that belong to it, sorted: absolute paths and URLs.
    """

    shard: int
    shards: int
    ids: list[str]


@dataclass
class Done:
    """What became of a shard.

    Attributes:
        shard: Its number.
        encoded: How many videos were encoded.
        unchanged: How many its pack held already, with the content that they have now.
        failed: ``[id, code, reason]`` of each of the others.
        damaged: Its former pack could not be read and was set aside.
    """

    shard: int
    encoded: int = 0
    unchanged: int = 0
    failed: list[list[str]] = field(default_factory=list)
    damaged: bool = False


class Worker:
    """Loads a recommender once, with one thread and a store in memory, and does one shard after another.

    Args:
        folder: The folder of packs, which every worker must see.
        model: Keywords of `Recommender.load`.
        decoder: As of `Recommender.load`.
        video_done: Called after each video.

    Raises:
        LinkedOutError: As `Recommender.load` does.
    """

    def __init__(
        self,
        folder: str,
        model: dict[str, Any],
        decoder: str | DecoderLike,
        video_done: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = Path(folder)
        self._video_done = video_done
        self._rec = Recommender.load(**{**model, "threads": 1}, decoder=decoder)

    def close(self) -> None:
        """Release the model."""
        self._rec.close()

    def run(self, task: Task) -> Done:
        """Do one shard.

        Raises:
            TokenSpaceError: Its pack is of another model.
            StorageError: The folder is not there, or cannot be written.
        """
        if not self._folder.is_dir():
            raise StorageError(
                f"{platform.node()} sees no folder {self._folder}: put "
                "the packs where every machine of the cluster sees them under the same path"
            )
        store = self._rec.store
        pack = self._folder / pack_name(task.shard, task.shards)
        done = Done(task.shard)
        begun = _Begun(pack)
        try:
            if pack.exists():
                self._import_existing(pack, done)
            for i in task.ids:
                if begun.deaths(i) >= DEATHS:
                    done.failed.append([i, "worker_died", f"{DEATHS} workers died while they looked at it"])
                else:
                    with begun.looking_at(i):
                        self._encode(i, done)
                self._video_done()
            if done.encoded:
                store.export_pack(pack, sorted(store))
            begun.close()
        finally:
            store.remove(list(store))
        return done

    def _import_existing(self, pack: Path, done: Done) -> None:
        try:
            self._rec.store.import_pack(pack)
        except TokenSpaceError as e:
            raise TokenSpaceError(f"{pack.name}: {e}; or encode into another folder") from e
        except PackError:
            pack.replace(pack.with_name(f"{pack.name}.damaged"))
            done.damaged = True

    def _encode(self, id: str, done: Done) -> None:
        try:
            if not remote.is_remote(id):
                result = self._rec.encode([Video(id)])
            else:
                known = self._rec._tokens.fingerprint(id)
                if known is not None and known.content == remote.content(id):
                    done.unchanged += 1
                    return
                with remote.fetched(id) as path:
                    result = self._rec.encode([Video(path, id=id)])
        except VideoError as e:
            done.failed.append([id, e.code, str(e)])
        except LinkedOutError:  # not of this video: the model, the call
            raise
        except Exception as e:  # such as a TypeError in an app's decoder: one of 10⁸ must not end the run
            done.failed.append([id, "internal", f"{type(e).__name__}: {e}"])
        else:
            done.encoded += len(result.encoded)
            done.unchanged += len(result.unchanged)
            done.failed += [[f.id, f.code, f.reason] for f in result.failed]


class _Begun:
    """Which videos of a shard were begun and not ended, and how often, in a file beside its pack.

    A worker that dies takes with it what it knows. Its successor finds here what it died of.
    """

    def __init__(self, pack: Path) -> None:
        self._file = pack.with_name(f".begun-{pack.stem}.json")
        self._counts: dict[str, int] = {}
        try:
            found = json.loads(self._file.read_text("ascii"))
            self._counts = {i: n for i, n in found.items() if isinstance(n, int)}
        except (OSError, ValueError, AttributeError):  # none, or half written: nothing is known
            pass

    def deaths(self, id: str) -> int:
        return self._counts.get(id, 0)

    @contextmanager
    def looking_at(self, id: str) -> Iterator[None]:
        """Note that a video was begun, until the next one is; what Python raises, such as Ctrl-C, is no death."""
        self._counts[id] = self.deaths(id) + 1
        self._write()
        try:
            yield
        except BaseException:
            del self._counts[id]
            self._write()
            raise
        del self._counts[id]

    def close(self) -> None:
        """The shard is done: nothing is held against a video any more."""
        self._file.unlink(missing_ok=True)

    def _write(self) -> None:
        temporary = self._file.with_suffix(".next")
        try:
            temporary.write_text(json.dumps(self._counts), "ascii")
            temporary.replace(self._file)
        except OSError as e:
            raise StorageError(f"{self._file.parent} cannot be written: {e.strerror}") from e
