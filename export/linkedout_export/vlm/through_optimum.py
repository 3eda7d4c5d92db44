"""What Optimum does of an export: a checkpoint's graphs in OpenVINO IR, and their weights in 8 and 4 bit.

Optimum lives in an environment of its own (requirements-optimum.txt): it wants another transformers than the rest of
the workstation half. Everything that imports it is in this module.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from linkedout_quant.teachers.checkpoint import SUFFIXES, read_config

from linkedout_edge._telemetry import import_openvino
from linkedout_edge.errors import ArgumentError, BackendError, MissingDependencyError
from linkedout_export.conversion import import_nncf

TASK = "image-text-to-text"
INSTALL = "make .venv-optimum/installed, and use .venv-optimum/bin/linkedout-edge (docs/vlm.md)"
GROUP = 32
"""Weights that share a scale in 4 bit, as in every 4-bit graph of this project."""
LIBRARIES = ("optimum", "optimum-intel", "transformers", "torch", "openvino", "nncf")


class NotInRegistryError(ArgumentError):
    """Optimum cannot export this architecture in this format, with these versions; the message says why."""


def check_registry(folder: Path, format: str = "openvino") -> None:
    """Check that Optimum exports a checkpoint's architecture.

    Args:
        folder: The checkpoint.
        format: ``"openvino"`` or ``"onnx"``.

    Raises:
        MissingDependencyError: Optimum is not installed here.
        NotInRegistryError: Its registry lacks the architecture, or wants another version of transformers.
        TeacherError: The checkpoint has no usable configuration.
    """
    package = {"openvino": "optimum-intel", "onnx": "optimum-onnx"}[format]
    tasks = _tasks(format, package)
    family = read_config(folder).model_type
    # Its own list of them fails where one format lacks an architecture that another has.
    known = sorted(name for name, formats in tasks._SUPPORTED_MODEL_TYPE.items() if TASK in formats.get(format, {}))
    if family not in known:
        has = f"it has {', '.join(known)}" if known else "it has no vision-language model at all"
        raise NotInRegistryError(
            f"{package} {version(package)} does not export {family} to {format} ({has}): use --via torch"
            + ("" if format == "openvino" else ", or --format openvino")
        )
    config = tasks.get_exporter_config_constructor(
        format, model_type=family, task=TASK, library_name="transformers"
    ).func
    least, most = (getattr(config, f"{end}_TRANSFORMERS_VERSION", None) for end in ("MIN", "MAX"))
    check_transformers(family, package, least, most)


def check_transformers(family: str, package: str, least: Any, most: Any) -> None:
    """Check the installed transformers against the range in which Optimum exports a family.

    Raises:
        NotInRegistryError: It is outside; the message has the pin.
    """
    from packaging.version import Version

    have = Version(version("transformers"))
    for bound, wrong in ((least, lambda v: have < v), (most, lambda v: have > v)):
        if bound is not None and wrong(Version(str(bound).replace("99", "9999"))):
            word = "from" if bound is least else "up to"
            raise NotInRegistryError(
                f"{package} {version(package)} exports {family} with transformers {word} {bound}, and {have} is "
                f"installed: pip install 'transformers=={bound}' in an environment of its own, or use --via torch"
            )


def _tasks(format: str, package: str) -> Any:
    """Optimum's registry, with what the package of a format adds to it."""
    if find_spec("optimum") is None or find_spec(f"optimum.exporters.{format}") is None:
        raise MissingDependencyError(
            f"--via optimum needs {package}, which is not installed in this environment: {INSTALL}; or use --via torch"
        )
    with _quiet():
        import_nncf()  # before Optimum imports it with all it would send
        import_openvino()
        from optimum.exporters.tasks import TasksManager

        if format == "openvino":
            import optimum.exporters.openvino.model_configs
        else:
            import optimum.exporters.onnx.model_configs  # noqa: F401 (registers)
    return TasksManager


def export_graphs(checkpoint: Path, out: Path) -> None:
    """Export a checkpoint in float32, with everything but weights copied beside the graphs.

    Raises:
        NotInRegistryError, MissingDependencyError: See `check_registry`.
        BackendError: Optimum failed.
    """
    check_registry(checkpoint)
    with _quiet():
        from optimum.exporters.openvino import main_export
        from optimum.intel import OVConfig

        try:
            main_export(
                str(checkpoint), out, task=TASK, ov_config=OVConfig(dtype="fp32"), convert_tokenizer=False,
                local_files_only=True, trust_remote_code=False,
            )  # fmt: skip
        except Exception as e:  # whatever tracing, the library and OpenVINO raise
            raise BackendError(
                f"optimum-intel {version('optimum-intel')} failed to export {checkpoint}: {type(e).__name__}: "
                f"{_first_line(e)}; --via torch is another way, where the architecture has it"
            ) from e
    copy_texts(checkpoint, out)


def quantize_graphs(exported: Path, out: Path, precision: str, data: Sequence[dict[str, np.ndarray]] = ()) -> None:
    """Weights of exported float graphs in 8 or 4 bit, by Optimum's quantizer, or in 16.

    In 4 bit that is the language model's, symmetric in groups of `GROUP`; the vision tower and the word embeddings
    take 8 bit, as Optimum has it.

    Args:
        exported: Folder of float graphs.
        out: Folder to write.
        precision: ``"int8"``, ``"int4"`` or ``"fp16"``.
        data: Inputs of the language model's graph: with them 4 bit uses AWQ and scale estimation, without nothing.
    """
    if precision == "fp16":
        out.mkdir(parents=True)
        openvino = import_openvino()
        for path in exported.glob("openvino_*.xml"):
            openvino.save_model(openvino.Core().read_model(path), out / path.name, compress_to_fp16=True)
        copy_texts(exported, out)
        return
    with _quiet():
        nncf = import_nncf()
        from optimum.intel import OVConfig, OVModelForVisualCausalLM, OVQuantizer, OVWeightQuantizationConfig

        options: dict[str, Any] = {"bits": 8, "sym": True}
        if precision == "int4":
            options = {"bits": 4, "sym": True, "group_size": GROUP}
            if data:
                options |= {"quant_method": "awq", "scale_estimation": True, "num_samples": len(data)}
        model = OVModelForVisualCausalLM.from_pretrained(exported, compile=False, local_files_only=True)
        OVQuantizer.from_pretrained(model).quantize(
            calibration_dataset={"lm_model": nncf.Dataset(list(data))} if data and precision == "int4" else None,
            ov_config=OVConfig(quantization_config=OVWeightQuantizationConfig(**options)),
            save_directory=out,
        )
    copy_texts(exported, out)


def copy_texts(source: Path, out: Path) -> None:
    """Copy what a checkpoint consists of beside its weights, where it is not there yet."""
    for path in source.iterdir():
        text = path.suffix in SUFFIXES and path.suffix != ".safetensors" and "index" not in path.name
        if text and path.is_file() and not (out / path.name).exists():
            shutil.copyfile(path, out / path.name)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


@contextmanager
def _quiet() -> Iterator[None]:
    """The libraries without their advice on their own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
