"""Write a page of the timelines of evaluated runs.

    python -m video.pages test_logs/RUN [test_logs/RUN ...] [--split test] [--output timelines.html]

It shows each video's ground truth, pseudo-labels and predictions one below the other; videos can be sorted, filtered
and searched.
"""

from utils.entry_point import run_entry_point

import argparse
from pathlib import Path

import torch

from dataloaders.annotations import SplitAnnotations, Subset
from dataloaders.datasets import DATASETS, load_annotations
from utils.errors import InputError
from utils.evaluation.predictions import Predictions, load_predictions
from utils.provenance import read_provenance
from utils.settings import ARGS_FILE, read_args
from video.pages.timelines import names_of, pseudo_labels_of, timelines_path, write_timelines


def main(argv: list[str] | None = None) -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="output folder of test_han.py")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--pseudo_label_dir", type=Path, help="output of stage 2, shown as well")
    parser.add_argument("--annotations_dir", type=Path, help="(default: that of the first run)")
    parser.add_argument("--output", type=Path, help="(default: timelines.html in the first run)")
    args = parser.parse_args(argv)
    if len({run.resolve() for run in args.runs}) < len(args.runs):
        raise InputError("RUN", "the same folder twice", "different runs", "List each run once.")
    predictions = [load_predictions(run, args.split) for run in args.runs]
    pseudo_labels = None
    if args.pseudo_label_dir:
        of_run, default = read_args(args.runs[0] / ARGS_FILE), DATASETS[predictions[0].dataset].folder
        folder = args.annotations_dir or of_run.get("annotations_dir") or of_run.get("data_dir") or default
        pseudo_labels = pseudo_labels_of(args.pseudo_label_dir, annotations_of(predictions[0], Path(folder)))
    warning = ", ".join(dict.fromkeys(mark for run in args.runs for mark in read_provenance(run).marks))
    output = args.output or timelines_path(args.runs[0], args.split)
    write_timelines(output, dict(zip(names_of(args.runs), predictions, strict=True)), pseudo_labels, warning)
    print(output)


def annotations_of(predictions: Predictions, annotations_dir: Path) -> SplitAnnotations:
    """Return the annotations of the predicted videos and classes; raise InputError when a video has none."""
    annotations = load_annotations(predictions.dataset, annotations_dir, predictions.split)
    annotations = Subset(num_classes=len(predictions.classes)).annotations(annotations)
    place = {sample_id: n for n, sample_id in enumerate(annotations.sample_ids)}
    unknown = [sample_id for sample_id in predictions.sample_ids if sample_id not in place]
    if unknown:
        way_out = "Pass the annotations that the run was evaluated with: --annotations_dir."
        raise InputError(annotations_dir, f"no video {unknown[0]}", "every evaluated video", way_out)
    return annotations.subset(torch.tensor([place[sample_id] for sample_id in predictions.sample_ids]))


if __name__ == "__main__":
    run_entry_point(main)
