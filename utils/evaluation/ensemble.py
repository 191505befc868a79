"""Several runs as one: the mean of the probabilities that their evaluations have kept."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.compare import aligned
from utils.evaluation.inference import SplitOutput
from utils.evaluation.predictions import Predictions, load_predictions


def load_ensemble(folders: Sequence[Path], split: str) -> list[Predictions]:
    """Read the predictions of several evaluations, their videos in the order of the first.

    Raises:
        InputError: when one is absent, of an earlier version that kept no probabilities, or of other videos.
    """
    runs = [load_predictions(folder, split) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        if run.probs is None:
            found, expected = f"predictions of {split} without probabilities", "those with them"
            raise InputError(folder, found, expected, "Evaluate the run again with test_han.py.")
    return [aligned(runs[0], run, str(folder)) for folder, run in zip(folders, runs, strict=True)]


def mean_output(runs: Sequence[Predictions]) -> SplitOutput:
    """Average the probabilities of runs on the same videos, in float64, as if they were one network's output."""

    def mean(*arrays: np.ndarray) -> Tensor:
        return torch.from_numpy(np.mean(arrays, axis=0, dtype=np.float64))

    def mean_pair(pairs: Sequence[AudioVisual[np.ndarray]]) -> AudioVisual[Tensor]:
        return pairs[0].map(mean, *pairs[1:])

    probs = [run.probs for run in runs]
    return SplitOutput(
        logits=mean_pair([of_run.segments for of_run in probs]).map(torch.logit),
        video_probs=mean(*(of_run.video for of_run in probs)),
        modality_probs=mean_pair([of_run.modality for of_run in probs]),
    )
