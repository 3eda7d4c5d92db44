"""A lightweight vision-language model as it is: SmolVLM2-class checkpoints as the encoder of a bundle (docs/vlm.md)."""

from linkedout_export.vlm.bundle import write_vlm_bundle
from linkedout_export.vlm.encoder import VLMEncoder, VLMStudent, load_vlm

__all__ = ["VLMEncoder", "VLMStudent", "load_vlm", "write_vlm_bundle"]
