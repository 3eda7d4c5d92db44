"""The student in torch: vision tower, connector, causal LM with taps, compressors."""

from linkedout_quant.model.student import Student, VideoEncoder
from linkedout_quant.model.tokens import dequantize, quantize

__all__ = ["Student", "VideoEncoder", "dequantize", "quantize"]
