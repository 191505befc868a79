"""Predictions of a run on a split, saved in its folder so that runs can be compared and averaged later."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.inference import SplitOutput
from utils.files import atomic_write
from utils.settings import ARGS_FILE, read_args

# Names of the arrays in a file, in the order of `Predictions` and `Probabilities`.
EVENTS = ("audio", "visual", "audio_truth", "visual_truth")
PROBS = ("audio_probs", "visual_probs", "video_probs", "audio_video_probs", "visual_video_probs", "lengths")


@dataclass(frozen=True)
class Probabilities:
    """Probabilities from which events are decoded, in float16 (rounded by up to 1 / 4,096)."""

    segments: AudioVisual[np.ndarray]  # (N, T, C), 0 after the end of a video
    video: np.ndarray  # (N, C)
    modality: AudioVisual[np.ndarray]  # (N, C), pooled over time
    lengths: np.ndarray  # (N,) int64, segments of each video

    @staticmethod
    def of_output(output: SplitOutput, lengths: Tensor | np.ndarray) -> "Probabilities":
        """Return the probabilities of a network's output."""

        def half(probs: Tensor) -> np.ndarray:
            return probs.half().cpu().numpy()

        segments, modality = output.logits.map(torch.sigmoid).map(half), output.modality_probs.map(half)
        return Probabilities(segments, half(output.video_probs), modality, np.asarray(lengths))

    @staticmethod
    def of_arrays(arrays: Sequence[np.ndarray]) -> "Probabilities":
        """Return the probabilities from their arrays in the order of `PROBS`."""
        audio, visual, video, of_audio, of_visual, lengths = arrays
        return Probabilities(AudioVisual(audio, visual), video, AudioVisual(of_audio, of_visual), lengths)

    def arrays(self) -> list[np.ndarray]:
        """Return all arrays in the order of `PROBS`."""
        return [*self.segments, self.video, *self.modality, self.lengths]


@dataclass(frozen=True)
class Predictions:
    """Decoded events of N videos and their ground truth. On AVE both modalities are one array."""

    dataset: str  # "LLP", "UnAV" or "AVE"
    split: str  # "val" or "test"
    classes: tuple[str, ...]  # (C,)
    sample_ids: tuple[str, ...]  # (N,)
    events: AudioVisual[np.ndarray]  # (N, T, C) bool, decoded
    truth: AudioVisual[np.ndarray]  # (N, T, C) bool
    probs: Probabilities | None = None  # None: predictions of an earlier version

    @staticmethod
    def of_split(
        annotations: SplitAnnotations, output: SplitOutput, events: AudioVisual[Tensor], truth: AudioVisual[Tensor]
    ) -> "Predictions":
        """Return the predictions to save in a run's folder, from events and ground truth (N, T, C) bool."""
        arrays = [pair.map(lambda of_modality: of_modality.cpu().numpy()) for pair in (events, truth)]
        names = annotations.dataset, annotations.split, annotations.classes, annotations.sample_ids
        return Predictions(*names, *arrays, Probabilities.of_output(output, annotations.lengths))

    def of_videos(self, order: Sequence[int]) -> "Predictions":
        """Return the predictions of these videos, in this order."""
        sample_ids = tuple(self.sample_ids[n] for n in order)
        events, truth = (pair.map(lambda array: array[order]) for pair in (self.events, self.truth))
        probs = self.probs and Probabilities.of_arrays([array[order] for array in self.probs.arrays()])
        return replace(self, sample_ids=sample_ids, events=events, truth=truth, probs=probs)


def save_predictions(run_dir: Path, predictions: Predictions) -> Path:
    """Write `predictions_<split>.npz` atomically."""
    path, probs = run_dir / f"predictions_{predictions.split}.npz", predictions.probs
    content = {name: getattr(predictions, name) for name in ("dataset", "split", "classes", "sample_ids")}
    content |= dict(zip(EVENTS, (*predictions.events, *predictions.truth), strict=True))
    content |= dict(zip(PROBS, probs.arrays(), strict=True)) if probs else {}
    with atomic_write(path) as file:
        np.savez_compressed(file, **content)
    return path


