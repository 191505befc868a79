"""Video-level labels of each modality, from which MA's exchange has removed what a modality does not show."""

from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dataloaders.annotations import SplitAnnotations, find_samples
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.files import atomic_write

FILE = "cleaned_labels.safetensors"
WAY_OUT = "Run python -m baselines.ma.find_exchange for this data set, or name the folder that holds its output."


@dataclass(frozen=True)
class CleanedLabels:
    """Labels of the training split: N videos, C classes."""

    dataset: str
    classes: tuple[str, ...]  # (C,)
    sample_ids: tuple[str, ...]  # (N,)
    labels: AudioVisual[Tensor]  # (N, C) bool

    def aligned(self, annotations: SplitAnnotations, where: Path) -> "CleanedLabels":
        """These labels for exactly the annotated videos, in their order, and for the annotated classes.

        Raises:
            InputError: when they are of another data set, their first classes are others, they lack a video, or they
                have an event that the video's label lacks.
        """
        num_classes = len(annotations.classes)
        videos = find_samples(
            annotations, self.dataset, self.classes, self.sample_ids, where, "cleaned labels", WAY_OUT
        )
        labels = self.labels.map(lambda of_modality: of_modality[videos, :num_classes])
        added = (labels.audio | labels.visual) & ~annotations.video_labels  # (N, C)
        if added.any():
            first = annotations.sample_ids[int(added.any(dim=1).nonzero()[0])]
            raise InputError(
                where,
                f"events that the videos' labels lack, for instance in {first}",
                "labels cleaned from these annotations",
                WAY_OUT,
            )
        return replace(
            self,
            classes=annotations.classes,
            sample_ids=annotations.sample_ids,
            labels=labels,
        )


def save_cleaned_labels(labels: CleanedLabels, folder: Path) -> None:
    """Write `cleaned_labels.safetensors`, atomically."""
    audio, visual = labels.labels.map(lambda of_modality: of_modality.cpu().clone())
    metadata = {
        "dataset": labels.dataset,
        "classes": "\n".join(labels.classes),
        "sample_ids": "\n".join(labels.sample_ids),
    }
    with atomic_write(folder / FILE) as file:
        file.write(save({"audio_labels": audio, "visual_labels": visual}, metadata))


def load_cleaned_labels(folder: Path, annotations: SplitAnnotations) -> CleanedLabels:
    """Read the cleaned labels of the annotated training split.

    Raises:
        InputError: when there are none, or they do not fit the annotations.
    """
    path = folder / FILE
    if not path.exists():
        raise InputError(folder, f"no {FILE}", "labels cleaned by baselines.ma.find_exchange", WAY_OUT)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            labels = CleanedLabels(
                dataset=metadata["dataset"],
                classes=tuple(metadata["classes"].split("\n")),
                sample_ids=tuple(metadata["sample_ids"].split("\n")),
                labels=AudioVisual(file.get_tensor("audio_labels"), file.get_tensor("visual_labels")),
            )
    except (SafetensorError, KeyError) as error:
        raise InputError(
            path, f"a damaged file ({error})", "labels cleaned by baselines.ma.find_exchange", WAY_OUT
        ) from error
    return labels.aligned(annotations, path)
