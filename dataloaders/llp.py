"""LLP annotations: six tab-separated files, 25 classes, audio and visual events labelled apart, 10 seconds a video."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dataloaders.annotation_files import YOUTUBE_ID, read_table, split_file, warn_once
from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import AudioVisual
from utils.errors import InputError

LLP_CLASSES = (
    "Speech",
    "Car",
    "Cheering",
    "Dog",
    "Cat",
    "Frying_(food)",
    "Basketball_bounce",
    "Fire_alarm",
    "Chainsaw",
    "Cello",
    "Banjo",
    "Singing",
    "Chicken_rooster",
    "Violin_fiddle",
    "Vacuum_cleaner",
    "Baby_laughter",
    "Accordion",
    "Lawn_mower",
    "Motorcycle",
    "Helicopter",
    "Acoustic_guitar",
    "Telephone_bell_ringing",
    "Baby_cry_infant_cry",
    "Blender",
    "Clapping",
)
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
    annotations_dir = Path(annotations_dir)
    path = split_file(annotations_dir, FILES, split)
    table = read_table(path, ("filename", "event_labels"))
    names = table["filename"]
    _check_names(names, path)

    videos, classes = _events(table["event_labels"], path)
    video_labels = torch.zeros(len(table), len(LLP_CLASSES), dtype=torch.bool)
    video_labels[torch.from_numpy(table.index.get_indexer(videos)), torch.from_numpy(classes)] = True

    labels = None
    if split != "train":
        labels = AudioVisual(AUDIO_FILE, VISUAL_FILE).map(
            lambda file: _segment_labels(annotations_dir / file, names, split)
        )
    return SplitAnnotations(
        dataset="LLP",
        split=split,
        classes=LLP_CLASSES,
        sample_ids=tuple(names),
        feature_ids=tuple(names.str[:11]),
        lengths=torch.full((len(table),), NUM_SEGMENTS),
        video_labels=video_labels,
        labels=labels,
    )


def _segment_labels(path: Path, names: pd.Series, split: str) -> Tensor:
    """An eval file's labels of the named videos: (N * 10, C) bool."""
    table = read_table(path, ("filename", "onset", "offset", "event_labels"))
    table = _drop_damaged(table, path)
    onset = _whole_seconds(table["onset"], path)
    offset = _whole_seconds(table["offset"], path)
    lines, classes = _events(table["event_labels"], path)
    rows = table.index.get_indexer(lines)  # (E,) which row an event comes from
    videos = pd.Index(names).get_indexer(table["filename"])  # -1: in another split, or in none (15 files)
    if (videos < 0).all():
        found = f"no row of the {len(names)} videos of {split}"
        raise InputError(path, found, "their events", "Take the eval files that belong to the split's file.")

    seconds = np.arange(NUM_SEGMENTS)
    active = (onset[:, None] <= seconds) & (seconds < offset[:, None])  # (rows, T); onset >= offset marks nothing
    active[videos < 0] = False
    events, segments = np.nonzero(active[rows])
    labels = torch.zeros(len(names), NUM_SEGMENTS, len(LLP_CLASSES), dtype=torch.bool)
    labels[videos[rows][events], segments, classes[events]] = True
    return labels.flatten(0, 1)


def _drop_damaged(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table without the rows whose file name is damaged in the old version of the audio labels."""
    damaged = table["filename"].isin(DAMAGED_NAMES)
    if set(table["filename"][damaged]) == set(DAMAGED_NAMES):
        lines = ", ".join(str(line) for line in table.index[damaged])
        warn_once(
            f"{path} is the version from before the correction of April 2024: the file names in lines {lines} are "
            "damaged, so these events count for nothing, as in the scores of older papers."
        )
    return table[~damaged]


def _events(labels: pd.Series, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Comma-separated labels as pairs: (E,) line numbers and (E,) class indices."""
    events = labels.str.split(",").explode()
    classes = pd.Index(LLP_CLASSES).get_indexer(events.str.strip())
    if (classes < 0).any():
        first = int(np.argmax(classes < 0))
        raise InputError(
            f"{path}, line {events.index[first]}",
            f"unknown class {events.iloc[first]!r}",
            f"one of {', '.join(LLP_CLASSES)}",
            "Correct the name.",
        )
    return events.index.to_numpy(), classes


def _whole_seconds(times: pd.Series, path: Path) -> np.ndarray:
    """Times as integers, (rows,), checked to lie within the video."""
    seconds = pd.to_numeric(times, errors="coerce")
    wrong = ~(seconds.between(0, NUM_SEGMENTS) & (seconds % 1 == 0))  # NaN is not between
    if wrong.any():
        line = wrong.idxmax()
        raise InputError(
            f"{path}, line {line}",
            f"{times.name} {times[line]!r}",
            f"a whole number of seconds from 0 to {NUM_SEGMENTS}",
            "Correct the row.",
        )
    return seconds.to_numpy(np.int64)


def _check_names(names: pd.Series, path: Path) -> None:
    malformed = ~names.str.fullmatch(_NAME)
    if malformed.any():
        line = malformed.idxmax()
        expected = "<11-character video id of letters, digits, - and _>_<start>_<end>"
        raise InputError(f"{path}, line {line}", f"file name {names[line]!r}", expected, "Correct the name.")
    repeated = names.duplicated()
    if repeated.any():
        line = repeated.idxmax()
        first = names.eq(names[line]).idxmax()
        found = f"{names[line]!r} again (first in line {first})"
        raise InputError(f"{path}, line {line}", found, "each video once", "Remove one of the lines.")
