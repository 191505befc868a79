"""Metrics and threshold search as literal loops over videos, classes and candidates. T segments, C classes."""

import numpy as np

from utils.audio_visual import AudioVisual
from utils.method.metrics import LevelScores, ParsingScores


def segment_counts(prediction: np.ndarray, truth: np.ndarray) -> list[tuple[int, int, int]]:
    """One video's (TP, FP, FN) of each class: (T, C) bool, (T, C) bool."""
    counts = []
    for c in range(truth.shape[1]):
        tp = int(np.sum(prediction[:, c] & truth[:, c]))
        fp = int(np.sum(prediction[:, c] & ~truth[:, c]))
        fn = int(np.sum(~prediction[:, c] & truth[:, c]))
        counts.append((tp, fp, fn))
    return counts


def find_events(active: np.ndarray) -> list[tuple[int, int]]:
    """Maximal runs of True as (first, end): (T,) bool."""
    events, first = [], None
    for t, is_active in enumerate(active):
        if is_active and first is None:
            first = t
        if not is_active and first is not None:
            events.append((first, t))
            first = None
    if first is not None:
        events.append((first, len(active)))
    return events


def event_counts(prediction: np.ndarray, truth: np.ndarray) -> list[tuple[int, int, int]]:
    """One video's (TP, FP, FN) of each class over events: (T, C) bool, (T, C) bool."""
    counts = []
    for c in range(truth.shape[1]):
        predicted, true = find_events(prediction[:, c]), find_events(truth[:, c])
        reached = [False] * len(true)
        tp = 0
        for first, end in predicted:
            hit = False
            for i, (true_first, true_end) in enumerate(true):
                overlap = min(end, true_end) - max(first, true_first)
                union = max(end, true_end) - min(first, true_first)
                if overlap > 0 and overlap / union >= 0.5:
                    hit = reached[i] = True
            tp += hit
        counts.append((tp, len(predicted) - tp, len(true) - sum(reached)))
    return counts


def f_score(counts: list[tuple[int, int, int]]) -> float:
    """Mean F-score of the classes that occur, 1.0 when none does."""
    scores = [2 * tp / (2 * tp + fp + fn) for tp, fp, fn in counts if tp + fp + fn > 0]
    return sum(scores) / len(scores) if scores else 1.0


def video_scores(prediction: AudioVisual[np.ndarray], truth: AudioVisual[np.ndarray]) -> list[list[float]]:
    """One video's F-scores from (T, C) bool each: at segment and event level, [A, V, AV, Event@AV]."""
    levels = []
    for count in (segment_counts, event_counts):
        audio = count(prediction.audio, truth.audio)
        visual = count(prediction.visual, truth.visual)
        audio_visual = count(prediction.audio & prediction.visual, truth.audio & truth.visual)
        both = [tuple(a + v for a, v in zip(of_a, of_v, strict=True)) for of_a, of_v in zip(audio, visual, strict=True)]
        levels.append([f_score(audio), f_score(visual), f_score(audio_visual), f_score(both)])
    return levels


def mean_scores(videos: list[list[list[float]]]) -> ParsingScores:
    """The data set's scores in percent from those of its videos."""
    levels = []
    for level in range(2):
        audio, visual, audio_visual, both = (
            100 * sum(video[level][i] for video in videos) / len(videos) for i in range(4)
        )
        levels.append(LevelScores(audio, visual, audio_visual, (audio + visual + audio_visual) / 3, both))
    return ParsingScores(*levels)


def parsing_scores(prediction: AudioVisual[np.ndarray], truth: AudioVisual[np.ndarray]) -> ParsingScores:
    """All F-scores of N videos: (N, T, C) bool each."""
    videos = zip(*prediction, *truth, strict=True)
    return mean_scores(
        [video_scores(AudioVisual(a, v), AudioVisual(true_a, true_v)) for a, v, true_a, true_v in videos]
    )


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold that maximises F1 of `score > threshold`, every candidate tried: (M,), (M,) bool."""
    ordered = np.sort(scores.astype(np.float64))
    candidates = [-np.inf] + [(ordered[i] + ordered[i + 1]) / 2 for i in range(len(ordered) - 1)]
    best, best_f1 = -np.inf, -1.0
    for candidate in candidates:
        predicted = scores > candidate
        tp = np.sum(predicted & labels)
        fp = np.sum(predicted & ~labels)
        fn = np.sum(~predicted & labels)
        f1 = 2 * tp / max(2 * tp + fp + fn, 1)
        if f1 > best_f1:
            best, best_f1 = candidate, f1
    return float(best)


def classwise_thresholds(logits: np.ndarray, labels: np.ndarray, video_labels: np.ndarray) -> np.ndarray:
    """One threshold a class over all segments: (N, T, C), (N, T, C) bool, (N, C) bool -> (C,) float64."""
    num_classes = logits.shape[-1]
    thresholds = np.empty(num_classes)
    for c in range(num_classes):
        scores = np.where(video_labels[:, None, c], logits[..., c], -np.inf).ravel()  # (N * T,)
        thresholds[c] = best_threshold(scores, labels[..., c].ravel())
    return thresholds
