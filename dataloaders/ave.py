"""AVE annotations: `category&video id&quality&start&end` lines, 28 classes, one audio-visual event in 10 seconds."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from dataloaders.annotation_files import check_youtube_id, read_text, split_file, warn_once
from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import AudioVisual
from utils.errors import InputError

AVE_CLASSES = (
    "Accordion",
    "Acoustic guitar",
    "Baby cry, infant cry",
    "Banjo",
    "Bark",
    "Bus",
    "Cat",
    "Chainsaw",
    "Church bell",
    "Clock",
    "Female speech, woman speaking",
    "Fixed-wing aircraft, airplane",
    "Flute",
    "Frying (food)",
    "Goat",
    "Helicopter",
    "Horse",
    "Male speech, man speaking",
    "Mandolin",
    "Motorcycle",
    "Race car, auto racing",
    "Rodents, rats, mice",
    "Shofar",
    "Toilet flush",
    "Train horn",
    "Truck",
    "Ukulele",
    "Violin, fiddle",
)  # sorted; background is index 28 where one is needed, and no column of the labels
BACKGROUND = "background"
NUM_SEGMENTS = 10
ANNOTATIONS_FILE = "Annotations.txt"
FILES = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}
_FORMAT = "category&video id&quality&start&end"


@dataclass(frozen=True)
class _Line:
    category: str
    video_id: str
    start: int  # seconds
    end: int  # seconds, exclusive


def load_split(annotations_dir: Path, split: str) -> SplitAnnotations:
    """Read one split.

    Two samples may be one clip under two categories, so a sample's key is its line in `Annotations.txt`
    (`<line number>_<video id>`); features are found by the video id. A segment without a class is background. A line
    with start = end is background throughout and has no video label either.

    Raises:
        InputError: for an absent or empty file, a malformed or repeated line, an unknown category, an id that
            is none of YouTube, times outside the video, and a line that `Annotations.txt` lacks.
    """
    annotations_dir = Path(annotations_dir)
    path = split_file(annotations_dir, FILES, split)
    key_of = {line: number for number, line in _read_lines(annotations_dir / ANNOTATIONS_FILE).items()}
    lines = _read_lines(path)
    for number, line in lines.items():
        if line not in key_of:
            found = f"a line that {ANNOTATIONS_FILE} lacks ({line.category}&{line.video_id})"
            raise InputError(f"{path}, line {number}", found, f"lines of {ANNOTATIONS_FILE}", "Correct either file.")
    _report_shared_ids(annotations_dir)

    samples = list(lines.values())
    classes = torch.tensor([AVE_CLASSES.index(line.category) for line in samples])  # (N,)
    start = torch.tensor([line.start for line in samples])
    end = torch.tensor([line.end for line in samples])
    seconds = torch.arange(NUM_SEGMENTS)
    active = (start[:, None] <= seconds) & (seconds < end[:, None])  # (N, T)
    labels = torch.zeros(len(samples), NUM_SEGMENTS, len(AVE_CLASSES), dtype=torch.bool)
    labels[torch.arange(len(samples)), :, classes] = active
    segment_labels = labels.flatten(0, 1)  # (R, C)
    return SplitAnnotations(
        dataset="AVE",
        split=split,
        classes=AVE_CLASSES,
        sample_ids=tuple(f"{key_of[line]}_{line.video_id}" for line in samples),
        feature_ids=tuple(line.video_id for line in samples),
        lengths=torch.full((len(samples),), NUM_SEGMENTS),
        video_labels=labels.any(1),
        labels=AudioVisual(segment_labels, segment_labels),
    )


def _read_lines(path: Path) -> dict[int, _Line]:
    """A file's samples by line number; blank lines and a header are left out."""
    lines: dict[int, _Line] = {}
    numbers: dict[_Line, int] = {}
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip() or (number == 1 and text.lower().startswith("category&")):
            continue
        line = _parse(text.strip(), f"{path}, line {number}")
        if line in numbers:
            found = f"the sample of line {numbers[line]} again ({text.strip()})"
            raise InputError(f"{path}, line {number}", found, "each sample once", "Remove one of the lines.")
        lines[number] = line
        numbers[line] = number
    if not lines:
        raise InputError(path, "no lines", f"lines like {_FORMAT}", "data/README.md says where to get the file.")
    return lines


def _parse(text: str, where: str) -> _Line:
    fields = text.split("&")
    if len(fields) != 5 or not all(fields):
        raise InputError(where, f"a malformed line ({text})", _FORMAT, "Correct the line.")
    category, video_id, _, start, end = fields
    if category not in AVE_CLASSES:
        raise InputError(where, f"unknown category {category!r}", f"one of {'; '.join(AVE_CLASSES)}", "Correct it.")
    check_youtube_id(video_id, where)
    if not re.fullmatch("[0-9]{1,9}", start) or not re.fullmatch("[0-9]{1,9}", end):
        raise InputError(where, f"times {start} and {end}", "whole seconds", "Correct the line.")
    if not int(start) <= int(end) <= NUM_SEGMENTS:
        expected = f"0 <= start <= end <= {NUM_SEGMENTS}"
        raise InputError(where, f"times {start} and {end}", expected, "Correct the line.")
    return _Line(category, video_id, int(start), int(end))


def _report_shared_ids(annotations_dir: Path) -> None:
    """Warn once of videos that are both trained on and tested on, where both files are there."""
    paths = [annotations_dir / FILES[split] for split in ("train", "test")]
    if all(path.is_file() for path in paths):
        train, test = ({line.video_id for line in _read_lines(path).values()} for path in paths)
        if shared := sorted(train & test):
            warn_once(f"{annotations_dir}: {len(shared)} videos are in both train and test: {', '.join(shared)}")
