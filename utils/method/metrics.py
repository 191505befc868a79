"""F-scores of audio-visual video parsing and accuracy of AVE, vectorised over videos, segments and classes.

Predicted and true events are boolean tensors (N videos, T segments, C classes) on any device, or pairs of them, audible
and visible. Zeros and ones of any type, NumPy arrays included, are accepted. Sums are computed in float64.
"""

from dataclasses import astuple, dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from utils.audio_visual import AudioVisual
from utils.method.spans import joined_rows, maximal_spans

Number = TypeVar("Number", float, Tensor)


@dataclass
class Counts:
    """True positives, false positives and false negatives, each (N, C)."""

    tp: Tensor
    fp: Tensor
    fn: Tensor

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


def as_events(values: Tensor | np.ndarray) -> Tensor:
    """Return zeros and ones of any type as a boolean tensor. Raises ValueError for other values."""
    events = torch.as_tensor(values)
    if events.dtype == torch.bool:
        return events
    if ((events != 0) & (events != 1)).any():
        raise ValueError(f"events of type {events.dtype} with values other than 0 and 1; decide by a threshold first")
    return events != 0


def segment_counts(prediction: Tensor, truth: Tensor) -> Counts:
    """Count segments: (N, T, C) bool, (N, T, C) bool -> counts (N, C)."""
    prediction, truth = as_events(prediction), as_events(truth)
    tp = (prediction & truth).sum(dim=1)
    return Counts(tp, prediction.sum(dim=1) - tp, truth.sum(dim=1) - tp)


def event_counts(prediction: Tensor, truth: Tensor) -> Counts:
    """Count events, that is, maximal spans of positive segments: (N, T, C) bool, (N, T, C) bool -> counts (N, C).

    A predicted event is a true positive if its IoU with a true event of its class is at least 0.5. No search over pairs
    is needed: each overlap of a predicted and a true event is one maximal span of (prediction and truth), and an event
    has IoU >= 0.5 with at most one other, since two would each cover half of it without a gap between them.
    """
    prediction, truth = as_events(prediction), as_events(truth)
    num_videos, num_segments, num_classes = prediction.shape
    prediction = joined_rows(prediction.transpose(1, 2).flatten(0, 1))  # (N * C * (T + 1),)
    truth = joined_rows(truth.transpose(1, 2).flatten(0, 1))
    predicted_first, predicted_end = maximal_spans(prediction)
    true_first, true_end = maximal_spans(truth)
    overlap_first, overlap_end = maximal_spans(prediction & truth)
    in_predicted = torch.searchsorted(predicted_first, overlap_first, right=True) - 1
    in_true = torch.searchsorted(true_first, overlap_first, right=True) - 1
    predicted_length = (predicted_end - predicted_first)[in_predicted]
    true_length = (true_end - true_first)[in_true]
    # overlap / union >= 1/2 in integers: 2 o >= p + t - o
    hit = 3 * (overlap_end - overlap_first) >= predicted_length + true_length

    def per_class(first: Tensor) -> Tensor:
        row = first.div(num_segments + 1, rounding_mode="floor")  # of a video and a class
        return torch.bincount(row, minlength=num_videos * num_classes).view(num_videos, num_classes)

    tp = per_class(overlap_first[hit])
    return Counts(tp, per_class(predicted_first) - tp, per_class(true_first) - tp)


def class_f_scores(counts: Counts) -> tuple[Tensor, Tensor]:
    """Compute the F-scores of counts in float64, and whether the class occurs at all, in the shape of the counts."""
    denominator = 2 * counts.tp + counts.fp + counts.fn
    return 2 * counts.tp.double() / denominator.clamp(min=1), denominator > 0


def video_f_scores(counts: Counts) -> Tensor:
    """Average F-scores over the classes in prediction or truth, 1.0 if there are none: counts (N, C) -> (N,)."""
    f_scores, occurs = class_f_scores(counts)  # (N, C)
    return _mean_of_occurring(f_scores.sum(dim=1), occurs.sum(dim=1))


def _mean_of_occurring(sums: Tensor, num_occurring: Tensor) -> Tensor:
    """Return each video's mean over the classes that occur, 1.0 if none does: (N,), (N,) -> (N,)."""
    return torch.where(num_occurring > 0, sums / num_occurring, 1.0)


LEVEL_NAMES = ("segment", "event")  # the fields of ParsingScores
SCORE_NAMES = ("A", "V", "AV", "Type", "Event")  # the paper's headings for the fields of LevelScores
F_SCORE_NAMES = tuple(f"{level}_{name}" for level in LEVEL_NAMES for name in SCORE_NAMES)  # segment_A to event_Event


@dataclass
class LevelScores:
    """F-scores in percent at one level, in the order of the paper's tables."""

    audio: float
    visual: float
    audio_visual: float
    type_at_av: float
    event_at_av: float


@dataclass
class ParsingScores:
    """F-scores of a method, as in the paper's Table 1."""

    segment: LevelScores
    event: LevelScores


