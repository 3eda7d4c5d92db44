"""``manifest.json`` as typed structs. Unknown fields are ignored, so that the format can grow."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from linkedout_edge import install
from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import BundleCorruptError, BundleVersionError

FORMAT_VERSION = 2
"""1: had a user and a scorer graph beside the encoder, and no `user_model`."""
MANIFEST = "manifest.json"
GRAPHS = ("encoder",)
PRECISIONS = ("int8", "int4", "fp16", "fp32")

MAX_MANIFEST_BYTES = 1 << 20
MAX_DEPTH = 32
"""Nesting of a manifest. The format needs 5 levels; a parser must not be driven into the stack's end."""
MAX_DIMENSION = 1 << 16

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Weight = Annotated[float, Meta(ge=0)]


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the bundle. `path` is relative to the manifest, with forward slashes."""

    path: str
    sha256: Sha256
    bytes: Count


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """The graph in one precision, and how well it agrees with fp32 (measure → value)."""

    files: dict[Literal["encoder", "weights"], FileEntry]
    """``encoder``: ONNX, or OpenVINO IR (.xml), whose ``weights`` (.bin) are a file of their own."""
    agreement: dict[str, float] = {}
    tap_cosine: dict[str, float] = {}
    """Layer name → cosine of its hidden states with those of the checkpoint in torch, float32."""
    full_range_weights: bool = False
    """Whether int8 weights use all eight bits: such graphs are not run on x86 CPUs without VNNI."""

    @property
    def is_ir(self) -> bool:
        """Whether the graph is OpenVINO IR, which the backend ``openvino`` alone reads."""
        return "weights" in self.files


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """The graph for one inference library, beside that in ONNX that the runtime reads."""

    format: str
    """Such as ``openvino``; linkedout_export.formats lists them."""
    precision: str
    static: bool = False
    files: dict[str, FileEntry]
    """File name, such as ``encoder.onnx`` or ``encoder.bin``, → file."""
    sizes: dict[str, int] = {}
    """Of a static graph: ``encoder`` → the number of videos that it takes."""
    opset: dict[str, int] = {}
    """ONNX operator domain → version; empty for other formats."""
    parity: dict[str, float] = {}
    """Measured against the float32 graph: measure → value."""
    unmeasured: str = ""
    """Why `parity` is empty, where the machine that exported could not measure it."""
    full_range_weights: bool = False
    """As of `Precision`."""


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True):
    """How frames become the encoder's input. `mean` and `std` are informative: they are inside the graph."""

    resize: Literal["area"] = "area"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What the quantization and the user model were measured on."""

    description: str = ""
    videos: Count = 0


class UserModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a fit to a user starts from: what is known of tokens before anything is known of the user."""

    mean: list[list[float]]
    """[L][M·D], the average video's tokens, dequantized."""
    size: list[Positive]
    """[L], mean squared length of a token minus the mean."""
    layer_prior: list[Weight] = []
    """[L], trust in each layer before anything is known of a user; empty: all alike."""
    score_scale: Positive = 1.0
    """Scores are multiplied by it, so that they have about unit standard deviation."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle's description; see docs/architecture.md."""

    format_version: int
    name: str
    token_space: Sha256
    config: ModelConfig
    precisions: dict[str, Precision]
    tokenizer: FileEntry
    user_model: UserModel
    prompt: str = ""
    preprocessing: Preprocessing = Preprocessing()
    calibration: Calibration = Calibration()
    license: str = msgspec.field(default="", name="licence")
    provenance: str = ""
    via: str = ""
    """How a vision-language model's graph was made: ``torch``, ``optimum``, or ``graphs`` (from a folder that somebody
    had exported). Empty for a student."""
    tools: dict[str, str] = {}
    """Libraries that made the graphs → version."""
    layer_names: list[str] = []
    exports: dict[str, Export] = {}
    """Folder, such as ``static/tensorrt/int8`` → what lies there."""
    parity: dict[str, float] = {}
    """Largest difference of the float32 graph from torch: ``encoder`` → value, in int8 steps."""

    def files(self, precision: str) -> dict[str, FileEntry]:
        """Graph name → file, in one precision."""
        return {str(graph): entry for graph, entry in self.precisions[precision].files.items()}


