"""Parts of a data set for the data-efficiency experiments (paper Table A7): fewer training videos, fewer classes."""

import hashlib
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field, PositiveInt

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
