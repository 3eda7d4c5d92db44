"""`Recommender.load`: checks its arguments, opens the bundle, and makes the pieces that a recommender joins."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from linkedout_edge._version import __version__
from linkedout_edge.backends import Backend, Providers, Session, create_backend
from linkedout_edge.bundle import Bundle, open_bundle
from linkedout_edge.config import ModelConfig
from linkedout_edge.decode import get_decoder
from linkedout_edge.decode.pool import DecoderPool, isolated, why_not
from linkedout_edge.encode.encoder import BATCH, MANY, MAX_WORKERS, DecoderLike, Encoder
from linkedout_edge.errors import ArgumentError, ArgumentTypeError
from linkedout_edge.options import positive
from linkedout_edge.rank.scorer import Scorer
from linkedout_edge.rank.taste import Space
from linkedout_edge.results import Info
from linkedout_edge.text import Tokenizer
from linkedout_edge.threads import available_cpus

if TYPE_CHECKING:
    from linkedout_edge.storage import Database

MAX_DECODERS = 8
"""Processes that decode, where the caller gives no number: each takes about 90 MB."""
MOST_DECODERS = 256


@dataclass(frozen=True)
class Parts:
    """What was loaded.

    Attributes:
        config: The model's shapes.
        space: What the bundle knows of tokens.
        info: What runs; without what only the running pieces know.
        backend: The inference library.
        session: The encoder graph, loaded.
        encoder: Makes tokens with it.
        scorer: Scores.
        database: What lies in `data_dir`; None without one.
    """

    config: ModelConfig
    space: Space
    info: Info
    backend: Backend
    session: Session
    encoder: Encoder
    scorer: Scorer
    database: Database | None

    def close(self) -> None:
        """Release all of it."""
        if self.database is not None:
            self.database.close()
        self.scorer.close()
        self.session.close()


def load_parts(
    bundle: str | os.PathLike[str],
    precision: str | None,
    backend: str | None,
    device: str,
    providers: Providers | None,
    threads: int | None,
    data_dir: str | os.PathLike[str] | None,
    cache_dir: str | os.PathLike[str] | None,
    key: str | bytes | None,
    strict_device: bool,
    decoder: str | DecoderLike,
    decoders: int | None,
) -> Parts:
    """See `Recommender.load`."""
    _check_folder("data_dir", data_dir)
    _check_folder("cache_dir", cache_dir)
    _check_key(key, data_dir)
    if not isinstance(strict_device, bool):
        raise ArgumentTypeError(f"strict_device must be True or False, not {type(strict_device).__name__}")
    count = _threads(threads)
    decode = decoder if callable(decoder) else get_decoder(decoder)
    pool = _decoder_pool(decode, decoders, count)

    def on_one_thread() -> Session:
        with open_bundle(bundle, precision) as opened:
            library = create_backend(backend or opened.backend, device="cpu", threads=1, cache_dir=cache_dir)
            config = opened.manifest.config
            return library.load(opened.encoder(), config, opened.precision, weights=opened.weights())

    with open_bundle(bundle, precision) as opened:
        library = create_backend(
            opened.backend if backend is None else backend,
            device=device,
            providers=providers,
            threads=count,
            cache_dir=cache_dir,
            strict=strict_device,
        )
        manifest, config = opened.manifest, opened.manifest.config
        full = manifest.precisions[opened.precision].full_range_weights
        tokenizer = Tokenizer.from_json(opened.tokenizer(), config.vocab_size)
        session = library.load(opened.encoder(), config, opened.precision, full_range=full, weights=opened.weights())
        database: Database | None = None
        try:
            if data_dir is not None:
                from linkedout_edge.storage import Database

                database = Database(data_dir, key)
            on_cpu = session.device.startswith("CPU")
            encoder = Encoder(
                config,
                session,
                decode,
                tokenizer,
                min(MAX_WORKERS, library.threads),
                1 if on_cpu else BATCH,
                pool=pool,
                pool_from=1 if decoders else MANY,
                single=on_one_thread if library.threads > 1 and on_cpu else None,
            )
            model = manifest.user_model
            space = Space.made(model.mean, model.size, model.layer_prior, model.score_scale)
            scorer = Scorer(config, library.threads)
            return Parts(config, space, _info(opened, library, decode), library, session, encoder, scorer, database)
        except BaseException:
            if database is not None:
                database.close()
            session.close()
            raise


def _info(bundle: Bundle, backend: Backend, decoder: DecoderLike) -> Info:
    manifest = bundle.manifest
    return Info(
        bundle=manifest.name,
        precision=bundle.precision,
        token_space=manifest.token_space,
        backend=backend.name,
        devices={},
        threads=backend.threads,
        decoder=str(getattr(decoder, "name", None) or getattr(decoder, "__name__", type(decoder).__name__)),
        frames=manifest.config.frames,
        frame_size=manifest.config.frame_size,
        layer_names=tuple(manifest.layer_names) or tuple(f"layer {t}" for t in manifest.config.taps),
        versions={
            "linkedout-edge": __version__,
            backend.name: backend.version,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        agreement=dict(manifest.precisions[bundle.precision].agreement),
    )


def _threads(asked: int | None) -> int:
    count = available_cpus() if asked is None else positive("threads", asked)
    most = 4 * (os.cpu_count() or 1)
    if count > max(most, 16):  # a pool of thousands takes all memory before it says anything
        raise ArgumentError(f"threads is {count}, and this machine has {most // 4} CPUs: leave it out, or give fewer")
    return count


def _decoder_pool(decoder: DecoderLike, decoders: int | None, threads: int) -> DecoderPool | None:
    """Processes to decode in; None where there are to be none."""
    known = isolated(decoder)
    if decoders is None:
        if known is not None and why_not() is None:
            name, settings = known
            return DecoderPool(name, min(threads, MAX_DECODERS), settings=settings, fallback=decoder)
        return None
    if isinstance(decoders, bool) or not isinstance(decoders, int):
        raise ArgumentTypeError(f"decoders must be a whole number, not {type(decoders).__name__}")
    if not 0 <= decoders <= MOST_DECODERS:
        raise ArgumentError(f"decoders must be from 0 to {MOST_DECODERS}, not {decoders}")
    if decoders == 0:
        return None
    if known is None:
        raise ArgumentError(
            f"decoders={decoders} needs a decoder that can run in a process of its own: decoder='auto', 'pyav', "
            "'opencv' or a PyAVDecoder; leave decoders out to call your own in this process"
        )
    if reason := why_not():
        raise ArgumentError(f"{reason}: leave decoders out")
    name, settings = known
    return DecoderPool(name, decoders, settings=settings)


def _check_folder(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str | os.PathLike):
        raise ArgumentTypeError(f"{name} must be a folder's path, not {type(value).__name__}")
    if os.fspath(value) in ("", b""):
        raise ArgumentError(f"{name} must not be empty: leave it out, or name a folder")
    if Path(os.fsdecode(value)).is_file():
        raise ArgumentError(f"{name} is a file: name a folder")


def _check_key(key: object, data_dir: object) -> None:
    if key is None:
        return
    if not isinstance(key, str | bytes):
        raise ArgumentTypeError(f"key must be str or bytes, not {type(key).__name__}")
    if data_dir is None:
        raise ArgumentError("key encrypts what lies in data_dir: without data_dir nothing is written, leave key out")
