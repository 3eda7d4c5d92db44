"""One training loop for all stages: seeded, resumable, with progress, metrics, plots and guards.

Hugging Face Accelerate places it on one CPU, one GPU or many (``accelerate launch``): every process draws batches of
its own, and gradients are averaged. What a stage computes is a function of the step's number alone, so a training that
was interrupted continues as if it had not been.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn

from linkedout_edge.cli.output import note, stages
from linkedout_edge.errors import ArgumentError, LinkedOutError, unknown

LOG_EVERY = 25
DEVICES = ("auto", "cpu", "cuda")
Losses = Callable[[int, int], dict[str, torch.Tensor]]


class TrainingError(LinkedOutError, RuntimeError):
    """Training cannot continue; the message names the step and the last good checkpoint."""


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


def new_accelerator(device: str = "auto") -> Accelerator:
    """Accelerate as ``accelerate launch`` set it up; bfloat16 where the hardware multiplies it faster than float32.

    Args:
        device: one of `DEVICES`; ``"auto"`` is a GPU where there is one.

    Raises:
        ArgumentError: a GPU was asked for, and torch sees none.

    CPUs with AVX-512 BF16 alone are slower in it: the default tower trained 62 images a second in bfloat16 and 96 in
    float32 on one core of such a CPU. AMX is what makes the difference.
    """
    if device not in DEVICES:
        raise ArgumentError(unknown("device", device, DEVICES))
    if device == "cuda" and not torch.cuda.is_available():
        why = (
            "is built for CPUs alone: install its CUDA build (https://pytorch.org/get-started)"
            if torch.version.cuda is None
            else f"is built for CUDA {torch.version.cuda} and sees no GPU: does nvidia-smi see one?"
        )
        raise ArgumentError(f"--device cuda: torch {torch.__version__} {why}. Or train with --device cpu")
    cpu = device == "cpu" or not torch.cuda.is_available()
    fast = torch.cpu._is_amx_tile_supported() if cpu else torch.cuda.is_bf16_supported()
    return Accelerator(cpu=cpu, mixed_precision="bf16" if fast else "no")


def _save(path: Path, state: dict) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)  # a checkpoint is whole or absent, also after a kill


def is_finished(run: Path, recipe: StageRecipe) -> bool:
    """Whether a checkpoint with all steps of the stage lies in the run folder."""
    checkpoint = run / f"{recipe.name}.pt"
    return checkpoint.exists() and torch.load(checkpoint, weights_only=True)["step"] >= recipe.steps


def parameter_groups(modules: nn.ModuleDict, recipe: StageRecipe, slow: tuple[str, ...]) -> list[dict]:
    """Parameters by rate and decay: biases, norms and other vectors are not decayed."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, module in modules.items():
        for parameter in module.parameters():
            if parameter.requires_grad:
                groups.setdefault((name in slow, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": p, "weight_decay": recipe.weight_decay * matrix, "slow": is_slow}
        for (is_slow, matrix), p in groups.items()
    ]


def _average_gradients(parameters: list[nn.Parameter], accelerator: Accelerator) -> None:
    """The mean over processes; a parameter that had no part in this process's batch counts as zero."""
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    gradients = [p.grad for p in parameters if p.grad is not None]
    mean = accelerator.reduce(torch.cat([g.reshape(-1) for g in gradients]), "mean")
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.reshape(gradient.shape))


