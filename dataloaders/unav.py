"""UnAV-100 annotations: one JSON file, 100 audio-visual classes, videos of up to a minute."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataloaders.annotation_files import GET_FILES, ID_FORMAT, YOUTUBE_ID, class_names, read_text
from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import AudioVisual
from utils.errors import InputError

UNAV_CLASSES = class_names("UnAV")
FILE = "unav100_annotations.json"
MAX_DURATION = 3600  # seconds; those of the published file are at most 60
SUBSETS = {"train": "train", "val": "validation", "test": "test"}
NUMBER = (int, float)
VIDEO = {"duration": NUMBER, "subset": str, "annotations": list}  # fields of a video, and of an event
EVENT = {"segment": list, "label": str, "label_id": int}


def load_split(annotations_dir: Path, split: str) -> SplitAnnotations:
    """Read one split. A video has ceil(duration) segments; an event [s, e) marks floor(s)..ceil(e) - 1.

    Raises:
        InputError: for an absent file or field, an unknown class or a name that is not its `label_id`'s, a time that is
            not a number or lies outside the video, an id that is none of YouTube, a repeated video, and a split
            without videos.
    """
    path = annotations_dir / FILE
    videos = _read_videos(path, SUBSETS[split])
    labels = []  # of each video, (T, C) bool
    for video_id, video in videos.items():
        where = f"{path}, video {video_id}"
        if not 0 < video["duration"] <= MAX_DURATION:
            expected = f"a positive number of seconds, {MAX_DURATION} at most"
            raise InputError(where, f"duration {video['duration']}", expected, GET_FILES)
        of_video = np.zeros((math.ceil(video["duration"]), len(UNAV_CLASSES)), dtype=bool)
        for event in video["annotations"]:
            _check_event(event, len(of_video), where)
            start, end = event["segment"]
            of_video[math.floor(start) : math.ceil(end), event["label_id"]] = True
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


def _read_videos(path: Path, subset: str) -> dict[str, dict]:
    """Read the videos of a subset by id."""
    try:
        content = json.loads(read_text(path), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # also a repeated key, a number of thousands of digits
        raise InputError(path, f"a broken file ({error})", "JSON with each video once", GET_FILES) from error
    _check_fields(content, {"database": dict}, path)
    for video_id, video in content["database"].items():
        if not re.fullmatch(YOUTUBE_ID, video_id):
            raise InputError(path, f"video id {video_id!r}", ID_FORMAT, GET_FILES)
        where = f"{path}, video {video_id}"
        _check_fields(video, VIDEO, where)
        if video["subset"] not in SUBSETS.values():
            raise InputError(where, f"subset {video['subset']!r}", f"one of {', '.join(SUBSETS.values())}", GET_FILES)
    videos = {video_id: video for video_id, video in content["database"].items() if video["subset"] == subset}
    if not videos:
        raise InputError(path, f"no video of the subset {subset!r}", "at least one", GET_FILES)
    return videos


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object as a dictionary; Python's parser would silently keep the last of several equal keys."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError(f"{Counter(key for key, _ in pairs).most_common(1)[0][0]!r} more than once in one object")
    return unique


def _check_fields(record: Any, fields: dict[str, type | tuple[type, ...]], where: object) -> None:
    """Raise InputError for what is no JSON object with these fields, or where one is not of its type."""
    if not isinstance(record, dict):
        raise InputError(where, f"{record!r}", f"an object with the fields {', '.join(fields)}", GET_FILES)
    for name, kind in fields.items():
        value = record.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(where, f"{name} {value!r}", f"a field {name} of the published type", GET_FILES)


def _check_event(event: Any, length: int, where: str) -> None:
    """Raise InputError for an annotation that is no event of a video of `length` segments."""
    _check_fields(event, EVENT, where)
    label, label_id, segment = event["label"], event["label_id"], event["segment"]
    if not 0 <= label_id < len(UNAV_CLASSES) or UNAV_CLASSES[label_id] != label:
        expected = "a class and its place in data/classes.yaml, from 0"
        raise InputError(where, f"label {label!r} with label_id {label_id}", expected, "Correct one of them.")
    numbers = len(segment) == 2 and all(isinstance(time, NUMBER) for time in segment)
    if not numbers or not 0 <= segment[0] < segment[1] <= length:
        expected = f"start and end with 0 <= start < end <= {length}, the video's length"
        raise InputError(where, f"segment {segment} of {label!r}", expected, "Correct the times or the duration.")
