"""Annotation files of simulated data: generated with the statistics of the real ones, or a choice of the real ones.

The numbers below are rounded statistics of the real files. A whole data set is generated in seconds, so all of it
always is, and as many videos as are wanted are chosen afterwards.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataloaders import ave, llp, unav
from dataloaders.annotations import SplitAnnotations
from simulation.simulated_features import generator
from utils.files import write_text

LLP_SIZES = {"train": 10_000, "val": 649, "test": 1_200}
UNAV_SIZES = {"train": 6_489, "val": 2_134, "test": 2_167}
AVE_SIZES = {"train": 3_339, "val": 402, "test": 402}
ID_ALPHABET = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"))
LLP_FILES = (*llp.FILES.values(), llp.AUDIO_FILE, llp.VISUAL_FILE, "AVVP_dataset_full.csv")

# Per class of LLP: share of training videos, shares of its videos where it is audible and visible (all in percent),
# mean seconds it is audible and visible where it is at all.
LLP_STATISTICS = {
    "Speech": (50, 98, 22, 5.3, 4.8),
    "Car": (6, 80, 96, 9.4, 9.1),
    "Cheering": (5, 93, 41, 6.4, 7.4),
    "Dog": (8, 87, 92, 6.1, 9.6),
    "Cat": (2, 72, 93, 4.6, 9.2),
    "Frying_(food)": (3, 97, 92, 9.5, 9.0),
    "Basketball_bounce": (5, 81, 92, 4.2, 4.2),
    "Fire_alarm": (2, 100, 84, 7.7, 7.7),
    "Chainsaw": (3, 100, 98, 8.6, 8.7),
    "Cello": (6, 95, 80, 9.4, 9.2),
    "Banjo": (2, 93, 80, 8.6, 9.2),
    "Singing": (12, 99, 68, 7.7, 7.2),
    "Chicken_rooster": (4, 95, 93, 7.2, 9.4),
    "Violin_fiddle": (15, 97, 83, 8.8, 9.1),
    "Vacuum_cleaner": (5, 99, 94, 8.8, 9.3),
    "Baby_laughter": (2, 100, 78, 6.1, 6.8),
    "Accordion": (4, 99, 74, 9.3, 9.1),
    "Lawn_mower": (2, 98, 93, 8.2, 9.6),
    "Motorcycle": (4, 91, 95, 8.6, 8.9),
    "Helicopter": (6, 98, 91, 9.3, 9.0),
    "Acoustic_guitar": (5, 89, 91, 8.7, 9.3),
    "Telephone_bell_ringing": (1, 100, 58, 6.1, 7.0),
    "Baby_cry_infant_cry": (4, 98, 81, 8.2, 8.5),
    "Blender": (3, 98, 100, 6.8, 9.5),
    "Clapping": (2, 94, 58, 5.7, 5.8),
}
LLP_LABELS_PER_VIDEO = {"train": (0.40, 0.59, 0.01), "val": (0.33, 0.56, 0.09, 0.02), "test": (0.33, 0.55, 0.10, 0.02)}
LLP_SAME_TIMES = 0.7  # share of events that are audible and visible at the very same times
LLP_TWO_EVENTS = 0.2  # share of labels that are interrupted once, where they do not last the whole video

UNAV_LABELS_PER_VIDEO = (0.60, 0.27, 0.09, 0.03, 0.01)
UNAV_EVENTS_PER_LABEL = (0.74, 0.12, 0.05, 0.03, 0.02, 0.02, 0.01, 0.01)
UNAV_CLASS_SLOPE = 0.6  # the r-th most frequent class occurs in proportion to r ** -0.6
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
UNAV_DURATION = (10.0, 20.0, 38.0, 44.0, 49.0, 58.0, 60.0)  # seconds, at these quantiles; mean 42
UNAV_EVENT_SECONDS = (0.2, 1.0, 2.2, 6.4, 21.0, 47.0, 60.0)

AVE_RARE_CLASSES = ("Baby cry, infant cry", "Bus", "Cat", "Goat", "Horse", "Motorcycle", "Shofar")  # half as frequent
AVE_WHOLE_CLIP = 0.66  # share of events that last all 10 seconds
AVE_SHARED_CLIPS = 45  # clips that occur under two categories


def _generate_llp(directory: Path, rng: np.random.Generator) -> None:
    shares, *rates = np.array([LLP_STATISTICS[name] for name in llp.LLP_CLASSES]).T
    audible, visible, audible_seconds, visible_seconds = rates
    eval_rows: dict[str, list[str]] = {llp.AUDIO_FILE: [], llp.VISUAL_FILE: []}
    all_rows: list[str] = []
    for split, size in LLP_SIZES.items():
        rows = []
        labels = _draw_labels(rng, size, LLP_LABELS_PER_VIDEO[split], shares)
        for video_id, start, classes in zip(_ids(rng, size), rng.integers(0, 40, size) * 10, labels, strict=True):
            name = f"{video_id}_{start}_{start + 10}"
            rows.append(f"{name}\t{','.join(llp.LLP_CLASSES[c] for c in classes)}")
            if split == "train":
                continue
            for c in classes:
                heard, seen = 100 * rng.random(2) < (audible[c], visible[c])
                times = _spans(rng, audible_seconds[c])
                if heard:
                    eval_rows[llp.AUDIO_FILE] += [f"{name}\t{a}\t{b}\t{llp.LLP_CLASSES[c]}" for a, b in times]
                if not heard or rng.random() >= LLP_SAME_TIMES:
                    times = _spans(rng, visible_seconds[c])
                if seen:
                    eval_rows[llp.VISUAL_FILE] += [f"{name}\t{a}\t{b}\t{llp.LLP_CLASSES[c]}" for a, b in times]
        all_rows += rows
        write_text(directory / llp.FILES[split], _lines(["filename\tevent_labels", *rows]))
    write_text(directory / "AVVP_dataset_full.csv", _lines(["filename\tevent_labels", *all_rows]))
    for file, rows in eval_rows.items():
        write_text(directory / file, _lines(["filename\tonset\toffset\tevent_labels", *rows]))


def _spans(rng: np.random.Generator, mean_seconds: float) -> list[tuple[int, int]]:
    """One or two spans of whole seconds in a video of 10, of the given mean length together."""
    if rng.random() < (mean_seconds - 5) / 5:
        return [(0, 10)]
    length = int(rng.integers(1, min(9, round(2 * mean_seconds) - 1), endpoint=True))
    start = int(rng.integers(0, 10 - length, endpoint=True))
    if length >= 3 and rng.random() < LLP_TWO_EVENTS:
        pause = start + int(rng.integers(1, length - 1))
        return [(start, pause), (pause + 1, start + length)]
    return [(start, start + length)]


def _generate_unav(directory: Path, rng: np.random.Generator) -> None:
    weights = np.arange(1, len(unav.UNAV_CLASSES) + 1) ** -UNAV_CLASS_SLOPE
    database = {}
    for split, size in UNAV_SIZES.items():
        durations = np.round(np.interp(rng.random(size), QUANTILES, UNAV_DURATION), 2)
        labels = _draw_labels(rng, size, UNAV_LABELS_PER_VIDEO, weights)
        for video_id, duration, classes in zip(_ids(rng, size), durations.tolist(), labels, strict=True):
            events = []
            for c in classes:
                count = 1 + int(rng.choice(len(UNAV_EVENTS_PER_LABEL), p=UNAV_EVENTS_PER_LABEL))
                seconds = np.interp(rng.random(count), QUANTILES, UNAV_EVENT_SECONDS)
                lengths = np.minimum(seconds * (1.5 if count == 1 else 0.5), duration)
                starts = np.sort(rng.random(count)) * (duration - lengths)
                spans = np.round(np.stack([starts, np.minimum(starts + lengths, duration)], axis=1), 3).tolist()
                events += [{"segment": span, "label": unav.UNAV_CLASSES[c], "label_id": c} for span in spans]
            database[video_id] = {"duration": duration, "annotations": events, "subset": unav.SUBSETS[split]}
    write_text(directory / unav.FILE, json.dumps({"version": "simulated", "database": database}))


def _generate_ave(directory: Path, rng: np.random.Generator) -> None:
    size = sum(AVE_SIZES.values())
    weights = np.array([0.5 if name in AVE_RARE_CLASSES else 1.0 for name in ave.AVE_CLASSES])
    classes = np.sort(rng.choice(len(ave.AVE_CLASSES), size, p=weights / weights.sum()))  # lines are in class order
    ids = _ids(rng, size)
    speech = [np.flatnonzero(classes == i) for i, name in enumerate(ave.AVE_CLASSES) if "speech" in name]
    for one, other in zip(*(lines[:AVE_SHARED_CLIPS] for lines in speech), strict=False):
        ids[other] = ids[one]
    lengths = np.where(rng.random(size) < AVE_WHOLE_CLIP, 10, rng.integers(2, 9, size, endpoint=True))
    lengths[rng.integers(size)] = 0  # one line is background throughout
    starts = np.where(lengths > 0, rng.integers(0, 11 - lengths), 0)
    rows = [
        f"{ave.AVE_CLASSES[c]}&{video_id}&good&{start}&{start + length}"
        for c, video_id, start, length in zip(classes, ids, starts, lengths, strict=True)
    ]
    write_text(directory / ave.ANNOTATIONS_FILE, _lines(rows))
    ends = np.cumsum(list(AVE_SIZES.values()))
    for file, lines in zip(ave.FILES.values(), np.split(rng.permutation(size), ends[:-1]), strict=True):
        write_text(directory / file, _lines([rows[line] for line in np.sort(lines)]))


def _draw_labels(
    rng: np.random.Generator, size: int, per_video: Sequence[float], weights: np.ndarray
) -> list[list[int]]:
    """Class indices of each video, none twice; `per_video` are the shares of videos with 1, 2, ... labels."""
    counts = 1 + rng.choice(len(per_video), size, p=np.array(per_video) / sum(per_video))
    # The largest perturbed log weights are a weighted sample without replacement.
    order = np.argsort(-(np.log(weights) + rng.gumbel(size=(size, len(weights)))), axis=1)
    return [row[:count].tolist() for row, count in zip(order, counts, strict=True)]


def _ids(rng: np.random.Generator, size: int) -> list[str]:
    """Video ids of 11 characters."""
    return ["".join(characters) for characters in rng.choice(ID_ALPHABET, (size, 11))]


def _lines(rows: list[str]) -> str:
    return "\n".join(rows) + "\n"


def choose_videos(annotations: SplitAnnotations, count: int | None, seed: int) -> np.ndarray:
    """Which videos of a split to keep: (K,) indices in ascending order, K = min(count, N), all for None.

    Videos that together have every class come first, then the others, in a random order that depends on ids and seed.
    So a smaller choice is part of a larger one, and a small one lacks as few classes as it can.
    """
    total = annotations.num_videos
    if count is None or count >= total:
        return np.arange(total)
    keys = [f"{seed}/{annotations.dataset}/{sample}".encode() for sample in annotations.sample_ids]
    order = sorted(range(total), key=lambda n: hashlib.blake2b(keys[n], digest_size=8).digest())
    labels = annotations.video_labels.numpy()  # (N, C)
    missing = labels.any(axis=0)
    first = []
    for n in order:
        if (labels[n] & missing).any():
            first.append(n)
            missing &= ~labels[n]
    others = set(first)
    return np.sort((first + [n for n in order if n not in others])[:count])


def _copy_llp(source: Path, target: Path, whole: dict[str, SplitAnnotations], kept: dict[str, np.ndarray]) -> None:
    """Copy the rows of the kept videos, and those of files that belong to no split, which are a quirk of the data."""
    dropped = set()
    for split, annotations in whole.items():
        dropped |= set(annotations.sample_ids) - {annotations.sample_ids[n] for n in kept[split]}
    for name in LLP_FILES:
        lines = (source / name).read_text(encoding="utf-8-sig").splitlines(keepends=True)
        write_text(target / name, "".join(line for line in lines if line.split("\t")[0] not in dropped))


def _copy_unav(source: Path, target: Path, whole: dict[str, SplitAnnotations], kept: dict[str, np.ndarray]) -> None:
    content = json.loads((source / unav.FILE).read_text(encoding="utf-8-sig"))
    keep = {annotations.sample_ids[n] for split, annotations in whole.items() for n in kept[split]}
    content["database"] = {video: entry for video, entry in content["database"].items() if video in keep}
    write_text(target / unav.FILE, json.dumps(content))


def _copy_ave(source: Path, target: Path, whole: dict[str, SplitAnnotations], kept: dict[str, np.ndarray]) -> None:
    """Copy the kept lines of each split, and all of `Annotations.txt`, whose line numbers are the samples' keys."""
    shutil.copyfile(source / ave.ANNOTATIONS_FILE, target / ave.ANNOTATIONS_FILE)
    for split, name in ave.FILES.items():
        lines = (source / name).read_text(encoding="utf-8-sig").splitlines()
        samples = [line for line in lines if line.strip() and not line.lower().startswith("category&")]
        write_text(target / name, "".join(f"{samples[n]}\n" for n in kept[split]))


