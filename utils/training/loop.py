"""The training loop of stages 1 and 3, and of the classifiers of clips."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeVar

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from tqdm import tqdm

from utils.errors import InputError
from utils.method.losses import Losses, Moment
from utils.settings import settings_group
from utils.training.checkpoints import load_checkpoint, save_checkpoint
from utils.training.device import default_generators
from utils.training.events import write_scalars

Batch = TypeVar("Batch", covariant=True)  # what the losses of one step are computed from
BEST_CHECKPOINT = Path("checkpoints/checkpoint_best.pt")
LAST_STATE = Path("checkpoints/last.pt")
# Settings that cannot change the result of a run, so that they may differ when it is continued; epochs may be more.
RESUMABLE = ("num_epochs", "device", "residency", "packed_dir", "checkpoint_every", "save_every", "jobs")


def cosine_learning_rate(epoch: int, num_epochs: int, warmup_epochs: int, lr: float, lr_min: float) -> float:
    """Learning rate of one epoch: linear warm-up, then a cosine from `lr` down to `lr_min`.

    Args:
        epoch: counted from 1 to `num_epochs`.
        warmup_epochs: epoch at which `lr` is reached.

    Raises:
        ValueError: when `epoch` lies outside 1..num_epochs.
    """
    if not 1 <= epoch <= num_epochs:
        raise ValueError(f"epoch {epoch} lies outside 1..{num_epochs}")
    if epoch < warmup_epochs:
        return lr * epoch / warmup_epochs
    progress = (epoch - warmup_epochs) / max(1, num_epochs - warmup_epochs)
    return lr_min + (lr - lr_min) / 2 * (1 + math.cos(math.pi * progress))


def step_learning_rate(epoch: int, lr: float, decay: float, decay_every: int) -> float:
    """Learning rate of one epoch, counted from 1: `lr`, multiplied by `decay` after every `decay_every` epochs."""
    return lr * decay ** ((epoch - 1) // decay_every)


@settings_group
class Recipe:
    """How to train; the defaults are the released recipe of stage 3 on LLP."""

    num_epochs: PositiveInt = 80  # number of epochs
    batch_size: PositiveInt = 64  # videos of a batch
    optimizer: Literal["adamw", "adam"] = "adamw"  # optimiser
    lr: PositiveFloat = 1e-4  # highest learning rate
    schedule: Literal["cosine", "step"] = "cosine"  # cosine has a warm-up, step has none
    lr_min: NonNegativeFloat = 5e-6  # learning rate at the end of the cosine
    warmup_epochs: NonNegativeInt = 10  # epoch in which the cosine schedule reaches lr
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 0.1  # factor of each step of the step schedule
    lr_decay_every: PositiveInt = 10  # epochs between steps of the step schedule
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """beta1 and beta2 of the optimiser"""
    eps: PositiveFloat = 1e-8  # epsilon of the optimiser
    weight_decay: NonNegativeFloat = 1e-4  # weight decay of the optimiser
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=True)] = 1.0  # largest gradient norm; inf: no clipping
    seed: Annotated[int, Field(ge=0, lt=2**43)] = 20000  # seed of first weights, dropout, mixup and order of videos
    keep: Literal["first_best", "last_best", "last"] = "first_best"
    """epoch that is evaluated: the first or the last of those with the best score on val, or the last of all (MA)"""

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch (counted from 1)."""
        if self.schedule == "step":
            return step_learning_rate(epoch, self.lr, self.lr_decay, self.lr_decay_every)
        return cosine_learning_rate(epoch, self.num_epochs, self.warmup_epochs, self.lr, self.lr_min)


@settings_group
class Saving:
    """What a run keeps of itself."""

    checkpoint_every: PositiveInt = 20  # epochs between checkpoints that are kept
    save_every: PositiveInt = 1  # epochs between states that --resume goes on from


SAVING = Saving()


