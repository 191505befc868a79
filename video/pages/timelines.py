"""The page of a split: every video's truth, pseudo-labels and predictions of one or several runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dataloaders.annotations import SplitAnnotations
from dataloaders.pseudo_labels import load_pseudo_labels
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.compare import score_videos
from utils.evaluation.inference import pad_rows
from utils.evaluation.predictions import Predictions, aligned
from utils.evaluation.tasks import find_task
from video.pages.html import write_page

LETTERS = "ABCDEFGHIJKLMNOQRSUVWXYZ"  # of the runs; T and P are truth and pseudo-labels


def timelines_path(folder: Path, split: str) -> Path:
    """Return `timelines.html` for the test split, `timelines_<split>.html` for another."""
    return folder / ("timelines.html" if split == "test" else f"timelines_{split}.html")


def write_timelines(
    path: Path,
    runs: Mapping[str, Predictions],
    pseudo_labels: AudioVisual[np.ndarray] | None = None,
    warning: str = "",
    segments_per_second: int = 1,
) -> None:
    """Write the page of a split: one HTML file that works from disk, in which videos are sorted, filtered and searched.

    `runs` holds predictions by the name of the run; the first is A. `pseudo_labels`, audible and visible, (N, T, C)
    bool, are of the first run's videos in its order. A warning, on random weights for instance, is shown at the top.
    Raises InputError for too many runs, and for runs that differ in data set, split, classes, videos or truth.
    """
    if len(runs) > len(LETTERS):
        raise InputError("runs", f"{len(runs)} of them", f"{len(LETTERS)} at most", "Leave some out.")
    first = next(iter(runs.values()))
    tracks = [_track("Truth", "T", first.truth)]
    if pseudo_labels is not None:
        tracks.append(_track("Pseudo-labels", "P", pseudo_labels))
    for letter, (name, run) in zip(LETTERS, runs.items(), strict=False):
        same = aligned(first, run)
        scores = np.round(score_videos(same), 2).T.tolist()  # (M, N)
        tracks.append(_track(name, letter, same.events) | {"scores": scores})
    data = {
        "title": f"{first.dataset} {first.split}",
        "notes": [f"{len(first.sample_ids):,} video{'s' * (len(first.sample_ids) != 1)}"],
        "warning": warning,
        "segments": first.events.audio.shape[1],
        "lengths": first.probs and first.probs.lengths.tolist(),  # earlier versions kept none
        "rate": segments_per_second,
        "classes": [name.replace("_", " ") for name in first.classes],
        "metrics": [f"{level} {metric}" for level, metric in find_task(first.dataset).score_names],
        "videos": list(first.sample_ids),
        "tracks": tracks,
    }
    write_page(path, "timelines", f"Timelines of {data['title']}", data)


def _track(name: str, letter: str, events: AudioVisual[np.ndarray]) -> dict:
    """Return a source's spans, (N, T, C) bool -> a flat list of class, state, first, end, class, ... for each video.

    The state, as in the page's script, is 1 where the class is audible, 2 visible, 3 both.
    """
    states = (events.audio + 2 * events.visual.astype(np.int8)).transpose(0, 2, 1)  # (N, C, T)
    states = np.pad(states, ((0, 0), (0, 0), (1, 1)))
    before, after = states[..., :-1], states[..., 1:]
    n, c, start = np.nonzero((after != before) & (after != 0))  # spans in order of video, class and time ...
    end = np.nonzero((after != before) & (before != 0))[2]  # ... and so their ends
    rows = np.stack([c, after[n, c, start], start, end], axis=1)  # (K, 4)
    spans = [video.ravel().tolist() for video in np.split(rows, np.searchsorted(n, np.arange(1, len(states))))]
    return {"name": name, "letter": letter, "spans": spans}


def pseudo_labels_of(folder: Path, annotations: SplitAnnotations) -> AudioVisual[np.ndarray]:
    """Return the hard pseudo-labels of stage 2 for these videos, (N, T, C) bool."""
    labels = load_pseudo_labels(folder, annotations).labels
    return labels.map(lambda rows: pad_rows(rows, annotations.lengths).numpy())


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return a name for each run folder: its own, with its parents' where two have the same."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names