# Of each data set that can be simulated: its annotation files, how they are generated, and how some rows are copied.
SIMULATED = {
    "LLP": (LLP_FILES, _generate_llp, _copy_llp),
    "UnAV": ((unav.FILE,), _generate_unav, _copy_unav),
    "AVE": ((ave.ANNOTATIONS_FILE, *ave.FILES.values()), _generate_ave, _copy_ave),
}


def annotations_digest(dataset: str, source: Path) -> str:
    """SHA-256 of a data set's annotation files."""
    files, _, _ = SIMULATED[dataset]
    return hashlib.sha256(b"".join((source / file).read_bytes() for file in files)).hexdigest()


def generate_annotations(dataset: str, directory: Path, seed: int) -> None:
    """Write all annotation files of a data set into a folder, in the formats of the real ones."""
    _, generate, _ = SIMULATED[dataset]
    directory.mkdir(parents=True, exist_ok=True)
    generate(directory, generator(seed, dataset, "annotations"))


def copy_annotations(
    source: Path, target: Path, whole: dict[str, SplitAnnotations], kept: dict[str, np.ndarray]
) -> None:
    """Write the annotation files of a choice of videos, rows as they are in the source, quirks included.

    Args:
        whole: all splits of the source.
        kept: the videos to keep of each split, from `choose_videos`.
    """
    _, _, copy = SIMULATED[whole["train"].dataset]
    copy(source, target, whole, kept)
