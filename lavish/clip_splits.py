"""What a data set of clips is: where its items come from, and which of them each split holds."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from utils.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm")


@dataclass(frozen=True)
class ClipSource:
    """One item to be packed: a video file or a piece of it."""

    name: str  # unique in the data set
    path: Path
    start: float = 0.0  # seconds
    seconds: float | None = None  # None: to the end


@dataclass(frozen=True)
class ClipSplit:
    """The samples of one split. N samples, T segments, C classes."""

    dataset: str
    split: str
    classes: tuple[str, ...]  # (C,)
    sample_ids: tuple[str, ...]  # (N,) unique
    sources: tuple[str, ...]  # (N,) names of the items that they are of; two samples may share one
    labels: Tensor  # (N,) int64, or (N, T) where every segment has a class of its own

    @property
    def num_clips(self) -> int:
        return len(self.sample_ids)

    def without(self, absent: set[str]) -> "ClipSplit":
        """The samples whose items are not among the absent ones."""
        keep = [n for n, source in enumerate(self.sources) if source not in absent]
        return ClipSplit(
            self.dataset,
            self.split,
            self.classes,
            tuple(self.sample_ids[n] for n in keep),
            tuple(self.sources[n] for n in keep),
            self.labels[torch.tensor(keep, dtype=torch.int64)],
        )

    def joined(self, other: "ClipSplit") -> "ClipSplit":
        """The samples of both, under this split's name."""
        return ClipSplit(
            self.dataset,
            self.split,
            self.classes,
            self.sample_ids + other.sample_ids,
            self.sources + other.sources,
            torch.cat([self.labels, other.labels]),
        )


@dataclass(frozen=True)
class ClipData:
    """A data set of clips."""

    sources: tuple[ClipSource, ...]
    splits: dict[str, ClipSplit]  # "train", "val" and "test"


def find_video(folder: Path, stem: str) -> Path | None:
    """The file of a clip, whichever container it is in; None when there is none."""
    return next((path for suffix in VIDEO_SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()), None)


def report_absent(folder: Path, what: str, absent: list[str], total: int, allow_missing: bool) -> None:
    """Say which listed clips have no file. Raises InputError unless they may be left out and others are there."""
    shown = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
    found = f"{len(absent)} of {total} listed clips without a file ({shown})"
    if not allow_missing or len(absent) == total:
        way_out = "Download them, or go on without them with --allow_missing."
        raise InputError(f"{folder}, {what}", found, "a file for every listed clip", way_out)
    tqdm.write(f"{folder}, {what}: leaving out {found}")
