"""UnAV-100 annotations: one JSON file, 100 audio-visual classes, videos of up to a minute."""

import json
import math
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataloaders.annotation_files import check_youtube_id, read_text
from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import AudioVisual
from utils.errors import InputError

UNAV_CLASSES = (
    "man speaking",
    "woman speaking",
    "kid speaking",
    "male singing",
    "people laughing",
    "car passing by",
    "baby laughter",
    "wind noise",
    "people clapping",
    "people shouting",
    "people crowd",
    "female singing",
    "dog barking",
    "playing acoustic guitar",
    "people eating",
    "people cheering",
    "basketball bounce",
    "engine knocking",
    "playing tennis",
    "baby babbling",
    "striking bowling",
    "playing badminton",
    "cat meowing",
    "people slapping",
    "playing piano",
    "baby crying",
    "people burping",
    "orchestra",
    "playing drum kit",
    "playing violin",
    "machine gun shooting",
    "child singing",
    "people nose blowing",
    "playing electronic organ",
    "people sneezing",
    "dog howling",
    "skateboarding",
    "playing base guitar",
    "auto racing",
    "sea waves",
    "playing table tennis",
    "people coughing",
    "people whispering",
    "playing ukulele",
    "sheep bleating",
    "playing tabla",
    "fire truck siren",
    "playing volleyball",
    "beat boxing",
    "playing trumpet",
    "thunder",
    "playing cello",
    "playing harp",
    "hammering nails",
    "people running",
    "sailing",
    "telephone bell ringing",
    "frog croaking",
    "driving motorcycle",
    "playing cornet",
    "playing clarinet",
    "train wheels squealing",
    "playing flute",
    "playing trombone",
    "playing erhu",
    "bull bellowing",
    "raining",
    "skidding",
    "chainsawing trees",
    "police car siren",
    "playing saxophone",
    "fireworks banging",
    "driving buses",
    "tap dancing",
    "airplane flyby",
    "people whistling",
    "train horning",
    "vacuum cleaner cleaning floors",
    "playing accordion",
    "bird chirping",
    "vehicle honking",
    "church bell ringing",
    "playing snare drum",
    "playing synthesizer",
    "typing on computer keyboard",
    "singing choir",
    "lions roaring",
    "people slurping",
    "helicopter",
    "horse clip-clop",
    "water burbling",
    "lawn mowing",
    "playing banjo",
    "playing zither",
    "playing harmonica",
    "people battle cry",
    "people sobbing",
    "ambulance siren",
    "rope skipping",
    "hair dryer drying",
)
FILE = "unav100_annotations.json"
MAX_DURATION = 3600  # seconds; those of the published file are at most 60
SUBSETS = {"train": "train", "val": "validation", "test": "test"}
_UPSTREAM = "Compare it with the published file (data/README.md)."


def load_split(annotations_dir: Path, split: str) -> SplitAnnotations:
    """Read one split. A video has ceil(duration) segments; an event [s, e) marks floor(s)..ceil(e) - 1.

    Raises:
        InputError: for an absent file or field, an unknown class or a name that is not its `label_id`'s, a time that is
            not a number or lies outside the video, an id that is none of YouTube, a
            repeated video, and a split without videos.
    """
    path = Path(annotations_dir) / FILE
    if split not in SUBSETS:
        raise InputError(path, f"no split {split!r}", f"one of {', '.join(SUBSETS)}", "Choose one of these.")
    videos = _read_videos(path, SUBSETS[split])
    lengths = [_num_segments(path, video_id, video) for video_id, video in videos.items()]  # (N,)
    starts = list(accumulate(lengths, initial=0))

    labels = np.zeros((sum(lengths), len(UNAV_CLASSES)), dtype=bool)  # (R, C)
    video_labels = np.zeros((len(videos), len(UNAV_CLASSES)), dtype=bool)  # (N, C)
    for n, (video_id, video) in enumerate(videos.items()):
        for event in _field(video, "annotations", list, path, video_id):
            class_index, first, end = _event(event, path, video_id, lengths[n])
            labels[starts[n] + first : starts[n] + end, class_index] = True
            video_labels[n, class_index] = True
    segment_labels = torch.from_numpy(labels)
    return SplitAnnotations(
        dataset="UnAV",
        split=split,
        classes=UNAV_CLASSES,
        sample_ids=tuple(videos),
        feature_ids=tuple(videos),
        lengths=torch.tensor(lengths),
        video_labels=torch.from_numpy(video_labels),
        labels=AudioVisual(segment_labels, segment_labels),
    )


