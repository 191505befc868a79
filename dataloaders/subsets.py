"""Parts of a data set for the data-efficiency experiments (paper Table A7): fewer training videos, fewer classes."""

import hashlib
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.settings import settings_group


@settings_group
class Subset:
    """Which part of a data set is used.

    The paper does not say how it chose; these are choices of this repository.
    """

    train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """share of the training videos; val and test stay whole"""
    num_classes: PositiveInt | None = None
    """number of classes, the first in index order, in every split; only their videos are kept"""

    def videos(self, annotations: SplitAnnotations) -> Tensor:
        """Return indices of the videos that are kept, in their order: (K,) int64.

        Of the classes' videos, those with the smallest hashes of their names. So the choice is the same for every seed
        of training and every order of the file, and a smaller fraction's videos are among a larger one's. A video whose
        label has none of the kept classes is left out.

        Raises:
            InputError: for more classes than there are.
        """
        if self.num_classes is not None and not 1 <= self.num_classes <= len(annotations.classes):
            expected = f"1 to {len(annotations.classes)}, the classes of {annotations.dataset}"
            raise InputError("--num_classes", self.num_classes, expected, "Leave the flag out for all classes.")
        labelled = annotations.video_labels[:, : self.num_classes].any(dim=1)
        keep = torch.arange(annotations.num_videos) if self.num_classes is None else labelled.nonzero().squeeze(1)
        if annotations.split != "train" or self.train_fraction == 1:
            return keep
        by_hash = sorted(keep.tolist(), key=lambda n: hashlib.sha256(annotations.sample_ids[n].encode()).digest())
        return torch.tensor(sorted(by_hash[: max(1, round(self.train_fraction * len(by_hash)))]), dtype=torch.int64)

    def annotations(self, annotations: SplitAnnotations) -> SplitAnnotations:
        """Return the kept videos with the labels of the kept classes."""
        part = annotations.subset(self.videos(annotations))
        classes = slice(self.num_classes)
        return replace(
            part,
            classes=part.classes[classes],
            video_labels=part.video_labels[:, classes],
            labels=part.labels and AudioVisual(part.labels.audio[:, classes], part.labels.visual[:, classes]),
        )


WHOLE = Subset()
