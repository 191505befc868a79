"""The predictions of one run on one split, kept in its folder so that runs can be compared later."""

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


@dataclass(frozen=True)
class Probabilities:
    """What events are decoded from, in float16: a probability may differ from the network's by up to 1 in 4,096."""

    segments: AudioVisual[np.ndarray]  # (N, T, C), 0 behind the end of a video
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

    def of_videos(self, order: Sequence[int]) -> "Probabilities":
        """Return those of these videos, in this order."""

        def pick(array: np.ndarray) -> np.ndarray:
            return array[order]

        return Probabilities(self.segments.map(pick), pick(self.video), self.modality.map(pick), pick(self.lengths))


@dataclass(frozen=True)
class Predictions:
    """Decoded events of N videos and their truth. AVE's events are both audible and visible: one array twice."""

    dataset: str  # "LLP", "UnAV" or "AVE"
    split: str  # "val" or "test"
    classes: tuple[str, ...]  # (C,)
    sample_ids: tuple[str, ...]  # (N,)
    events: AudioVisual[np.ndarray]  # (N, T, C) bool, decoded
    truth: AudioVisual[np.ndarray]  # (N, T, C) bool
    probs: Probabilities | None = None  # None: of an earlier version

    @staticmethod
    def of_split(
        annotations: SplitAnnotations, output: SplitOutput, events: AudioVisual[Tensor], truth: AudioVisual[Tensor]
    ) -> "Predictions":
        """Return what a run's folder keeps of its predictions, events and truth (N, T, C) bool."""
        arrays = [AudioVisual(pair.audio.cpu().numpy(), pair.visual.cpu().numpy()) for pair in (events, truth)]
        names = annotations.dataset, annotations.split, annotations.classes, annotations.sample_ids
        return Predictions(*names, *arrays, Probabilities.of_output(output, annotations.lengths))

    def of_videos(self, order: Sequence[int]) -> "Predictions":
        """Return the predictions of these videos, in this order."""
        sample_ids = tuple(self.sample_ids[n] for n in order)
        events, truth = (pair.map(lambda array: array[order]) for pair in (self.events, self.truth))
        probs = self.probs and self.probs.of_videos(order)
        return replace(self, sample_ids=sample_ids, events=events, truth=truth, probs=probs)


def save_predictions(run_dir: Path, predictions: Predictions) -> Path:
    """Write `predictions_<split>.npz` atomically."""
    path, probs = run_dir / f"predictions_{predictions.split}.npz", {}
    if (kept := predictions.probs) is not None:
        probs = {"audio_probs": kept.segments.audio, "visual_probs": kept.segments.visual, "video_probs": kept.video}
        probs |= {"audio_video_probs": kept.modality.audio, "visual_video_probs": kept.modality.visual}
        probs |= {"lengths": kept.lengths}
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
            **probs,
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
            probs = None
            if "lengths" in archive:
                segments = AudioVisual(archive["audio_probs"], archive["visual_probs"])
                modality = AudioVisual(archive["audio_video_probs"], archive["visual_video_probs"])
                probs = Probabilities(segments, archive["video_probs"], modality, archive["lengths"])
            predictions = Predictions(
                dataset=str(archive["dataset"]),
                split=str(archive["split"]),
                classes=tuple(archive["classes"].tolist()),
                sample_ids=tuple(archive["sample_ids"].tolist()),
                events=AudioVisual(archive["audio"], archive["visual"]),
                truth=AudioVisual(archive["audio_truth"], archive["visual_truth"]),
                probs=probs,
            )
    except Exception as error:  # whatever a damaged archive makes zipfile and numpy raise
        raise InputError(path, f"no readable predictions ({error})", f"those of split {split}", way_out) from error
    arrays = [*predictions.events, *predictions.truth]
    of_videos = (len(predictions.sample_ids), len(predictions.classes))  # (N, C)
    shape = (of_videos[0], *arrays[0].shape[1:2], of_videos[1])  # (N, T, C)
    wanted = [(np.bool_, shape)] * 4
    if probs is not None:
        arrays += [*probs.segments, probs.video, *probs.modality, probs.lengths]
        wanted += [*[(np.float16, shape)] * 2, *[(np.float16, of_videos)] * 3, (np.int64, of_videos[:1])]
    if [(array.dtype, array.shape) for array in arrays] != wanted:
        found = ", ".join(f"{array.dtype} {array.shape}" for array in arrays)
        expected = ", ".join(f"{np.dtype(kind)} {size}" for kind, size in wanted)
        raise InputError(path, f"arrays of type and shape {found}", expected, way_out)
    return predictions
