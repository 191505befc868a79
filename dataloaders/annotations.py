"""Annotations of a split, and subsets of them for data-efficiency experiments."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import yaml
from pydantic import Field, PositiveInt
from torch import Tensor

from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.settings import settings_group

CLASSES_FILE = Path(__file__).resolve().parent.parent / "data" / "classes.yaml"


@dataclass(frozen=True)
class SplitAnnotations:
    """Annotations of a split: N videos, C classes, R segments over all videos.

    As videos may differ in length, segment labels are rows of consecutive videos: those of video n are
    `offsets[n]:offsets[n + 1]`. Data sets without separate audio and visual labels use one tensor for both.
    """

    dataset: str
    split: str  # "train", "val" or "test"
    classes: tuple[str, ...]  # (C,) names in index order
    sample_ids: tuple[str, ...]  # (N,) unique keys of the samples
    feature_ids: tuple[str, ...]  # (N,) stems of the feature files
    lengths: Tensor  # (N,) int64, segments of each video
    video_labels: Tensor  # (N, C) bool, the weak supervision
    labels: AudioVisual[Tensor] | None  # (R, C) bool; None: the split has no segment labels
    segments_per_second: int = 1

    @property
    def num_videos(self) -> int:
        return len(self.sample_ids)

    @property
    def offsets(self) -> Tensor:
        """Return the first row of each video and the end of the last: (N + 1,) int64."""
        return torch.cat([self.lengths.new_zeros(1), self.lengths.cumsum(0)])

    def refined(self, segments_per_second: int) -> "SplitAnnotations":
        """Return the annotations with more segments per second, each labelled as the segment that contains it."""
        if segments_per_second == self.segments_per_second:
            return self
        if segments_per_second % self.segments_per_second:
            expected = f"a multiple of {self.segments_per_second}, the rate of {self.dataset}'s annotations"
            raise InputError("--segments_per_second", segments_per_second, expected, "Correct the flag.")
        times = segments_per_second // self.segments_per_second
        labels = self.labels and self.labels.map(lambda rows: rows.repeat_interleave(times, dim=0))
        return replace(self, lengths=self.lengths * times, labels=labels, segments_per_second=segments_per_second)

    def subset(self, keep: Tensor) -> "SplitAnnotations":
        """Return the annotations of the videos with the indices `keep`, (K,) int64, in this order."""
        rows = segment_rows(self.offsets, keep)
        sample_ids, feature_ids = (tuple(ids[n] for n in keep.tolist()) for ids in (self.sample_ids, self.feature_ids))
        labels = self.labels and self.labels.map(lambda of_modality: of_modality[rows])
        kept = {"lengths": self.lengths[keep], "video_labels": self.video_labels[keep], "labels": labels}
        return replace(self, sample_ids=sample_ids, feature_ids=feature_ids, **kept)


def segment_rows(offsets: Tensor, videos: Tensor) -> Tensor:
    """Return the rows of the videos' segments, video after video: offsets (N + 1,), videos (K,) -> (rows,)."""
    lengths = offsets[videos + 1] - offsets[videos]  # (K,)
    starts = torch.repeat_interleave(offsets[videos] - (lengths.cumsum(0) - lengths), lengths)
    return starts + torch.arange(starts.shape[0])


@settings_group
class Subset:
    """Settings of data-efficiency experiments (paper Table A7, which does not state how the subset was chosen)."""

    train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0  # fraction of the training videos; val and test keep all
    num_classes: PositiveInt | None = None
    """number of classes: keep the first ones, and only videos with these, in every split; None: all"""

    def annotations(self, annotations: SplitAnnotations) -> SplitAnnotations:
        """Return the annotations of the kept videos, in order, and classes. Raises InputError for too many classes.

        Of the videos with a kept class, those whose names have the smallest hashes are kept: the choice does not depend
        on the training seed or the order of the file, and smaller fractions are subsets of larger ones.
        """
        if self == WHOLE:
            return annotations
        if self.num_classes is not None and self.num_classes > len(annotations.classes):
            expected = f"1 to {len(annotations.classes)}, the classes of {annotations.dataset}"
            raise InputError("--num_classes", self.num_classes, expected, "Leave the flag out for all classes.")
        classes = slice(self.num_classes)
        keep = range(annotations.num_videos)
        if self.num_classes is not None:
            keep = annotations.video_labels[:, classes].any(dim=1).nonzero().squeeze(1).tolist()
        if annotations.split == "train":
            by_hash = sorted(keep, key=lambda n: hashlib.sha256(annotations.sample_ids[n].encode()).digest())
            keep = sorted(by_hash[: max(1, round(self.train_fraction * len(by_hash)))])
        part = annotations.subset(torch.tensor(keep, dtype=torch.int64))
        labels = part.labels and part.labels.map(lambda of_modality: of_modality[:, classes])
        return replace(part, classes=part.classes[classes], video_labels=part.video_labels[:, classes], labels=labels)


WHOLE = Subset()


def class_names(dataset: str) -> tuple[str, ...]:
    """Return the classes of a data set in index order, (C,)."""
    return tuple(yaml.safe_load(CLASSES_FILE.read_text(encoding="utf-8"))[dataset])
