"""What a data set of clips is: where its items come from, and which of them each split holds."""

from collections.abc import Mapping
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

    classes: tuple[str, ...]  # (C,)
    sample_ids: tuple[str, ...]  # (N,) unique
    sources: tuple[str, ...]  # (N,) names of the items that they are of; two samples may share one
    labels: Tensor  # (N,) int64, or (N, T) where every segment has a class of its own

    @property
    def num_clips(self) -> int:
        return len(self.sample_ids)

    def without(self, absent: set[str]) -> "ClipSplit":
        """Return the samples whose items are not among the absent ones."""
        keep = [n for n, source in enumerate(self.sources) if source not in absent]
        ids, sources = tuple(self.sample_ids[n] for n in keep), tuple(self.sources[n] for n in keep)
        return ClipSplit(self.classes, ids, sources, self.labels[keep])

    def joined(self, other: "ClipSplit") -> "ClipSplit":
        """Return the samples of both."""
        ids, sources = self.sample_ids + other.sample_ids, self.sources + other.sources
        return ClipSplit(self.classes, ids, sources, torch.cat([self.labels, other.labels]))


@dataclass(frozen=True)
class ClipData:
    """A data set of clips."""

    sources: tuple[ClipSource, ...]
    splits: dict[str, ClipSplit]  # "train", "val" and "test"


def find_videos(stems: Mapping[str, Path], what: str, allow_missing: bool) -> dict[str, Path]:
    """Find the files of clips, whichever container they are in, and report the clips without a file.

    Args:
        stems: by name, the path without its suffix.
        what: the clips belong to, for the report.
        allow_missing: leave out the clips without a file instead of raising.

    Raises:
        InputError: for clips without a file that may not be left out, and when no clip has one.
    """
    found = {}
    for name, stem in stems.items():
        paths = [path for suffix in VIDEO_SUFFIXES if (path := stem.with_name(stem.name + suffix)).is_file()]
        if paths:
            found[name] = paths[0]
    absent = sorted(stems.keys() - found.keys())
    if absent:
        shown = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
        without = f"{len(absent)} of {len(stems)} listed clips without a file ({shown})"
        if not allow_missing or not found:
            way_out = "Download them, or go on without them with --allow_missing."
            raise InputError(what, without, "a file for every listed clip", way_out)
        tqdm.write(f"{what}: leaving out {without}")
    return found
