"""Learning-rate schedules."""

import math


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
