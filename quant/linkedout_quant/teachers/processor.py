"""The library's own processor of a checkpoint, also where torchvision is missing, and clips as its input.

Video processors of transformers need torchvision. Where it works, a clip goes through the checkpoint's own video
processor; elsewhere its frames go in as images, one after the other, through the image processor (Pillow backend).
Both are ways these models were trained; their features differ a little, so which one was used is part of a teacher's
fingerprint. Images are never tiled: a frame of a clip is one view.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from linkedout_edge import install
from linkedout_edge.errors import MissingDependencyError
from linkedout_quant.teachers.base import TeacherError

FramesAs = Literal["images", "video"]

TILING = ("do_image_splitting", "crop_to_patches", "do_pan_and_scan")
"""Options by which image processors cut one image into several views; a processor has at most one of them."""
FPS = 2.0
"""Assumed for clips, which come as evenly spread frames without times."""
TITLE_LENGTH = 256
TITLE_FRAME = ('The title is "', '". ')
"""What stands before and behind a title, in front of the prompt."""


class ClipProcessor:
    """Clips, prompt and titles → the model's inputs, through the checkpoint's processor and chat template.

    Args:
        folder: The checkpoint.
        config: Its configuration.
        frames_as: ``"video"`` or ``"images"``; None takes video where the library's video processor works.

    Raises:
        TeacherError: The checkpoint has no processor or no chat template, or cannot take video here.
        MissingDependencyError: The processor needs a library that is not installed.
    """

    def __init__(self, folder: Path, config: Any, frames_as: FramesAs | None = None) -> None:
        self._processor = _load(folder, config)
        video = _takes_video(self._processor)
        if frames_as == "video" and not video:
            raise TeacherError(
                f"the video processor of {folder} cannot run here: it needs torchvision "
                f"({install.library('torchvision')}, of the same CPU or CUDA build as torch), "
                'or pass frames_as="images"'
            )
        self.frames_as: FramesAs = frames_as or ("video" if video else "images")
        self.tokenizer = self._processor.tokenizer
        images = self._processor.image_processor
        self.backend = type(self._processor.video_processor if self.frames_as == "video" else images).__name__
        self._images_kwargs = {option: False for option in TILING if hasattr(images, option)}
        # LLaVA-OneVision tiles an image that stands alone, whatever it is told; one of several it does not.
        self._least_images = 2 if hasattr(images, "image_grid_pinpoints") else 1
        self._template = self._processor.chat_template or self.tokenizer.chat_template
        if not self._template:
            raise TeacherError(
                f"{folder} has no chat template: use the instruct version of the model, or put that version's "
                "chat_template.jinja into the folder"
            )
        special = {*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab()}
        self._special = sorted((t for t in special if t.strip()), key=len, reverse=True)

    def __call__(self, clips: Sequence[np.ndarray], titles: Sequence[str | None], prompt: str) -> Any:
        """Inputs of the model.

        Args:
            clips: uint8 [F, H, W, 3] each, all of the same F.
            titles: One a clip, or None.
            prompt: What is asked of each clip.

        Returns:
            `BatchFeature` of torch tensors, padded on the right.
        """
        before, after = TITLE_FRAME
        asked = [f"{before}{self.clean(t)}{after}{prompt}" if t else prompt for t in titles]
        options: dict[str, Any] = {"return_tensors": "pt", "padding": True, "padding_side": "right"}
        if self.frames_as == "video":
            texts = [self._chat([{"type": "video"}], a) for a in asked]
            meta = [[{"total_num_frames": len(c), "fps": FPS, "frames_indices": list(range(len(c)))}] for c in clips]
            return self._processor(
                text=texts, videos=[[c] for c in clips], do_sample_frames=False, video_metadata=meta, **options
            )
        from PIL import Image

        images = [[Image.fromarray(frame) for frame in clip] for clip in clips]
        images = [i * self._least_images if len(i) < self._least_images else i for i in images]
        texts = [self._chat([{"type": "image"}] * len(i), a) for i, a in zip(images, asked, strict=True)]
        return self._processor(text=texts, images=images, images_kwargs=self._images_kwargs, **options)

    def clean(self, title: str) -> str:
        """A title without anything that the tokenizer would take for a command, such as ``<image>``."""
        for token in self._special:
            title = title.replace(token, " ")  # a space, so that what is left and right does not join to another one
        return " ".join(title.split())[:TITLE_LENGTH]

    def normalization(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of pixels in [0, 1] that the image processor subtracts and divides by, per channel."""
        images = self._processor.image_processor
        return list(images.image_mean), list(images.image_std)

    def steps(self, frames: int) -> int:
        """How many equal runs of visual tokens a clip of images becomes."""
        return max(frames, self._least_images)

    @property
    def merge_size(self) -> int:
        """Side of the square of patches that becomes one visual token where the processor tells patch grids."""
        return int(getattr(self._processor.image_processor, "merge_size", 1))

    def _chat(self, seen: list[dict[str, str]], prompt: str) -> str:
        message = {"role": "user", "content": [*seen, {"type": "text", "text": prompt}]}
        # Of the tokenizer, not of the processor: some processors reach for their video processor on the way.
        return self.tokenizer.apply_chat_template(
            [message], chat_template=self._template, tokenize=False, add_generation_prompt=True
        )