def _read_videos(path: Path, subset: str) -> dict[str, dict]:
    """The videos of a subset by id."""
    try:
        content = json.loads(read_text(path), object_pairs_hook=lambda pairs: _unique(pairs, path))
    except json.JSONDecodeError as error:
        found = f"a broken file ({error.msg}, column {error.colno})"
        raise InputError(f"{path}, line {error.lineno}", found, "JSON", _UPSTREAM) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of nested brackets
        raise InputError(path, f"a broken file ({error})", "JSON", _UPSTREAM) from error
    if not isinstance(content, dict):
        raise InputError(path, "no JSON object", "an object with the field 'database'", _UPSTREAM)
    videos = {}
    for video_id, video in _field(content, "database", dict, path).items():
        check_youtube_id(video_id, str(path))
        if not isinstance(video, dict):
            raise InputError(f"{path}, video {video_id}", f"{video!r}", "an object", _UPSTREAM)
        of_video = _field(video, "subset", str, path, video_id)
        if of_video not in SUBSETS.values():
            expected = f"one of {', '.join(SUBSETS.values())}"
            raise InputError(f"{path}, video {video_id}", f"subset {of_video!r}", expected, _UPSTREAM)
        if of_video == subset:
            videos[video_id] = video
    if not videos:
        raise InputError(path, f"no video of the subset {subset!r}", "at least one", _UPSTREAM)
    return videos


def _unique(pairs: list[tuple[str, object]], path: Path) -> dict[str, object]:
    """A JSON object as a dictionary; Python's parser would silently keep the last of several equal keys."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise InputError(path, f"{repeated!r} more than once in one object", "each video once", _UPSTREAM)
    return unique


def _num_segments(path: Path, video_id: str, video: dict) -> int:
    duration = _field(video, "duration", (int, float), path, video_id)
    if not 0 < duration <= MAX_DURATION:
        expected = f"a positive number of seconds, {MAX_DURATION} at most"
        raise InputError(f"{path}, video {video_id}", f"duration {duration}", expected, _UPSTREAM)
    return math.ceil(duration)


def _event(event: object, path: Path, video_id: str, length: int) -> tuple[int, int, int]:
    """An annotated event as class index, first segment and the segment after the last."""
    where = f"{path}, video {video_id}"
    if not isinstance(event, dict):
        raise InputError(where, f"event {event!r}", "an object", _UPSTREAM)
    class_index = _field(event, "label_id", int, path, video_id)
    if not 0 <= class_index < len(UNAV_CLASSES):
        raise InputError(where, f"label_id {class_index}", f"0 to {len(UNAV_CLASSES) - 1}", _UPSTREAM)
    name = _field(event, "label", str, path, video_id)
    if name != UNAV_CLASSES[class_index]:
        expected = f"{UNAV_CLASSES[class_index]!r}, the class with label_id {class_index}"
        raise InputError(where, f"unknown class {name!r}", expected, "Correct the name or the label_id.")
    segment = _field(event, "segment", list, path, video_id)
    if len(segment) != 2 or not all(isinstance(time, int | float) for time in segment):
        raise InputError(where, f"segment {segment}", "two numbers, start and end", _UPSTREAM)
    start, end = segment
    if not 0 <= start < end <= length:
        expected = f"0 <= start < end <= {length}, the video's length"
        raise InputError(where, f"segment {segment} of {name!r}", expected, "Correct the times or the duration.")
    return class_index, math.floor(start), math.ceil(end)


def _field(parent: dict, name: str, kind: type | tuple[type, ...], path: Path, video_id: str | None = None) -> Any:
    """A field of a JSON object, of the wanted type."""
    where = path if video_id is None else f"{path}, video {video_id}"
    if name not in parent:
        raise InputError(where, f"no field {name!r}", "this field", _UPSTREAM)
    value = parent[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(k.__name__ for k in kinds)
        raise InputError(where, f"{name} {value!r}", f"a value of type {expected}", _UPSTREAM)
    return value
