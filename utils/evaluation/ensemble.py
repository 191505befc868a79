"""Ensembles: the mean of the probabilities that the evaluations of several runs have kept."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from utils.errors import InputError
from utils.evaluation.compare import aligned
from utils.evaluation.inference import SplitOutput
from utils.evaluation.predictions import Predictions, Probabilities, load_predictions


def load_ensemble(folders: Sequence[Path], split: str) -> list[Predictions]:
    """Read the predictions of several evaluations, their videos in the order of the first.

    Raises InputError when one is absent, without probabilities (as of earlier versions), or of other videos.
    """
    runs = [load_predictions(folder, split) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        if run.probs is None:
            found, expected = f"predictions of {split} without probabilities", "those with them"
            raise InputError(folder, found, expected, "Evaluate the run again with test_han.py.")
    return [aligned(runs[0], run, str(folder)) for folder, run in zip(folders, runs, strict=True)]


def mean_output(runs: Sequence[Predictions]) -> SplitOutput:
    """Average the probabilities of runs on the same videos, in float64, as if they were one network's output."""
    arrays = zip(*(run.probs.arrays() for run in runs), strict=True)
    mean = Probabilities.of_arrays([torch.from_numpy(np.mean(of_runs, axis=0, dtype=np.float64)) for of_runs in arrays])
    return SplitOutput(mean.segments.map(torch.logit), mean.video, mean.modality)
