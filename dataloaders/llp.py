"""LLP annotations: six tab-separated files, 25 classes, audio and visual events labelled apart, 10 seconds a video."""

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from dataloaders.annotation_files import (
    GET_FILES,
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
from utils.errors import InputError

LLP_CLASSES = class_names("LLP")
NUM_SEGMENTS = 10
_NAME = rf"{YOUTUBE_ID}_[0-9]+(?:\.[0-9]+)?_[0-9]+(?:\.[0-9]+)?"  # times in seconds, a few with a decimal
FILES = {"train": "AVVP_train.csv", "val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
AUDIO_FILE = "AVVP_eval_audio.csv"
VISUAL_FILE = "AVVP_eval_visual.csv"

# Until April 2024 `AVVP_eval_audio.csv` had these names in three rows. They match no video, so the rows count for
# nothing, and older papers were scored like that.
DAMAGED_NAMES = ("Baby_cry_infant_cry", "KvIjsmANkxI_10_20`")


def load_split(annotations_dir: Path, split: str) -> SplitAnnotations:
    """Read one split. Training videos have no segment labels.

    Samples are keyed by the whole `filename`, features by its first 11 characters. Segment labels are what the eval
    files say, whether or not the video's label has the class; rows of files that are not in the split are skipped.

    Raises:
        InputError: for an absent file or column, an unknown class, times that are not whole seconds within the video, a
            malformed or repeated file name, a file without rows, and an eval file without a row of the split.
    """
    path = annotations_dir / FILES[split]
    table = read_table(path, ("filename", "event_labels"))
    names = table["filename"]
    check_rows(names.str.fullmatch(_NAME), path, "file name", names, f"<video id of {ID_FORMAT}>_<start>_<end>")
    check_rows(~names.duplicated(), path, "repeated file name", names, "each video once")
    labels = None
    if split != "train":
        audio = _segment_labels(annotations_dir / AUDIO_FILE, names, split)
        visual = _segment_labels(annotations_dir / VISUAL_FILE, names, split)
        labels = AudioVisual(audio, visual)
    return SplitAnnotations(
        dataset="LLP",
        split=split,
        classes=LLP_CLASSES,
        sample_ids=tuple(names),
        feature_ids=tuple(names.str[:11]),
        lengths=torch.full((len(table),), NUM_SEGMENTS),
        video_labels=_row_classes(table["event_labels"], path),
        labels=labels,
    )


def _segment_labels(path: Path, names: pd.Series, split: str) -> Tensor:
    """Read an eval file's labels of the named videos: (N * 10, C) bool."""
    table = read_table(path, ("filename", "onset", "offset", "event_labels"))
    classes = _row_classes(table["event_labels"], path)  # (rows, C)
    onset = torch.tensor(whole_seconds(table["onset"], path, NUM_SEGMENTS).to_list())  # (rows,)
    offset = torch.tensor(whole_seconds(table["offset"], path, NUM_SEGMENTS).to_list())
    damaged = table["filename"].isin(DAMAGED_NAMES)
    if set(table["filename"][damaged]) == set(DAMAGED_NAMES):
        lines = ", ".join(map(str, table.index[damaged]))
        warn_once(
            f"{path} is the version from before the correction of April 2024: the file names in lines {lines} are "
            "damaged, so these events count for nothing, as in the scores of older papers."
        )
    videos = torch.from_numpy(pd.Index(names).get_indexer(table["filename"]))  # -1: in another split, or in none
    here = videos >= 0  # (rows,)
    if not here.any():
        raise InputError(path, f"no row of the {len(names)} videos of {split}", "their events", GET_FILES)
    seconds = torch.arange(NUM_SEGMENTS)
    active = (onset[:, None] <= seconds) & (seconds < offset[:, None])  # (rows, T); onset >= offset marks nothing
    events = active[here].unsqueeze(2) & classes[here].unsqueeze(1)  # (rows here, T, C)
    counts = torch.zeros(len(names), NUM_SEGMENTS, len(LLP_CLASSES), dtype=torch.int32)
    return counts.index_add_(0, videos[here], events.int()).flatten(0, 1) > 0


def _row_classes(labels: pd.Series, path: Path) -> Tensor:
    """Return which classes each row's comma-separated label has: (rows, C) bool."""
    events = labels.str.split(",").explode().str.strip()
    expected = f"one of {', '.join(LLP_CLASSES)}"
    check_rows(events.isin(LLP_CLASSES), path, "unknown class", events, expected)
    has_class = torch.zeros(len(labels), len(LLP_CLASSES), dtype=torch.bool)
    has_class[labels.index.get_indexer(events.index), pd.Index(LLP_CLASSES).get_indexer(events)] = True
    return has_class
