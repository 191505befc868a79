"""LLP annotations: tab-separated files, 25 classes, separate audio and visual events, 10-second videos."""

import re
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations, class_names
from dataloaders.tables import GET_FILES, ID_FORMAT, YOUTUBE_ID, line_error, read_table, warn_once, whole_seconds
from utils.audio_visual import AudioVisual
from utils.errors import InputError

LLP_CLASSES = class_names("LLP")
NUM_SEGMENTS = 10
_NAME = rf"{YOUTUBE_ID}_[0-9]+(?:\.[0-9]+)?_[0-9]+(?:\.[0-9]+)?"  # times in seconds, a few with decimals
FILES = {"train": "AVVP_train.csv", "val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
AUDIO_FILE = "AVVP_eval_audio.csv"
VISUAL_FILE = "AVVP_eval_visual.csv"

# Until April 2024 three rows of `AVVP_eval_audio.csv` had these names. They match no video, so the rows are
# ignored, as in the scores of older papers.
DAMAGED_NAMES = ("Baby_cry_infant_cry", "KvIjsmANkxI_10_20`")


def load_split(annotations_dir: Path, split: str) -> SplitAnnotations:
    """Read one split. Training videos have no segment labels.

    Samples are keyed by the whole `filename`, features by its first 11 characters. Segment labels are those of the eval
    files, whether or not the video label has the class. Raises InputError for absent files and columns, malformed rows,
    training videos that are in another split, and eval files without any video of the split.
    """
    path = annotations_dir / FILES[split]
    video_labels = {}  # (C,) bool, by the video's name
    for line, row in read_table(path, ("filename", "event_labels")).items():
        name = row["filename"]
        if not re.fullmatch(_NAME, name) or name in video_labels:
            expected = f"<video id of {ID_FORMAT}>_<start>_<end>, each once"
            raise line_error(path, line, f"a malformed or repeated file name {name!r}", expected)
        video_labels[name] = _row_labels(row, path, line)
    names = tuple(video_labels)
    if split == "train":
        _refuse_leakage(annotations_dir, names)
    labels = None
    if split != "train":
        files = AudioVisual(annotations_dir / AUDIO_FILE, annotations_dir / VISUAL_FILE)
        labels = files.map(lambda file: _segment_labels(file, names, split))
    feature_ids, lengths = tuple(name[:11] for name in names), torch.full((len(names),), NUM_SEGMENTS)
    of_videos = torch.stack(list(video_labels.values()))  # (N, C)
    return SplitAnnotations("LLP", split, LLP_CLASSES, names, feature_ids, lengths, of_videos, labels)


def _refuse_leakage(annotations_dir: Path, names: tuple[str, ...]) -> None:
    """Raise InputError if training videos are also in val or test (where these files exist)."""
    for split in ("val", "test"):
        path = annotations_dir / FILES[split]
        evaluated = {row["filename"] for row in read_table(path, ("filename",)).values()} if path.is_file() else set()
        if shared := sorted(evaluated & set(names)):
            found = f"{len(shared)} videos that are also in {path.name}, such as {shared[0]}"
            way_out = f"Use {FILES['train']} of the data set, not AVVP_dataset_full.csv, which contains all splits."
            raise InputError(annotations_dir / FILES["train"], found, "videos that are in no other split", way_out)


def _segment_labels(path: Path, names: tuple[str, ...], split: str) -> Tensor:
    """Read the labels of the named videos from an eval file: (N * 10, C) bool."""
    rows = read_table(path, ("filename", "onset", "offset", "event_labels"))
    damaged = {line: row["filename"] for line, row in rows.items() if row["filename"] in DAMAGED_NAMES}
    if set(damaged.values()) == set(DAMAGED_NAMES):
        warn_once(
            f"{path} is older than the correction of April 2024: the file names in lines "
            f"{', '.join(map(str, damaged))} are damaged; these events are ignored, as in the scores of older papers."
        )
    places = {name: n for n, name in enumerate(names)}
    if not any(row["filename"] in places for row in rows.values()):
        raise InputError(path, f"no row for the {len(names)} videos of {split}", "their events", GET_FILES)
    labels = torch.zeros(len(names), NUM_SEGMENTS, len(LLP_CLASSES), dtype=torch.bool)
    for line, row in rows.items():
        of_row = _row_labels(row, path, line)
        onset, offset = (whole_seconds(row, time, NUM_SEGMENTS, path, line) for time in ("onset", "offset"))
        if row["filename"] in places:  # otherwise it is in another split, or in none
            labels[places[row["filename"]], onset:offset] |= of_row
    return labels.flatten(0, 1)


def _row_labels(row: dict[str, str], path: Path, line: int) -> Tensor:
    """Return a row's comma-separated classes as a multi-hot vector: (C,) bool."""
    events = {event.strip() for event in row["event_labels"].split(",")}
    if unknown := sorted(events - set(LLP_CLASSES)):
        raise line_error(path, line, f"unknown class {unknown[0]!r}", f"one of {', '.join(LLP_CLASSES)}")
    return torch.tensor([name in events for name in LLP_CLASSES])
