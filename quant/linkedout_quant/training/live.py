"""Crops that never leave the device that trains: photos lie in its memory, and the teacher looks inside the step.

Chance is drawn on the host, a few numbers a crop (`CropPlan`), so that a seed gives the same crops on a CPU and on a
GPU, up to rounding; everything that touches pixels happens on the device. Augmentations are those of
`linkedout_quant.training.augment`, drawn from the same distributions; a picture that is mixed in is the crop before it
in the batch. Nothing is kept: every step sees new crops, and the teacher looks at each of them once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from linkedout_edge.cli.output import note
from linkedout_edge.errors import ArgumentError
from linkedout_quant.pixels import resize
from linkedout_quant.progress import track
from linkedout_quant.teachers.base import Teacher, square
from linkedout_quant.teachers.images import ImageTeacher, Seen
from linkedout_quant.training.crops import CropBatch
from linkedout_quant.training.loop import TrainingError

SINGLE, BLENDED, CUT, PASTED = range(4)
PROBE, PROBE_BATCH, PROBE_SEED = 512, 64, 2**31


def choose_live(teacher: Teacher, device: torch.device, asked: bool | None) -> bool:
    """Whether crops are made where training happens, or cut on the CPU and kept on disk.

    Args:
        teacher: has to be a network on images to look inside the step.
        device: that trains.
        asked: by the user; None: on a GPU if the teacher can. A CPU is better off with what it keeps: it looks at each
            crop once, and trains on it several times.

    Raises:
        ArgumentError: asked for, of a teacher that cannot.
    """
    able = isinstance(teacher, ImageTeacher)
    others = "an EfficientNet-Lite, an image classifier or a CLIP-like model"
    if asked and not able:
        raise ArgumentError(
            f"{teacher.name} cannot look inside the training's step: leave --crops live out, or choose {others}"
        )
    if asked is None and device.type == "cuda" and not able:
        note(
            f"{teacher.name} cannot look inside the training's step, so crops are cut on the CPU and kept on disk; "
            f"with {others} as --teacher, they never leave the GPU"
        )
    return able and device.type == "cuda" if asked is None else asked


@dataclass(frozen=True)
class CropPlan:
    """All that chance decides about a batch of B crops, on the host."""

    photos: np.ndarray  # int64 [B], which photo
    boxes: np.ndarray  # float32 [B, 4], center x, y and half width, height of the crop, in −1 … 1 of the photo
    mirrored: np.ndarray  # bool [B]
    angles: np.ndarray  # float32 [B], radians
    zooms: np.ndarray  # float32 [B], by which a turned crop is enlarged
    contrasts: np.ndarray  # float32 [B]
    gains: np.ndarray  # float32 [B, 3], by which colors are multiplied
    gray: np.ndarray  # bool [B]
    kinds: np.ndarray  # int64 [B], SINGLE, or how the crop before is mixed in
    shares: np.ndarray  # float32 [B], of a blend that are the crop's own; or where it is cut
    across: np.ndarray  # bool [B], whether the cut is vertical
    pastes: np.ndarray  # float32 [B, 3], left, top and side of what is pasted, as shares of the crop

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, odds: np.ndarray) -> CropPlan:
        """A plan for `count` crops of photos that are drawn by `odds`, float64 [N] with sum 1."""

        def uniform(low: float, high: float, *shape: int) -> np.ndarray:
            return rng.uniform(low, high, (count, *shape)).astype(np.float32)

        def once_in(share: float) -> np.ndarray:
            return rng.random(count) < share

        photos = rng.choice(len(odds), count, p=odds)
        area = np.where(once_in(0.7), uniform(0.12, 1), 1)
        aspect = np.exp(uniform(-0.35, 0.35))
        half = np.minimum(1, np.sqrt(area[:, None] * np.stack([aspect, 1 / aspect], 1)))
        boxes = np.concatenate([uniform(-1, 1, 2) * (1 - half), half], 1).astype(np.float32)
        mirrored, turned = once_in(0.5), once_in(0.3)
        angles = np.where(turned, np.radians(uniform(-25, 25)), 0).astype(np.float32)
        zooms = np.where(turned, uniform(1, 1.3), 1).astype(np.float32)
        colored = once_in(0.5)
        contrasts = np.where(colored, uniform(0.75, 1.25), 1).astype(np.float32)
        gains = np.where(colored[:, None], uniform(0.75, 1.3)[:, None] * uniform(0.9, 1.1, 3), 1).astype(np.float32)
        gray = once_in(0.05)
        kinds = rng.choice(4, count, p=[0.6, 0.14, 0.132, 0.128])
        small = uniform(0.35, 0.65)
        pastes = np.stack([*(uniform(0, 1) * (1 - small) for _ in range(2)), small], 1)
        return cls(
            photos,
            boxes,
            mirrored,
            angles,
            zooms,
            contrasts,
            gains,
            gray,
            kinds,
            uniform(0.3, 0.7),
            once_in(0.5),
            pastes,
        )

    @property
    def sources(self) -> np.ndarray:
        """int32 [B, 2], photos that each crop is made of; −1: no second one."""
        second = np.where(self.kinds == SINGLE, -1, np.roll(self.photos, 1))
        return np.stack([self.photos, second], 1).astype(np.int32)


def cut_crops(photos: Tensor, plan: CropPlan, side: int) -> Tensor:
    """Carry out a plan.

    Args:
        photos: uint8 [N, S, S, 3], on any device.
        plan: of B crops.
        side: of the crops.

    Returns:
        float32 [B, 3, side, side] in 0 … 255, channels last, on the photos' device.
    """
    device = photos.device

    def moved(x: np.ndarray) -> Tensor:
        return torch.from_numpy(x).to(device)

    source = photos[moved(plan.photos)].permute(0, 3, 1, 2).float()
    flip = np.where(plan.mirrored, -1, 1).astype(np.float32)
    cos, sin = np.cos(plan.angles) / plan.zooms, np.sin(plan.angles) / plan.zooms
    x, y, half_width, half_height = plan.boxes.T
    theta = np.stack(
        [
            np.stack([half_width * flip * cos, -half_width * flip * sin, x], 1),
            np.stack([half_height * sin, half_height * cos, y], 1),
        ],
        1,
    )  # [B, 2, 3]: turned, then mirrored, then placed in the photo
    grid = functional.affine_grid(moved(theta), [len(source), 3, side, side], align_corners=False)
    crops = functional.grid_sample(source, grid, "bilinear", "reflection", align_corners=False)
    contrast, gain = moved(plan.contrasts).view(-1, 1, 1, 1), moved(plan.gains).view(-1, 3, 1, 1)
    crops = (((crops - 128) * contrast + 128).clamp(0, 255) * gain).clamp(0, 255)
    if len(gray := np.flatnonzero(plan.gray)):
        rows = moved(gray)
        luma = torch.tensor([0.299, 0.587, 0.114], device=device).view(1, 3, 1, 1)
        crops[rows] = (crops[rows] * luma).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    return _mixed(crops, plan).contiguous(memory_format=torch.channels_last)


def _mixed(crops: Tensor, plan: CropPlan) -> Tensor:
    """Crops with the one before mixed in, where the plan says so; in place."""
    # Before anything is written: a row that is mixed is mixed into the next one as it was.
    rows = {kind: np.flatnonzero(plan.kinds == kind) for kind in (BLENDED, CUT, PASTED)}
    before = {
        kind: crops[torch.from_numpy((r - 1) % len(crops)).to(crops.device)] for kind, r in rows.items() if len(r)
    }
    for kind, other in before.items():
        chosen, side = rows[kind], crops.shape[-1]
        at = torch.from_numpy(chosen).to(crops.device)
        share = torch.from_numpy(plan.shares[chosen]).to(crops.device).view(-1, 1, 1, 1)
        place = (torch.arange(side, device=crops.device) + 0.5) / side
        if kind == BLENDED:
            crops[at] = share * crops[at] + (1 - share) * other
            continue
        if kind == CUT:
            across = torch.from_numpy(plan.across[chosen]).to(crops.device).view(-1, 1, 1, 1)
            new = torch.where(across, place.view(1, 1, 1, -1) > share, place.view(1, 1, -1, 1) > share)
        else:  # a whole small picture inside a larger one: things at a scale that the photos themselves do not show
            left, top, small = torch.from_numpy(plan.pastes[chosen]).to(crops.device).view(-1, 3, 1, 1, 1).unbind(1)
            inside_x, inside_y = (place.view(1, 1, 1, -1) - left) / small, (place.view(1, 1, -1, 1) - top) / small
            new = (inside_x > 0) & (inside_x < 1) & (inside_y > 0) & (inside_y < 1)
            grid = torch.stack(torch.broadcast_tensors(inside_x[:, 0], inside_y[:, 0]), -1) * 2 - 1
            # Halved first, so that fine patterns do not flicker where bilinear sampling skips pixels.
            other = functional.grid_sample(
                functional.avg_pool2d(other, 2, ceil_mode=True), grid, padding_mode="border", align_corners=False
            )
        crops[at] = torch.where(new, other, crops[at])
    return crops


def as_frames(crops: Tensor, side: int) -> Tensor:
    """Crops as the student gets them, shrunk as devices shrink frames: uint8 [B, side, side, 3]."""
    return resize(crops, side).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def odds_of(counts: Sequence[int], weights: Sequence[float]) -> np.ndarray:
    """Chance of each photo, float64 [N], where collections are drawn by weight and their photos alike."""
    total = sum(w for n, w in zip(counts, weights, strict=True) if n)
    return np.concatenate([np.full(n, w / total / max(1, n)) for n, w in zip(counts, weights, strict=True)])


class LiveCrops:
    """Random batches of new crops with the teacher's view of them; stands where a `CropCache` does.

    Args:
        teacher: is moved to `device` and stays there.
        collections: photos uint8 [H, W, 3] RGB of each collection. Places of photos count through all of them.
        weights: how often each collection is drawn.
        side: photos are kept as squares of this side.
        frame_size: side of the student's crops.
        device: that trains.
        bfloat16: whether the teacher computes in it.

    Raises:
        TrainingError: the photos, or a single look of the teacher, do not fit into the device's memory.
    """

    def __init__(
        self,
        teacher: ImageTeacher,
        collections: Sequence[Sequence[np.ndarray]],
        weights: Sequence[float],
        *,
        side: int,
        frame_size: int,
        device: torch.device,
        bfloat16: bool = False,
    ) -> None:
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        self.device, self.frame_size, self.bfloat16 = device, frame_size, bfloat16
        self.teacher = teacher.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        images = [image for images in collections for image in images]
        self.odds = odds_of([len(images) for images in collections], weights)
        try:
            self.photos = torch.empty(len(images), side, side, 3, dtype=torch.uint8, device=device)
        except torch.cuda.OutOfMemoryError as e:
            raise TrainingError(
                f"{len(images)} photos of {side} × {side} pixels do not fit into the GPU's memory "
                f"({len(images) * side * side * 3 / 1e9:.1f} GB): choose a smaller crops.side in the recipe, or "
                "--crops cached"
            ) from e
        for i, image in enumerate(images):
            self.photos[i] = torch.from_numpy(square(image, side))
        self._lock = threading.Lock()  # a batch that was made ahead and is not wanted may still be under way
        self.statistics: dict[str, tuple[Tensor, float]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._probe()

    @property
    def alike(self) -> tuple[str, ...]:
        """Features whose cosines say which pictures are alike."""
        return self.teacher.alike

    @property
    def layers(self) -> int:
        """How many layers the teacher shows."""
        return len(self._shapes) - 2

    def width(self, name: str) -> int:
        """Last dimension of a feature."""
        return self._shapes[name][-1]

    def layer_shape(self, layer: int) -> tuple[int, int]:
        """Tokens and width of a layer."""
        tokens, width = self._shapes[f"layer{layer}"]
        return tokens, width

    def standardized(self, name: str, value: np.ndarray) -> np.ndarray:
        """A feature [..., W] as batches have it, float32."""
        mean, scale = self.statistics[name]
        return ((value.astype(np.float32) - mean.cpu().numpy()) / scale).astype(np.float32)

    def batch(self, seed: int, step: int, count: int, size: int | None = None, stride: int = 1) -> CropBatch:
        """The batch of a step, whatever came before, on the device; see `CropCache.batch`. `stride` is not needed."""
        plan = CropPlan.draw(np.random.default_rng([seed, step]), count, self.odds)
        with self._lock, torch.no_grad():
            crops = cut_crops(self.photos, plan, self.teacher.side)
            rows = [
                (x - mean) / scale
                for x, (mean, scale) in zip(_named(self._see(crops)).values(), self.statistics.values(), strict=True)
            ]
            frames = as_frames(crops, size or self.frame_size)
        return CropBatch(frames, tuple(rows[:-2]), rows[-2], rows[-1], plan.sources)

    def on_host(self) -> HostCrops:
        """The same, with batches that are copied to the host: for stages that run there."""
        return HostCrops(self)

    def _see(self, crops: Tensor) -> Seen:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.teacher.see(crops)

    def _probe(self) -> None:
        """Shapes and statistics: the mean row, and one scale for all dimensions, as `CropCache` has them."""
        count = PROBE_BATCH
        while (seen := self._first_look(count)) is None:
            if count == 1:
                raise TrainingError(
                    f"{self.teacher.name} cannot look at a single picture beside {len(self.photos)} photos in the "
                    "GPU's memory: choose a smaller teacher, a smaller crops.side in the recipe, or --crops cached"
                )
            note(f"{self.teacher.name}: out of memory at {count} pictures, going on with {count // 2}")
            count //= 2
        for name, x in seen.items():
            mean = x.flatten(0, -2).mean(0)
            self.statistics[name] = mean, float((x - mean).std() + 1e-6)
            self._shapes[name] = tuple(x.shape[1:])

    def _first_look(self, count: int) -> dict[str, Tensor] | None:
        """Features of `PROBE` crops, `count` at a time; None: so many do not fit into memory."""
        parts = []
        try:
            for start in track(range(0, PROBE, count), "teacher takes a first look"):
                plan = CropPlan.draw(np.random.default_rng([PROBE_SEED, start]), count, self.odds)
                with torch.no_grad():
                    parts.append(_named(self._see(cut_crops(self.photos, plan, self.teacher.side))))
        except torch.cuda.OutOfMemoryError:
            return None
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _named(seen: Seen) -> dict[str, Tensor]:
    rows = {f"layer{i}": x for i, x in enumerate(seen.layers)} | {"pooled": seen.pooled, "language": seen.language}
    return {name: x.float() for name, x in rows.items()}


@dataclass(frozen=True)
class HostCrops:
    """`LiveCrops` whose batches come to the host."""

    live: LiveCrops

    @property
    def alike(self) -> tuple[str, ...]:
        """As of `LiveCrops`."""
        return self.live.alike

    @property
    def layers(self) -> int:
        """As of `LiveCrops`."""
        return self.live.layers

    def width(self, name: str) -> int:
        """As of `LiveCrops`."""
        return self.live.width(name)

    def layer_shape(self, layer: int) -> tuple[int, int]:
        """As of `LiveCrops`."""
        return self.live.layer_shape(layer)

    def standardized(self, name: str, value: np.ndarray) -> np.ndarray:
        """As of `LiveCrops`."""
        return self.live.standardized(name, value)

    def batch(self, seed: int, step: int, count: int, size: int | None = None, stride: int = 1) -> CropBatch:
        """As of `LiveCrops`, on the host."""
        return self.live.batch(seed, step, count, size, stride).to(torch.device("cpu"))
