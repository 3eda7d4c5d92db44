"""One training loop for all stages: seeded, resumable, with progress, metrics and a guard against NaN."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import nn

from linkedout_edge.errors import LinkedOutError
from linkedout_quant.progress import console


class TrainingError(LinkedOutError, RuntimeError):
    """Training cannot go on; the message names the step and the last good checkpoint."""


@dataclass(frozen=True)
class StageRecipe:
    """What decides the outcome of a stage. A checkpoint remembers it, and resuming with another one is refused."""

    name: str
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.02
    warmup: int = 100
    seed: int = 0


def learning_rate(recipe: StageRecipe, step: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def _save(path: Path, state: dict) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)  # a checkpoint is whole or absent, also after a kill


def is_finished(run: Path, recipe: StageRecipe) -> bool:
    """Whether a checkpoint with all steps of the stage lies in the run folder."""
    checkpoint = run / f"{recipe.name}.pt"
    return checkpoint.exists() and torch.load(checkpoint, weights_only=True)["step"] >= recipe.steps


def train_stage(
    run: Path,
    recipe: StageRecipe,
    modules: nn.ModuleDict,
    losses: Callable[[int], dict[str, torch.Tensor]],
    *,
    slow: tuple[str, ...] = (),
    checkpoint_every: int = 200,
) -> None:
    """Minimise the sum of `losses(step)` over the parameters of `modules`.

    Args:
        run: folder for ``<stage>.pt`` (checkpoint) and ``<stage>.jsonl`` (metrics).
        modules: all that is trained; saved and restored together.
        losses: weighted loss terms of one step. It must draw its randomness from the step's number, so that a
            resumed training sees what an uninterrupted one would have.
        slow: names in `modules` that learn at a fifth of the rate (already trained parts).

    Raises:
        TrainingError: a loss is not finite, or a checkpoint of another recipe lies in `run`.
    """
    run.mkdir(parents=True, exist_ok=True)
    checkpoint, log = run / f"{recipe.name}.pt", run / f"{recipe.name}.jsonl"
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, module in modules.items():
        for parameter in module.parameters():
            if parameter.requires_grad:
                groups.setdefault((name in slow, parameter.ndim > 1), []).append(parameter)
    optimiser = torch.optim.AdamW(
        [
            {"params": p, "weight_decay": recipe.weight_decay * matrix, "slow": is_slow}
            for (is_slow, matrix), p in groups.items()
        ],
        betas=(0.9, 0.98),
    )
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["recipe"] != asdict(recipe):
            changed = [k for k, v in asdict(recipe).items() if state["recipe"].get(k) != v]
            raise TrainingError(
                f"{checkpoint} was made with another recipe ({', '.join(changed)} differ): "
                "restore the recipe, or start in a new run folder"
            )
        modules.load_state_dict(state["modules"])
        start = state["step"]
        if start >= recipe.steps:
            return
        optimiser.load_state_dict(state["optimiser"])
    modules.train()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress, log.open("a") as metrics:
        task = progress.add_task(recipe.name, total=recipe.steps, completed=start)
        began = time.perf_counter()
        running: dict[str, float] = {}
        for step in range(start, recipe.steps):
            rate = learning_rate(recipe, step)
            for group in optimiser.param_groups:
                group["lr"] = rate * (0.2 if group["slow"] else 1.0)
            torch.manual_seed(recipe.seed * 1_000_003 + step)
            terms = losses(step)
            total = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(total):
                raise TrainingError(
                    f"loss is not finite at step {step} of stage {recipe.name} "
                    f"({ {k: float(v.detach()) for k, v in terms.items()} }); the last good checkpoint is {checkpoint}"
                )
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], 1.0)
            optimiser.step()
            for k, v in terms.items():
                running[k] = running.get(k, 0.0) + float(v.detach())
            progress.advance(task)
            if (step + 1) % 50 == 0:
                row = {"step": step + 1, "seconds": round(time.perf_counter() - began, 1), "lr": rate}
                metrics.write(json.dumps(row | {k: round(v / 50, 4) for k, v in running.items()}) + "\n")
                metrics.flush()
                running = {}
                progress.update(task, description=f"{recipe.name} loss {float(total.detach()):.3f}")
            if (step + 1) % checkpoint_every == 0 or step + 1 == recipe.steps:
                state = {"modules": modules.state_dict(), "optimiser": optimiser.state_dict()}
                _save(checkpoint, {"recipe": asdict(recipe), "step": step + 1, **state})
    modules.eval()
