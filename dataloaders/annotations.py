"""What the annotation files of every data set are read into."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from utils.audio_visual import AudioVisual


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
