"""The training loop of stages 1 and 3."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dataloaders.batches import Batch, SplitBatches
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.errors import InputError

BEST_CHECKPOINT = Path("checkpoints/checkpoint_best.pt")
LAST_STATE = Path("checkpoints/last.pt")


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    num_epochs: int
    batch_size: int
    learning_rate: Callable[[int], float]  # of an epoch, counted from 1
    optimizer: str  # "adamw" or "adam"
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    clip_norm: float  # gradient norm; infinity: no clipping
    seed: int
    checkpoint_every: int  # epochs between the checkpoints that are kept
    save_every: int = 1  # epochs between the states that a killed run resumes from


@dataclass
class Progress:
    """How far a run has come."""

    epoch: int = 0  # finished ones
    best_epoch: int = 0
    best_score: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)  # validation scores and losses of each epoch


def fit(
    model: nn.Module,
    train: SplitBatches,
    step_losses: Callable[[Batch], dict[str, Tensor]],
    validate: Callable[[], dict[str, float]],
    recipe: Recipe,
    best_metric: str,
    run_dir: Path,
    log: logging.Logger,
    resume: bool = False,
) -> Progress:
    """Train a model, validate after every epoch, keep the best weights.

    Args:
        model: on its device.
        train: batches to learn from.
        step_losses: losses of one batch by name; "total" is minimised.
        validate: scores of the present weights by name.
        best_metric: the score whose highest value makes `checkpoint_best.pt`.
        run_dir: takes `checkpoints/` and TensorBoard events.
        resume: go on from `checkpoints/last.pt` where there is one.

    Raises:
        InputError: when the loss is no longer finite, or a checkpoint cannot be read or written.
    """
    device = train.device
    parameters = [p for p in model.parameters() if p.requires_grad]
    make_optimizer = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[recipe.optimizer]
    optimizer = make_optimizer(
        parameters,
        lr=recipe.learning_rate(1),
        betas=recipe.betas,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    progress = Progress()
    if resume and (run_dir / LAST_STATE).exists():
        progress = _restore(run_dir / LAST_STATE, model, optimizer, device)
        log.info(f"resuming after epoch {progress.epoch}")
    writer = SummaryWriter(str(run_dir), purge_step=progress.epoch + 1)
    steps = math.ceil(train.num_videos / recipe.batch_size)

    for epoch in range(progress.epoch + 1, recipe.num_epochs + 1):
        started = time.perf_counter()
        lr = recipe.learning_rate(epoch)
        for group in optimizer.param_groups:
            group["lr"] = lr
        model.train()
        sums: dict[str, Tensor] = {}  # stay on the device until the epoch ends: no step waits for the host
        bar = tqdm(total=steps, desc=f"epoch {epoch}/{recipe.num_epochs}", unit="step", leave=False, disable=None)
        for batch in train.shuffled(recipe.batch_size, recipe.seed, epoch):
            losses = step_losses(batch)
            optimizer.zero_grad(set_to_none=True)
            losses["total"].backward()
            losses["gradient_norm"] = nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
            optimizer.step()
            for name, value in losses.items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
            bar.update()
        bar.close()
        means = {name: value.item() / steps for name, value in sums.items()}
        train_seconds = time.perf_counter() - started
        _check_finite(means, epoch, run_dir)

        model.eval()
        with torch.inference_mode():
            scores = validate()
        score = scores[best_metric]
        is_best = score > progress.best_score
        if is_best:
            progress.best_score, progress.best_epoch = score, epoch
        progress.epoch = epoch
        progress.history.append({**means, **scores, "learning_rate": lr, "train_seconds": train_seconds})

        for name, value in means.items():
            writer.add_scalar(f"train/{name}", value, epoch)
        for name, value in scores.items():
            writer.add_scalar(f"val/{name}", value, epoch)
        writer.add_scalar("train/learning_rate", lr, epoch)
        writer.add_scalar("time/train_seconds", train_seconds, epoch)
        if is_best:
            save_checkpoint(model.state_dict(), run_dir / BEST_CHECKPOINT)
        if epoch % recipe.checkpoint_every == 0:
            save_checkpoint(model.state_dict(), run_dir / f"checkpoints/checkpoint_epoch_{epoch:03d}.pt")
        if epoch % recipe.save_every == 0 or epoch == recipe.num_epochs:
            _save(run_dir / LAST_STATE, model, optimizer, progress, device)
        other_seconds = time.perf_counter() - started - train_seconds
        log.info(
            f"epoch {epoch:3d}  loss {means['total']:.4f}  {best_metric} {score:.2f}{' (best)' if is_best else ''}  "
            f"{train_seconds:.1f} s + {other_seconds:.1f} s"
        )
    writer.close()
    return progress


def _check_finite(means: dict[str, float], epoch: int, run_dir: Path) -> None:
    broken = [name for name, value in means.items() if not math.isfinite(value)]
    if broken:
        raise InputError(
            run_dir,
            f"{', '.join(broken)} not finite in epoch {epoch}",
            "finite losses",
            "Lower the learning rate, clip gradients harder, or train in float32; then --resume from the last epoch.",
        )


def _save(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, device: torch.device
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": vars(progress),
        "cpu_generator": torch.get_rng_state(),
        "device_generator": _device_generator(device).get_state(),
    }
    save_checkpoint(state, path)


def _restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> Progress:
    state = load_checkpoint(path)
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
        torch.set_rng_state(state["cpu_generator"])
        _device_generator(device).set_state(state["device_generator"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            path,
            f"a state that does not fit ({str(error).splitlines()[0]})",
            "the last state of this run, on the same kind of device",
            "Resume with the run's own settings, or start a new run.",
        ) from error
    return progress


def _device_generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or torch.cuda.current_device()]
    return torch.mps._get_default_mps_generator() if device.type == "mps" else torch.default_generator
