"""Opening and checking bundles."""

from linkedout_edge.bundle.manifest import FORMAT_VERSION, GRAPHS, Manifest
from linkedout_edge.bundle.reader import Bundle, open_bundle

__all__ = ["FORMAT_VERSION", "GRAPHS", "Bundle", "Manifest", "open_bundle"]
