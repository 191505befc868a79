"""Thresholds on the temporal transformer's logits that maximise F1 on the validation segments (stage 2)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class ThresholdSearch:
    """Result of one search; all (K,) float64, one entry per searched row."""

    thresholds: Tensor
    f1: Tensor  # NaN where the row holds no positive, so that no threshold is better than another


def search_thresholds(scores: Tensor, labels: Tensor) -> ThresholdSearch:
    """Threshold of each row that maximises the F1 of `score > threshold`.

    Candidates are -inf (every score above -inf is positive) and the midpoints between neighbouring sorted scores; the
    first maximum wins.

    Args:
        scores: (K, M), -inf where a class is ruled out by the video label.
        labels: (K, M) bool.
    """
    ordered, order = scores.double().sort(dim=1)
    positives = labels.gather(1, order).double()
    # A midpoint with -inf on one side is -inf, the same candidate as the first.
    candidates = torch.cat([torch.full_like(ordered[:, :1], -torch.inf), (ordered[:, 1:] + ordered[:, :-1]) / 2], dim=1)
    below = torch.searchsorted(ordered, candidates, right=True)  # scores <= candidate, (K, M)
    num_positive = positives.sum(dim=1, keepdim=True)
    missed = torch.cat([torch.zeros_like(num_positive), positives.cumsum(dim=1)], dim=1).gather(1, below)
    tp = num_positive - missed
    predicted = scores.shape[1] - below
    f1 = 2 * tp / (predicted + num_positive).clamp(min=1)
    best = f1.argmax(dim=1, keepdim=True)
    best_f1 = torch.where(num_positive > 0, f1.gather(1, best), torch.nan)
    return ThresholdSearch(candidates.gather(1, best).squeeze(1), best_f1.squeeze(1))


def masked_logits(logits: Tensor, video_labels: Tensor) -> Tensor:
    """Logits with -inf for classes absent from the video label: (N, T, C), (N, C) -> (N, T, C)."""
    return logits.masked_fill(~video_labels.bool().unsqueeze(1), -torch.inf)


def classwise_thresholds(logits: Tensor, labels: Tensor, video_labels: Tensor) -> ThresholdSearch:
    """One threshold per class over all segments: (N, T, C), (N, T, C) bool, (N, C) -> (C,)."""
    scores = masked_logits(logits, video_labels).flatten(0, 1).T.contiguous()  # (C, N * T)
    return search_thresholds(scores, labels.flatten(0, 1).T.contiguous())


def class_agnostic_threshold(logits: Tensor, labels: Tensor, video_labels: Tensor) -> ThresholdSearch:
    """One threshold over all segments and classes: (N, T, C), (N, T, C) bool, (N, C) -> (1,)."""
    scores = masked_logits(logits, video_labels).reshape(1, -1)
    return search_thresholds(scores, labels.reshape(1, -1))
