"""Inference libraries behind one small interface; each is imported only when it is chosen."""

from linkedout_edge.backends.base import Backend, Session
from linkedout_edge.backends.create import BACKENDS, DEVICES, Providers, create_backend

__all__ = ["BACKENDS", "DEVICES", "Backend", "Providers", "Session", "create_backend"]