def _takes_video(processor: Any) -> bool:
    """Whether there is a video processor, and it is more than our stand-in."""
    video = getattr(processor, "video_processor", None)
    return video is not None and not getattr(video, "absent", False)


def _load(folder: Path, config: Any) -> Any:
    from transformers import AutoProcessor
    from transformers.utils import is_torchvision_available

    try:
        if is_torchvision_available():
            return AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return _without_torchvision(folder, config)
    except ImportError as e:
        raise MissingDependencyError(
            f"the processor of {folder} needs a library that is not installed ({' '.join(str(e).split())}): "
            f"{install.extra('tools')}"
        ) from e
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        raise TeacherError(
            f"the processor of {folder} cannot be loaded ({type(e).__name__}: {e}). Expected tokenizer and image "
            "processor beside the weights, as processor.save_pretrained writes them."
        ) from e


def _without_torchvision(folder: Path, config: Any) -> Any:
    """The checkpoint's processor around its tokenizer and image processor, with a stand-in for the video processor.

    `AutoProcessor` gives up at the video processor, although images do not need it.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, PROCESSOR_MAPPING_NAMES
    from transformers.utils import PushToHubMixin  # what the library takes for a part that it can print as JSON

    if type(config) not in PROCESSOR_MAPPING:
        # FastVLM names its processor in its files alone.
        return transformers.AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    class AbsentVideoProcessor(PushToHubMixin, transformers.BaseVideoProcessor):
        """Passes for a video processor where one has to be; is never called."""

        absent = True

        def __init__(self) -> None:
            pass

        def to_dict(self) -> dict[str, Any]:
            """For the library's log, which prints a processor as JSON."""
            return {}

    family = config.model_type
    if PROCESSOR_MAPPING_NAMES[family] == "SmolVLMProcessor" and _major(transformers) < 5:
        family = "idefics3"  # SmolVLM's module of that version imports torchvision; it was made from this, for images
        kind = transformers.Idefics3Processor
    else:
        kind = PROCESSOR_MAPPING[type(config)]
    settings, _ = kind.get_processor_dict(folder, local_files_only=True, trust_remote_code=False)
    parts = []
    for attribute in kind.get_attributes() if hasattr(kind, "get_attributes") else kind.attributes:
        if attribute == "video_processor":
            parts.append(AbsentVideoProcessor())
        elif attribute == "tokenizer":
            parts.append(_tokenizer(folder))
        else:
            part = _image_processor(family)
            parts.append(part.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
    return kind.from_args_and_dict(parts, settings)


def _major(library: Any) -> int:
    return int(library.__version__.split(".")[0])


def _tokenizer(folder: Path) -> Any:
    """The tokenizer, also one that transformers 5 saved where 4 is installed, which does not know its class."""
    import transformers

    path = folder / "tokenizer_config.json"
    told = json.loads(path.read_bytes()) if path.is_file() else {}
    if told.get("tokenizer_class") != "TokenizersBackend" or _major(transformers) >= 5:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokens = {k: v for k, v in told.items() if k.endswith("_token") and isinstance(v, str)}
    common = {k: tokens.pop(k) for k in transformers.PreTrainedTokenizerFast.SPECIAL_TOKENS_ATTRIBUTES if k in tokens}
    template = folder / "chat_template.jinja"
    return transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        chat_template=template.read_text(encoding="utf-8") if template.is_file() else None,
        extra_special_tokens=tokens,
        **common,
    )


def _image_processor(family: str) -> Any:
    """The class that loads a family's image processor in its Pillow version."""
    # The name in `transformers` itself is closed without torchvision, although Pillow suffices for this class.
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES, AutoImageProcessor

    module = f"transformers.models.{family}.image_processing_pil_{family}"
    named: Any = IMAGE_PROCESSOR_MAPPING_NAMES.get(family)  # before transformers 5 a tuple, of Pillow's version first
    name = named.get("pil") if isinstance(named, dict) else None
    # Directly where it can be: the library takes some of these for torchvision ones, because a comment mentions it.
    if name and find_spec(module):
        return getattr(import_module(module), name)
    if isinstance(named, tuple):  # by its name: the folder may be of a family that was made from this one
        import transformers

        return getattr(transformers, named[0])
    return AutoImageProcessor
