"""Image classifiers and CLIP-like models of real Hugging Face classes, with small random weights, saved to a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SIDE, WIDTH = 32, 16
_VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
    "initializer_range": 0.2,
}
_TEXT = {**{k: v for k, v in _VISION.items() if k not in ("image_size", "patch_size")}, "vocab_size": 99}


def _save(folder: Path, model: Any, size: dict[str, int], **more: Any) -> Path:
    model.save_pretrained(folder)
    told = {"size": size, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.2], "do_normalize": True, **more}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return folder


def make_vit(folder: Path, labels: list[str] | None = None, seed: int = 0) -> Path:
    """`ViTForImageClassification`: 16 patches behind a class token."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    named = {} if labels is None else {"id2label": dict(enumerate(labels))}
    model = ViTForImageClassification(ViTConfig(**_VISION, **(named or {"num_labels": 5})))
    return _save(folder, model, {"height": SIDE, "width": SIDE})


def make_mobilenet(folder: Path) -> Path:
    """`MobileNetV2ForImageClassification`: hidden states are maps."""
    import torch
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    torch.manual_seed(0)
    model = MobileNetV2ForImageClassification(MobileNetV2Config(image_size=SIDE, depth_multiplier=0.25, num_labels=5))
    for module in model.modules():  # drawn as the library draws them, nothing would be left of an image at the end
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    crop = {"crop_size": {"height": SIDE, "width": SIDE}, "do_center_crop": True}
    return _save(folder, model, {"shortest_edge": SIDE + 8}, **crop)


def make_clip(folder: Path) -> Path:
    """`CLIPModel`."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(vision_config=_VISION, text_config=_TEXT, projection_dim=12))
    return _save(folder, model, {"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, do_center_crop=True)


def make_siglip(folder: Path) -> Path:
    """`SiglipModel`: patches without a class token."""
    import torch
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(vision_config=_VISION, text_config=_TEXT))
    return _save(folder, model, {"height": SIDE, "width": SIDE})


FAMILIES = {"vit": make_vit, "mobilenet": make_mobilenet, "clip": make_clip, "siglip": make_siglip}
