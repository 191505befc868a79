"""What the annotation files of every data set are read into, and parts of it."""

import hashlib
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.settings import settings_group


@dataclass(frozen=True)
class SplitAnnotations:
    """Annotations of one split: N videos, C classes, R = sum of all videos' segments.

    Videos differ in length (UnAV), so segment labels are rows of consecutive videos: video n owns the rows
    `offsets[n]:offsets[n + 1]`. Data sets that do not label audio and visual events apart hold one tensor twice.
    """

    dataset: str
    split: str  # "train", "val" or "test"
    classes: tuple[str, ...]  # (C,) names in index order
    sample_ids: tuple[str, ...]  # (N,) unique keys of the samples
    feature_ids: tuple[str, ...]  # (N,) stems of the feature files
    lengths: Tensor  # (N,) int64, segments of each video
    video_labels: Tensor  # (N, C) bool, what weak supervision sees
    labels: AudioVisual[Tensor] | None  # (R, C) bool; None where the split has no segment labels

    @property
    def num_videos(self) -> int:
        return len(self.sample_ids)

    @property
    def offsets(self) -> Tensor:
        """Return (N + 1,) int64, first row of each video and the end of the last."""
        return torch.cat([self.lengths.new_zeros(1), self.lengths.cumsum(0)])

    def subset(self, keep: Tensor) -> "SplitAnnotations":
        """Return the annotations of some videos: keep (K,) int64 indices, in the order wanted."""
        rows = segment_rows(self.offsets, keep)
        indices = keep.tolist()
        return replace(
            self,
            sample_ids=tuple(self.sample_ids[i] for i in indices),
            feature_ids=tuple(self.feature_ids[i] for i in indices),
            lengths=self.lengths[keep],
            video_labels=self.video_labels[keep],
            labels=self.labels and AudioVisual(self.labels.audio[rows], self.labels.visual[rows]),
        )


def segment_rows(offsets: Tensor, videos: Tensor) -> Tensor:
    """Return the rows of the videos' segments, one video after the other: offsets (N + 1,), videos (K,) -> (rows,)."""
    lengths = offsets[videos + 1] - offsets[videos]  # (K,)
    starts = torch.repeat_interleave(offsets[videos] - (lengths.cumsum(0) - lengths), lengths)
    return starts + torch.arange(starts.shape[0])


@settings_group
class Subset:
    """Which part of a data set is used in the data-efficiency experiments (paper Table A7).

    The paper does not say how it chose; these are choices of this repository.
    """

    train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """share of the training videos; val and test stay whole"""
    num_classes: PositiveInt | None = None
    """number of classes, the first in index order, in every split; only their videos are kept"""

    def annotations(self, annotations: SplitAnnotations) -> SplitAnnotations:
        """Return the kept videos, in their order, with the labels of the kept classes.

        Of the classes' videos, those with the smallest hashes of their names. So the choice is the same for every seed
        of training and every order of the file, and a smaller fraction's videos are among a larger one's. A video whose
        label has none of the kept classes is left out.

        Raises:
            InputError: for more classes than there are.
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
        return replace(
            part,
            classes=part.classes[classes],
            video_labels=part.video_labels[:, classes],
            labels=part.labels and AudioVisual(part.labels.audio[:, classes], part.labels.visual[:, classes]),
        )


WHOLE = Subset()
