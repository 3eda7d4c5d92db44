"""Titles → token ids, in plain Python."""

from linkedout_edge.text.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