def both_modalities(events: AudioVisual[Tensor]) -> Tensor:
    """Return audio-visual events, which are both audible and visible."""
    return events.audio & events.visual


def per_video_f_scores(prediction: AudioVisual[Tensor], truth: AudioVisual[Tensor], level: str) -> Tensor:
    """Compute A, V, AV and Event@AV of each video at the "segment" or "event" level: (N, T, C) -> (N, 4) in [0, 1]."""
    prediction, truth = AudioVisual(*map(as_events, prediction)), AudioVisual(*map(as_events, truth))
    marked = prediction.audio | prediction.visual | truth.audio | truth.visual
    # K pairs of a video and a class that occurs in it, which are few; `any` would be ten times slower
    video, label = marked.view(torch.uint8).amax(dim=1).nonzero(as_tuple=True)

    def pick(events: Tensor) -> Tensor:
        return events[video, :, label].unsqueeze(-1)  # (K, T, 1), as of K videos with one class

    def mean(counts: Counts) -> Tensor:
        f_scores, occurs = (values.squeeze(1).double() for values in class_f_scores(counts))
        sums, num_occurring = (f_scores.new_zeros(len(marked)).index_add(0, video, x) for x in (f_scores, occurs))
        return _mean_of_occurring(sums, num_occurring)

    count = {"segment": segment_counts, "event": event_counts}[level]
    prediction, truth = prediction.map(pick), truth.map(pick)
    audio, visual = prediction.map(count, truth)
    both = count(both_modalities(prediction), both_modalities(truth))
    return torch.stack([mean(c) for c in (audio, visual, both, audio + visual)], dim=1)


def type_at_av(audio: Number, visual: Number, audio_visual: Number) -> Number:
    """Return Type@AV, the mean of the A, V and AV scores."""
    return (audio + visual + audio_visual) / 3


def parsing_scores(prediction: AudioVisual[Tensor], truth: AudioVisual[Tensor]) -> ParsingScores:
    """Compute all F-scores of a split in percent, averaged over videos: (N, T, C) bool each."""
    levels = []
    for name in LEVEL_NAMES:
        per_video = per_video_f_scores(prediction, truth, name)
        audio, visual, audio_visual, event_at_av = (100 * per_video.mean(dim=0)).tolist()
        levels.append(LevelScores(audio, visual, audio_visual, type_at_av(audio, visual, audio_visual), event_at_av))
    return ParsingScores(*levels)


def unimodal_scores(prediction: AudioVisual[Tensor], truth: AudioVisual[Tensor]) -> ParsingScores:
    """Compute CoLeaF's scores on audible-only (A) and visible-only (V) events in percent: (N, T, C) bool each.

    Event pools both, AV is that of `parsing_scores`, and Type is the mean of A, V and AV (Sardari et al., ECCV 2024).
    """

    def in_one_modality(events: AudioVisual[Tensor]) -> AudioVisual[Tensor]:
        return AudioVisual(events.audio & ~events.visual, events.visual & ~events.audio)

    def level(own: LevelScores, of_both: LevelScores) -> LevelScores:
        mean = type_at_av(own.audio, own.visual, of_both.audio_visual)
        return replace(own, audio_visual=of_both.audio_visual, type_at_av=mean)

    whole = parsing_scores(prediction, truth)
    alone = parsing_scores(in_one_modality(prediction), in_one_modality(truth))
    return ParsingScores(level(alone.segment, whole.segment), level(alone.event, whole.event))


def named_scores(scores: ParsingScores) -> dict[str, float]:
    """Return the ten F-scores by name."""
    return dict(zip(F_SCORE_NAMES, (*astuple(scores.segment), *astuple(scores.event)), strict=True))


def segment_accuracy(prediction: Tensor, truth: Tensor) -> float:
    """Return the percentage of segments with the right label (none: background): (N, T, C) with at most one class."""
    return 100 * (as_events(prediction) == as_events(truth)).all(dim=-1).double().mean().item()


def confusion_matrix(prediction: Tensor, truth: Tensor) -> Tensor:
    """Count segments by true (row) and predicted label: (N, T, C) bool -> (C + 1, C + 1), background last."""
    labels = []
    for name, events in (("prediction", as_events(prediction)), ("truth", as_events(truth))):
        if (events.sum(dim=-1) > 1).any():
            raise ValueError(f"{name} has segments of several classes; the confusion matrix needs at most one")
        background = ~events.any(dim=-1, keepdim=True)  # (N, T, 1)
        labels.append(torch.cat([events, background], dim=-1).long().argmax(dim=-1))  # (N, T)
    return label_confusion(*labels, prediction.shape[-1] + 1)


def label_confusion(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count labels by true (row) and predicted class: (C, C) int64."""
    cells = torch.bincount((labels * num_classes + predicted).flatten(), minlength=num_classes**2)
    return cells.view(num_classes, num_classes)
