"""Evaluate a stage-1 run on UnAV-100 with its published metric, mean average precision of event spans.

python -m experiments.localisation --checkpoint_dir temp_train_logs/TemporalTransformer_UnAV_<time> --split val test
"""

from utils.entry_point import run_entry_point

import argparse
import logging
from pathlib import Path

import torch

from dataloaders.batches import SplitBatches, open_split, open_texts
from dataloaders.unav import load_events
from pseudo_label_generation import Settings, make_teacher, settings_of_transformer
from train_transformer import DATASET
from utils.evaluation.inference import Teacher
from utils.method.average_precision import THRESHOLDS, Spans, average_precision, predicted_spans
from utils.provenance import provenance_of, read_provenance
from utils.reporting.tables import Column, ScoreRow, format_text, score_table, write_tables
from utils.settings import ARGS_FILE, with_file, with_settings

COLUMNS = {name: Column(name, "mAP at tIoU") for name in (*map(str, THRESHOLDS), "mean")}
NOTES = (
    "Average precision in percent, averaged over classes; true spans as annotated, to fractions of a second.",
    "Predicted spans: consecutive segments with p_a · p_v above 0.1, 0.2, ..., 0.9, scored by their mean.",
)


def mean_average_precisions(teacher: Teacher, split: SplitBatches, annotations_dir: Path) -> dict[str, float]:
    """Return mAP in percent at each tIoU and its mean over tIoUs, by the names of `COLUMNS`."""
    audio, visual = teacher(split).map(torch.sigmoid)
    true = Spans(*load_events(annotations_dir, split.annotations.sample_ids))
    predicted = predicted_spans((audio * visual).cpu())
    found = 100 * average_precision(predicted, true, len(split.annotations.classes)).nanmean(dim=1)
    return dict(zip(COLUMNS, [*found.tolist(), found.mean().item()], strict=True))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint_dir", type=Path, required=True, help="run folder of train_transformer.py")
    parser.add_argument("--split", nargs="+", choices=("val", "test"), default=["val"])
    parser.add_argument("--data_dir", type=Path, help="UnAV's folder (default: that of the run)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="also write OUTPUT.txt, .md, .csv and .json")
    args = parser.parse_args(argv)
    run_dir = args.checkpoint_dir
    read_provenance(run_dir).check(run_dir, "Choose a run of train_transformer.py.", dataset=DATASET)
    settings, _ = settings_of_transformer(Settings(transformer_dir=run_dir))
    settings = with_settings(with_file(settings, run_dir / ARGS_FILE, others=True), device=args.device)
    if args.data_dir is not None:
        settings = with_settings(settings, data_dir=args.data_dir, annotations_dir=None, packed_dir=None)
    device, precision = settings.device.select()
    annotations_dir = settings.data.annotations_dir or settings.data.folder(DATASET)

    splits = {name: open_split(DATASET, name, settings.data, device) for name in dict.fromkeys(args.split)}
    texts = open_texts(DATASET, settings.data, device)
    record = provenance_of("localisation", splits).inherit(read_provenance(run_dir), "stage 1")
    teacher = make_teacher(settings, next(iter(splits.values())), texts, precision, logging.getLogger())
    rows = []
    for name, split in splits.items():
        scores = mean_average_precisions(teacher, split, annotations_dir)
        rows.append(ScoreRow(run_dir.resolve().name, name, [scores], record.note))
    table = score_table("Audio-visual event localisation on UnAV-100", COLUMNS, rows, NOTES)
    print(format_text(table))
    if args.output:
        print("written:", *write_tables(args.output, table))


if __name__ == "__main__":
    run_entry_point(main)
