"""Learning-rate schedule of both training stages."""

import math


def learning_rate(epoch: int, num_epochs: int, warmup_epochs: int, lr: float, lr_min: float) -> float:
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