class _Version(msgspec.Struct):
    format_version: int


def parse_manifest(data: bytes) -> Manifest:
    """Read and check a manifest.

    Raises:
        BundleVersionError: It is of a newer format, or of an older one.
        BundleCorruptError: It is too large or too deep, no valid JSON, or what it says makes no sense.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleCorruptError(f"{MANIFEST} has {len(data):,} bytes: at most {MAX_MANIFEST_BYTES:,} are read")
    _check_depth(data)
    try:
        version = msgspec.json.decode(data, type=_Version).format_version
        if version >= 1 and version != FORMAT_VERSION:  # before anything else: every other field may differ
            other = f"or {install.newer()}" if version > FORMAT_VERSION else "or install the version that made it"
            raise BundleVersionError(
                f"the bundle has format version {version}, this linkedout-edge reads {FORMAT_VERSION}: "
                f"export the bundle again with this version (linkedout-edge export), {other}"
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as e:
        raise BundleCorruptError(f"{MANIFEST} is not valid: {e}. Export or copy the bundle again.") from e
    _check(manifest)
    return manifest


def _check_depth(data: bytes) -> None:
    outside_strings = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", data, flags=re.DOTALL)
    depth = 0
    for bracket in re.findall(rb"[\[\]{}]", outside_strings):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise BundleCorruptError(f"{MANIFEST} is nested more than {MAX_DEPTH} levels deep")


def check_path(path: str) -> None:
    """Refuse a path that could lead out of the bundle, on any system.

    Raises:
        BundleCorruptError: The path is absolute, has a drive, a backslash, or an empty, ``.`` or ``..`` part.
    """
    parts = path.split("/")
    if any(p in ("", ".", "..") for p in parts) or any(c in path for c in "\\:\0"):
        raise BundleCorruptError(
            f"the bundle names the file {path!r}: expected a relative path with forward slashes that stays inside it"
        )


def _check(manifest: Manifest) -> None:
    def corrupt(reason: str) -> BundleCorruptError:
        return BundleCorruptError(f"{MANIFEST} makes no sense: {reason}. Export or copy the bundle again.")

    if manifest.format_version != FORMAT_VERSION:
        raise corrupt(f"format_version is {manifest.format_version}")
    if not manifest.precisions:
        raise corrupt("it lists no precisions")
    for name, precision in manifest.precisions.items():
        for graph in GRAPHS:
            if graph not in precision.files:
                raise corrupt(f"precision {name!r} has no {graph} graph")
        if precision.is_ir != precision.files["encoder"].path.endswith(".xml"):
            raise corrupt(f"precision {name!r} has OpenVINO IR without weights, or weights without IR")
        for entry in precision.files.values():
            check_path(entry.path)
    for export in manifest.exports.values():
        for entry in export.files.values():
            check_path(entry.path)
    check_path(manifest.tokenizer.path)
    config = manifest.config
    for field in msgspec.structs.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, int) and not 1 <= value <= MAX_DIMENSION:
            raise corrupt(f"config.{field.name} is {value}")
    if not config.taps:
        raise corrupt("config.taps is empty")
    if config.payload_bytes > 1 << 20 or config.frames * config.frame_size**2 > 1 << 28:
        raise corrupt("its shapes ask for more memory than any device has")
    if len(manifest.layer_names) not in (0, config.layers):
        raise corrupt(f"it names {len(manifest.layer_names)} layers of {config.layers}")
    model, width = manifest.user_model, config.tokens_per_layer * config.token_width
    if len(model.mean) != config.layers or any(len(row) != width for row in model.mean):
        raise corrupt(f"user_model.mean is not {config.layers} lists of {width} numbers")
    if len(model.size) != config.layers:
        raise corrupt(f"user_model.size has {len(model.size)} numbers for {config.layers} layers")
    prior = model.layer_prior
    if len(prior) not in (0, config.layers) or (prior and not any(prior)):
        raise corrupt(f"user_model.layer_prior is {prior}: expected none, or {config.layers} numbers, not all 0")
