"""Stage "tower": the vision tower learns to see what the teacher sees in the very same crop, layer by layer."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from linkedout_edge.config import ModelConfig
from linkedout_quant.model.tower import VisionTower
from linkedout_quant.teachers.base import ALIKE
from linkedout_quant.training.crops import CropBatch, CropSource
from linkedout_quant.training.loop import StageRecipe, train_stage
from linkedout_quant.training.losses import feature_loss, relational_loss

SMALL_SHARE = 0.65  # of the steps, on smaller crops


class TeacherHeads(nn.Module):
    """From the tower's maps and visual tokens to the teacher's features; thrown away after training.

    Args:
        config: the student's shapes.
        layers: tokens and width (K, W) of each of the teacher's layers, shallow first.
        pooled: P.
        language: Q.
        alike: which of pooled and language say what is alike.
    """

    def __init__(
        self,
        config: ModelConfig,
        layers: list[tuple[int, int]],
        pooled: int,
        language: int,
        alike: tuple[str, ...] = ALIKE,
    ) -> None:
        super().__init__()
        self.alike = alike
        width = config.lm_width
        self.sides = [round(k**0.5) if round(k**0.5) ** 2 == k else 1 for k, _ in layers]
        # The deepest of the teacher's layers is asked of the visual tokens, the others of the map before the last.
        inputs = [config.tower_widths[-2]] * (len(layers) - 1) + [width] * bool(layers)
        self.layers = nn.ModuleList(nn.Linear(i, w) for i, (_, w) in zip(inputs, layers, strict=True))
        self.widen = nn.Linear(width, 2 * width)
        self.pooled = nn.Linear(2 * width, pooled)
        self.language = nn.Linear(2 * width, language)

    def forward(self, middle: Tensor, visual: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Middle map [B, C, h, w] and visual tokens [B, cells, W] → layers [B, K or 1, W] each, pooled, language."""
        grid = round(visual.shape[1] ** 0.5)
        last = visual.transpose(1, 2).unflatten(2, (grid, grid))
        maps = [middle] * (len(self.layers) - 1) + [last]
        layers = [
            head(nn.functional.adaptive_avg_pool2d(m.float(), side).flatten(2).transpose(1, 2))
            for head, m, side in zip(self.layers, maps, self.sides, strict=True)
        ]
        whole = torch.relu(self.widen(visual)).mean(1)
        return layers, self.pooled(whole), self.language(whole)


def tower_losses(heads: TeacherHeads, tower: VisionTower, batch: CropBatch) -> dict[str, Tensor]:
    """Weighted loss terms of one batch of crops."""
    middle, visual = tower.middle_and_tokens(batch.crops)
    layers, pooled, language = heads(middle, visual)
    terms = {
        "pooled": feature_loss(pooled.float(), batch.pooled),
        "language": feature_loss(language.float(), batch.language),
        # What ranking compares are inner products, so these are taught as well, straight from the visual tokens.
        "relations": 2 * relational_loss(visual.float().mean(1), *(getattr(batch, name) for name in heads.alike)),
    }
    for i, (got, want) in enumerate(zip(layers, batch.layers, strict=True)):
        if got.shape[1] != want.shape[1]:
            want = want.mean(1, keepdim=True)
        terms[f"layer{i}"] = 0.4 * feature_loss(got.float(), want)
    return terms


def crop_size(config: ModelConfig, progress: float) -> int:
    """Side of the crops: three quarters until `SMALL_SHARE` of the stage is over, which takes half the time.

    Small pictures first and large ones at the end come close to large ones all along (progressive resizing), and leave
    time for more of them.
    """
    unit = 2 ** len(config.tower_widths)
    small = config.frame_size * 3 // 4
    return small if small % unit == 0 and progress < SMALL_SHARE else config.frame_size


def train_tower(
    run: Path,
    crops: CropSource,
    config: ModelConfig,
    recipe: StageRecipe,
    tower: VisionTower,
    accelerator: Accelerator,
) -> None:
    """Distill the teacher, who has looked at `crops`, into a tower, in place."""
    torch.manual_seed(recipe.seed)
    tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    heads = TeacherHeads(
        config,
        [crops.layer_shape(i) for i in range(crops.layers)],
        crops.width("pooled"),
        crops.width("language"),
        crops.alike,
    )
    modules = nn.ModuleDict({"tower": tower, "heads": heads})

    def losses(draw: int, batch: int) -> dict[str, Tensor]:
        processes = accelerator.num_processes
        size = crop_size(config, draw // processes / recipe.steps)
        drawn = crops.batch(recipe.seed, draw, batch, size, processes).to(accelerator.device)
        with accelerator.autocast():
            return tower_losses(heads, tower, drawn)

    train_stage(run, recipe, modules, losses, unit="images", accelerator=accelerator)
