"""The training loop of stages 1 and 3, and of the classifiers of clips."""

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from tqdm import tqdm

from utils.errors import InputError
from utils.method.losses import Losses, Moment
from utils.settings import Share, settings_group
from utils.training.checkpoints import load_checkpoint, save_checkpoint
from utils.training.device import default_generators
from utils.training.events import write_scalars

BEST_CHECKPOINT = Path("checkpoints/checkpoint_best.pt")
LAST_STATE = Path("checkpoints/last.pt")
LOG_SECONDS = 60  # between lines of progress within an epoch where the output is not a terminal
# Settings that may change when a run is resumed, since they do not affect its result; `num_epochs` may only grow.
RESUMABLE = ("num_epochs", "device", "residency", "packed_dir", "checkpoint_every", "save_every", "jobs")


def cosine_learning_rate(epoch: int, num_epochs: int, warmup_epochs: int, lr: float, lr_min: float) -> float:
    """Return the learning rate: linear to `lr` at `warmup_epochs`, then cosine. Raises ValueError outside 1..N."""
    if not 1 <= epoch <= num_epochs:
        raise ValueError(f"epoch {epoch} lies outside 1..{num_epochs}")
    if epoch < warmup_epochs:
        return lr * epoch / warmup_epochs
    progress = (epoch - warmup_epochs) / max(1, num_epochs - warmup_epochs)
    return lr_min + (lr - lr_min) / 2 * (1 + math.cos(math.pi * progress))


