"""Video-level labels of each modality, from which MA's exchange has removed what a modality does not show."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from dataloaders.records import load_record, save_record
from utils.audio_visual import AudioVisual

FILE = "cleaned_labels.safetensors"
WAY_OUT = "Run python -m baselines.ma.find_exchange for this data set, or name the folder that holds its output."


@dataclass(frozen=True)
class CleanedLabels:
    """Labels of the training split: N videos, C classes."""

    dataset: str
    classes: tuple[str, ...]  # (C,)
    sample_ids: tuple[str, ...]  # (N,)
    labels: AudioVisual[Tensor]  # (N, C) bool


def save_cleaned_labels(cleaned: CleanedLabels, folder: Path) -> None:
    """Write `cleaned_labels.safetensors`, atomically."""
    tensors = {"audio_labels": cleaned.labels.audio, "visual_labels": cleaned.labels.visual}
    save_record(folder / FILE, tensors, cleaned.dataset, cleaned.classes, cleaned.sample_ids)


def load_cleaned_labels(folder: Path, annotations: SplitAnnotations) -> CleanedLabels:
    """Read the cleaned labels of exactly the annotated training videos and classes, in their order.

    Raises:
        InputError: when there are none, they are of other data, they lack a video, or they have an event that the
            video's label lacks.
    """
    classes = annotations.classes
    record = load_record(folder / FILE, annotations.dataset, classes, WAY_OUT)
    videos = record.find(annotations)
    shape = (len(record.sample_ids), len(record.classes))
    audio = record.get("audio_labels", torch.bool, *shape)[videos, : len(classes)]
    visual = record.get("visual_labels", torch.bool, *shape)[videos, : len(classes)]
    added = ((audio | visual) & ~annotations.video_labels).any(dim=1)  # (N,)
    if added.any():
        first = annotations.sample_ids[int(added.nonzero()[0])]
        found = f"events that the videos' labels lack, for instance in {first}"
        raise record.error(found, "labels cleaned from these annotations")
    return CleanedLabels(annotations.dataset, classes, annotations.sample_ids, AudioVisual(audio, visual))
