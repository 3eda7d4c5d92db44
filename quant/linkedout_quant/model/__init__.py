"""The student in torch: vision tower, connector, causal LM with taps, compressors; user encoder; fusion and scorer."""

from linkedout_quant.model.fusion import fuse, scorer_reference
from linkedout_quant.model.student import Student, VideoEncoder
from linkedout_quant.model.tokens import dequantise, quantise
from linkedout_quant.model.user_encoder import UserEncoder

__all__ = ["Student", "UserEncoder", "VideoEncoder", "dequantise", "fuse", "quantise", "scorer_reference"]
