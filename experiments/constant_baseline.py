"""Score the constant baseline on LLP: the same most frequent events in every segment of every video.

python -m experiments.constant_baseline --data_dir data/LLP
"""

from utils.entry_point import run_entry_point

import argparse
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import load_annotations
from dataloaders.feature_origin import feature_note
from utils.evaluation.tasks import true_events
from utils.method.metrics import named_scores, parsing_scores
from utils.reporting.tables import ScoreRow, format_text, parsing_table


def most_frequent_events(annotations: SplitAnnotations, count: int) -> Tensor:
    """Return the `count` classes with the most audio and visual segments in total: (C,) bool."""
    frequency = annotations.labels.audio.sum(0) + annotations.labels.visual.sum(0)  # (C,)
    chosen = torch.zeros(len(frequency), dtype=torch.bool)
    chosen[frequency.argsort(descending=True)[:count]] = True
    return chosen


def score_everywhere(events: Tensor, annotations: SplitAnnotations) -> dict[str, float]:
    """Return the F-scores by name of predicting the given events, (C,) bool, in every segment of a split."""
    truth = true_events(annotations, torch.device("cpu"))
    return named_scores(parsing_scores(truth.map(events.expand_as), truth))


def constant_scores(val: SplitAnnotations, test: SplitAnnotations) -> tuple[int, dict[str, float]]:
    """Return the number of events with the best segment-level Type@AV on val, and the test scores for that number."""
    counts = range(1, len(val.classes) + 1)
    best = max(counts, key=lambda count: score_everywhere(most_frequent_events(val, count), val)["segment_Type"])
    return best, score_everywhere(most_frequent_events(val, best), test)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, default=Path("data/LLP"))
    data_dir = parser.parse_args(argv).data_dir
    val, test = (load_annotations("LLP", data_dir, split) for split in ("val", "test"))
    count, scores = constant_scores(val, test)
    name = f"{count} most frequent events everywhere" if count > 1 else "most frequent event everywhere"
    print(format_text(parsing_table("Constant baseline", [ScoreRow(name, "test", [scores], feature_note(data_dir))])))


if __name__ == "__main__":
    run_entry_point(main)
