"""Stage 2's thresholds on logits, of the best F1 per modality (LLP) or the best audio-visual accuracy (AVE)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from utils.audio_visual import AudioVisual
from utils.method.metrics import Counts, class_f_scores


@dataclass
class ThresholdSearch:
    """Result of a search; all (K,) float64, one entry per row."""

    thresholds: Tensor
    f1: Tensor  # NaN for a row without positives, for which all thresholds are equally good


def search_thresholds(scores: Tensor, labels: Tensor) -> ThresholdSearch:
    """Find the threshold of each row that maximises the F1 of `score > threshold`: (K, M), (K, M) bool.

    Candidates are -inf (every score above -inf is positive) and the midpoints between neighbouring sorted scores, of
    which the first best one is returned. Scores are -inf where the video label rules out a class.
    """
    ordered, order = scores.double().sort(dim=1)
    positives = labels.gather(1, order).double()
    # A midpoint beside a score of -inf is -inf, like the first candidate.
    candidates = torch.cat([torch.full_like(ordered[:, :1], -torch.inf), (ordered[:, 1:] + ordered[:, :-1]) / 2], dim=1)
    below = torch.searchsorted(ordered, candidates, right=True)  # scores <= candidate, (K, M)
    num_positive = positives.sum(dim=1, keepdim=True)
    missed = torch.cat([torch.zeros_like(num_positive), positives.cumsum(dim=1)], dim=1).gather(1, below)
    tp = num_positive - missed
    predicted = scores.shape[1] - below
    f1, _ = class_f_scores(Counts(tp, fp=predicted - tp, fn=missed))
    best = f1.argmax(dim=1, keepdim=True)
    best_f1 = torch.where(num_positive > 0, f1.gather(1, best), torch.nan)
    return ThresholdSearch(candidates.gather(1, best).squeeze(1), best_f1.squeeze(1))


def masked_logits(logits: Tensor, video_labels: Tensor) -> Tensor:
    """Return logits with -inf for classes absent from the video label: (N, T, C), (N, C) -> (N, T, C)."""
    return logits.masked_fill(~video_labels.bool().unsqueeze(1), -torch.inf)


def classwise_thresholds(logits: Tensor, labels: Tensor, video_labels: Tensor) -> ThresholdSearch:
    """Find one threshold per class over all segments: (N, T, C), (N, T, C) bool, (N, C) -> (C,)."""
    scores = masked_logits(logits, video_labels).flatten(0, 1).T.contiguous()  # (C, N * T)
    return search_thresholds(scores, labels.flatten(0, 1).T.contiguous())


def class_agnostic_threshold(logits: Tensor, labels: Tensor, video_labels: Tensor) -> ThresholdSearch:
    """Find one threshold over all segments and classes: (N, T, C), (N, T, C) bool, (N, C) -> (1,)."""
    scores = masked_logits(logits, video_labels).reshape(1, -1)
    return search_thresholds(scores, labels.reshape(1, -1))


@dataclass
class AccuracySearch:
    """Result of a grid search; all (K,) float64, one entry per class or one for all."""

    thresholds: AudioVisual[Tensor]
    accuracy: Tensor  # in [0, 1]; NaN without segments


def accuracy_thresholds(
    logits: AudioVisual[Tensor],
    labels: Tensor,
    video_labels: Tensor,
    class_wise: bool = True,
    jointly: bool = True,
    num_candidates: int = 100,
) -> AccuracySearch:
    """Find thresholds that maximise the accuracy of audio-visual pseudo-labels, for AVE: K = C `class_wise`, else 1.

    Logits and labels (audible and visible) are (N, T, C), video labels (N, C). A segment has its video's class where
    both logits exceed their thresholds, else it is background. As a class's thresholds affect only videos of that
    class, each class can be searched separately.

    The candidates of a modality (at least two) are evenly spaced from one step below the smallest logit (every segment
    is positive) to the largest (none is), over the segments of videos with the class. `jointly` tries every pair;
    otherwise a modality is searched as if the other were always active. Of equal pairs the first one is returned.
    """
    index = video_labels.bool().unsqueeze(1).expand(labels.shape).nonzero(as_tuple=True)  # three of (M,)
    truth = labels[index]
    num_groups, group = (labels.shape[-1], index[2]) if class_wise else (1, torch.zeros_like(index[2]))
    searched = logits.map(lambda z: _grid(z[index].double(), group, num_groups, num_candidates))
    candidates = searched.map(lambda grid: grid[0])  # (K, G)
    passed = searched.map(lambda grid: grid[1])  # (M,)

    # For all (i, j), the number of true minus false segments that exceed exactly the first i audio and j visual
    # candidates; and from it the segments gained over "all background" by each pair of candidates.
    side = num_candidates + 1
    place = (group * side + passed.audio) * side + passed.visual
    margin = torch.bincount(place, 2.0 * truth - 1, minlength=num_groups * side**2).view(num_groups, side, side)
    gain = margin.flip(1, 2).cumsum(1).cumsum(2).flip(1, 2)[:, 1:, 1:]  # (K, G, G)
    if jointly:
        best = gain.flatten(1).argmax(dim=1)
        audio, visual = best.div(num_candidates, rounding_mode="floor"), best % num_candidates
    else:
        audio, visual = gain[:, :, 0].argmax(dim=1), gain[:, 0, :].argmax(dim=1)  # candidate 0: always active
    groups = torch.arange(num_groups)
    num_segments = torch.bincount(group, minlength=num_groups)
    num_background = torch.bincount(group[~truth], minlength=num_groups)
    return AccuracySearch(
        thresholds=AudioVisual(candidates.audio[groups, audio], candidates.visual[groups, visual]),
        accuracy=(num_background + gain[groups, audio, visual]) / num_segments,  # 0 / 0 is NaN
    )


def _grid(scores: Tensor, group: Tensor, num_groups: int, num_candidates: int) -> tuple[Tensor, Tensor]:
    """Return the candidates of each group, and how many of them each score exceeds: (M,), (M,) -> (K, G), (M,)."""
    lowest, highest = (
        torch.zeros(num_groups, dtype=scores.dtype).scatter_reduce(0, group, scores, reduce, include_self=False)
        for reduce in ("amin", "amax")
    )
    step = (highest - lowest) / max(num_candidates - 2, 1)
    first = lowest - torch.where(step > 0, step, 1.0)
    fraction = torch.linspace(0, 1, num_candidates, dtype=scores.dtype)
    candidates = torch.lerp(first.unsqueeze(1), highest.unsqueeze(1), fraction)  # (K, G), the last is `highest` exactly
    return candidates, torch.searchsorted(candidates[group], scores.unsqueeze(1)).squeeze(1)