def load_runs(folder: Path, split: str) -> list[Predictions]:
    """Read the predictions of a run, or of all seeds from their folders `run_<seed>`, or raise InputError."""
    seeds = sorted(path for path in folder.glob("run_*") if path.is_dir())
    if not seeds:
        return [load_predictions(folder, split)]
    if len(seeds) != (num_runs := read_args(folder / ARGS_FILE).get("num_runs", 1)):
        raise InputError(folder, f"{len(seeds)} runs", f"those of {num_runs} seeds", "Evaluate the run again.")
    return [load_predictions(seed, split) for seed in seeds]


def load_predictions(run_dir: Path, split: str) -> Predictions:
    """Read a file of `save_predictions`. Raises InputError if it is absent, damaged or has arrays of other shapes."""
    path = run_dir / f"predictions_{split}.npz"
    way_out = "Name a run's folder in test_logs/, or evaluate the run again with test_han.py."
    if any(run_dir.glob("run_*/predictions_*.npz")):
        raise InputError(run_dir, "several runs", "one run", "Choose one of its folders run_<seed>.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = [archive[name] for name in (*EVENTS, *(PROBS if "lengths" in archive else ()))]
            classes, sample_ids = (tuple(archive[name].tolist()) for name in ("classes", "sample_ids"))
            names = str(archive["dataset"]), str(archive["split"]), classes, sample_ids
    except Exception as error:  # zipfile and numpy may raise anything for a damaged archive
        raise InputError(path, f"no readable predictions ({error})", f"those of split {split}", way_out) from error
    of_videos = (len(sample_ids), len(classes))  # (N, C)
    shape = (of_videos[0], *arrays[0].shape[1:2], of_videos[1])  # (N, T, C)
    wanted = [(np.bool_, shape)] * 4
    if len(arrays) > len(wanted):
        wanted += [*[(np.float16, shape)] * 2, *[(np.float16, of_videos)] * 3, (np.int64, of_videos[:1])]
    if [(array.dtype, array.shape) for array in arrays] != wanted:
        found = ", ".join(f"{array.dtype} {array.shape}" for array in arrays)
        expected = ", ".join(f"{np.dtype(kind)} {size}" for kind, size in wanted)
        raise InputError(path, f"arrays of type and shape {found}", expected, way_out)
    audio, visual, true_audio, true_visual, *probs = arrays
    kept = Probabilities.of_arrays(probs) if probs else None
    return Predictions(*names, AudioVisual(audio, visual), AudioVisual(true_audio, true_visual), kept)


def aligned(first: Predictions, second: Predictions, name: str = "second run") -> Predictions:
    """Return the second run with its videos in the order of the first. Raises InputError if they do not match."""
    way_out = "Pass runs that were evaluated on the same split of the same data set, with the same annotation files."
    for what in ("dataset", "split", "classes"):
        ours, theirs = getattr(first, what), getattr(second, what)
        if ours != theirs:
            raise InputError(name, f"{what} {theirs}", f"{ours} as in the first", way_out)
    if sorted(first.sample_ids) != sorted(second.sample_ids) or not first.sample_ids:
        only_one = sorted(set(first.sample_ids) ^ set(second.sample_ids))
        found = f"{len(second.sample_ids)} videos, {len(only_one)} in one run only ({', '.join(only_one[:3])})"
        raise InputError(name, found, f"the {len(first.sample_ids)} videos of the first, at least one", way_out)
    place = {sample_id: n for n, sample_id in enumerate(second.sample_ids)}
    second = second.of_videos([place[sample_id] for sample_id in first.sample_ids])
    if not all(map(np.array_equal, first.truth, second.truth)):
        raise InputError(name, "another ground truth", "that of the first", way_out)
    return second


def load_ensemble(folders: Sequence[Path], split: str) -> list[Predictions]:
    """Read the predictions of several evaluations, all in the first one's order of videos, or raise InputError."""
    runs = [load_predictions(folder, split) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        if run.probs is None:
            found, expected = f"predictions of {split} without probabilities", "predictions with probabilities"
            raise InputError(folder, found, expected, "Evaluate the run again with test_han.py.")
    return [aligned(runs[0], run, str(folder)) for folder, run in zip(folders, runs, strict=True)]


def mean_output(runs: Sequence[Predictions]) -> SplitOutput:
    """Average the probabilities of runs on the same videos in float64, and return them as one network's output."""
    arrays = zip(*(run.probs.arrays() for run in runs), strict=True)
    mean = Probabilities.of_arrays([torch.from_numpy(np.mean(of_runs, axis=0, dtype=np.float64)) for of_runs in arrays])
    return SplitOutput(mean.segments.map(torch.logit), mean.video, mean.modality)
