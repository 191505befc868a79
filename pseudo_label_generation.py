"""Stage 2: write segment-level pseudo-labels with the pre-trained temporal transformer (paper section 3.2)."""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.batches import SplitBatches, open_events
from dataloaders.pseudo_labels import PseudoLabels, export_npy, save_pseudo_labels
from models import TemporalTransformer
from utils.arguments import add_data_arguments, add_device_arguments, data_dir_of, open_split_of
from utils.checkpoints import load_network
from utils.device import Precision, select_device
from utils.evaluation import Events, is_simulated, named_scores, true_events
from utils.inference import SegmentLogits, temporal_transformer_logits
from utils.metrics import parsing_scores
from utils.paper import published_segment_row
from utils.reports import ParsingRow, format_text, parsing_table, write_tables
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
from utils.thresholds import class_agnostic_threshold, classwise_thresholds
from utils.training import BEST_CHECKPOINT

SPLITS = ("val", "test", "train")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=("LLP",), default="LLP")
    parser.add_argument(
        "--transformer_dir", type=Path, help="stage-1 run (default: the newest finished one in runs_dir)"
    )
    parser.add_argument("--runs_dir", type=Path, default=Path("temp_train_logs"), help="where runs are looked for")
    parser.add_argument("--checkpoint", type=Path, help=f"its weights (default: {BEST_CHECKPOINT} of the run)")
    parser.add_argument("--num_heads", type=int, help="attention heads (default: as the stage-1 run says, else 16)")
    parser.add_argument("--threshold_type", choices=("class_wise", "class_agnostic"), default="class_wise")
    parser.add_argument("--output_dir", type=Path, help="(default: <transformer_dir>/<dataset>_Dataset)")
    parser.add_argument(
        "--export_npy",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also write the released layout, one .npy a video",
    )
    add_data_arguments(parser, audio_features=["clap"], visual_features=["clip"])
    add_device_arguments(parser)
    return parser


def find_thresholds(
    logits: Tensor, labels: Tensor, video_labels: Tensor, threshold_type: str, classes: tuple[str, ...], log
) -> Tensor:
    """One modality's thresholds from the validation split: (N, T, C), (N, T, C), (N, C) -> (C,) float64."""
    agnostic = class_agnostic_threshold(logits, labels, video_labels).thresholds  # (1,)
    if threshold_type == "class_agnostic":
        return agnostic.expand(len(classes)).clone()
    search = classwise_thresholds(logits, labels, video_labels)
    without_positive = search.f1.isnan()  # (C,)
    if without_positive.any():
        names = [classes[c] for c in without_positive.nonzero().squeeze(1).tolist()]
        log.warning(f"no positive validation segment of {', '.join(names)}: taking the class-agnostic threshold")
    return torch.where(without_positive, agnostic, search.thresholds)


def make_pseudo_labels(split: SplitBatches, logits: SegmentLogits, thresholds: dict[str, Tensor]) -> PseudoLabels:
    """Hard labels 1[logit > threshold] · y, beside the logits."""
    annotations = split.annotations
    in_video = annotations.video_labels.unsqueeze(1)  # (N, 1, C)
    valid = torch.arange(logits.audio.shape[1]) < annotations.lengths.unsqueeze(1)  # (N, T)

    return PseudoLabels(
        dataset=annotations.dataset,
        classes=annotations.classes,
        sample_ids=annotations.sample_ids,
        lengths=annotations.lengths,
        audio_logits=logits.audio[valid],
        visual_logits=logits.visual[valid],
        audio_labels=((logits.audio > thresholds["audio"]) & in_video)[valid],
        visual_labels=((logits.visual > thresholds["visual"]) & in_video)[valid],
        audio_thresholds=thresholds["audio"],
        visual_thresholds=thresholds["visual"],
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_settings(build_parser(), argv)
    device = select_device(args.device)
    precision = Precision(args.precision, device)
    data_dir = data_dir_of(args, args.dataset)
    if args.transformer_dir is None and args.checkpoint is None:
        args.transformer_dir = newest_finished_run(
            args.runs_dir,
            "TemporalTransformer_",
            "Run train_transformer.py first, or give --transformer_dir.",
        )
    run_dir = args.transformer_dir or args.checkpoint.parent
    args.checkpoint = args.checkpoint or run_dir / BEST_CHECKPOINT
    if args.num_heads is None:
        settings = run_dir / ARGS_FILE
        args.num_heads = read_args(settings)["num_heads"] if settings.exists() else 16
    args.output_dir = args.output_dir or run_dir / f"{args.dataset}_Dataset"
    args.output_dir.mkdir(parents=True, exist_ok=True)
    write_args(args.output_dir, args)
    log = open_log(args.output_dir)

    splits = {name: open_split_of(args, args.dataset, name, device) for name in SPLITS}
    val = splits["val"]
    classes = val.annotations.classes
    events = open_events(data_dir, args.audio_features, args.visual_features, len(classes), device)
    expected = {
        "audio_dim": val.audio_width,
        "visual_dim": val.visual_width,
        "audio_text_dim": events[0].shape[1],
        "visual_text_dim": events[1].shape[1],
    }
    model = load_network(TemporalTransformer, args.checkpoint, expected, num_heads=args.num_heads).to(device)

    thresholds: dict[str, Tensor] = {}
    report_rows, summary = [], {}
    for name, split in splits.items():
        logits = temporal_transformer_logits(model, split, events, args.eval_batch_size, precision, progress=True)
        logits = SegmentLogits(logits.audio.cpu(), logits.visual.cpu())
        if name == "val":  # comes first
            truth = true_events(val.annotations, torch.device("cpu"))
            for modality in ("audio", "visual"):
                streams = (getattr(logits, modality), getattr(truth, modality), val.annotations.video_labels)
                thresholds[modality] = find_thresholds(*streams, args.threshold_type, classes, log)
        pseudo = make_pseudo_labels(split, logits, thresholds)
        save_pseudo_labels(pseudo, args.output_dir / f"{name}.safetensors")
        if args.export_npy:
            export_npy(pseudo, args.output_dir)
        log.info(f"{name}: pseudo-labels of {split.num_videos} videos in {args.output_dir}")
        if name != "train":
            shape = logits.audio.shape
            prediction = Events(pseudo.audio_labels.view(shape), pseudo.visual_labels.view(shape))
            truth = true_events(split.annotations, torch.device("cpu"))
            scores = parsing_scores(prediction.audio, prediction.visual, truth.audio, truth.visual)
            report_rows.append(ParsingRow("UWAV pseudo-labels", name, scores, "simulated" * is_simulated(data_dir)))
            summary[name] = named_scores(scores)

    report_rows.append(
        ParsingRow("UWAV", "test", published_segment_row("table3_pseudo_label_quality_segment", "UWAV"), "published")
    )
    table = parsing_table(f"Quality of the pseudo-labels on {args.dataset} (paper Table 3)", report_rows)
    write_tables(args.output_dir / "pseudo_label_quality", table)
    log.info("\n" + format_text(table))
    finish_run(args.output_dir, summary)


if __name__ == "__main__":
    run_entry_point(main)
