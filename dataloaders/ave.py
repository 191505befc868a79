"""AVE annotations: `category&video id&quality&start&end` lines, 28 classes, one audio-visual event in 10 seconds."""

from pathlib import Path

import pandas as pd
import torch

from dataloaders.annotation_files import (
    ID_FORMAT,
    YOUTUBE_ID,
    check_rows,
    class_names,
    read_table,
    warn_once,
    whole_seconds,
)
from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import AudioVisual

AVE_CLASSES = class_names("AVE")
BACKGROUND = "background"
NUM_SEGMENTS = 10
ANNOTATIONS_FILE = "Annotations.txt"
FILES = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}
COLUMNS = ("category", "video id", "quality", "start", "end")
SAMPLE = ["category", "video id", "start", "end"]  # what tells samples apart


def load_split(annotations_dir: Path, split: str) -> SplitAnnotations:
    """Read one split.

    Two samples may be one clip under two categories, so a sample's key is its line in `Annotations.txt`
    (`<line number>_<video id>`); features are found by the video id. A segment without a class is background. A line
    with start = end is background throughout and has no video label either.

    Raises:
        InputError: for an absent or empty file, a malformed or repeated line, an unknown category, an id that
            is none of YouTube, times outside the video, and a line that `Annotations.txt` lacks.
    """
    path = annotations_dir / FILES[split]
    every, table = _read_samples(annotations_dir / ANNOTATIONS_FILE), _read_samples(path)
    places = pd.MultiIndex.from_frame(every[SAMPLE]).get_indexer(pd.MultiIndex.from_frame(table[SAMPLE]))  # (N,)
    listed = pd.Series(places >= 0, table.index)
    what = f"a line that {ANNOTATIONS_FILE} lacks, of video"
    check_rows(listed, path, what, table["video id"], f"lines of {ANNOTATIONS_FILE}")
    _report_shared_ids(annotations_dir)

    start, end = torch.tensor(table["start"].to_list()), torch.tensor(table["end"].to_list())  # (N,)
    classes = torch.from_numpy(pd.Index(AVE_CLASSES).get_indexer(table["category"]))  # (N,)
    seconds = torch.arange(NUM_SEGMENTS)
    active = (start[:, None] <= seconds) & (seconds < end[:, None])  # (N, T)
    labels = torch.zeros(len(table), NUM_SEGMENTS, len(AVE_CLASSES), dtype=torch.bool)
    labels[torch.arange(len(table)), :, classes] = active
    segment_labels = labels.flatten(0, 1)  # (R, C)
    video_ids = tuple(table["video id"])
    return SplitAnnotations(
        dataset="AVE",
        split=split,
        classes=AVE_CLASSES,
        sample_ids=tuple(f"{line}_{video_id}" for line, video_id in zip(every.index[places], video_ids, strict=True)),
        feature_ids=video_ids,
        lengths=torch.full((len(table),), NUM_SEGMENTS),
        video_labels=labels.any(1),
        labels=AudioVisual(segment_labels, segment_labels),
    )


def _read_samples(path: Path) -> pd.DataFrame:
    """Read a file's samples by line number, times as integers; a header is left out."""
    table = read_table(path, COLUMNS, separator="&", header=False)
    table = table.drop(index=[line for line in table.index[:1] if table["category"][line].lower() == "category"])
    category, video_id = table["category"], table["video id"]
    check_rows(category.isin(AVE_CLASSES), path, "unknown category", category, f"one of {'; '.join(AVE_CLASSES)}")
    check_rows(video_id.str.fullmatch(YOUTUBE_ID), path, "video id", video_id, ID_FORMAT)
    start, end = (whole_seconds(table[time], path, NUM_SEGMENTS) for time in ("start", "end"))
    check_rows(start <= end, path, "end", table["end"], "no end before the start")
    table = table.assign(start=start, end=end)
    check_rows(~table.duplicated(SAMPLE), path, "a repeated sample of video", video_id, "each sample once")
    return table


def _report_shared_ids(annotations_dir: Path) -> None:
    """Warn once of videos that are both trained on and tested on, where both files are there."""
    paths = [annotations_dir / FILES[split] for split in ("train", "test")]
    if all(path.is_file() for path in paths):
        train, test = (set(_read_samples(path)["video id"]) for path in paths)
        if shared := sorted(train & test):
            warn_once(f"{annotations_dir}: {len(shared)} videos are in both train and test: {', '.join(shared)}")