class TrainingData(Protocol[Batch]):
    """What the loop asks of a split: `dataloaders.batches.SplitBatches` or `lavish.clip_batches.ClipBatches`."""

    device: torch.device
    num_videos: int

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]: ...

    def check_features(self) -> None: ...


@dataclass
class Progress:
    """How far a run has come."""

    epoch: int = 0  # finished ones
    best_epoch: int = 0
    best_score: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)  # validation scores and losses of each epoch

    @property
    def seconds(self) -> float:
        """Return the seconds of training and validation of all epochs, resumed or not."""
        return sum(epoch.get(name, 0) for epoch in self.history for name in ("train_seconds", "validation_seconds"))


def fit(
    network: nn.Module,
    train: TrainingData[Batch],
    step: Callable[..., Losses],
    validate: Callable[[], dict[str, float]],
    recipe: Recipe,
    best_metric: str,
    run_dir: Path,
    log: logging.Logger,
    saving: Saving = SAVING,
    resume: bool = False,
    takes_steps: bool = False,
    patience: int | None = None,
    lr_factors: Mapping[str, float] | None = None,
) -> Progress:
    """Train, validate after every epoch, keep the best weights.

    Args:
        network: on its device.
        train: batches to learn from.
        step: (network, batch, moment) -> losses of one batch by name; "total" is minimised.
        validate: scores of the network by name; it is in evaluation mode then.
        best_metric: the score whose highest value makes `checkpoint_best.pt`, unless the recipe keeps the last epoch.
        run_dir: takes checkpoints, the state to resume from and TensorBoard events.
        resume: go on from `checkpoints/last.pt` where there is one.
        takes_steps: `step` takes the optimiser's steps itself, with a fourth argument that takes one, or two on the
            same gradient, and returns the gradient's norm (CoLeaF takes two on a batch, LAVISH one for several parts).
        patience: epochs without a better score after which training stops; None: never (LAVISH).
        lr_factors: learning rates of the parameters whose names begin so, relative to that of all others.

    Raises:
        InputError: when a loss is no longer finite, or a checkpoint cannot be read or written.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[recipe.optimizer](
        _parameter_groups(network, lr_factors or {}),
        lr=recipe.lr,  # until the first epoch sets it
        betas=recipe.betas,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    progress = Progress()
    if resume and (run_dir / LAST_STATE).exists():
        progress = _restore(run_dir / LAST_STATE, network, optimizer, train.device)
        log.info(f"resuming after epoch {progress.epoch}")
    steps = math.ceil(train.num_videos / recipe.batch_size)

    def take_step(twice: bool = False) -> Tensor:
        norm = nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        for _ in range(1 + twice):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    for epoch in range(progress.epoch + 1, recipe.num_epochs + 1):
        if patience and progress.epoch - progress.best_epoch >= patience:
            log.info(f"no better {best_metric} for {patience} epochs")
            break
        started = time.perf_counter()
        lr = recipe.learning_rate(epoch)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        network.train()
        sums: dict[str, Tensor] = {}  # stay on the device until the epoch ends: no step waits for the host
        batches = train.shuffled(recipe.batch_size, recipe.seed, epoch)
        desc = f"epoch {epoch}/{recipe.num_epochs}"
        for number, batch in enumerate(tqdm(batches, desc, steps, leave=False, unit="step", disable=None)):
            moment = Moment(epoch, number)
            if takes_steps:
                losses = step(network, batch, moment, take_step)
            else:
                losses = step(network, batch, moment)
                losses["total"].backward()
                losses["gradient_norm"] = take_step()
            for name, value in losses.items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
        means = {name: value.item() / steps for name, value in sums.items()}
        train_seconds = time.perf_counter() - started
        _check_finite(means, epoch, run_dir, train)

        network.eval()
        with torch.inference_mode():
            scores = validate()
        progress.epoch = epoch
        seconds = {"train_seconds": train_seconds, "validation_seconds": time.perf_counter() - started - train_seconds}
        progress.history.append({**means, **scores, "learning_rate": lr, **seconds})
        score, best = scores[best_metric], progress.best_score
        if score > best or recipe.keep == "last" or (recipe.keep == "last_best" and score == best):
            progress.best_score, progress.best_epoch = score, epoch
            save_checkpoint(network.state_dict(), run_dir / BEST_CHECKPOINT)
        if epoch % saving.checkpoint_every == 0:
            save_checkpoint(network.state_dict(), run_dir / f"checkpoints/checkpoint_epoch_{epoch:03d}.pt")
        if epoch % saving.save_every == 0 or epoch == recipe.num_epochs:
            _save(run_dir / LAST_STATE, network, optimizer, train.device, progress)
        write_scalars(run_dir, _scalars(progress, means, scores), epoch)
        log.info(_epoch_line(progress, best_metric, time.perf_counter() - started - train_seconds))
    return progress


def _parameter_groups(network: nn.Module, lr_factors: Mapping[str, float]) -> list[dict]:
    """The trained parameters, those of one learning rate together."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            factor = next((factor for prefix, factor in lr_factors.items() if name.startswith(prefix)), 1.0)
            groups.setdefault(factor, []).append(parameter)
    return [{"params": parameters, "lr_factor": factor} for factor, parameters in groups.items()]


