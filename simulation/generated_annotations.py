"""Annotations and ground truth of simulated data: files generated with the statistics of real ones, or copies of them.

The statistics are in data/simulated_data.yaml. Since a whole data set is generated in seconds, the requested number of
videos is selected afterwards.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from dataloaders import ave, llp, unav
from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import DATASETS, SPLITS, load_annotations
from simulation.simulated_features import MODEL, PARAMETERS, Truth, generator
from utils.files import write_text

ID_ALPHABET = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"))
SIZES = {dataset: statistics["sizes"] for dataset, statistics in PARAMETERS["annotations"].items()}  # videos of splits
ALL_LLP_FILE = "AVVP_dataset_full.csv"
LLP_FILES = (*llp.FILES.values(), llp.AUDIO_FILE, llp.VISUAL_FILE, ALL_LLP_FILE)


def _generate_llp(directory: Path, rng: np.random.Generator, statistics: SimpleNamespace) -> None:
    """Write the six files of LLP."""
    of_classes = np.array([statistics.classes[name] for name in llp.LLP_CLASSES])
    shares, audible, visible, audible_seconds, visible_seconds = of_classes.T
    header = "filename\tevent_labels"
    eval_rows, all_rows = {llp.AUDIO_FILE: [], llp.VISUAL_FILE: []}, []
    for split, size in statistics.sizes.items():
        rows = []
        labels = _draw_labels(rng, size, statistics.labels_per_video[split], shares)
        for video_id, start, classes in zip(_ids(rng, size), rng.integers(0, 40, size) * 10, labels, strict=True):
            name = f"{video_id}_{start}_{start + 10}"
            rows.append(f"{name}\t{','.join(llp.LLP_CLASSES[c] for c in classes)}")
            if split == "train":
                continue
            for c in classes:
                is_audible, is_visible = 100 * rng.random(2) < (audible[c], visible[c])
                times = _spans(rng, audible_seconds[c], statistics.two_events)
                if is_audible:
                    eval_rows[llp.AUDIO_FILE] += [f"{name}\t{a}\t{b}\t{llp.LLP_CLASSES[c]}" for a, b in times]
                if not is_audible or rng.random() >= statistics.same_times:
                    times = _spans(rng, visible_seconds[c], statistics.two_events)
                if is_visible:
                    eval_rows[llp.VISUAL_FILE] += [f"{name}\t{a}\t{b}\t{llp.LLP_CLASSES[c]}" for a, b in times]
        all_rows += rows
        _write_lines(directory / llp.FILES[split], [header, *rows])
    _write_lines(directory / ALL_LLP_FILE, [header, *all_rows])
    for file, rows in eval_rows.items():
        _write_lines(directory / file, ["filename\tonset\toffset\tevent_labels", *rows])


def _spans(rng: np.random.Generator, mean_seconds: float, two_events: float) -> list[tuple[int, int]]:
    """Draw one or two spans of whole seconds in a 10-second video, of a given mean total length."""
    if rng.random() < (mean_seconds - 5) / 5:
        return [(0, 10)]
    length = int(rng.integers(1, min(9, round(2 * mean_seconds) - 1), endpoint=True))
    start = int(rng.integers(0, 10 - length, endpoint=True))
    if length >= 3 and rng.random() < two_events:
        pause = start + int(rng.integers(1, length - 1))
        return [(start, pause), (pause + 1, start + length)]
    return [(start, start + length)]


def _generate_spans(dataset: str, directory: Path, rng: np.random.Generator, statistics: SimpleNamespace) -> None:
    """Write the ActivityNet JSON of UnAV, or of LFAV (with modalities, and without times in training videos)."""
    classes, is_own = DATASETS[dataset].classes, DATASETS[dataset].is_own
    weights = np.arange(1, len(classes) + 1) ** -statistics.class_slope
    counts = np.arange(1, len(statistics.events_per_label) + 1)
    database = {}
    for split, size in statistics.sizes.items():
        durations = np.round(np.interp(rng.random(size), statistics.quantiles, statistics.durations), 2)
        labels = _draw_labels(rng, size, statistics.labels_per_video, weights)
        for video_id, duration, of_video in zip(_ids(rng, size), durations.tolist(), labels, strict=True):
            events = []
            for c in of_video:
                count = rng.choice(counts, p=statistics.events_per_label)
                seconds = np.interp(rng.random(count), statistics.quantiles, statistics.event_seconds)
                lengths = np.minimum(seconds * (1.5 if count == 1 else 0.5), duration)
                starts = np.sort(rng.random(count)) * (duration - lengths)
                spans = np.round(np.stack([starts, np.minimum(starts + lengths, duration)], axis=1), 3).tolist()
                events += [{"segment": span, "label": classes[c], "label_id": c} for span in spans]
            if is_own:
                names, shares = zip(*statistics.modalities.items(), strict=True)
                modalities = rng.choice(names, len(events), p=shares).tolist()
                events = [event | {"modality": m} for event, m in zip(events, modalities, strict=True)]
            if is_own and split == "train":
                events = [{"label": classes[c]} for c in of_video]
            database[video_id] = {"duration": duration, "annotations": events, "subset": unav.SUBSETS[split]}
    write_text(directory / SIMULATED[dataset].files[0], json.dumps({"version": "simulated", "database": database}))


def _generate_ave(directory: Path, rng: np.random.Generator, statistics: SimpleNamespace) -> None:
    """Write the four files of AVE."""
    size = sum(statistics.sizes.values())
    weights = np.array([0.5 if name in statistics.rare_classes else 1.0 for name in ave.AVE_CLASSES])
    classes = np.sort(rng.choice(len(ave.AVE_CLASSES), size, p=weights / weights.sum()))  # lines are in class order
    ids = _ids(rng, size)
    male, female = (np.flatnonzero(classes == i) for i, name in enumerate(ave.AVE_CLASSES) if "speech" in name)
    for one, other in list(zip(male, female, strict=False))[: statistics.shared_clips]:
        ids[other] = ids[one]
    lengths = np.where(rng.random(size) < statistics.whole_clip, 10, rng.integers(2, 9, size, endpoint=True))
    lengths[rng.integers(size)] = 0  # one line is background throughout
    starts = np.where(lengths > 0, rng.integers(0, 11 - lengths), 0)
    rows = [
        f"{ave.AVE_CLASSES[c]}&{video_id}&good&{start}&{start + length}"
        for c, video_id, start, length in zip(classes, ids, starts, lengths, strict=True)
    ]
    _write_lines(directory / ave.ANNOTATIONS_FILE, rows)
    ends = np.cumsum(list(statistics.sizes.values()))
    for file, lines in zip(ave.FILES.values(), np.split(rng.permutation(size), ends[:-1]), strict=True):
        _write_lines(directory / file, [rows[line] for line in np.sort(lines)])


def _draw_labels(rng: np.random.Generator, size: int, shares: Sequence[float], weights: np.ndarray) -> list[list[int]]:
    """Draw the distinct class indices of each video; `shares` are those of videos with 1, 2, ... classes."""
    counts = 1 + rng.choice(len(shares), size, p=np.array(shares) / sum(shares))
    # The largest perturbed log weights are a weighted sample without replacement.
    order = np.argsort(-(np.log(weights) + rng.gumbel(size=(size, len(weights)))), axis=1)
    return [row[:count].tolist() for row, count in zip(order, counts, strict=True)]


def _ids(rng: np.random.Generator, size: int) -> list[str]:
    """Draw video ids of 11 characters."""
    return ["".join(characters) for characters in rng.choice(ID_ALPHABET, (size, 11))]


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    write_text(path, "".join(f"{line}\n" for line in lines))


def choose_videos(annotations: SplitAnnotations, count: int | None, seed: int) -> np.ndarray:
    """Return the indices of the videos of a split to keep: (K,) in ascending order, K = min(count, N); None: all.

    They are the first in a random order that depends on ids and seed only, and begins with videos that together have
    every class: a smaller selection is part of a larger one and lacks as few classes as possible.
    """
    if count is None or count >= annotations.num_videos:
        return np.arange(annotations.num_videos)
    keys = [f"{seed}/{annotations.dataset}/{sample}".encode() for sample in annotations.sample_ids]
    order = np.argsort([hashlib.blake2b(key, digest_size=8).digest() for key in keys])
    labels = annotations.video_labels.numpy()[order]  # (N, C)
    first = np.unique(labels[:, labels.any(axis=0)].argmax(axis=0))  # places of the first video of each class
    others = np.setdiff1d(np.arange(len(order)), first)
    return np.sort(order[np.concatenate([first, others])[:count]])


def _copy_llp(source: Path, target: Path, whole: dict[str, SplitAnnotations], kept: dict[str, np.ndarray]) -> None:
    """Copy all rows but those of videos left out; rows that belong to no split, a quirk of the data, are kept."""
    dropped = set()
    for split, annotations in whole.items():
        dropped |= set(annotations.sample_ids) - {annotations.sample_ids[n] for n in kept[split]}
    for name in LLP_FILES:
        lines = (source / name).read_text(encoding="utf-8-sig").splitlines(keepends=True)
        write_text(target / name, "".join(line for line in lines if line.split("\t")[0] not in dropped))


def _copy_json(source: Path, target: Path, whole: dict[str, SplitAnnotations], kept: dict[str, np.ndarray]) -> None:
    """Copy the entries of the videos to keep."""
    file = SIMULATED[whole["train"].dataset].files[0]
    content = json.loads((source / file).read_text(encoding="utf-8-sig"))
    keep = {annotations.sample_ids[n] for split, annotations in whole.items() for n in kept[split]}
    content["database"] = {video: entry for video, entry in content["database"].items() if video in keep}
    write_text(target / file, json.dumps(content))


def _copy_ave(source: Path, target: Path, whole: dict[str, SplitAnnotations], kept: dict[str, np.ndarray]) -> None:
    """Copy the lines to keep of each split, and all of `Annotations.txt`, whose line numbers identify samples."""
    shutil.copyfile(source / ave.ANNOTATIONS_FILE, target / ave.ANNOTATIONS_FILE)
    for split, name in ave.FILES.items():
        lines = (source / name).read_text(encoding="utf-8-sig").splitlines()
        samples = [line for line in lines if line.strip() and not line.lower().startswith("category&")]
        _write_lines(target / name, (samples[n] for n in kept[split]))


class Simulated(NamedTuple):
    """The annotation files of a data set that can be simulated."""

    files: tuple[str, ...]
    generate: Callable[[Path, np.random.Generator, SimpleNamespace], None]  # from statistics in simulated_data.yaml
    copy: Callable[..., None]  # copies the rows of the videos to keep, quirks included


SIMULATED = {
    "LLP": Simulated(LLP_FILES, _generate_llp, _copy_llp),
    "UnAV": Simulated((unav.FILE,), partial(_generate_spans, "UnAV"), _copy_json),
    "AVE": Simulated((ave.ANNOTATIONS_FILE, *ave.FILES.values()), _generate_ave, _copy_ave),
    "LFAV": Simulated(("annotations.json",), partial(_generate_spans, "LFAV"), _copy_json),
}


@contextmanager
def annotation_files(
    dataset: str, annotations: Path | None, seed: int
) -> Iterator[tuple[Path, dict[str, SplitAnnotations]]]:
    """Yield the folder of the annotation files, `annotations/<dataset>` or a generated one, and the splits by name."""
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) if annotations is None else Path(annotations) / dataset
        if annotations is None:
            statistics = SimpleNamespace(**PARAMETERS["annotations"][dataset])
            SIMULATED[dataset].generate(source, generator(seed, dataset, "annotations"), statistics)
        yield source, {split: load_annotations(dataset, source, split) for split in SPLITS}


def video_truth(splits: dict[str, SplitAnnotations], seed: int) -> dict[str, Truth]:
    """Return the ground truth of each video by feature id: its annotated events and additional random ones.

    Segment labels are drawn where training videos have none (LLP). If all annotated events are audio-visual, events of
    one modality are added. A clip that several samples share (AVE) has the events of all of them.
    """
    val, truth = splits["val"], {}
    for annotations in splits.values():
        labels = annotations.video_labels.numpy()
        if annotations.labels is None:
            audio, visual = _draw_segment_labels(annotations, val, seed)
        else:
            ends = annotations.offsets[1:-1].numpy()
            audio, visual = (np.split(x.numpy(), ends) for x in annotations.labels)
        for n, video in enumerate(annotations.feature_ids):
            one = Truth(audio[n], visual[n], labels[n])
            truth[video] = Truth(*map(np.logical_or, one, truth[video])) if video in truth else one
    if val.labels.audio is val.labels.visual:
        for video, one in truth.items():
            truth[video] = _add_one_sided_events(one, generator(seed, val.dataset, video, "one-sided"))
    return truth


def _add_one_sided_events(truth: Truth, rng: np.random.Generator) -> Truth:
    """Add events that are only audible or only visible to the annotated ones, which are both."""
    model = MODEL["one_sided_events"]
    streams = [truth.audio.copy(), truth.visual.copy()]
    num_segments, num_classes = truth.audio.shape
    labelled = [c for c in np.flatnonzero(truth.labels) if rng.random() < model["of_label"]]
    events = [(int(rng.integers(2)), c) for c in labelled]
    for modality in range(2):
        events += [(modality, c) for c in rng.integers(num_classes, size=rng.poisson(model["others"]))]
    for modality, c in events:
        length = min(num_segments, 1 + int(rng.exponential(model["mean_share"] * num_segments)))
        start = rng.integers(num_segments - length, endpoint=True)
        streams[modality][start : start + length, c] = True
    return Truth(*streams, truth.labels)


def _draw_segment_labels(
    annotations: SplitAnnotations, examples: SplitAnnotations, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draw segment labels of N videos without any: N arrays (T, C) bool for audio and N for visual labels.

    For each class of a video, both modalities are copied from a random video of `examples` with that class, if possible
    one that, like this video, has further classes or none; its times are scaled to the length of this video.
    """
    labels, example_labels = annotations.video_labels.numpy(), examples.video_labels.numpy()
    alone = example_labels.sum(axis=1) == 1
    ends = examples.offsets[1:-1].numpy()
    audio_examples, visual_examples = (np.split(x.numpy(), ends) for x in examples.labels)
    audio, visual = ([np.zeros((length, labels.shape[1]), bool) for length in annotations.lengths] for _ in range(2))
    for n, video in enumerate(annotations.feature_ids):
        rng = generator(seed, annotations.dataset, video, "truth")
        classes = np.flatnonzero(labels[n])
        for c in classes:
            with_class = example_labels[:, c]
            candidates = with_class & (alone == (len(classes) == 1)), with_class, np.ones_like(alone)
            example = rng.choice(next(np.flatnonzero(x) for x in candidates if x.any()))
            times = np.arange(len(audio[n])) * len(audio_examples[example]) // len(audio[n])
            audio[n][:, c] = audio_examples[example][times, c]
            visual[n][:, c] = visual_examples[example][times, c]
    return audio, visual
