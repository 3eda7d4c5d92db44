"""Where a Hugging Face checkpoint lies, whether all of it is there, and what identifies it.

Local first: a folder, then the local cache of the Hugging Face hub, and only then a download. Nothing here runs code
from a checkpoint, and weights are read from safetensors alone, never unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from linkedout_edge import install
from linkedout_edge.errors import MissingDependencyError, unknown
from linkedout_quant.teachers.base import TeacherError

SUFFIXES = (".json", ".jinja", ".txt", ".model", ".safetensors")
"""What a checkpoint consists of; other weight formats beside safetensors are neither downloaded nor read."""

WHOLE = 1 << 30
"""Files up to this size are hashed whole, larger ones by sample."""
STRIDE, BLOCK = 1 << 24, 1 << 16
"""A sample is BLOCK bytes every STRIDE, and the end."""


def require(*modules: str, purpose: str) -> None:
    """Check that libraries are installed, before a long way to a less clear error.

    Raises:
        MissingDependencyError: One is not; the message has the ``pip install`` line.
    """
    missing = [m for m in modules if find_spec(m) is None]
    if missing:
        raise MissingDependencyError(f"{purpose} needs {' and '.join(missing)}: {install.extra('tools')}")


def locate(source: str | Path) -> Path:
    """The folder of a checkpoint, downloaded if need be.

    Args:
        source: A local folder, or a name on the hub such as ``HuggingFaceTB/SmolVLM2-256M-Video-Instruct``.

    Raises:
        TeacherError: It is neither here nor to be had; the message says how to get it.
    """
    folder = Path(source)
    if folder.is_dir():
        if lacks := missing_files(folder):
            raise TeacherError(
                f"{folder} is not a complete checkpoint: it has no {lacks[0]}"
                + (f" (and {len(lacks) - 1} more)" if len(lacks) > 1 else "")
                + ". Expected what save_pretrained writes: config.json, *.safetensors, tokenizer, preprocessor."
            )
        return folder
    name = str(source)
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or parts[0] in (".", "..", "~") or "\\" in name:
        raise TeacherError(f"there is no folder {name}, and no model of the hub is called so: expected owner/model")
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    # ignore_patterns: copies in other formats (ONNX, GGUF conversions) lie in sub-folders.
    wanted: dict[str, Any] = {"allow_patterns": [f"*{s}" for s in SUFFIXES], "ignore_patterns": ["*/*"]}
    try:
        cached = Path(snapshot_download(name, local_files_only=True, **wanted))
        if not missing_files(cached):
            return cached
    except HFValidationError as e:
        raise TeacherError(f"{name!r} is neither a folder nor a possible name of a model: {e}") from e
    except OSError:
        pass  # not in the cache
    try:
        fetched = Path(snapshot_download(name, **wanted))
    except GatedRepoError as e:
        raise TeacherError(
            f"{name} is gated: accept its license on https://huggingface.co/{name}, run `hf auth login`, "
            "and try again, or pass the folder of a copy"
        ) from e
    except RepositoryNotFoundError as e:
        raise TeacherError(f"the hub has no model {name}, or it is private: run `hf auth login` if it is yours") from e
    except Exception as e:  # no network shows as one of a dozen exceptions of three libraries
        raise TeacherError(
            f"{name} is not on this machine and could not be downloaded ({type(e).__name__}). "
            f"Where there is a network, run `hf download {name} --local-dir {name.rpartition('/')[2]}`, "
            "copy that folder here and pass its path."
        ) from e
    if lacks := missing_files(fetched):
        raise TeacherError(f"{name} has no {lacks[0]}: only checkpoints in safetensors format are loaded")
    return fetched


def missing_files(folder: Path) -> list[str]:
    """Names of files that a checkpoint folder lacks: configuration, weights, or shards that its index lists."""
    lacks = [] if (folder / "config.json").is_file() else ["config.json"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError):
            return [*lacks, f"readable {index.name}"]
        return lacks + [s for s in shards if not (folder / s).is_file()]
    if not any(folder.glob("*.safetensors")):
        lacks.append("model.safetensors")
    return lacks


ImageKind = Literal["classifier", "clip"]


def image_kind(folder: Path) -> ImageKind | None:
    """Whether a checkpoint is an image classifier or CLIP-like; None: neither, perhaps a vision-language model.

    Args:
        folder: The checkpoint. What is wrong with it is for `locate` and `read_config` to say.
    """
    from transformers.models.auto import modeling_auto as auto

    try:
        made = json.loads((folder / "config.json").read_bytes())["architectures"][0]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None

    def names(mapping: Iterable[str | tuple[str, ...]]) -> set[str]:
        return {name for entry in mapping for name in ([entry] if isinstance(entry, str) else entry)}

    if made in names(auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()):
        return "classifier"
    return "clip" if made in names(auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()) else None


def read_config(folder: Path) -> Any:
    """The checkpoint's configuration, checked to be a decoder that looks at images.

    Returns:
        The library's `PretrainedConfig`.

    Raises:
        TeacherError: An unknown architecture, or a model that cannot be a teacher.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as LOOKING

    try:
        raw = json.loads((folder / "config.json").read_bytes())
        kind = raw["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise TeacherError(f"{folder / 'config.json'} is not a model's configuration: it has no model_type") from e
    if kind not in CONFIG_MAPPING_NAMES:
        own = " It brings its own code (auto_map), which is never run here." if "auto_map" in raw else ""
        raise TeacherError(
            f"{folder}: {unknown('architecture', kind, LOOKING)}{own} "
            f"If it is newer than the installed library: {install.library('transformers', options='--upgrade')}"
        )
    if kind not in LOOKING:
        raise TeacherError(
            f"{folder} is a {kind} model, which looks at no images: a teacher has to. "
            f"Expected an image-text-to-text model, such as {', '.join(FAMILIES)}, an image classifier "
            "(…ForImageClassification) or a CLIP-like model."
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, TypeError, OSError, KeyError) as e:
        raise TeacherError(f"{folder / 'config.json'} is not a valid {kind} configuration: {e}") from e
    if config.is_encoder_decoder:
        raise TeacherError(f"{folder} ({kind}) is an encoder-decoder: expected one causal LM that reads visual tokens")
    return config


FAMILIES = ("smolvlm", "qwen2_5_vl", "qwen3_vl", "internvl", "llava_onevision", "fast_vlm")
"""Families this is written for; any other that the library lists as image-text-to-text is tried the same way."""


def digest(folder: Path) -> dict[str, str]:
    """File name → hash of its content, over everything that a checkpoint consists of.

    Files of up to 1 GiB are read whole. Of larger ones size, end and 64 KiB out of every 16 MiB are hashed, which sees
    any change to a tensor of more than 16 MiB and takes a fraction of a second for tens of gigabytes.
    """
    return {p.name: _hash(p) for p in _files(folder)}


def _files(folder: Path) -> Iterable[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())


def _hash(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as f:
        if size <= WHOLE:
            return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _read_all(f)
        sample = hashlib.sha256(str(size).encode())
        for start in (*range(0, size - BLOCK, STRIDE), size - BLOCK):
            f.seek(start)
            sample.update(f.read(BLOCK))
    return sample.hexdigest()


def _read_all(f: Any) -> str:
    """`hashlib.file_digest` for Python 3.10."""
    whole = hashlib.sha256()
    while block := f.read(1 << 20):
        whole.update(block)
    return whole.hexdigest()
