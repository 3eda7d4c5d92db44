"""Stage 1: the vision tower learns to predict the teacher's features of photo crops, pooled and cell by cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from linkedout_edge.config import ModelConfig
from linkedout_quant.model.tower import VisionTower
from linkedout_quant.teachers.mobilenet import WIDTH
from linkedout_quant.training.loop import StageRecipe, is_finished, train_stage
from linkedout_quant.training.photo_cache import SHARD, SPATIAL_GRID, SPATIAL_WIDTH, existing_shards


class TeacherHeads(nn.Module):
    """From visual tokens to the teacher's features; thrown away after training."""

    def __init__(self, width: int, pooled: int = WIDTH, spatial: int = SPATIAL_WIDTH) -> None:
        super().__init__()
        self.spatial = nn.Linear(width, spatial)
        self.widen = nn.Linear(width, 2 * width)
        self.pooled = nn.Linear(2 * width, pooled)

    def forward(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        """[B, cells, W] → pooled [B, 1280] and spatial [B, cells, 256]."""
        return self.pooled(torch.relu(self.widen(visual)).mean(1)), self.spatial(visual)


class CropCache:
    """The shards that exist, in memory, with their features standardised by the first shard's statistics."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: list[Path] = []
        self.shards: list[dict[str, np.ndarray]] = []
        self.refresh()
        pooled, spatial = (self.shards[0][k].astype(np.float32) for k in ("pooled", "spatial"))
        self.pooled_mean, self.pooled_std = pooled.mean(0), float(pooled.std(0).mean())
        self.spatial_std = float(spatial.std())

    def refresh(self) -> None:
        """Read the shards that were written since."""
        for path in existing_shards(self.folder):
            if path not in self.paths:
                with np.load(path) as f:
                    self.shards.append({k: f[k] for k in ("crops", "pooled", "spatial")})
                self.paths.append(path)

    def batch(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Crops uint8 [B, H, W, 3], pooled float32 [B, 1280], spatial float32 [B, 16, 256]."""
        shards, rows = rng.integers(len(self.shards), size=count), rng.integers(SHARD, size=count)
        picked = [(self.shards[s], i) for s, i in zip(shards, rows, strict=True)]
        crops = np.stack([s["crops"][i] for s, i in picked])
        pooled = np.stack([s["pooled"][i] for s, i in picked]).astype(np.float32)
        spatial = np.stack([s["spatial"][i] for s, i in picked]).astype(np.float32)
        return (
            torch.from_numpy(crops),
            torch.from_numpy((pooled - self.pooled_mean) / self.pooled_std),
            torch.from_numpy(spatial / self.spatial_std),
        )


def on_grid(spatial: Tensor, grid: int) -> Tensor:
    """Cached cells [B, 16, X] → the student's [B, grid², X], by averaging."""
    cells = spatial.transpose(1, 2).unflatten(2, (SPATIAL_GRID, SPATIAL_GRID))
    return nn.functional.adaptive_avg_pool2d(cells, grid).flatten(2).transpose(1, 2)


def feature_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error and cosine distance: the first fixes sizes, the second is what ranking by similarity uses."""
    cosine = 1 - nn.functional.cosine_similarity(predicted, target, dim=-1).mean()
    return 0.5 * nn.functional.mse_loss(predicted, target) + cosine


def train_tower(run: Path, cache: Path, config: ModelConfig, recipe: StageRecipe) -> nn.ModuleDict:
    """Distil the teacher into a tower; the result holds ``tower`` and ``heads``."""
    torch.manual_seed(recipe.seed)
    tower = VisionTower(config)
    tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    heads = TeacherHeads(config.lm_width)
    modules = nn.ModuleDict({"tower": tower, "heads": heads})
    if is_finished(run, recipe):  # gigabytes of crops need not be read for nothing
        train_stage(run, recipe, modules, lambda step: {})
        return modules
    crops = CropCache(cache)

    def losses(step: int) -> dict[str, Tensor]:
        if step % 50 == 0:
            crops.refresh()
        images, pooled, spatial = crops.batch(np.random.default_rng([recipe.seed, step]), recipe.batch)
        spatial = on_grid(spatial, config.grid)
        with torch.autocast("cpu", torch.bfloat16):
            got_pooled, got_spatial = heads(tower(images))
        return {
            "pooled": feature_loss(got_pooled.float(), pooled),
            "spatial": 0.5 * feature_loss(got_spatial.float(), spatial),
        }

    train_stage(run, recipe, modules, losses)
    return modules
