"""Precision-recall curves and average precision of each class, from the probabilities of segments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from utils.audio_visual import AudioVisual
from utils.reporting.tables import Column, Table, class_table


@dataclass(frozen=True)
class Curve:
    """Precision over recall of one class at K points."""

    precision: np.ndarray  # (K,) in [0, 1]
    recall: np.ndarray  # (K,) in [0, 1], descending
    average: float  # average precision in [0, 1]

    @staticmethod
    def of(true: np.ndarray, scores: np.ndarray) -> "Curve | None":
        """Compute the curve of a class, (R,) bool and scores; None where nothing is true."""
        from sklearn.metrics import average_precision_score, precision_recall_curve  # takes a second to import

        if not true.any():
            return None
        precision, recall, _ = precision_recall_curve(true, scores, drop_intermediate=True)
        return Curve(precision, recall, float(average_precision_score(true, scores)))


Curves = Mapping[str, Sequence[Curve | None]]  # by modality (A, V, AV), one per class


def precision_recall_curves(
    probs: AudioVisual[np.ndarray], truth: AudioVisual[np.ndarray], lengths: np.ndarray, modalities: Sequence[str]
) -> Curves:
    """Compute the curve of each class over the segments of all videos, for modalities of A, V and AV.

    Probabilities and truth are (N, T, C), lengths (N,) the segments of each video, after which is padding. Segments are
    ranked by their own probability, for AV by the product of both; the video's probability is not used.
    """
    valid = np.arange(truth.audio.shape[1]) < lengths[:, None]  # (N, T)
    audio, visual = (of_modality[valid].astype(np.float32) for of_modality in probs)  # (R, C)
    audible, visible = (of_modality[valid] for of_modality in truth)  # (R, C)
    scored = {"A": (audible, audio), "V": (visible, visual), "AV": (audible & visible, audio * visual)}
    return {name: [*map(Curve.of, scored[name][0].T, scored[name][1].T)] for name in modalities}


def average_precision_table(curves: Curves, classes: Sequence[str], title: str, note: str = "") -> Table:
    """Return the average precision of each class in percent, and its mean over the classes with a true segment."""
    columns = {}
    for name, of_modality in curves.items():
        known = [100 * curve.average for curve in of_modality if curve]
        mean = sum(known) / len(known) if known else np.nan
        values = [*(100 * curve.average if curve else np.nan for curve in of_modality), mean]
        columns[Column(name, "Average precision")] = torch.tensor(values, dtype=torch.float64)
    return class_table(title, (*classes, "mean"), columns, note=note)
