"""A folder of graphs as Optimum writes them: a language model, its word embeddings, its vision tower.

``optimum-cli export openvino`` writes such folders, and people publish them. Nothing here needs Optimum.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linkedout_quant.teachers.checkpoint import read_config

from linkedout_edge._telemetry import import_openvino
from linkedout_export.vlm.taps import GraphError

if TYPE_CHECKING:
    import openvino

PARTS = {
    "vision": "openvino_vision_embeddings_model.xml",
    "words": "openvino_text_embeddings_model.xml",
    "language": "openvino_language_model.xml",
}
"""Part → its file."""
EXPORT = "optimum-cli export openvino --model CHECKPOINT --task image-text-to-text FOLDER"
_STORED = {"int4": ("i4", "u4", "nf4"), "int8": ("i8", "u8"), "fp16": ("f16", "bf16")}


@dataclass(frozen=True)
class Graphs:
    """The three graphs, read again each time, because joining them changes them."""

    vision: openvino.Model
    words: openvino.Model
    language: openvino.Model


@dataclass(frozen=True)
class Exported:
    """A folder of exported graphs.

    Attributes:
        folder: Where they lie.
        raw: The checkpoint's configuration.
        precision: What the language model's weights are stored in: a precision's name in a bundle.
        versions: Libraries that made the graphs, as these say themselves.
    """

    folder: Path
    raw: Any
    precision: str
    versions: dict[str, str]

    def read(self) -> Graphs:
        """The graphs."""
        return Graphs(**{part: _read(self.folder / name) for part, name in PARTS.items()})

    def weights(self) -> list[Path]:
        """Files that the weights lie in."""
        return [(self.folder / name).with_suffix(".bin") for name in PARTS.values()]


def is_exported(folder: Path) -> bool:
    """Whether a folder holds OpenVINO graphs, of whatever task."""
    return folder.is_dir() and any(folder.glob("openvino_*.xml"))


def open_exported(folder: Path) -> Exported:
    """Check and open a folder.

    Raises:
        GraphError: It is of another task, a part or its weights are missing, or a file is damaged.
        TeacherError: Its configuration is missing or is that of no vision-language model.
    """
    there = sorted(p.name for p in folder.glob("openvino_*.xml"))
    missing = [name for name in PARTS.values() if name not in there]
    if missing:
        what = "has no vision part" if missing == [PARTS["vision"]] else f"has no {' and no '.join(missing)}"
        if PARTS["language"] in missing:
            what = f"is of another task than image-text-to-text: it {what}"
        raise GraphError(
            f"{folder} {what} (it has {', '.join(there) or 'no OpenVINO graph'}): expected what `{EXPORT}` writes"
        )
    for name in PARTS.values():
        weights = (folder / name).with_suffix(".bin")
        if not weights.is_file():
            raise GraphError(f"{folder / name} has no weights: {weights.name} is missing beside it; copy it again")
    raw = read_config(folder)
    language = _read(folder / PARTS["language"])
    return Exported(folder, raw, _precision(language), _versions(language))


def _read(path: Path) -> openvino.Model:
    try:
        return import_openvino().Core().read_model(path)
    except Exception as e:  # OpenVINO has its own
        raise GraphError(f"{path} cannot be read: copy or export it again ({str(e).strip().splitlines()[-1]})") from e


def _precision(model: openvino.Model) -> str:
    """What most bytes of the weights are stored in, except that of 4-bit models a good part stays in 8."""
    held: Counter[str] = Counter()
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and len(node.get_output_shape(0)) >= 2:
            held[node.get_output_element_type(0).get_type_name()] += node.get_byte_size()
    whole = sum(held.values())
    share = {p: sum(held[k] for k in kinds) / max(whole, 1) for p, kinds in _STORED.items()}
    return next((p for p, least in (("int4", 0.1), ("int8", 0.5), ("fp16", 0.5)) if share[p] > least), "fp32")


def _versions(model: openvino.Model) -> dict[str, str]:
    info = model.get_rt_info()
    found = {}
    for name, path in {
        "optimum": ["optimum", "optimum_version"],
        "optimum-intel": ["optimum", "optimum_intel_version"],
        "transformers": ["optimum", "transformers_version"],
        "torch": ["optimum", "pytorch_version"],
        "nncf": ["optimum", "nncf_version"],
        "openvino": ["Runtime_version"],
    }.items():
        if path[0] in info and model.has_rt_info(path):
            found[name] = str(model.get_rt_info(path).astype(str)).split("+")[0].split("-")[0]
    return found
