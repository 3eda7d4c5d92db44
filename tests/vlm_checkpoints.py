"""Checkpoints of real Hugging Face classes with small random weights, made on the spot and saved to a folder.

No network, a second or two each. `make_smolvlm(folder)` and its siblings write what a download of that family would:
configuration, safetensors, tokenizer, chat template and image processor. Weights are drawn wider than a fresh
initialisation, so that different images give clearly different features.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

SIDE = 32
"""Frames are resized to SIDE × SIDE by all families but Qwen, which keeps their shape."""

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tokenizer(folder: Path, special: list[str], named: dict[str, str] | None = None) -> Any:
    """A byte-level tokenizer without merges: every text can be encoded, every special token is one id."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<|pad|>", "<|im_start|>", "<|im_end|>", *special])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<|pad|>", eos_token="<|im_end|>", extra_special_tokens=named or {}
    )


def _images(family: str, name: str) -> Any:
    """A family's image processor in its Pillow version, of transformers 5 or 4."""
    try:
        return getattr(
            importlib.import_module(f"transformers.models.{family}.image_processing_pil_{family}"), f"{name}Pil"
        )
    except ModuleNotFoundError:
        return getattr(importlib.import_module(f"transformers.models.{family}.image_processing_{family}"), name)


def _save(folder: Path, config: Any, processor: dict[str, Any], images: Any, tokenizer: Any, template: str) -> Path:
    import torch
    from transformers import AutoModelForImageTextToText

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    for name, weight in model.named_parameters():
        if name.endswith("mm_input_projection_weight"):  # Gemma 3's begins at zero: all pictures would be alike
            torch.nn.init.normal_(weight, std=0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    images.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(processor))
    (folder / "chat_template.jinja").write_text(template)
    return folder


def _llm(tokenizer: Any, kind: str, hidden: int, layers: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.15,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        **more,
    }


def _tower(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": 8,
        **more,
    }


def make_smolvlm(
    folder: Path,
    *,
    hidden: int = 64,
    layers: int = 3,
    scale_factor: int = 2,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
) -> Path:
    """SmolVLM2: SigLIP-like tower, pixel-shuffle connector, Llama. 4 visual tokens a frame.

    Args:
        folder: written to, made if needed.
        hidden: width of the LM.
        layers: blocks of the LM.
        scale_factor: side of the square of patches that becomes one visual token.
        text, vision: fields of the two configurations that differ from the small ones.
    """
    vision = _tower(initializer_range=0.15) | (vision or {})
    return _make_idefics(folder, "SmolVLM", "<video>", vision, hidden, layers, scale_factor, text)


def make_idefics3(folder: Path) -> Path:
    """Idefics3, which SmolVLM was made from."""
    return _make_idefics(folder, "Idefics3", "", _tower(initializer_range=0.15))


