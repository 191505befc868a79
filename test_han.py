"""Stage 4: evaluate a trained HAN on the validation and test split."""

import argparse
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from dataloaders.batches import SplitBatches
from models import HAN
from utils.arguments import (
    add_data_arguments,
    add_device_arguments,
    add_subset_arguments,
    data_dir_of,
    open_split_of,
)
from utils.checkpoints import load_network
from utils.device import Precision, select_device
from utils.evaluation import Events, is_simulated, named_scores, predict_events, to_predictions, true_events
from utils.figures import Timeline, timeline_figure
from utils.metrics import parsing_scores
from utils.paper import published_row
from utils.predictions import save_predictions
from utils.reports import ParsingRow, format_text, parsing_table, per_class_scores, write_table, write_tables
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

# What a checkpoint's shapes do not tell, and where its data lie: taken from the run's own settings.
FROM_RUN = (
    "dataset",
    "num_heads",
    "pre_norm",
    "encoder_order",
    "num_classes",
    "audio_features",
    "visual_features",
    "data_dir",
    "annotations_dir",
    "packed_dir",
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"{', '.join(FROM_RUN)} default to the settings of the run, else to the LLP recipe."
    )
    parser.add_argument(
        "--checkpoint_dir", type=Path, help="stage-3 run (default: the newest finished one in runs_dir)"
    )
    parser.add_argument("--runs_dir", type=Path, default=Path("temp_train_logs"), help="where runs are looked for")
    parser.add_argument("--logs_dir", type=Path, default=Path("test_logs"), help="where the evaluation goes")
    parser.add_argument("--checkpoint", type=Path, help=f"weights (default: {BEST_CHECKPOINT} of the run)")
    parser.add_argument("--dataset", choices=("LLP",), default="LLP")
    parser.add_argument("--num_heads", type=int, default=16)
    parser.add_argument("--pre_norm", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--encoder_order", choices=("sequential", "parallel"), default="sequential")
    parser.add_argument("--splits", nargs="+", choices=("val", "test"), default=["val", "test"])
    parser.add_argument("--num_figures", type=int, default=10, help="videos of each split drawn as timelines")
    parser.add_argument("--figure_videos", nargs="*", default=[], help="draw these videos (file names) instead")
    parser.add_argument("--output_dir", type=Path, help="(default: <logs_dir>/<run>)")
    add_data_arguments(parser, audio_features=["vggish"], visual_features=["res152", "r2plus1d_18"])
    add_subset_arguments(parser)
    add_device_arguments(parser)
    return parser


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Flags over the settings of the evaluated run."""
    parser = build_parser()
    args = parse_settings(parser, argv)
    if args.checkpoint_dir is None and args.checkpoint is None:
        args.checkpoint_dir = newest_finished_run(
            args.runs_dir, "HAN_", "Run train_han.py first, or give --checkpoint_dir."
        )
    if args.checkpoint_dir is not None and (args.checkpoint_dir / ARGS_FILE).exists():
        settings = read_args(args.checkpoint_dir / ARGS_FILE)
        parser = build_parser()
        parser.set_defaults(**{name: to_path(name, settings[name]) for name in FROM_RUN if name in settings})
        checkpoint_dir = args.checkpoint_dir
        args = parse_settings(parser, argv)
        args.checkpoint_dir = checkpoint_dir
    name = args.checkpoint_dir.name if args.checkpoint_dir else args.checkpoint.stem
    args.checkpoint = args.checkpoint or args.checkpoint_dir / BEST_CHECKPOINT
    args.output_dir = args.output_dir or args.logs_dir / name
    return args


def to_path(name: str, value: object) -> object:
    return Path(value) if name.endswith("_dir") and value is not None else value


def draw_timelines(folder: Path, split: SplitBatches, prediction: Events, truth: Events, videos: list[int]) -> None:
    """One figure a video: truth above prediction."""
    annotations = split.annotations
    for n in videos:
        length = int(annotations.lengths[n])
        truth_of_video, prediction_of_video = (
            Timeline(name, events.audio[n, :length].cpu().numpy(), events.visual[n, :length].cpu().numpy())
            for name, events in (("Truth", truth), ("Prediction", prediction))
        )
        sample_id = annotations.sample_ids[n]
        timeline_figure(
            folder / f"{sample_id}.png",
            sample_id,
            annotations.classes,
            truth_of_video,
            [prediction_of_video],
            annotations.video_labels[n].numpy(),
        )


def chosen_videos(sample_ids: tuple[str, ...], names: list[str], number: int) -> list[int]:
    """The named videos of a split, else `number` videos spread evenly over it."""
    if names:
        return [n for n, sample_id in enumerate(sample_ids) if sample_id in names]
    return torch.linspace(0, len(sample_ids) - 1, min(number, len(sample_ids))).long().tolist()


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    device = select_device(args.device)
    precision = Precision(args.precision, device)
    splits = {name: open_split_of(args, args.dataset, name, device) for name in args.splits}
    first = splits[args.splits[0]]
    expected = {
        "audio_dim": first.audio_width,
        "visual_dim": first.visual_width,
        "num_classes": len(first.annotations.classes),
    }
    settings = {"num_heads": args.num_heads, "pre_norm": args.pre_norm, "encoder_order": args.encoder_order}
    model = load_network(HAN, args.checkpoint, expected, **settings).to(device)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    write_args(args.output_dir, args)
    log = open_log(args.output_dir)

    note = "simulated" * is_simulated(data_dir_of(args, args.dataset))
    rows, summary = [], {}
    with SummaryWriter(str(args.output_dir)) as writer:
        for name, split in splits.items():
            prediction = predict_events(model, split, args.eval_batch_size, precision)
            truth = true_events(split.annotations, device)
            streams = (prediction.audio, prediction.visual, truth.audio, truth.visual)
            scores = parsing_scores(*streams)
            rows.append(ParsingRow(args.output_dir.name, name, scores, note))
            summary[name] = named_scores(scores)
            for metric, value in summary[name].items():
                writer.add_scalar(f"{name}/{metric}", value)
            title = f"{args.output_dir.name}, {name}: F-scores and support per class"
            per_class = per_class_scores(*streams, split.annotations.classes, title, note)
            write_table(args.output_dir / f"per_class_{name}.csv", per_class)
            save_predictions(args.output_dir, to_predictions(split.annotations, prediction, truth))
            videos = chosen_videos(split.annotations.sample_ids, args.figure_videos, args.num_figures)
            draw_timelines(args.output_dir / f"timelines_{name}", split, prediction, truth, videos)

    rows.append(ParsingRow("UWAV", "test", published_row("table1_llp", "UWAV"), "published"))
    table = parsing_table(f"Audio-visual video parsing on {args.dataset} (paper Table 1)", rows)
    write_tables(args.output_dir / "scores", table)
    log.info("\n" + format_text(table))
    log.info(f"tables, per-class scores and timeline figures: {args.output_dir}")
    finish_run(args.output_dir, summary)


if __name__ == "__main__":
    run_entry_point(main)
