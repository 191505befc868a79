"""Average precision of scored spans, as in ActivityNet's detection task and in the published results on UnAV-100."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.method.spans import joined_rows, maximal_spans

THRESHOLDS = tuple(n / 10 for n in range(1, 10))  # on tIoU, and on probabilities


@dataclass(frozen=True)
class Spans:
    """K spans of events, predicted or true."""

    video: Tensor  # (K,) int64
    label: Tensor  # (K,) int64, class
    times: Tensor  # (K, 2) float64, start and end in segments, which are seconds
    score: Tensor | None = None  # (K,) float64, of predicted ones


def predicted_spans(probs: Tensor) -> Spans:
    """Find the maximal spans above each of `THRESHOLDS` in probabilities (N, T, C), which are 0 in padding.

    A span found at several thresholds is kept once; nested spans are all kept. This rule is ours: the transformer is
    trained on segments, and its authors extract no spans.
    """
    return scored_spans([probs.double() > threshold for threshold in THRESHOLDS], probs)


def scored_spans(events: Sequence[Tensor], probs: Tensor) -> Spans:
    """Return the distinct spans in events (N, T, C) bool, scored by the mean probability of their segments."""
    num_segments, num_classes = probs.shape[1:]
    runs = [torch.stack(maximal_spans(joined_rows(x.transpose(1, 2).flatten(0, 1))), dim=1) for x in events]
    first, end = torch.cat(runs).unique(dim=0).unbind(dim=1)  # (K,)
    rows = joined_rows(probs.double().transpose(1, 2).flatten(0, 1))  # (N * C * (T + 1),)
    sums = F.pad(rows.cumsum(0), (1, 0))
    row = first.div(num_segments + 1, rounding_mode="floor")  # of a video and a class
    times = torch.stack([first, end], dim=1) - (row * (num_segments + 1)).unsqueeze(1)
    score = (sums[end] - sums[first]) / (end - first)
    return Spans(row.div(num_classes, rounding_mode="floor"), row % num_classes, times.double(), score)


def average_precision(
    predicted: Spans, true: Spans, num_classes: int, thresholds: Sequence[float] = THRESHOLDS
) -> Tensor:
    """Compute interpolated average precision of C classes at H tIoUs, like ActivityNet's `eval_detection.py`: (H, C).

    In descending order of scores, a predicted span is matched to the unmatched true span of its video and class with
    the highest tIoU, if that reaches the threshold. The precision at a recall is the highest at that recall or above,
    averaged over all true spans. NaN for a class without a true span.
    """
    needed = torch.tensor(thresholds, dtype=torch.float64).unsqueeze(1)  # (H, 1)
    found = torch.full((len(thresholds), num_classes), torch.nan, dtype=torch.float64)
    by_score = predicted.score.argsort(descending=True, stable=True)
    for c in true.label.unique().tolist():
        ours, theirs = by_score[predicted.label[by_score] == c], true.label == c  # k predicted, g true
        tiou = temporal_iou(predicted.times[ours], true.times[theirs])  # (k, g)
        tiou = tiou * (predicted.video[ours].unsqueeze(1) == true.video[theirs])
        free = torch.ones(len(needed), tiou.shape[1], dtype=torch.bool)
        hits = torch.zeros(len(needed), tiou.shape[0])
        for k in (tiou >= min(thresholds)).any(dim=1).nonzero().squeeze(1).tolist():
            usable = free & (tiou[k] >= needed)  # (H, g)
            best = torch.where(usable, tiou[k], -1).argmax(dim=1)  # (H,)
            hit = usable & F.one_hot(best, len(tiou[k])).bool()
            hits[:, k], free = hit.any(dim=1), free & ~hit
        precision = hits.double().cumsum(dim=1) / torch.arange(1, len(tiou) + 1)
        best_beyond = precision.flip(1).cummax(dim=1).values.flip(1)
        found[:, c] = (best_beyond * hits).sum(dim=1) / theirs.sum()
    return found


def temporal_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the overlap of spans divided by their union: (k, 2), (g, 2) starts and ends -> (k, g)."""
    starts, ends = torch.maximum(first[:, None, 0], second[:, 0]), torch.minimum(first[:, None, 1], second[:, 1])
    overlap = (ends - starts).clamp(min=0)
    return overlap / (first.diff(dim=1) + second.diff(dim=1).T - overlap)
