"""Data sets of clips: the source of each item, and the samples of each split; AVE is one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from dataloaders import ave
from utils.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm")


@dataclass(frozen=True)
class ClipSource:
    """One item to be packed: a video file or a piece of it."""

    name: str  # unique in the data set
    path: Path
    start: float = 0.0  # seconds
    seconds: float | None = None  # None: to the end

    def part(self, rate: float) -> slice:
        """Return the slice of its frames or samples in the file, at a rate per second."""
        end = None if self.seconds is None else round((self.start + self.seconds) * rate)
        return slice(round(self.start * rate), end)


@dataclass(frozen=True)
class ClipSplit:
    """The samples of one split. N samples, T segments, C classes."""

    classes: tuple[str, ...]  # (C,)
    sample_ids: tuple[str, ...]  # (N,) unique
    sources: tuple[str, ...]  # (N,) names of their items; two samples may share one
    labels: Tensor  # (N,) int64, or (N, T), a class for each segment

    @property
    def num_clips(self) -> int:
        return len(self.sample_ids)

    def without(self, absent: set[str]) -> "ClipSplit":
        """Return the samples whose items are not among the absent ones."""
        keep = [n for n, source in enumerate(self.sources) if source not in absent]
        ids, sources = (tuple(names[n] for n in keep) for names in (self.sample_ids, self.sources))
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


def find_videos(stems: Mapping[str, Path], where: str, allow_missing: bool) -> dict[str, Path]:
    """Find the files of clips from paths without a suffix, `stems`: the first of several containers."""
    found = {}
    for name, stem in stems.items():
        paths = (stem.with_name(stem.name + suffix) for suffix in VIDEO_SUFFIXES)
        if path := next(filter(Path.is_file, paths), None):
            found[name] = path
    leave_out(sorted(stems.keys() - found.keys()), len(stems), "listed clips without a file", where, allow_missing)
    return found


def leave_out(names: Sequence[str], total: int, what: str, where: object, allowed: bool) -> None:
    """Report which clips of a total are left out. Raises InputError unless that is allowed and others remain."""
    if not names:
        return
    found = f"{len(names)} of {total} {what}: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
    if not allowed or len(names) == total:
        raise InputError(where, found, "none", "Get these files anew, or go on without them with --allow_missing.")
    tqdm.write(f"{where}: leaving out {found}")


def load_ave_clips(data_dir: Path, annotations_dir: Path, allow_missing: bool = False) -> ClipData:
    """Load AVE's videos, `<data_dir>/videos/<video id>.mp4` (or .avi, .mkv, .webm), labelled second by second."""
    sources, splits = {}, {}
    for split in ave.FILES:
        annotations = ave.load_split(annotations_dir, split)
        stems = {video: data_dir / "videos" / video for video in annotations.feature_ids}
        paths = find_videos(stems, f"{data_dir / 'videos'}, split {split}", allow_missing)
        sources |= {video: ClipSource(video, path) for video, path in paths.items()}
        present = annotations.labels.audio.view(-1, ave.NUM_SEGMENTS, len(ave.AVE_CLASSES))  # (N, T, C)
        labels = torch.where(present.any(dim=-1), present.long().argmax(dim=-1), len(ave.AVE_CLASSES))  # (N, T)
        classes = (*annotations.classes, ave.BACKGROUND)
        whole = ClipSplit(classes, annotations.sample_ids, annotations.feature_ids, labels)
        splits[split] = whole.without(stems.keys() - paths.keys())
    return ClipData(tuple(sources.values()), splits)
