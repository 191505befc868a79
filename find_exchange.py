"""MA, stage 2: find by exchanging streams which labels of the training videos each modality does not show."""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from dataloaders.cleaned_labels import CleanedLabels, save_cleaned_labels
from utils.arguments import add_data_arguments, add_device_arguments, add_subset_arguments, load_han_of, open_split_of
from utils.device import Precision, select_device
from utils.errors import InputError
from utils.evaluation import true_events
from utils.exchange import ErrorRates, Exchange, error_rates, exchange_streams
from utils.reports import Cell, Column, Row, Table, format_text, write_tables
from utils.runs import (
    ARGS_FILE,
    finish_run,
    newest_finished_run,
    open_log,
    parse_settings,
    read_args,
    run_entry_point,
    write_args,
)
from utils.training import BEST_CHECKPOINT

NOT_FROM_RUN = ("output_dir", "device", "precision", "eval_batch_size", "seed")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Network and data settings default to those of the base model's run."
    )
    parser.add_argument("--dataset", choices=("LLP", "AVE"), default="LLP")
    parser.add_argument(
        "--checkpoint_dir",
        type=Path,
        help="run of train_han.py --method ma_base (default: the newest finished one in runs_dir)",
    )
    parser.add_argument("--runs_dir", type=Path, default=Path("temp_train_logs"), help="where runs are looked for")
    parser.add_argument("--checkpoint", type=Path, help=f"weights (default: {BEST_CHECKPOINT} of the run)")
    parser.add_argument("--num_heads", type=int, default=1)
    parser.add_argument("--pre_norm", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--encoder_order", choices=("sequential", "parallel"), default="parallel")
    parser.add_argument("--output_dir", type=Path, help="(default: <checkpoint_dir>/<dataset>_Exchange)")
    parser.add_argument(
        "--keep_one_modality",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="give labels that would be removed from both modalities back to both",
    )
    parser.add_argument("--seed", type=int, default=20000, help="of the choice of unrelated videos")
    add_data_arguments(parser, audio_features=["vggish"], visual_features=["res152", "r2plus1d_18"])
    add_subset_arguments(parser)
    add_device_arguments(parser)
    return parser


def settings_of_run(args: argparse.Namespace) -> dict[str, object]:
    """The base model's run, and its settings."""
    way_out = "Run train_han.py --method ma_base first, or give --checkpoint_dir."
    run_dir = args.checkpoint_dir or newest_finished_run(args.runs_dir, f"HAN_ma_base_{args.dataset}_", way_out)
    settings = read_args(run_dir / ARGS_FILE)
    if settings.get("num_runs", 1) > 1:
        found = f"{settings['num_runs']} runs trained together"
        raise InputError(run_dir, found, "one run", "Name one of its folders run_<seed> as --checkpoint_dir.")
    of_run = {
        name: Path(value) if name.endswith("_dir") and value is not None else value
        for name, value in settings.items()
        if name not in NOT_FROM_RUN
    }
    return {**of_run, "checkpoint_dir": run_dir}


def cleaning_table(annotations: SplitAnnotations, exchange: Exchange, rates: ErrorRates) -> Table:
    """For each class: its videos, the share that each modality lost, and the error rates."""
    labels = annotations.video_labels
    counts = labels.sum(dim=0)  # (C,)
    kept = {"Audio": (exchange.audio_labels, rates.audio), "Visual": (exchange.visual_labels, rates.visual)}
    columns, cells = [Column("videos", decimals=0)], [counts.tolist()]
    for name, (left, rate) in kept.items():
        columns += [Column("removed (%)", name), Column("error rate", name, decimals=2)]
        cells += [(100 * (counts - left.sum(dim=0)) / counts.clamp(min=1)).tolist(), rate.tolist()]
    rows = [
        Row((name,), tuple(Cell(value) for value in values))
        for name, *values in zip(annotations.classes, *cells, strict=True)
    ]
    notes = ("Error rates in proportion to the average class.",)
    title = f"Labels that the exchange removes, {annotations.dataset} {annotations.split}"
    return Table(title, ("Class",), tuple(columns), tuple(rows), notes)


def agreement(annotations: SplitAnnotations, exchange: Exchange) -> dict[str, float]:
    """How well the exchange does where the truth is known, in percent of a modality's labels.

    "precision": share of the removed labels whose event is truly absent from the modality; "recall": share of the
    absent events whose labels were removed. None of either counts as 100.
    """
    truth = true_events(annotations, torch.device("cpu"))
    scores = {}
    for modality in ("audio", "visual"):
        absent = annotations.video_labels & ~getattr(truth, modality).any(dim=1)  # (N, C)
        removed = annotations.video_labels & ~getattr(exchange, f"{modality}_labels")
        scores[f"{modality}_precision"] = percentage(absent & removed, removed)
        scores[f"{modality}_recall"] = percentage(absent & removed, absent)
    return scores


def percentage(part: Tensor, whole: Tensor) -> float:
    return 100 * part.sum().item() / whole.sum().item() if whole.any() else 100.0


def main(argv: list[str] | None = None) -> None:
    args = parse_settings(build_parser(), argv, settings_of_run)
    device = select_device(args.device, args.deterministic)
    precision = Precision(args.precision, device)
    args.checkpoint = args.checkpoint or args.checkpoint_dir / BEST_CHECKPOINT
    args.output_dir = args.output_dir or args.checkpoint_dir / f"{args.dataset}_Exchange"
    train, val = (open_split_of(args, args.dataset, name, device) for name in ("train", "val"))
    model = load_han_of(args, train)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    write_args(args.output_dir, args)
    log = open_log(args.output_dir)

    rates = error_rates(model, train, args.eval_batch_size, precision)
    generator = torch.Generator().manual_seed(args.seed)
    cleaned, on_val = (
        exchange_streams(model, split, rates, args.eval_batch_size, precision, generator) for split in (train, val)
    )
    annotations = train.annotations
    if args.keep_one_modality:
        cleaned = cleaned.keeping_one(annotations.video_labels)
        on_val = on_val.keeping_one(val.annotations.video_labels)
    labels = CleanedLabels(
        annotations.dataset, annotations.classes, annotations.sample_ids, cleaned.audio_labels, cleaned.visual_labels
    )
    save_cleaned_labels(labels, args.output_dir)
    if cleaned.without_partner:
        log.warning(f"{cleaned.without_partner} videos have no unrelated video; they keep all labels")
    table = cleaning_table(annotations, cleaned, rates)
    write_tables(args.output_dir / "removed_labels", table)
    log.info("\n" + format_text(table))
    given = annotations.video_labels
    summary = {
        "labels": int(given.sum()),
        "removed_from_audio": int((given & ~cleaned.audio_labels).sum()),
        "removed_from_visual": int((given & ~cleaned.visual_labels).sum()),
        "removed_from_both": int((given & ~cleaned.audio_labels & ~cleaned.visual_labels).sum()),
        **{f"val_{name}": value for name, value in agreement(val.annotations, on_val).items()},
    }
    for name, value in summary.items():
        log.info(f"{name}: {value:.1f}" if isinstance(value, float) else f"{name}: {value}")
    log.info(f"cleaned labels: {args.output_dir}")
    finish_run(args.output_dir, summary)


if __name__ == "__main__":
    run_entry_point(main)