def _make_idefics(
    folder: Path,
    name: str,
    video: str,
    vision: dict[str, Any],
    hidden: int = 64,
    layers: int = 3,
    scale: int = 2,
    text: dict[str, Any] | None = None,
) -> Path:
    tokenizer = _tokenizer(folder, ["<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>"])
    config = getattr(importlib.import_module("transformers"), f"{name}Config")(
        vision_config=vision,
        text_config=_llm(tokenizer, "llama", hidden, layers, **(text or {})),
        scale_factor=scale,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    edge = {"longest_edge": vision["image_size"]}
    images = _images(name.lower(), f"{name}ImageProcessor")(size=edge, max_image_size=edge)
    tokens = (vision["image_size"] // vision["patch_size"] // scale) ** 2
    processor = {"processor_class": f"{name}Processor", "image_seq_len": tokens}
    template = _TEMPLATE.replace("IMAGE", "<image>").replace("VIDEO", video)
    return _save(folder, config, processor, images, tokenizer, template)


def make_llava(folder: Path) -> Path:
    """LLaVA: CLIP tower, two-layer projector, Llama. 16 visual tokens a frame."""
    from transformers import CLIPImageProcessor, LlavaConfig

    tokenizer = _tokenizer(folder, ["<image>"])
    config = LlavaConfig(
        vision_config=_tower(
            model_type="clip_vision_model", num_hidden_layers=3, projection_dim=64, initializer_range=0.15
        ),
        text_config=_llm(tokenizer, "llama", 64, 3),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    side = {"height": SIDE, "width": SIDE}
    return _save(
        folder,
        config,
        {
            "processor_class": "LlavaProcessor",
            "patch_size": 8,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
        CLIPImageProcessor(size=side, crop_size=side),
        tokenizer,
        _TEMPLATE.replace("IMAGE", "<image>").replace("VIDEO", ""),
    )


def make_gemma3(folder: Path) -> Path:
    """Gemma 3: SigLIP tower, average-pooling projector, Gemma. 4 visual tokens a frame, which see each other."""
    from transformers import Gemma3Config

    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = _tokenizer(folder, list(named.values()), named)
    ids = {k: tokenizer.convert_tokens_to_ids(v) for k, v in named.items()}
    config = Gemma3Config(
        vision_config=_tower(vision_use_head=False),
        text_config=_llm(
            tokenizer, "gemma3_text", 64, 3, head_dim=16, sliding_window=512, layer_types=["full_attention"] * 3
        ),
        mm_tokens_per_image=4,
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
        image_token_index=ids["image_token"],
    )
    return _save(
        folder,
        config,
        {"processor_class": "Gemma3Processor", "image_seq_length": 4},
        _images("gemma3", "Gemma3ImageProcessor")(size={"height": SIDE, "width": SIDE}),
        tokenizer,
        _TEMPLATE.replace("IMAGE", "<start_of_image>").replace("VIDEO", ""),
    )


def make_got_ocr2(folder: Path) -> Path:
    """GOT-OCR2: SAM-like tower, Qwen2."""
    from transformers import GotOcr2Config

    tokenizer = _tokenizer(folder, ["<img>", "</img>", "<imgpad>"])
    config = GotOcr2Config(
        vision_config={
            "hidden_size": 64,
            "output_channels": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 128,
            "patch_size": 8,
            "window_size": 4,
            "global_attn_indexes": [1],
            "mlp_dim": 128,
        },
        text_config=_llm(tokenizer, "qwen2", 64, 3),
        image_token_index=tokenizer.convert_tokens_to_ids("<imgpad>"),
    )
    return _save(
        folder,
        config,
        {"processor_class": "GotOcr2Processor"},
        _images("got_ocr2", "GotOcr2ImageProcessor")(size={"height": 128, "width": 128}),
        tokenizer,
        _TEMPLATE.replace("IMAGE", "<img><imgpad></img>").replace("VIDEO", ""),
    )


def make_qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL: ViT, patch merger, Qwen2 with multimodal rotary positions. Tokens by the frame's shape."""
    from transformers import Qwen2VLConfig

    vision = {"depth": 2, "embed_dim": 64, "hidden_size": 64, "initializer_range": 0.1}
    return _make_qwen(folder, Qwen2VLConfig, vision, "Qwen2VLProcessor", 14)


def make_llava_onevision(folder: Path) -> Path:
    """LLaVA-OneVision: SigLIP tower, two-layer projector, Qwen2. 16 visual tokens and a line break a frame."""
    from transformers import LlavaOnevisionConfig

    tokenizer = _tokenizer(folder, ["<image>", "<video>"])
    pinpoints = [[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE]]
    config = LlavaOnevisionConfig(
        vision_config=_tower(model_type="siglip_vision_model", vision_use_head=False),
        text_config=_llm(tokenizer, "qwen2", 64, 3),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
    )
    return _save(
        folder,
        config,
        {
            "processor_class": "LlavaOnevisionProcessor",
            "num_image_tokens": 16,
            "vision_feature_select_strategy": "full",
        },
        _images("llava_onevision", "LlavaOnevisionImageProcessor")(
            size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=pinpoints
        ),
        tokenizer,
        _TEMPLATE.replace("IMAGE", "<image>").replace("VIDEO", "<video>"),
    )


def make_internvl(folder: Path) -> Path:
    """InternVL: its own ViT, pixel-shuffle projector, Qwen2. 4 visual tokens a frame."""
    from transformers import InternVLConfig

    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = _tokenizer(folder, list(named.values()), named)
    config = InternVLConfig(
        vision_config=_tower(
            image_size=[SIDE, SIDE], patch_size=[8, 8], initializer_range=0.15, layer_scale_init_value=1.0
        ),
        text_config=_llm(tokenizer, "qwen2", 64, 3),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    return _save(
        folder,
        config,
        {"processor_class": "InternVLProcessor", "image_seq_length": 4},
        _images("got_ocr2", "GotOcr2ImageProcessor")(size={"height": SIDE, "width": SIDE}, crop_to_patches=True),
        tokenizer,
        _TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>").replace("VIDEO", "<video>"),
    )


def _make_qwen(folder: Path, config: type, vision: dict[str, Any], processor: str, patch: int, **rope: Any) -> Path:
    tokenizer = _tokenizer(folder, ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"])
    turns = {"rope_type": "default", "mrope_section": [2, 3, 3], **rope}
    old = int(version("transformers").split(".")[0]) < 5
    text = _llm(tokenizer, "", 64, 3, **{"rope_scaling" if old else "rope_parameters": turns})
    if "3" in processor.partition("VL")[0]:
        text["head_dim"] = 16
    del text["model_type"]
    made = config(
        vision_config={"hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 64, **vision},
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    side = 2 * patch  # one visual token
    return _save(
        folder,
        made,
        {"processor_class": processor},
        _images("qwen2_vl", "Qwen2VLImageProcessor")(
            patch_size=patch, size={"shortest_edge": 4 * side * side, "longest_edge": 16 * side * side}
        ),
        tokenizer,
        _TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>").replace(
            "VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"
        ),
    )


def make_qwen2_5_vl(folder: Path) -> Path:
    """Qwen2.5-VL: windowed ViT, patch merger, Qwen2 with multimodal rotary positions. Tokens by the frame's shape."""
    from transformers import Qwen2_5_VLConfig

    vision = {"depth": 2, "fullatt_block_indexes": [1], "window_size": 56, "initializer_range": 0.1}
    return _make_qwen(folder, Qwen2_5_VLConfig, vision, "Qwen2_5_VLProcessor", 14)


def make_qwen3_vl(folder: Path) -> Path:
    """Qwen3-VL: ViT whose early layers are added to the LM's first blocks."""
    from transformers import Qwen3VLConfig

    vision = {
        "depth": 2,
        "deepstack_visual_indexes": [0],
        "num_position_embeddings": 64,
        "patch_size": 16,
        "initializer_range": 0.1,
    }
    return _make_qwen(folder, Qwen3VLConfig, vision, "Qwen3VLProcessor", 16, mrope_interleaved=True)


def make_smolvlm2_256m(folder: Path) -> Path:
    """The shape of SmolVLM2-256M-Video-Instruct, weights random: a gigabyte in float32. 64 visual tokens a frame."""
    text = {
        "vocab_size": 49280,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "initializer_range": 0.04,
        "tie_word_embeddings": True,
    }
    vision = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
        "initializer_range": 0.04,
    }
    return make_smolvlm(folder, hidden=576, layers=30, scale_factor=4, text=text, vision=vision)


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "smolvlm": make_smolvlm,
    "qwen2_5_vl": make_qwen2_5_vl,
    "qwen3_vl": make_qwen3_vl,
    "internvl": make_internvl,
    "llava_onevision": make_llava_onevision,
}
