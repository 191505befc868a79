"""UnAV-100 annotations: ActivityNet's JSON, 100 audio-visual classes, videos of up to a minute."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from dataloaders import activitynet
from dataloaders.activitynet import Segment, read_videos, split_of
from dataloaders.annotations import SplitAnnotations, class_names
from dataloaders.tables import GET_FILES, YOUTUBE_ID
from utils.audio_visual import AudioVisual
from utils.errors import InputError

UNAV_CLASSES = class_names("UnAV")
FILE = "unav100_annotations.json"
MAX_DURATION = 3600  # seconds; those of the published file are at most 60
SUBSETS = {"train": "train", "val": "validation", "test": "test"}


class Event(activitynet.Event):
    """An event of the annotation file."""

    segment: Segment
    label_id: int


class Video(activitynet.Video):
    """A video of the annotation file."""

    duration: Annotated[float, Field(gt=0, le=MAX_DURATION)]  # seconds
    subset: Literal["train", "validation", "test"]
    annotations: list[Event]


class Content(BaseModel):
    """The part of the annotation file that is used."""

    database: dict[Annotated[str, Field(pattern=f"^{YOUTUBE_ID}$")], Video]  # by YouTube id


def load_split(annotations_dir: Path, split: str) -> SplitAnnotations:
    """Read one split. A video has ceil(duration) segments; an event [s, e) labels floor(s)..ceil(e) - 1.

    Raises InputError for absent and malformed files, unknown classes, a class name that does not match its `label_id`,
    times outside the video, repeated videos and an empty split.
    """
    path = annotations_dir / FILE
    videos = _read_videos(path, [SUBSETS[split]])
    for video_id, video in videos.items():
        for event in video.annotations:
            if not 0 <= event.label_id < len(UNAV_CLASSES) or UNAV_CLASSES[event.label_id] != event.label:
                found = f"label {event.label!r} with label_id {event.label_id}"
                expected = "a class and its index in data/classes.yaml"
                raise InputError(f"{path}, video {video_id}", found, expected, "Correct the event.")
    annotations = split_of(videos, path, "UnAV", UNAV_CLASSES, split, rate=1)
    return replace(annotations, labels=AudioVisual(annotations.labels.audio, annotations.labels.audio))


def load_events(annotations_dir: Path, sample_ids: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the videos (K,), classes (K,) int64 and times in seconds (K, 2) of the K events of some videos."""
    videos = _read_videos(annotations_dir / FILE, SUBSETS.values())
    events = [(n, event) for n, sample_id in enumerate(sample_ids) for event in videos[sample_id].annotations]
    numbers = torch.tensor([(n, event.label_id) for n, event in events]).view(-1, 2)
    times = torch.tensor([event.segment for _, event in events], dtype=torch.float64).view(-1, 2)
    return numbers[:, 0], numbers[:, 1], times


def _read_videos(path: Path, subsets: Collection[str]) -> dict[str, Video]:
    return read_videos(path, Content, subsets, "the published format", GET_FILES)
