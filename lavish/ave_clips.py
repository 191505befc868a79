"""AVE from its videos: ten seconds, ten frames and ten spectrograms, and a class or background for every second.

<data_dir>/videos/<video id>.mp4     (or .avi, .mkv, .webm)
"""

from pathlib import Path

import torch

from dataloaders import ave
from dataloaders.ave import BACKGROUND
from lavish.clip_splits import ClipData, ClipSource, ClipSplit, find_video, report_absent
from utils.errors import InputError


def load_ave_clips(data_dir: Path, annotations_dir: Path, allow_missing: bool = False) -> ClipData:
    """All three splits, labelled second by second: LAVISH learns AVE supervised.

    Raises:
        InputError: as `ave.load_split`; for videos without a file.
    """
    videos_dir = data_dir / "videos"
    if not videos_dir.is_dir():
        raise InputError(videos_dir, "no such folder", "the videos of AVE", "data/README.md says where to get them.")
    sources: dict[str, ClipSource] = {}
    splits = {}
    for split in ("train", "val", "test"):
        annotations = ave.load_split(annotations_dir, split)
        paths = {video: find_video(videos_dir, video) for video in annotations.feature_ids}
        absent = sorted(video for video, path in paths.items() if path is None)
        if absent:
            report_absent(videos_dir, f"split {split}", absent, len(paths), allow_missing)
        sources |= {video: ClipSource(video, path) for video, path in paths.items() if path is not None}
        present = annotations.labels.audio.view(-1, ave.NUM_SEGMENTS, len(ave.AVE_CLASSES))  # (N, T, C)
        labels = torch.where(present.any(dim=-1), present.long().argmax(dim=-1), len(ave.AVE_CLASSES))  # (N, T)
        classes = (*annotations.classes, BACKGROUND)
        whole = ClipSplit("AVE", split, classes, annotations.sample_ids, annotations.feature_ids, labels)
        splits[split] = whole.without(set(absent))
    return ClipData(tuple(sources.values()), splits)
