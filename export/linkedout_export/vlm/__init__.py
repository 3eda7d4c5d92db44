"""A lightweight vision-language model as it is: a checkpoint as the encoder of a bundle (docs/vlm.md)."""

from linkedout_export.vlm.bundle import (
    Shape,
    load_graphs,
    write_graphs_bundle,
    write_optimum_bundle,
    write_vlm_bundle,
)
from linkedout_export.vlm.encoder import VLMEncoder, VLMStudent, load_vlm

__all__ = [
    "Shape",
    "VLMEncoder",
    "VLMStudent",
    "load_graphs",
    "load_vlm",
    "write_graphs_bundle",
    "write_optimum_bundle",
    "write_vlm_bundle",
]
