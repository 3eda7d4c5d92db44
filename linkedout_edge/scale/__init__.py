"""Encoding many videos into a folder of feature packs, in one process or on a cluster. See docs/scale.md.

Nothing of the runtime imports this package, and nothing of it is needed on a device: there, a folder of packs is taken
over by ``linkedout-edge store import``.
"""

from linkedout_edge.errors import StalledError
from linkedout_edge.scale.run import STALL_SECONDS, PacksResult, encode_to_packs

__all__ = ["STALL_SECONDS", "PacksResult", "StalledError", "encode_to_packs"]
