"""Paired bootstrap over videos for the difference between two runs.

    python -m utils.evaluation.compare test_logs/RUN_A test_logs/RUN_B [--split test] [--output results/a_against_b]

Both runs are scored on the same resampled videos, so that the difficulty of a video cancels out. With several seeds, a
video's score is its mean over them.
"""

from utils.entry_point import run_entry_point

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from utils.evaluation.predictions import Predictions, aligned, load_runs
from utils.evaluation.tasks import find_task
from utils.provenance import read_provenance
from utils.reporting.tables import Cell, Column, Row, Table, format_text, per_class_scores, write_tables
from utils.settings import whole_number

CHUNK = 500  # resamples drawn at a time: bounds the memory at CHUNK x N weights


@dataclass(frozen=True)
class Comparison:
    """One metric of two runs, in percent."""

    level: str  # "Segment-level" or "Event-level"
    metric: str  # A, V, AV, Type, Event or Accuracy
    first: float
    second: float
    low: float  # 95 % interval of the difference, first minus second
    high: float
    p_value: float  # two-sided

    @property
    def difference(self) -> float:
        return self.first - self.second


def compare_runs(
    first: Sequence[Predictions], second: Sequence[Predictions], resamples: int = 10_000, seed: int = 0
) -> list[Comparison]:
    """Compare two methods, with one or more runs each, on the ten F-scores of Table 1, or on accuracy for AVE.

    Videos are drawn with replacement, the same for both methods. The interval covers the middle 95 % of the resampled
    differences; p is twice the share of resamples without the observed sign (inverting the percentile interval), and at
    least 2 / (resamples + 1). Raises InputError for runs on other data sets, splits, classes, videos or ground truth.
    """
    scores, other_scores = (
        np.mean([score_videos(aligned(first[0], run)) for run in runs], axis=0) for runs in (first, second)
    )  # (N, M) each
    differences = scores - other_scores
    generator, num_videos = np.random.default_rng(seed), len(differences)
    uniform = np.full(num_videos, 1 / num_videos)
    sizes = [min(CHUNK, resamples - start) for start in range(0, resamples, CHUNK)]
    sums = [generator.multinomial(num_videos, uniform, size) @ differences for size in sizes]
    resampled = np.concatenate(sums) / num_videos  # means over drawn videos, (resamples, M)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    # Rounding errors must not decide the sign of a resample without any difference.
    resampled[np.abs(resampled) < 1e-9] = 0
    beyond = np.minimum((resampled <= 0).sum(axis=0), (resampled >= 0).sum(axis=0))
    p_values = np.minimum(1, 2 * (beyond + 1) / (resamples + 1))
    columns = zip(scores.mean(axis=0), other_scores.mean(axis=0), low, high, p_values, strict=True)
    names = find_task(first[0].dataset).score_names
    return [
        Comparison(level, metric, *map(float, values)) for (level, metric), values in zip(names, columns, strict=True)
    ]


def comparison_table(comparisons: Sequence[Comparison], title: str, notes: Sequence[str] = ()) -> Table:
    """Return a table with one row per metric: both runs, their difference, its 95 % interval and p."""
    columns = (Column("A", "Score (%)", 2), Column("B", "Score (%)", 2))
    columns += tuple(Column(name, "A - B", 2) for name in ("mean", "2.5 %", "97.5 %"))
    rows = tuple(
        Row((c.level, c.metric), tuple(map(Cell, (c.first, c.second, c.difference, c.low, c.high, c.p_value))))
        for c in comparisons
    )
    return Table(title, ("Level", "Metric"), (*columns, Column("p", "A - B", 4)), rows, tuple(notes))


def score_videos(predictions: Predictions) -> np.ndarray:
    """Return each video's scores in percent, (N, M) with one column per entry of the task's `score_names`."""
    events = (pair.map(torch.from_numpy) for pair in (predictions.events, predictions.truth))
    return find_task(predictions.dataset).per_video_scores(*events).numpy()


def class_scores(run: Predictions) -> np.ndarray:
    """Return each class's segment-level Type F-score in percent, (C,): the mean of those of A, V and AV that exist."""
    events = (pair.map(torch.from_numpy) for pair in (run.events, run.truth))
    rows = per_class_scores(*events, run.classes).rows
    return np.array([np.mean([cell.mean for cell in row.cells[:3] if cell] or [np.nan]) for row in rows])


def note_of(folder: Path, num_runs: int = 1) -> str:
    """Return a folder's marks and number of runs in brackets, after a space; empty if there is nothing to note."""
    notes = [*read_provenance(folder).marks, *([f"{num_runs} runs"] if num_runs > 1 else [])]
    return f" ({', '.join(notes)})" if notes else ""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_a", type=Path, help="folder in test_logs/, of one seed or several")
    parser.add_argument("run_b", type=Path, help="folder of the other run")
    parser.add_argument("--split", default="test", choices=("val", "test"), help="split of the compared predictions")
    parser.add_argument("--resamples", type=whole_number(1), default=10_000, help="bootstrap resamples of the videos")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of the bootstrap")
    parser.add_argument("--output", type=Path, help="also write OUTPUT.txt, .md, .csv and .json")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="also draw the scores of each class as bars")
    args = parser.parse_args(arguments)

    folders = {"A": args.run_a, "B": args.run_b}
    runs = {name: load_runs(folder, args.split) for name, folder in folders.items()}
    comparisons = compare_runs(*runs.values(), args.resamples, args.seed)
    first = runs["A"][0]
    title = f"{first.dataset} {args.split}: paired bootstrap over {len(first.sample_ids)} videos"
    notes = [f"{name}: {folder}{note_of(folder, len(runs[name]))}" for name, folder in folders.items()]
    notes.append(f"{args.resamples} resamples, seed {args.seed}; 95 % percentile interval, two-sided p.")
    table = comparison_table(comparisons, title, notes)
    print(format_text(table))
    if args.output:
        print("written:", *write_tables(args.output, table))
    if args.figure:
        from utils.reporting.figures import class_bars_figure  # matplotlib is slow to import

        of_classes = [np.mean([class_scores(run) for run in seeds], axis=0) for seeds in runs.values()]
        label, heading = "Segment-level Type F-score (%)", f"{first.dataset} {args.split}: A - B by class"
        class_bars_figure(args.figure, dict(zip(notes, of_classes, strict=False)), first.classes, label, heading)


if __name__ == "__main__":
    run_entry_point(main)
