"""What trtexec is told, per engine, and the script that a Jetson runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from linkedout_edge.errors import ArgumentError


@dataclass(frozen=True)
class Engine:
    """One engine to be built on the device. Files are named relative to the kit's folder.

    Attributes:
        precision: "fp16" or "int8".
        onnx: the graph, its dimensions fixed.
        calibration: a calibration cache; "" where the graph holds its scales in QDQ nodes, or is not quantized.
    """

    precision: str
    onnx: str
    calibration: str = ""

    @property
    def name(self) -> str:
        """Such as ``encoder-int8``; TensorRT's version and the GPU are added on the device."""
        return f"encoder-{self.precision}"


def check_precision(precision: str) -> None:
    """Whether TensorRT has engines in it here.

    Raises:
        ArgumentError: it has not.
    """
    if precision not in ("fp16", "int8"):
        raise ArgumentError(f"no TensorRT engine in {precision!r}: expected 'fp16' or 'int8'")


def trtexec_arguments(engine: Engine, *, workspace_mb: int = 512) -> list[str]:
    """What builds an engine. No shapes: trtexec refuses them for graphs whose dimensions are fixed.

    Args:
        engine: which.
        workspace_mb: memory that a layer may use; an Orin Nano shares its 4 or 8 GB with the CPU.

    Raises:
        ArgumentError: a precision that TensorRT has no engines for there.
    """
    check_precision(engine.precision)
    arguments = [f"--onnx={engine.onnx}", "--fp16"]  # beside int8 too: what int8 does not take runs in fp16
    if engine.precision == "int8":
        arguments.append("--int8")
    if engine.calibration:
        arguments.append(f"--calib={engine.calibration}")
    return [*arguments, f"--memPoolSize=workspace:{workspace_mb}M", "--skipInference"]


def static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Input → shape of a graph whose dimensions are fixed.

    Raises:
        ArgumentError: an input has an open dimension.
    """
    shapes = {}
    for port in model.graph.input:
        dims = port.type.tensor_type.shape.dim
        open_dims = [d.dim_param or "?" for d in dims if not d.dim_value]
        if open_dims:
            raise ArgumentError(
                f"the input {port.name} has the open dimension {open_dims[0]}: TensorRT's engines are built from "
                "static graphs (linkedout-edge export BUNDLE --format tensorrt)"
            )
        shapes[port.name] = tuple(d.dim_value for d in dims)
    return shapes


def build_script(engines: Sequence[Engine]) -> str:
    """A bash script for the device: one engine after another, each kept under TensorRT's version and the board."""
    calls = "\n".join(
        f"build {shlex.quote(e.name)} {' '.join(map(shlex.quote, trtexec_arguments(e)))}" for e in engines
    )
    return _SCRIPT.replace("@CALLS@", calls)


_SCRIPT = """#!/usr/bin/env bash
# Builds TensorRT engines on this device, minutes each; what is there already is kept.
#
#   ./build_engines.sh [FOLDER FOR ENGINES]
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-engines}

trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
if [[ ! -x $trtexec ]]; then
  echo "no trtexec here: sudo apt install tensorrt (JetPack's own packages)" >&2
  exit 2
fi
# An engine fits the TensorRT and the GPU that it was built with, and no other.
version=$(dpkg-query -W -f '${Version}' libnvinfer-bin 2>/dev/null || echo unknown)
board=$(tr -d '\\0' </proc/device-tree/model 2>/dev/null || uname -m)
tag=trt${version%%-*}-$(echo "$board" | tr -cs 'A-Za-z0-9\\n' '_')
mkdir -p "$out"

build() {
  local engine=$out/$1-$tag.engine
  shift
  if [[ -s $engine ]]; then
    echo "kept: $engine"
    return
  fi
  echo "building: $engine"
  # Under another name until it is whole.
  "$trtexec" "$@" --timingCacheFile="$out/timing-$tag.cache" --saveEngine="$engine.part" >"$engine.log" 2>&1 || {
    echo "trtexec failed, its last lines (all in $engine.log):" >&2
    tail -n 15 "$engine.log" >&2
    exit 1
  }
  mv "$engine.part" "$engine"
}

@CALLS@
"""
