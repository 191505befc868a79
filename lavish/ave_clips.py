"""AVE from its videos: ten seconds, ten frames and ten spectrograms, and a class or background for every second.

<data_dir>/videos/<video id>.mp4     (or .avi, .mkv, .webm)
"""

from pathlib import Path

import torch

from dataloaders import ave
from lavish.clip_splits import ClipData, ClipSource, ClipSplit, find_videos


def load_ave_clips(data_dir: Path, annotations_dir: Path, allow_missing: bool = False) -> ClipData:
    """Load all three splits, labelled second by second: LAVISH learns AVE supervised.

    Raises InputError as `ave.load_split` and `find_videos` do.
    """
    sources, splits = {}, {}
    for split in ("train", "val", "test"):
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
