"""UnAV-100 annotations: one JSON file, 100 audio-visual classes, videos of up to a minute."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from dataloaders.annotations import GET_FILES, YOUTUBE_ID, SplitAnnotations, class_names, read_text
from utils.audio_visual import AudioVisual
from utils.errors import InputError

UNAV_CLASSES = class_names("UnAV")
FILE = "unav100_annotations.json"
MAX_DURATION = 3600  # seconds; those of the published file are at most 60
SUBSETS = {"train": "train", "val": "validation", "test": "test"}


class Event(BaseModel):
    """An event of the annotation file."""

    segment: Annotated[list[float], Field(min_length=2, max_length=2)]  # start and end, seconds
    label: str
    label_id: int


class Video(BaseModel):
    """A video of the annotation file."""

    duration: Annotated[float, Field(gt=0, le=MAX_DURATION)]  # seconds
    subset: Literal["train", "validation", "test"]
    annotations: list[Event]


class Content(BaseModel):
    """What is used of the annotation file."""

    database: dict[Annotated[str, Field(pattern=f"^{YOUTUBE_ID}$")], Video]  # by YouTube id


def load_split(annotations_dir: Path, split: str) -> SplitAnnotations:
    """Read one split. A video has ceil(duration) segments; an event [s, e) marks floor(s)..ceil(e) - 1.

    Raises:
        InputError: for an absent file or field, an unknown class or a name that is not its `label_id`'s, a time that is
            not a number or lies outside the video, an id that is none of YouTube, a repeated video, and a split
            without videos.
    """
    path = annotations_dir / FILE
    videos = {key: video for key, video in _read_videos(path).items() if video.subset == SUBSETS[split]}
    if not videos:
        raise InputError(path, f"no video of the subset {SUBSETS[split]!r}", "at least one", GET_FILES)
    labels = []  # of each video, (T, C) bool
    for video_id, video in videos.items():
        of_video = np.zeros((math.ceil(video.duration), len(UNAV_CLASSES)), dtype=bool)
        for event in video.annotations:
            label_id, (start, end) = event.label_id, event.segment
            known = 0 <= label_id < len(UNAV_CLASSES) and UNAV_CLASSES[label_id] == event.label
            if not known or not 0 <= start < end <= len(of_video):
                found = f"label {event.label!r} with label_id {label_id}, segment {event.segment}"
                expected = f"a class and its place in data/classes.yaml, 0 <= start < end <= {len(of_video)} seconds"
                raise InputError(f"{path}, video {video_id}", found, expected, "Correct the event.")
            of_video[math.floor(start) : math.ceil(end), label_id] = True
        labels.append(of_video)
    segment_labels = torch.from_numpy(np.concatenate(labels))  # (R, C)
    return SplitAnnotations(
        dataset="UnAV",
        split=split,
        classes=UNAV_CLASSES,
        sample_ids=tuple(videos),
        feature_ids=tuple(videos),
        lengths=torch.tensor([len(of_video) for of_video in labels]),
        video_labels=torch.from_numpy(np.stack([of_video.any(axis=0) for of_video in labels])),  # (N, C)
        labels=AudioVisual(segment_labels, segment_labels),
    )


def load_events(annotations_dir: Path, sample_ids: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Read the K events of some videos as they are annotated, to fractions of a second.

    Returns:
        videos (K,) int64, counted as in `sample_ids`; classes (K,) int64; start and end in seconds (K, 2) float64
    """
    videos = _read_videos(annotations_dir / FILE)
    events = [(n, event) for n, sample_id in enumerate(sample_ids) for event in videos[sample_id].annotations]
    numbers = torch.tensor([(n, event.label_id) for n, event in events]).view(-1, 2)
    times = torch.tensor([event.segment for _, event in events], dtype=torch.float64).view(-1, 2)
    return numbers[:, 0], numbers[:, 1], times


def _read_videos(path: Path) -> dict[str, Video]:
    """Read all videos by id."""
    try:
        content = json.loads(read_text(path), object_pairs_hook=unique_keys)
        return Content.model_validate(content, strict=True).database
    except ValidationError as error:
        wrong = error.errors()[0]
        where = f"{path}, {' '.join(map(str, wrong['loc']))!r}"
        raise InputError(where, f"{wrong['input']!r:.200}", f"as published ({wrong['msg']})", GET_FILES) from None
    except (ValueError, RecursionError) as error:  # also a repeated key, a number of thousands of digits
        raise InputError(path, f"a broken file ({error})", "JSON with each video once", GET_FILES) from error


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object as a dictionary; Python's parser would silently keep the last of several equal keys."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError(f"{Counter(key for key, _ in pairs).most_common(1)[0][0]!r} more than once in one object")
    return unique