def _scalars(progress: Progress, means: dict[str, float], scores: dict[str, float]) -> dict[str, float]:
    """What TensorBoard shows of the last epoch."""
    last = progress.history[-1]
    return {
        **{f"train/{name}": value for name, value in means.items()},
        **{f"val/{name}": value for name, value in scores.items()},
        "train/learning_rate": last["learning_rate"],
        "time/train_seconds": last["train_seconds"],
    }


def _epoch_line(progress: Progress, best_metric: str, other_seconds: float) -> str:
    """One line on the last epoch."""
    epoch, last = progress.epoch, progress.history[-1]
    kept = " (kept)" if progress.best_epoch == epoch else ""
    seconds = f"{last['train_seconds']:.1f} s + {other_seconds:.1f} s"
    return f"epoch {epoch:3d}  loss {last['total']:.4f}  {best_metric} {last[best_metric]:.2f}{kept}  {seconds}"


def _check_finite(means: dict[str, float], epoch: int, run_dir: Path, train: TrainingData) -> None:
    """Stop before anything of a broken epoch is saved."""
    broken = [name for name, value in means.items() if not math.isfinite(value)]
    if broken:
        train.check_features()  # before the learning rate is blamed
        raise InputError(
            run_dir,
            f"{', '.join(broken)} not finite in epoch {epoch}",
            "finite losses",
            "Lower the learning rate, clip gradients harder, or train in float32; then --resume from the last epoch.",
        )


def _save(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device, progress: Progress
) -> None:
    state = {
        "network": network.state_dict(),
        "generators": [generator.get_state() for generator in default_generators(device)],
        "optimizer": optimizer.state_dict(),
        "progress": vars(progress),
    }
    save_checkpoint(state, path)


def _restore(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> Progress:
    state = load_checkpoint(path)
    try:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        for generator, saved in zip(default_generators(device), state["generators"], strict=True):
            generator.set_state(saved)
        progress = Progress(**state["progress"])
        _check_progress(progress)
        return progress
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            path,
            f"a state that does not fit ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            "the last state of this run, on the same kind of device",
            "Resume with the run's own settings, or start a new run.",
        ) from error


def _check_progress(progress: Progress) -> None:
    """Raise ValueError for a progress that no run can have made."""
    epochs, score = (progress.epoch, progress.best_epoch), progress.best_score
    history = progress.history
    whole = all(isinstance(epoch, int) and not isinstance(epoch, bool) for epoch in epochs)
    if not whole or not 0 <= progress.best_epoch <= progress.epoch or not isinstance(score, float):
        raise ValueError(f"epoch {epochs[0]!r}, best {epochs[1]!r} with {score!r}")
    if not isinstance(history, list) or len(history) != progress.epoch:
        raise ValueError(f"a history of other epochs than {progress.epoch}")
