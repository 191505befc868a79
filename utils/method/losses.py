"""Losses of stages 1 and 3. B videos, T segments, C classes; docstrings say where paper and released code differ."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.audio_visual import AudioVisual

Run = Callable[..., Any]  # (network, *inputs) -> output in float32, computed in the run's precision
Losses = dict[str, Tensor]  # scalars by name; "total" is minimised


class Moment(NamedTuple):
    """A moment of training."""

    epoch: int = 1  # counted from 1
    step: int = 0  # of the epoch, counted from 0


def audio_visual_loss(
    logits: AudioVisual[Tensor], labels: Tensor, mask: Tensor | None, occurring_weight: float
) -> Tensor:
    """Compute stage 1's binary cross-entropy of p_av = sigmoid(a)·sigmoid(v) and audio-visual segment labels (Eq. 9).

    Logits and labels are (B, T, C); the mask, (B, T) bool, is False in padding. The weighted sum is divided by (number
    of valid segments · C). Classes that occur in a video have the `occurring_weight` (not in the paper; 1: off).
    """
    p_av = torch.sigmoid(logits.audio) * torch.sigmoid(logits.visual)
    valid = torch.ones_like(p_av[..., :1]) if mask is None else mask.unsqueeze(-1).to(p_av.dtype)  # (B, T, 1)
    labels = labels.to(p_av.dtype)
    occurs = (labels * valid).amax(dim=1, keepdim=True)  # (B, 1, C)
    weights = valid * (1 + (occurring_weight - 1) * occurs)
    loss = _cross_entropy_of_probabilities(p_av, labels, weights, reduction="sum")
    return loss / (valid.sum() * labels.shape[-1])


def video_loss(video_probs: Tensor, video_labels: Tensor) -> Tensor:
    """Compute binary cross-entropy of a video's or modality's pooled probabilities and labels, (B, C) (HAN, 2020)."""
    return _cross_entropy_of_probabilities(video_probs.clamp(1e-7, 1 - 1e-7), video_labels)


def _cross_entropy_of_probabilities(
    probs: Tensor, targets: Tensor, weights: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Compute binary cross-entropy, NaN if a probability is NaN, for which PyTorch's own would abort the process."""
    loss = F.binary_cross_entropy(probs.nan_to_num(), targets, weights, reduction=reduction)
    return loss + (0 * probs).sum()


def soft_pseudo_labels(teacher_logits: Tensor, thresholds: Tensor, video_labels: Tensor, temperature: float) -> Tensor:
    """Compute soft labels q = sigmoid((logit - threshold) / temperature) where y = 1, else 0 (Eq. 12): (B, T, C).

    Teacher logits are (B, T, C), thresholds (C,), video labels (B, C) in {0, 1}. The temperature is 2 in the released
    code, and absent (1) in Eq. 12. A threshold of -inf (every segment is positive) is first replaced by the class's
    smallest logit in the batch minus 1 (released code, not in the paper).
    """
    # Logits of -inf mark classes that are absent from a video; they do not count as the smallest logit.
    lowest = teacher_logits.masked_fill(torch.isneginf(teacher_logits), torch.inf).amin(dim=(0, 1)) - 1  # (C,)
    thresholds = torch.where(torch.isneginf(thresholds), lowest, thresholds)
    soft = torch.sigmoid((teacher_logits - thresholds) / temperature)
    return torch.where(video_labels.bool().unsqueeze(1), soft, 0.0)


def class_balance_weights(
    video_labels: Tensor, class_frequencies: Tensor, positive_weight: float, normalization: str
) -> Tensor:
    """Compute weights that balance positive and negative classes (Eq. 18, 19): labels y (B, C), f (C,) -> (B, 1, C).

    The weight is (C - S)·W where y = 1, and S where y = 0; S is the sum of f_c, the share of training segments whose
    pseudo-label has class c, and W the positive weight. `normalization="mean"` divides both by C, as in the paper.
    """
    num_classes = class_frequencies.shape[0]
    total = class_frequencies.sum()
    positive, negative = (num_classes - total) * positive_weight, total
    if normalization == "mean":
        positive, negative = positive / num_classes, negative / num_classes
    elif normalization != "sum":
        raise ValueError(f"normalization is {normalization!r}; expected 'sum' or 'mean'")
    return torch.where(video_labels.bool(), positive, negative).unsqueeze(1)


def segment_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute binary cross-entropy of one modality's logits and soft or hard labels, (B, T, C) (Eq. 11, 13, 17)."""
    return F.binary_cross_entropy_with_logits(logits, targets, weights)


def mixup_features(features: Tensor, lam: Tensor | float, permutation: Tensor) -> Tensor:
    """Mix features of all B·T segments, lam·x + (1 - lam)·x_perm (Eq. 14, 15): (B, T, D), (B·T,) -> (B·T, D)."""
    flat = features.flatten(0, 1)
    return lam * flat + (1 - lam) * flat[permutation]


def mixup_loss(mixed_logits: Tensor, targets: Tensor, lam: Tensor | float, permutation: Tensor) -> Tensor:
    """Compute the loss of mixed features, lam·L(z_bar, q) + (1 - lam)·L(z_bar, q_perm), where L is `segment_loss`.

    As L is linear in its target, this equals L(z_bar, lam·q + (1 - lam)·q_perm) (Eq. 14 to 16). Mixed logits are
    (B·T, C), targets q (B, T, C), the permutation (B·T,).
    """
    flat = targets.flatten(0, 1)
    return lam * segment_loss(mixed_logits, flat) + (1 - lam) * segment_loss(mixed_logits, flat[permutation])
