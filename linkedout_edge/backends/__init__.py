"""Inference libraries behind one small interface; each is imported only when it is chosen."""

from linkedout_edge.backends.base import BACKENDS, DEVICES, Backend, Session, create_backend

__all__ = ["BACKENDS", "DEVICES", "Backend", "Session", "create_backend"]
