"""The predictions of one run on one split, kept in its folder so that runs can be compared later."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.files import atomic_write
from utils.settings import ARGS_FILE, read_args


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
        """Return what a run's folder keeps of its predictions, (N, T, C) bool each."""
        arrays = [AudioVisual(pair.audio.cpu().numpy(), pair.visual.cpu().numpy()) for pair in (events, truth)]
        names = annotations.dataset, annotations.split, annotations.classes, annotations.sample_ids
        return Predictions(*names, *arrays)


def save_predictions(run_dir: Path, predictions: Predictions) -> Path:
    """Write `predictions_<split>.npz` atomically."""
    path = run_dir / f"predictions_{predictions.split}.npz"
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            dataset=predictions.dataset,
            split=predictions.split,
            classes=predictions.classes,
            sample_ids=predictions.sample_ids,
            audio=predictions.events.audio,
            visual=predictions.events.visual,
            audio_truth=predictions.truth.audio,
            visual_truth=predictions.truth.visual,
        )
    return path


def load_runs(folder: Path, split: str) -> list[Predictions]:
    """Read the predictions of a run, or of all seeds whose folders `run_<seed>` lie below it.

    Raises:
        InputError: as `load_predictions`, and when a seed is missing.
    """
    seeds = sorted(path for path in folder.glob("run_*") if path.is_dir())
    if not seeds:
        return [load_predictions(folder, split)]
    if len(seeds) != (num_runs := read_args(folder / ARGS_FILE).get("num_runs", 1)):
        raise InputError(folder, f"{len(seeds)} runs", f"those of {num_runs} seeds", "Evaluate the run again.")
    return [load_predictions(seed, split) for seed in seeds]


def load_predictions(run_dir: Path, split: str) -> Predictions:
    """Read what `save_predictions` wrote.

    Raises:
        InputError: the file is absent, damaged, lacks a key or holds arrays of other shapes.
    """
    path = run_dir / f"predictions_{split}.npz"
    way_out = "Evaluate the run again with test_han.py."
    if any(run_dir.glob("run_*/predictions_*.npz")):
        raise InputError(run_dir, "several runs", "one run", "Name one of its folders run_<seed>.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            predictions = Predictions(
                dataset=str(archive["dataset"]),
                split=str(archive["split"]),
                classes=tuple(archive["classes"].tolist()),
                sample_ids=tuple(archive["sample_ids"].tolist()),
                events=AudioVisual(archive["audio"], archive["visual"]),
                truth=AudioVisual(archive["audio_truth"], archive["visual_truth"]),
            )
    except Exception as error:  # whatever a damaged archive makes zipfile and numpy raise
        raise InputError(path, f"no readable predictions ({error})", f"those of split {split}", way_out) from error
    arrays = (*predictions.events, *predictions.truth)
    shape = (len(predictions.sample_ids), *arrays[0].shape[1:2], len(predictions.classes))  # (N, T, C)
    if any(array.dtype != np.bool_ or array.shape != shape for array in arrays):
        found = ", ".join(f"{array.dtype} {array.shape}" for array in arrays)
        raise InputError(path, f"arrays of type and shape {found}", f"four of bool {shape}", way_out)
    return predictions
