"""The predictions of one run on one split, kept in its folder so that runs can be compared later."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.files import atomic_write


@dataclass(frozen=True)
class Predictions:
    """Decoded events of N videos and their truth. AVE's events are both audible and visible: one array twice."""

    dataset: str  # "LLP", "UnAV" or "AVE"
    split: str  # "val" or "test"
    classes: tuple[str, ...]  # (C,)
    sample_ids: tuple[str, ...]  # (N,)
    events: AudioVisual[np.ndarray]  # (N, T, C) bool, decoded
    truth: AudioVisual[np.ndarray]  # (N, T, C) bool

    @staticmethod
    def of_split(
        annotations: SplitAnnotations, events: AudioVisual[Tensor], truth: AudioVisual[Tensor]
    ) -> "Predictions":
        """What a run's folder keeps of its predictions, (N, T, C) bool each."""
        ours, theirs = (pair.map(lambda x: x.cpu().numpy()) for pair in (events, truth))
        return Predictions(
            annotations.dataset, annotations.split, annotations.classes, annotations.sample_ids, ours, theirs
        )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The events by the names that the file has for them."""
        return {
            "audio": self.events.audio,
            "visual": self.events.visual,
            "audio_truth": self.truth.audio,
            "visual_truth": self.truth.visual,
        }


KEYS = ("dataset", "split", "classes", "sample_ids", "audio", "visual", "audio_truth", "visual_truth")


def predictions_path(run_dir: Path, split: str) -> Path:
    return run_dir / f"predictions_{split}.npz"


def save_predictions(run_dir: Path, predictions: Predictions) -> Path:
    """Write `predictions_<split>.npz` atomically.

    Raises:
        ValueError: the arrays are not (N, T, C) bool of the ids' and classes' numbers.
    """
    problem = _problem(predictions)
    if problem:
        raise ValueError(problem)
    path = predictions_path(run_dir, predictions.split)
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            dataset=predictions.dataset,
            split=predictions.split,
            classes=predictions.classes,
            sample_ids=predictions.sample_ids,
            **predictions.arrays,
        )
    return path


def load_predictions(run_dir: Path, split: str) -> Predictions:
    """Read what `save_predictions` wrote.

    Raises:
        InputError: the file is absent, damaged, lacks a key or holds arrays of other shapes.
    """
    path = predictions_path(run_dir, split)
    way_out = "Evaluate the run again with test_han.py."
    if any(run_dir.glob("run_*/predictions_*.npz")):
        raise InputError(run_dir, "several runs", "one run", "Name one of its folders run_<seed>.")
    if not path.is_file():
        others = sorted(other.name for other in run_dir.glob("predictions_*.npz")) or "no predictions"
        raise InputError(path, f"no such file ({others} in the folder)", f"predictions of split {split}", way_out)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in KEYS}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(path, f"unreadable predictions ({error})", f"the arrays {', '.join(KEYS)}", way_out) from error
    predictions = Predictions(
        dataset=str(arrays["dataset"]),
        split=str(arrays["split"]),
        classes=tuple(arrays["classes"].tolist()),
        sample_ids=tuple(arrays["sample_ids"].tolist()),
        events=AudioVisual(arrays["audio"], arrays["visual"]),
        truth=AudioVisual(arrays["audio_truth"], arrays["visual_truth"]),
    )
    problem = _problem(predictions)
    if problem:
        raise InputError(path, problem, "four (N, T, C) bool arrays", way_out)
    return predictions


def _problem(predictions: Predictions) -> str | None:
    """What is wrong with the arrays, in words."""
    num_videos, num_classes = len(predictions.sample_ids), len(predictions.classes)
    shape = predictions.events.audio.shape
    for name, array in predictions.arrays.items():
        if array.dtype != np.bool_ or array.shape != shape or array.ndim != 3:
            return f"{name} of type {array.dtype} and shape {array.shape} beside audio of {shape}"
        if (array.shape[0], array.shape[2]) != (num_videos, num_classes):
            return f"{name} of shape {array.shape} for {num_videos} videos and {num_classes} classes"
    return None
