"""The training loop of stages 1 and 3, of one run or of several at a time."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dataloaders.batches import SplitBatches
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.errors import InputError
from utils.networks import Losses, SingleNetwork, StackedNetworks, StepLosses
from utils.runs import folders_of_runs

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
    networks: SingleNetwork | StackedNetworks,
    train: SplitBatches,
    step_losses: StepLosses,
    validate: Callable[[nn.Module], dict[str, float]],
    recipe: Recipe,
    best_metric: str,
    run_dir: Path,
    log: logging.Logger,
    resume: bool = False,
    on_start: Callable[[], None] = lambda: None,
) -> list[Progress]:
    """Train, validate after every epoch, keep the best weights.

    Args:
        networks: of one run, or of R runs that are trained together.
        train: batches to learn from.
        step_losses: losses of a network on one batch by name; "total" is minimised.
        validate: scores of a network by name.
        best_metric: the score whose highest value makes `checkpoint_best.pt`.
        run_dir: takes the state to resume from; each run's checkpoints and TensorBoard events go to its
            `folders_of_runs`.
        resume: go on from `checkpoints/last.pt` where there is one.
        on_start: called before the first epoch, once a state to resume from is known to fit.

    Returns:
        the progress of each run

    Raises:
        InputError: when a loss is no longer finite, or a checkpoint cannot be read or written.
    """
    make_optimizer = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[recipe.optimizer]
    optimizer = make_optimizer(
        networks.parameters,
        lr=recipe.learning_rate(1),
        betas=recipe.betas,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    runs = [Progress() for _ in range(networks.num_runs)]
    if resume and (run_dir / LAST_STATE).exists():
        runs = _restore(run_dir / LAST_STATE, networks, optimizer)
        log.info(f"resuming after epoch {runs[0].epoch}")
    on_start()
    folders = folders_of_runs(run_dir, networks.seed)
    writers = [SummaryWriter(str(folder), purge_step=runs[0].epoch + 1) for folder in folders]
    steps = math.ceil(train.num_videos / recipe.batch_size)

    for epoch in range(runs[0].epoch + 1, recipe.num_epochs + 1):
        started = time.perf_counter()
        lr = recipe.learning_rate(epoch)
        for group in optimizer.param_groups:
            group["lr"] = lr
        networks.network.train()
        sums: Losses = {}  # stay on the device until the epoch ends: no step waits for the host
        bar = tqdm(total=steps, desc=f"epoch {epoch}/{recipe.num_epochs}", unit="step", leave=False, disable=None)
        for batch in train.shuffled(recipe.batch_size, networks.seed, epoch):
            losses = networks.losses(step_losses, batch)
            optimizer.zero_grad(set_to_none=True)
            losses["total"].sum().backward()  # the sum over runs: no run's weights change another's loss
            losses["gradient_norm"] = networks.clip_gradients(recipe.clip_norm)
            optimizer.step()
            for name, value in losses.items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
            bar.update()
        bar.close()
        totals = {name: value.flatten().tolist() for name, value in sums.items()}  # of each run
        train_seconds = time.perf_counter() - started
        _check_finite(totals, epoch, run_dir, folders)

        for run, (progress, folder, writer) in enumerate(zip(runs, folders, writers, strict=True)):
            means = {name: of_runs[run] / steps for name, of_runs in totals.items()}
            network = networks.network_of(run)
            network.eval()
            with torch.inference_mode():
                scores = validate(network)
            progress.epoch = epoch
            progress.history.append({**means, **scores, "learning_rate": lr, "train_seconds": train_seconds})
            if scores[best_metric] > progress.best_score:
                progress.best_score, progress.best_epoch = scores[best_metric], epoch
                save_checkpoint(network.state_dict(), folder / BEST_CHECKPOINT)
            if epoch % recipe.checkpoint_every == 0:
                save_checkpoint(network.state_dict(), folder / f"checkpoints/checkpoint_epoch_{epoch:03d}.pt")
            _write_events(writer, epoch, means, scores, lr, train_seconds)
        if epoch % recipe.save_every == 0 or epoch == recipe.num_epochs:
            _save(run_dir / LAST_STATE, networks, optimizer, runs)
        log.info(_epoch_line(runs, best_metric, time.perf_counter() - started - train_seconds))
    for writer in writers:
        writer.close()
    return runs


def _write_events(
    writer: SummaryWriter, epoch: int, means: dict[str, float], scores: dict[str, float], lr: float, seconds: float
) -> None:
    for name, value in means.items():
        writer.add_scalar(f"train/{name}", value, epoch)
    for name, value in scores.items():
        writer.add_scalar(f"val/{name}", value, epoch)
    writer.add_scalar("train/learning_rate", lr, epoch)
    writer.add_scalar("time/train_seconds", seconds, epoch)


def _epoch_line(runs: list[Progress], best_metric: str, other_seconds: float) -> str:
    """One line on the last epoch of all runs."""
    epoch = runs[0].epoch
    losses = " ".join(f"{run.history[-1]['total']:.4f}" for run in runs)
    scores = " ".join(f"{run.history[-1][best_metric]:.2f}{' (best)' * (run.best_epoch == epoch)}" for run in runs)
    seconds = f"{runs[0].history[-1]['train_seconds']:.1f} s + {other_seconds:.1f} s"
    return f"epoch {epoch:3d}  loss {losses}  {best_metric} {scores}  {seconds}"


def _check_finite(totals: dict[str, list[float]], epoch: int, run_dir: Path, folders: list[Path]) -> None:
    """One broken run stops all that are trained with it, before any of them saves this epoch."""
    broken = [
        name if len(folders) == 1 else f"{name} of {folder.name}"
        for name, of_runs in totals.items()
        for folder, value in zip(folders, of_runs, strict=True)
        if not math.isfinite(value)
    ]
    if broken:
        raise InputError(
            run_dir,
            f"{', '.join(broken)} not finite in epoch {epoch}",
            "finite losses",
            "Lower the learning rate, clip gradients harder, or train in float32; then --resume from the last epoch.",
        )


def _save(
    path: Path, networks: SingleNetwork | StackedNetworks, optimizer: torch.optim.Optimizer, runs: list[Progress]
) -> None:
    state = {
        **networks.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": [vars(progress) for progress in runs],
    }
    save_checkpoint(state, path)


def _restore(path: Path, networks: SingleNetwork | StackedNetworks, optimizer: torch.optim.Optimizer) -> list[Progress]:
    state = load_checkpoint(path)
    try:
        networks.load_state_dict(state)
        optimizer.load_state_dict(state["optimizer"])
        return [Progress(**progress) for progress in state["progress"]]
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            path,
            f"a state that does not fit ({str(error).splitlines()[0]})",
            "the last state of this run, on the same kind of device",
            "Resume with the run's own settings, or start a new run.",
        ) from error
