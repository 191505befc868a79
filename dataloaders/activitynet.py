"""Annotations in ActivityNet's JSON format: UnAV-100, and user data sets, which files in configs/datasets/ describe.

ActionFormer, OpenTAD and FiftyOne use this format, too. Besides label and segment, an event may have a `modality`:
audio, visual or both (the default).
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from dataloaders.annotations import SplitAnnotations
from dataloaders.features import FEATURES, PUBLISHED
from dataloaders.tables import read_text
from utils.audio_visual import AudioVisual
from utils.errors import InputError

SUBSETS = {"train": ("train", "training"), "val": ("val", "validation"), "test": ("test", "testing")}
NEGLIGIBLE_SECONDS = 0.1  # a remainder this short at a video's end is not a segment, as in feature extraction
FileName = Annotated[str, Field(pattern=r"^[^/\\\x00.][^/\\\x00]{0,199}$")]
Segment = Annotated[list[float], Field(min_length=2, max_length=2)]  # start and end, seconds
WAY_OUT = "Write or correct it; docs/your_data.md describes the format."


class Event(BaseModel):
    """An event of a video."""

    label: str
    segment: Segment | None = None  # optional for training videos
    modality: Literal["audio", "visual", "both"] = "both"


class Video(BaseModel):
    """A video, whose files are named after its id."""

    subset: str
    duration: Annotated[float, Field(gt=0, le=86_400)]  # seconds
    annotations: list[Event] = []


class Content(BaseModel):
    """The part of an annotation file that is used."""

    database: dict[FileName, Video]


class OwnDataset(BaseModel):
    """The content of a file in configs/datasets/, which is named after the data set."""

    model_config = ConfigDict(extra="forbid")
    classes: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    annotations: str = "annotations.json"  # in the data set's folder
    features: list[Literal[tuple(FEATURES)]] = list(PUBLISHED)  # default features of all stages
    segments_per_second: PositiveInt = 1


def read_own_dataset(path: Path) -> OwnDataset:
    """Read the description of a data set. Raises InputError if it is malformed."""
    try:
        described = OwnDataset.model_validate(yaml.safe_load(read_text(path, WAY_OUT)))
    except (yaml.YAMLError, ValidationError) as error:
        wrong = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error), "loc": ()}
        found = " ".join([*map(str, wrong["loc"]), wrong["msg"]])
        raise InputError(path, found, "classes, annotations, features, segments_per_second", WAY_OUT) from None
    if len(set(described.classes)) < len(described.classes):
        raise InputError(path, "a class twice", "each class once", WAY_OUT)
    return described


def load_split(path: Path, dataset: str, classes: Sequence[str], rate: int, split: str) -> SplitAnnotations:
    """Read a split of a user's data set, for train with video labels only. Raises InputError for unusable files."""
    videos = read_videos(path, Content, SUBSETS[split], "ActivityNet's format", WAY_OUT)
    for name, video in videos.items():
        for event in video.annotations:
            if event.segment is None and split != "train":
                found = f"label {event.label!r} without a segment"
                raise InputError(f"{path}, video {name}", found, "a segment, since the video is evaluated", WAY_OUT)
    annotations = split_of(videos, path, dataset, classes, split, rate, NEGLIGIBLE_SECONDS)
    return replace(annotations, labels=None) if split == "train" else annotations


def split_of(
    videos: dict[str, Video], path: Path, dataset: str, classes: Sequence[str], split: str, rate: int, rest: float = 0.0
) -> SplitAnnotations:
    """Return the annotations of some videos, with `rate` segments per second.

    An event [s, e) labels every segment that it overlaps; one without times labels all. A remainder of up to `rest`
    seconds at a video's end is not a segment. Raises InputError for unknown classes and events outside their video.
    """
    place = {name: n for n, name in enumerate(classes)}
    lengths, rows = [], []
    for name, video in videos.items():
        length = max(1, math.ceil((video.duration - rest) * rate))
        of_video = np.zeros((2, length, len(classes)), bool)  # audible, visible
        for event in video.annotations:
            start, end = event.segment or (0.0, video.duration)
            if event.label not in place or not 0 <= start < end <= length / rate + rest:
                found = f"label {event.label!r}, segment {event.segment}"
                expected = f"one of {', '.join(classes)}, and 0 <= start < end <= {length / rate:g} seconds"
                raise InputError(f"{path}, video {name}", found, expected, WAY_OUT)
            modalities = {"audio": [0], "visual": [1], "both": [0, 1]}[event.modality]
            of_video[modalities, math.floor(start * rate) : math.ceil(end * rate), place[event.label]] = True
        lengths.append(length)
        rows.append(of_video)
    labels = AudioVisual(*torch.from_numpy(np.concatenate(rows, axis=1)))
    video_labels = torch.from_numpy(np.stack([of_video.any(axis=(0, 1)) for of_video in rows]))
    about, ids = (dataset, split, tuple(classes)), (tuple(videos), tuple(videos))
    return SplitAnnotations(*about, *ids, torch.tensor(lengths), video_labels, labels, rate)


def read_videos(
    path: Path, form: type[BaseModel], subsets: Collection[str], what: str, way_out: str
) -> dict[str, Video]:
    """Read the videos of some subsets by id. Raises InputError if the file is malformed or has no such video."""
    try:
        content = json.loads(read_text(path, way_out), object_pairs_hook=_unique_keys)
        database = form.model_validate(content, strict=True).database
    except ValidationError as error:
        wrong = error.errors()[0]
        where = f"{path}, {' '.join(map(str, wrong['loc']))!r}"
        raise InputError(where, f"{wrong['input']!r:.200}", f"{what} ({wrong['msg']})", way_out) from None
    except (ValueError, RecursionError) as error:  # also for repeated keys and numbers of thousands of digits
        raise InputError(path, f"a broken file ({error})", "JSON with each video once", way_out) from error
    videos = {name: video for name, video in database.items() if video.subset.lower() in subsets}
    if not videos:
        raise InputError(path, f"no video of the subset {' or '.join(map(repr, subsets))}", "at least one", way_out)
    return videos


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object as a dictionary. Raises ValueError for repeated keys, which `json` accepts."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError(f"{Counter(key for key, _ in pairs).most_common(1)[0][0]!r} more than once in one object")
    return unique
