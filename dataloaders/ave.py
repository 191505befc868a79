"""AVE annotations: lines `category&video id&quality&start&end`, 28 classes, one audio-visual event per 10 seconds."""

import re
from pathlib import Path

import torch

from dataloaders.annotations import SplitAnnotations, class_names
from dataloaders.tables import GET_FILES, ID_FORMAT, YOUTUBE_ID, line_error, read_table, warn_once, whole_seconds
from utils.audio_visual import AudioVisual
from utils.errors import InputError

AVE_CLASSES = class_names("AVE")
BACKGROUND = "background"
NUM_SEGMENTS = 10
ANNOTATIONS_FILE = "Annotations.txt"
FILES = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}
COLUMNS = ("category", "video id", "quality", "start", "end")


def load_split(annotations_dir: Path, split: str) -> SplitAnnotations:
    """Read one split.

    A clip may be listed under two categories, so a sample's key is `<line in Annotations.txt>_<video id>`. A segment
    without a class is background; with start = end all are, and there is no video label. Raises InputError for an
    absent or empty file, and for a line that is malformed, repeated or absent from `Annotations.txt`.
    """
    path = annotations_dir / FILES[split]
    every, samples = _read_samples(annotations_dir / ANNOTATIONS_FILE), _read_samples(path)
    _report_shared_ids(annotations_dir)
    sample_ids, labels = [], torch.zeros(len(samples), NUM_SEGMENTS, len(AVE_CLASSES), dtype=torch.bool)
    for n, (sample, line) in enumerate(samples.items()):
        category, video_id, start, end = sample
        if sample not in every:
            found = f"a line of video {video_id!r} that is not in {ANNOTATIONS_FILE}"
            raise line_error(path, line, found, f"lines of {ANNOTATIONS_FILE}")
        sample_ids.append(f"{every[sample]}_{video_id}")
        labels[n, start:end, AVE_CLASSES.index(category)] = True
    segment_labels = labels.flatten(0, 1)  # (R, C)
    ids = tuple(sample_ids), tuple(video_id for _, video_id, _, _ in samples)
    lengths, both = torch.full((len(samples),), NUM_SEGMENTS), AudioVisual(segment_labels, segment_labels)
    return SplitAnnotations("AVE", split, AVE_CLASSES, *ids, lengths, labels.any(1), both)


def _read_samples(path: Path) -> dict[tuple[str, str, int, int], int]:
    """Read a file's samples (category, video id, start, end) with their line numbers, without a header."""
    samples = {}
    for line, row in read_table(path, COLUMNS, separator="&", header=False).items():
        category, video_id = row["category"], row["video id"]
        if line == 1 and category.lower() == "category":
            continue
        if category not in AVE_CLASSES:
            raise line_error(path, line, f"unknown category {category!r}", f"one of {'; '.join(AVE_CLASSES)}")
        if not re.fullmatch(YOUTUBE_ID, video_id):
            raise line_error(path, line, f"video id {video_id!r}", ID_FORMAT)
        start, end = (whole_seconds(row, time, NUM_SEGMENTS, path, line) for time in ("start", "end"))
        sample = (category, video_id, start, end)
        if end < start or sample in samples:
            found = f"end {end} before start {start}, or a repeated sample, of video {video_id!r}"
            raise line_error(path, line, found, "each sample once, with an end not before its start")
        samples[sample] = line
    if not samples:
        raise InputError(path, "no rows", "a line for each sample", GET_FILES)
    return samples


def _report_shared_ids(annotations_dir: Path) -> None:
    """Warn once about videos that are in both train and test, if both files exist."""
    paths = [annotations_dir / FILES[split] for split in ("train", "test")]
    if all(path.is_file() for path in paths):
        train, test = ({video_id for _, video_id, _, _ in _read_samples(path)} for path in paths)
        if shared := sorted(train & test):
            warn_once(f"{annotations_dir}: {len(shared)} videos are in both train and test: {', '.join(shared)}")
