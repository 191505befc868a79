"""JoMoLD's cleaning of video labels (Cheng et al., ECCV 2022), which CMPAE and CoLeaF share. B videos, C classes.

Within a batch, a label is wrong for a modality if its loss is among the largest there and among the smallest in the
other. How many labels of a class to look at is estimated beforehand: the class's noise ratio.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.audio_visual import AudioVisual

LIMITS = AudioVisual(0.6, 1.8)  # a label is noise below this share of its class's mean probability


def mean_of_batches(probs: Sequence[Tensor]) -> Tensor:
    """The mean of the batches' means, (C,): a last, smaller batch weighs as much as the others (released code).

    Args:
        probs: (B, C) each.
    """
    return torch.stack([batch.mean(dim=0) for batch in probs]).mean(dim=0)


def noise_ratios(probs: Tensor, targets: Tensor, class_means: Tensor, labels: Tensor, limit: float) -> Tensor:
    """Share of each class's labels that a modality does not seem to have: p·P / mean < limit.

    Args:
        probs: (N, C), the estimator's time-pooled probabilities.
        targets: (N, C), P, what it was trained on (0.95 for a visual label).
        class_means: (C,) from `mean_of_batches`.
        labels: (N, C) bool, of the videos.

    Returns:
        (C,) in [0, 1]; 0 for a class without a label
    """
    noisy = labels & (probs * targets < limit * class_means)
    return noisy.sum(dim=0) / labels.sum(dim=0).clamp(min=1)


def cleaned_targets(
    probs: AudioVisual[Tensor], targets: AudioVisual[Tensor], ratios: AudioVisual[Tensor], labels: Tensor
) -> AudioVisual[Tensor]:
    """The targets of a batch without those that are probably wrong, which become 0.

    Of a class with N positives, n_m = floor(ratio_m · N) are looked at. A visual target goes if it is both among the
    n_v smallest audio losses and the n_v largest visual ones, an audio target if it is both among the n_a largest audio
    losses and the n_a smallest visual ones. Of equal losses the earlier video's counts as the smaller.

    Args:
        probs: (B, C), time-pooled.
        targets: (B, C).
        ratios: (C,).
        labels: (B, C) in {0, 1}, of the videos.

    Returns:
        (B, C)
    """
    positive = labels.bool()
    counts = positive.sum(dim=0)  # (C,)

    def rank(probs: Tensor, targets: Tensor) -> Tensor:
        return _ranks(F.binary_cross_entropy(probs.clamp(1e-7, 1 - 1e-7), targets, reduction="none"), positive)

    audio_rank, visual_rank = probs.map(rank, targets)  # (B, C) each
    audio_number, visual_number = ratios.map(lambda ratio: (ratio * counts).floor())  # (C,) each
    not_seen = positive & (audio_rank < visual_number) & (visual_rank >= counts - visual_number)
    not_heard = positive & (audio_rank >= counts - audio_number) & (visual_rank < audio_number)
    return AudioVisual(targets.audio.masked_fill(not_heard, 0), targets.visual.masked_fill(not_seen, 0))


def labels_over_time(labels: Tensor) -> Tensor:
    """LEAP's label of a modality: the classes that any of its segments has, (B, T, C) -> (B, C)."""
    return labels.amax(dim=1)


def _ranks(losses: Tensor, positive: Tensor) -> Tensor:
    """The place of each loss among the positives of its class, from 0 for the smallest: (B, C); others come last."""
    order = losses.masked_fill(~positive, torch.inf).argsort(dim=0, stable=True)
    places = torch.arange(losses.shape[0], device=losses.device).unsqueeze(1).expand_as(order)
    return torch.empty_like(order).scatter(0, order, places)
