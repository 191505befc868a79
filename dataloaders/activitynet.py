"""Data sets of one's own: annotations in ActivityNet's JSON, described by a file in configs/datasets/.

ActionFormer, OpenTAD, UnAV-100 and FiftyOne exchange this form. Beside a label and its segment an event may have a
`modality`: audio, visual or both (the default).
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from dataloaders.annotations import SplitAnnotations, read_text
from dataloaders.features import FEATURES, PUBLISHED
from dataloaders.unav import unique_keys
from utils.audio_visual import AudioVisual
from utils.errors import InputError

SUBSETS = {"train": ("train", "training"), "val": ("val", "validation"), "test": ("test", "testing")}
NEGLIGIBLE_SECONDS = 0.1  # a rest of a video so short is no segment, as for extracted features
FileName = Annotated[str, Field(pattern=r"^[^/\\\x00.][^/\\\x00]{0,199}$")]
WAY_OUT = "Correct it; docs/your_data.md describes the form."


class Event(BaseModel):
    """An event of a video."""

    label: str
    segment: tuple[float, float] | None = None  # start and end, seconds; training videos may go without
    modality: Literal["audio", "visual", "both"] = "both"


class Video(BaseModel):
    """A video, whose files are called by its id."""

    subset: str
    duration: Annotated[float, Field(gt=0, le=86_400)]  # seconds
    annotations: list[Event] = []


class Content(BaseModel):
    """What is used of a file of annotations."""

    database: dict[FileName, Video]


class OwnDataset(BaseModel):
    """A file in configs/datasets/, whose name is the data set's."""

    model_config = ConfigDict(extra="forbid")
    classes: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    annotations: str = "annotations.json"  # in the data set's folder
    features: list[Literal[tuple(FEATURES)]] = list(PUBLISHED)  # that the stages read by default
    segments_per_second: PositiveInt = 1


def read_own_dataset(path: Path) -> OwnDataset:
    """Read a data set's description. Raises InputError for a malformed one."""
    try:
        described = OwnDataset.model_validate(yaml.safe_load(read_text(path)))
    except (yaml.YAMLError, ValidationError) as error:
        said = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error), "loc": ()}
        found = " ".join([*map(str, said["loc"]), said["msg"]])
        raise InputError(path, found, "classes, annotations, features, segments_per_second", WAY_OUT) from None
    if len(set(described.classes)) < len(described.classes):
        raise InputError(path, "a class twice", "different classes", WAY_OUT)
    return described


def load_split(
    path: Path, dataset: str, classes: Sequence[str], segments_per_second: int, split: str
) -> SplitAnnotations:
    """Read one split of a file. An event [s, e) marks every segment that it touches; training has video labels alone.

    Raises:
        InputError: for an absent or malformed file, a split without videos, an unknown class, and an event outside its
            video, or without a segment where it is evaluated.
    """
    videos = {name: video for name, video in _read_videos(path).items() if video.subset.lower() in SUBSETS[split]}
    if not videos:
        expected = f"videos of the subset {' or '.join(SUBSETS[split])}"
        raise InputError(path, f"no video of {split}", expected, WAY_OUT)
    place, rate = {name: n for n, name in enumerate(classes)}, segments_per_second
    lengths, video_labels, rows = [], [], []
    for name, video in videos.items():
        length = max(1, math.ceil((video.duration - NEGLIGIBLE_SECONDS) * rate))
        of_video = np.zeros((2, length, len(classes)), bool)  # audible, visible
        occurs = np.zeros(len(classes), bool)
        for event in video.annotations:
            start, end = event.segment or (0.0, video.duration)
            known = event.label in place and 0 <= start < end <= video.duration + NEGLIGIBLE_SECONDS
            if not known or (event.segment is None and split != "train"):
                found = f"label {event.label!r}, segment {event.segment}"
                expected = f"one of {', '.join(classes)}, and 0 <= start < end <= {video.duration:g} seconds"
                raise InputError(f"{path}, video {name}", found, expected, WAY_OUT)
            modalities = {"audio": [0], "visual": [1], "both": [0, 1]}[event.modality]
            of_video[modalities, math.floor(start * rate) : math.ceil(end * rate), place[event.label]] = True
            occurs[place[event.label]] = True
        lengths.append(length)
        video_labels.append(occurs)
        rows.append(of_video)
    audio, visual = torch.from_numpy(np.concatenate(rows, axis=1))
    return SplitAnnotations(
        dataset=dataset,
        split=split,
        classes=tuple(classes),
        sample_ids=tuple(videos),
        feature_ids=tuple(videos),
        lengths=torch.tensor(lengths),
        video_labels=torch.from_numpy(np.stack(video_labels)),
        labels=None if split == "train" else AudioVisual(audio, visual),
        segments_per_second=segments_per_second,
    )


def _read_videos(path: Path) -> dict[str, Video]:
    try:
        return Content.model_validate(json.loads(read_text(path), object_pairs_hook=unique_keys)).database
    except ValidationError as error:
        wrong = error.errors()[0]
        where = f"{path}, {' '.join(map(str, wrong['loc']))!r}"
        expected = f"ActivityNet's form ({wrong['msg']})"
        raise InputError(where, f"{wrong['input']!r:.200}", expected, WAY_OUT) from None
    except (ValueError, RecursionError) as error:  # also a repeated key
        raise InputError(path, f"a broken file ({error})", "JSON with each video once", WAY_OUT) from error