def train_stage(
    run: Path,
    recipe: StageRecipe,
    modules: nn.ModuleDict,
    losses: Losses,
    *,
    slow: tuple[str, ...] = (),
    checkpoint_every: int = 200,
    unit: str = "examples",
    accelerator: Accelerator | None = None,
) -> None:
    """Minimize the sum of ``losses(draw, batch)`` over the parameters of `modules`.

    Args:
        run: folder for ``<stage>.pt`` (checkpoint), ``<stage>.jsonl`` (metrics) and ``<stage>.png`` (their plot).
        modules: all that is trained; saved and restored together.
        losses: weighted loss terms of one step, from a batch of the given size. It must draw its randomness from the
            draw's number, so that a resumed training sees what an uninterrupted one would have.
        slow: names in `modules` that learn at a fifth of the rate (already trained parts).
        checkpoint_every: steps between checkpoints.
        unit: what a batch is made of, for people.
        accelerator: where to train; by default as `new_accelerator`.

    Raises:
        TrainingError: a loss is not finite, a single example does not fit into memory, or a checkpoint of another
            recipe lies in `run`.
    """
    accelerator = accelerator or new_accelerator()
    run.mkdir(parents=True, exist_ok=True)
    checkpoint, log = run / f"{recipe.name}.pt", run / f"{recipe.name}.jsonl"
    modules.to(accelerator.device)
    optimizer = torch.optim.AdamW(parameter_groups(modules, recipe, slow), betas=(0.9, 0.98))
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    start, batch = _restore(checkpoint, recipe, modules, optimizer)
    if start >= recipe.steps:
        modules.eval()
        return
    modules.train()
    main = accelerator.is_main_process
    with stages(keep=True, quiet=not main) as report, log.open("a") as metrics:
        report(recipe.name, start, recipe.steps)
        loss = ""
        began = time.perf_counter()
        running: dict[str, float] = {}
        counted, examples, since = 0, 0, began
        for step in range(start, recipe.steps):
            rate = learning_rate(recipe, step)
            for group in optimizer.param_groups:
                group["lr"] = rate * (0.2 if group["slow"] else 1.0)
            draw = step * accelerator.num_processes + accelerator.process_index
            terms, batch = _backward(losses, draw, batch, recipe, step, checkpoint, optimizer, accelerator)
            if accelerator.num_processes > 1:
                _average_gradients(parameters, accelerator)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            for k, v in terms.items():
                running[k] = running.get(k, 0.0) + v
            counted += 1
            examples += batch * accelerator.num_processes
            if (step + 1) % LOG_EVERY == 0 or step + 1 == recipe.steps:
                now = time.perf_counter()
                speed = examples / max(now - since, 1e-9)
                row = {"step": step + 1, "seconds": round(now - began, 1), "lr": rate, "batch": batch}
                row["per_second"] = round(speed, 1)
                if main:
                    metrics.write(json.dumps(row | {k: round(v / counted, 4) for k, v in running.items()}) + "\n")
                    metrics.flush()
                loss = f", loss {sum(running.values()) / counted:.3f}, {speed:,.0f} {unit} a second"
                running, counted, examples, since = {}, 0, 0, now
            report(recipe.name, step + 1, recipe.steps, loss)
            if main and ((step + 1) % checkpoint_every == 0 or step + 1 == recipe.steps):
                state = {"modules": modules.state_dict(), "optimiser": optimizer.state_dict()}
                _save(checkpoint, {"recipe": asdict(recipe), "step": step + 1, "batch": batch, **state})
    accelerator.wait_for_everyone()
    modules.eval()
    if main:
        from linkedout_quant.training.plots import plot_metrics

        plot_metrics(log, run / f"{recipe.name}.png")


def _restore(
    checkpoint: Path, recipe: StageRecipe, modules: nn.ModuleDict, optimizer: torch.optim.Optimizer
) -> tuple[int, int]:
    """Step to continue from and the batch that fitted into memory."""
    if not checkpoint.exists():
        return 0, recipe.batch
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")  # loading copies to where the weights are
    if state["recipe"] != asdict(recipe):
        changed = [
            f"{k}: {state['recipe'].get(k)} → {v}" for k, v in asdict(recipe).items() if state["recipe"].get(k) != v
        ]
        raise TrainingError(
            f"{checkpoint} was made with another recipe ({', '.join(changed)}): "
            "restore the recipe, or start in a new run folder"
        )
    modules.load_state_dict(state["modules"])
    if state["step"] < recipe.steps:
        optimizer.load_state_dict(state["optimiser"])
    return state["step"], state["batch"]


def _backward(
    losses: Losses,
    draw: int,
    batch: int,
    recipe: StageRecipe,
    step: int,
    checkpoint: Path,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
) -> tuple[dict[str, float], int]:
    """Gradients of one step, with the largest batch up to `batch` that fits; gives loss terms and that batch."""
    while True:
        optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(recipe.seed * 1_000_003 + draw)
        try:
            terms = losses(draw, batch)
            total = torch.stack(list(terms.values())).sum()
            values = {k: float(v.detach()) for k, v in terms.items()}
            if not math.isfinite(sum(values.values())):
                last = (
                    f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "there is no checkpoint yet"
                )
                raise TrainingError(f"loss is not finite at step {step} of stage {recipe.name} ({values}); {last}")
            accelerator.backward(total)
            return values, batch
        except Exception as e:
            if not should_reduce_batch_size(e):
                raise
            if batch <= 1:
                raise TrainingError(
                    f"stage {recipe.name}: a batch of one does not fit into memory at step {step}: "
                    "choose a smaller model"
                ) from e
        # Outside of the handler, whose traceback keeps the failed step's tensors alive.
        batch //= 2
        note(f"{recipe.name}: out of memory at step {step}; the batch is {batch} from here on")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