@settings_group
class Recipe:
    """Settings of training."""

    num_epochs: PositiveInt = 80  # number of epochs
    batch_size: PositiveInt = 64  # videos per batch
    optimizer: Literal["adamw", "adam"] = "adamw"  # optimiser
    lr: PositiveFloat = 1e-4  # highest learning rate
    schedule: Literal["cosine", "step"] = "cosine"  # cosine with warm-up, or steps without
    lr_min: NonNegativeFloat = 5e-6  # learning rate at the end of the cosine schedule
    warmup_epochs: NonNegativeInt = 10  # epoch in which the cosine schedule reaches lr
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 0.1  # factor of each step of the step schedule
    lr_decay_every: PositiveInt = 10  # epochs between steps of the step schedule
    betas: tuple[Share, Share] = (0.9, 0.999)  # beta1 and beta2 of the optimiser
    eps: PositiveFloat = 1e-8  # epsilon of the optimiser
    weight_decay: NonNegativeFloat = 1e-4  # weight decay of the optimiser
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=True)] = 1.0  # largest gradient norm; inf: no clipping
    seed: Annotated[int, Field(ge=0, lt=2**43)] = 20000  # seed of initial weights, dropout, mixup and order of videos
    keep: Literal["first_best", "last_best", "last"] = "first_best"
    """epoch to evaluate: the first or the last with the best score on val, or the last of training (MA)"""

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch (counted from 1)."""
        if self.schedule == "step":
            return self.lr * self.lr_decay ** ((epoch - 1) // self.lr_decay_every)
        return cosine_learning_rate(epoch, self.num_epochs, self.warmup_epochs, self.lr, self.lr_min)


@settings_group
class Saving:
    """Settings of checkpoints."""

    checkpoint_every: PositiveInt = 20  # epochs between checkpoints that are kept
    save_every: PositiveInt = 1  # epochs between states from which --resume continues


SAVING = Saving()


@pydantic.dataclasses.dataclass(config={"extra": "forbid", "strict": True})
class Progress:
    """Progress of a run. Raises ValueError for inconsistent values."""

    epoch: NonNegativeInt = 0  # finished epochs
    best_epoch: NonNegativeInt = 0
    best_score: float = -math.inf
    history: list[dict] = field(default_factory=list)  # losses and validation scores of each epoch

    def __post_init__(self):
        if self.best_epoch > self.epoch or len(self.history) != self.epoch:
            raise ValueError(f"epoch {self.epoch}, best {self.best_epoch}, a history of {len(self.history)}")

    @property
    def seconds(self) -> float:
        """Return the seconds of training and validation over all epochs, including those before a resumption."""
        return sum(epoch.get(name, 0) for epoch in self.history for name in ("train_seconds", "validation_seconds"))


def fit(
    network: nn.Module,  # on its device
    train: Any,  # has `device`, `num_videos`, `shuffled` and `check_features` of `SplitBatches` or `ClipBatches`
    step: Callable[..., Losses],  # (network, batch, moment) -> losses of a batch by name; "total" is minimised
    validate: Callable[[], dict[str, float]],  # returns the scores of the network, which is in evaluation mode
    recipe: Recipe,
    best_metric: str,  # the score that selects `checkpoint_best.pt`, unless the recipe keeps the last epoch
    run_dir: Path,  # for checkpoints, the state for resumption and TensorBoard events
    log: logging.Logger,
    saving: Saving = SAVING,
    resume: bool = False,  # continue from `checkpoints/last.pt` if it exists
    takes_steps: bool = False,  # `step` calls the optimiser itself
    patience: int | None = None,  # epochs without a better score after which training stops; None: never (LAVISH)
    lr_factors: Mapping[str, float] | None = None,  # relative learning rates by prefix of parameter names
    on_epoch: Callable[[int, float], None] | None = None,  # called with every epoch and its score; may raise to stop
) -> Progress:
    """Train, validate after every epoch, and keep the best weights.

    With `takes_steps`, `step` has a fourth argument: a function that takes one optimiser step, or two on the same
    gradient, and returns the gradient's norm (CoLeaF takes two per batch, LAVISH one for several parts of it). Raises
    InputError if a loss is not finite, or a checkpoint cannot be read or written.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups: dict[float, list[nn.Parameter]] = {}  # by relative learning rate
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            factors = (factor for prefix, factor in (lr_factors or {}).items() if name.startswith(prefix))
            groups.setdefault(next(factors, 1.0), []).append(parameter)
    with_factors = [{"params": members, "lr_factor": factor} for factor, members in groups.items()]
    options = {"lr": recipe.lr, "betas": recipe.betas, "eps": recipe.eps, "weight_decay": recipe.weight_decay}
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[recipe.optimizer]
    optimizer = kind(with_factors, fused=True, **options)
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
            log.info(f"no improvement in {best_metric} for {patience} epochs")
            break
        started = time.perf_counter()
        lr = recipe.learning_rate(epoch)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        network.train()
        sums: dict[str, Tensor] = {}  # on the device until the epoch ends, so that no step waits for the host
        batches = train.shuffled(recipe.batch_size, recipe.seed, epoch)
        desc = f"epoch {epoch}/{recipe.num_epochs}"
        seconds = {} if sys.stderr.isatty() else dict.fromkeys(("delay", "mininterval", "maxinterval"), LOG_SECONDS)
        for number, batch in enumerate(tqdm(batches, desc, steps, leave=False, unit="step", **seconds)):
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
        kept = score > best or recipe.keep == "last" or (recipe.keep == "last_best" and score == best)
        if kept:
            progress.best_score, progress.best_epoch = score, epoch
            save_checkpoint(network.state_dict(), run_dir / BEST_CHECKPOINT)
        if epoch % saving.checkpoint_every == 0:
            save_checkpoint(network.state_dict(), run_dir / f"checkpoints/checkpoint_epoch_{epoch:03d}.pt")
        if epoch % saving.save_every == 0 or epoch == recipe.num_epochs:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "progress": vars(progress)}
            state["generators"] = [generator.get_state() for generator in default_generators(train.device)]
            save_checkpoint(state, run_dir / LAST_STATE)
        scalars = {f"train/{name}": value for name, value in (means | {"learning_rate": lr}).items()}
        scalars |= {f"val/{name}": value for name, value in scores.items()}
        write_scalars(run_dir, scalars | {"time/train_seconds": train_seconds}, epoch)
        other_seconds = time.perf_counter() - started - train_seconds
        result = f"loss {means['total']:.4f}  {best_metric} {score:.2f}{' (kept)' * kept}"
        log.info(f"epoch {epoch:3d}  {result}  {train_seconds:.1f} s + {other_seconds:.1f} s")
        if on_epoch:
            on_epoch(epoch, score)
    return progress


def _check_finite(means: dict[str, float], epoch: int, run_dir: Path, train: Any) -> None:
    """Raise InputError for losses that are not finite, before the epoch is saved."""
    if broken := [name for name, value in means.items() if not math.isfinite(value)]:
        train.check_features()  # raises if they are the cause
        way_out = "Lower the learning rate, clip gradients harder or use float32; then --resume from the last epoch."
        raise InputError(run_dir, f"non-finite {', '.join(broken)} in epoch {epoch}", "finite losses", way_out)


def _restore(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> Progress:
    state = load_checkpoint(path)
    try:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        for generator, saved in zip(default_generators(device), state["generators"], strict=True):
            generator.set_state(saved)
        return Progress(**state["progress"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        found = f"a state that does not fit ({' '.join(str(error).split())[:200] or type(error).__name__})"
        expected = "the last state of this run, on the same kind of device"
        raise InputError(path, found, expected, "Resume with the run's own settings, or start a new run.") from error
