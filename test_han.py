"""Stage 4: evaluate a trained HAN on the validation and test split."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from dataloaders.batches import SplitBatches
from utils.arguments import (
    HAN_DEFAULTS,
    add_data_arguments,
    add_device_arguments,
    add_num_runs_argument,
    add_subset_arguments,
    data_dir_of,
    load_han_of,
    open_split_of,
    seeds_of,
)
from utils.device import Precision, select_device
from utils.evaluation import (
    DECODING_HELP,
    Events,
    decoder,
    is_simulated,
    predict_events,
    score_events,
    scores_by_level,
    to_predictions,
    true_events,
)
from utils.figures import Timeline, confusion_matrix_figure, timeline_figure
from utils.methods import PUBLISHED_NAMES
from utils.metrics import confusion_matrix
from utils.paper import published_methods, published_row, published_value
from utils.predictions import save_predictions
from utils.reports import (
    ParsingRow,
    Table,
    accuracy_table,
    confusion_table,
    format_text,
    parsing_table,
    per_class_accuracy,
    per_class_scores,
    write_table,
    write_tables,
)
from utils.runs import (
    ARGS_FILE,
    finish_run,
    folders_of_runs,
    is_one_of_several,
    newest_finished_run,
    open_log,
    parse_settings,
    read_args,
    run_entry_point,
    run_name,
    write_args,
)
from utils.training import BEST_CHECKPOINT

# What a checkpoint's shapes do not tell, and where its data lie: taken from the run's own settings.
FROM_RUN = (
    "num_runs",
    "seed",
    "method",
    "dataset",
    "num_heads",
    "pre_norm",
    "encoder_order",
    "decoding",
    "num_classes",
    "audio_features",
    "visual_features",
    "data_dir",
    "annotations_dir",
    "packed_dir",
)

RunScores = dict[str, dict[str, float]]  # of one run: split, name of the score, percent


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"{', '.join(FROM_RUN)} default to the settings of the run, else to the data set's recipe.",
    )
    parser.add_argument(
        "--checkpoint_dir", type=Path, help="stage-3 run (default: the newest finished one in runs_dir)"
    )
    parser.add_argument("--runs_dir", type=Path, default=Path("temp_train_logs"), help="where runs are looked for")
    parser.add_argument("--logs_dir", type=Path, default=Path("test_logs"), help="where the evaluation goes")
    parser.add_argument("--checkpoint", type=Path, help=f"weights (default: {BEST_CHECKPOINT} of the run)")
    parser.add_argument(
        "--method",
        choices=tuple(PUBLISHED_NAMES),
        default="uwav",
        help="whose published scores are printed beside, with UWAV's",
    )
    parser.add_argument("--dataset", choices=tuple(HAN_DEFAULTS), default="LLP")
    parser.add_argument("--num_heads", type=int, default=16)
    parser.add_argument("--pre_norm", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--encoder_order", choices=("sequential", "parallel"), default="sequential")
    parser.add_argument("--decoding", choices=("video", "modality"), default="video", help=DECODING_HELP)
    add_num_runs_argument(parser)
    parser.add_argument("--seed", type=int, default=20000, help="of the first of several runs")
    parser.add_argument("--splits", nargs="+", choices=("val", "test"), default=["val", "test"])
    parser.add_argument("--num_figures", type=int, default=10, help="videos of each split drawn as timelines")
    parser.add_argument("--figure_videos", nargs="*", default=[], help="draw these videos (file names) instead")
    parser.add_argument("--output_dir", type=Path, help="(default: <logs_dir>/<run>)")
    parser.add_argument(
        "--event_from",
        choices=("video", "segments"),
        default="video",
        help="AVE: a video's event has the highest video probability, or the highest mean over segments",
    )
    parser.add_argument(
        "--active_in", choices=("both", "either"), default="both", help="AVE: modalities that must show the event"
    )
    add_data_arguments(parser, audio_features=["vggish"], visual_features=["res152", "r2plus1d_18"])
    add_subset_arguments(parser)
    add_device_arguments(parser)
    return parser


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Flags over the settings of the evaluated run."""
    args = parse_settings(build_parser(), argv, settings_of_run)
    name = run_name(args.checkpoint_dir) if args.checkpoint_dir else args.checkpoint.stem
    args.checkpoint = args.checkpoint or args.checkpoint_dir / BEST_CHECKPOINT
    args.output_dir = args.output_dir or args.logs_dir / name
    return args


def settings_of_run(args: argparse.Namespace) -> dict[str, object]:
    """The run to evaluate and its settings, over the recipe of its data set."""
    run_dir, settings = args.checkpoint_dir, {}
    if run_dir is None and args.checkpoint is None:
        way_out = "Run train_han.py first, or give --checkpoint_dir."
        run_dir = newest_finished_run(args.runs_dir, f"HAN_*_{args.dataset}_", way_out)
    if run_dir is not None and (run_dir / ARGS_FILE).exists():
        settings = read_args(run_dir / ARGS_FILE)
    recipe = HAN_DEFAULTS.get(settings.get("dataset", args.dataset), {})
    of_run = {name: to_path(name, settings[name]) for name in FROM_RUN if name in settings}
    return {**recipe, **of_run, "checkpoint_dir": run_dir}


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


def class_tables_llp(folder: Path, split: str, prediction: Events, truth: Events, classes: tuple[str, ...], note: str):
    """Write the F-scores of each class of one run."""
    streams = (prediction.audio, prediction.visual, truth.audio, truth.visual)
    title = f"{folder.name}, {split}: F-scores and support per class"
    write_table(folder / f"per_class_{split}.csv", per_class_scores(*streams, classes, title, note))


def class_tables_ave(folder: Path, split: str, prediction: Events, truth: Events, classes: tuple[str, ...], note: str):
    """Write the accuracy of each class of one run, and the confusion matrix."""
    matrix = confusion_matrix(prediction.audio & prediction.visual, truth.audio & truth.visual).cpu()
    title = f"{folder.name}, {split}"
    write_table(folder / f"per_class_{split}.csv", per_class_accuracy(matrix, classes, title, note))
    write_table(folder / f"confusion_{split}.csv", confusion_table(matrix, classes, title, note))
    marked = f"{title} ({note})" if note else title
    confusion_matrix_figure(folder / f"confusion_{split}.png", matrix.numpy(), classes, marked)


def report_llp(name: str, runs: Sequence[RunScores], note: str, published: tuple[str, ...]) -> Table:
    """Table of all F-scores beside the paper's Table 1.

    Args:
        name: of the run, or of what the runs have in common.
        runs: scores of each run, by split.
        note: "simulated features" where the features are.
        published: methods of the paper to print beside.
    """
    rows = [ParsingRow(name, split, [scores_by_level(run[split]) for run in runs], note) for split in runs[0]]
    for method in published_methods("table1_llp"):
        if method in published:
            rows.append(ParsingRow(method, "test", published_row("table1_llp", method), "published"))
    return parsing_table("Audio-visual video parsing on LLP (paper Table 1)", rows)


def report_ave(name: str, runs: Sequence[RunScores], note: str, published: tuple[str, ...]) -> Table:
    """Table of accuracies beside the paper's Table 2. Args: as of `report_llp`."""
    rows = [(name, split, [run[split]["accuracy"] for run in runs], note) for split in runs[0]]
    for method in published_methods("table2_ave_accuracy"):
        if method in published:
            rows.append((method, "test", [published_value("table2_ave_accuracy", method)], "published"))
    return accuracy_table("Audio-visual event localisation on AVE (paper Table 2)", rows)


def evaluate(args: argparse.Namespace, splits: dict[str, SplitBatches], precision: Precision) -> RunScores:
    """Scores of one run on each split, with its per-class tables, predictions and figures in `args.output_dir`."""
    decode = decoder(args.dataset, args.decoding)
    if args.dataset == "AVE":
        decode = partial(decode, event_from=args.event_from, active_in=args.active_in)
    class_tables = {"LLP": class_tables_llp, "AVE": class_tables_ave}[args.dataset]
    note = note_of(args)
    first = splits[args.splits[0]]
    model = load_han_of(args, first)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    write_args(args.output_dir, args)
    scores: RunScores = {}
    with SummaryWriter(str(args.output_dir)) as writer:
        for name, split in splits.items():
            prediction = predict_events(model, split, args.eval_batch_size, precision, decode)
            truth = true_events(split.annotations, split.device)
            scores[name] = score_events(args.dataset, prediction, truth)
            for metric, value in scores[name].items():
                writer.add_scalar(f"{name}/{metric}", value)
            class_tables(args.output_dir, name, prediction, truth, first.annotations.classes, note)
            save_predictions(args.output_dir, to_predictions(split.annotations, prediction, truth))
            videos = chosen_videos(split.annotations.sample_ids, args.figure_videos, args.num_figures)
            draw_timelines(args.output_dir / f"timelines_{name}", split, prediction, truth, videos)
    return scores


def report(args: argparse.Namespace, runs: Sequence[RunScores]) -> Table:
    """Write the table of a run, or of several, to `args.output_dir`."""
    tables = {"LLP": report_llp, "AVE": report_ave}
    published = (PUBLISHED_NAMES[args.method], "UWAV")
    table = tables[args.dataset](name_of(args), runs, note_of(args), published)
    write_tables(args.output_dir / "scores", table)
    return table


def name_of(args: argparse.Namespace) -> str:
    """What the tables call the run."""
    one_of_several = args.checkpoint_dir is not None and is_one_of_several(args.checkpoint_dir)
    return run_name(args.checkpoint_dir) if one_of_several else args.output_dir.name


def note_of(args: argparse.Namespace) -> str:
    """The mark of our rows."""
    return "simulated features" * is_simulated(data_dir_of(args, args.dataset))


def args_of_runs(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The settings for each of several runs that were trained together; none for a single run."""
    seeds = seeds_of(args)
    if (
        isinstance(seeds, int)
        or args.checkpoint_dir is None
        or args.checkpoint != args.checkpoint_dir / BEST_CHECKPOINT
    ):
        return []
    of_runs = []
    for seed, folder in zip(seeds, folders_of_runs(args.checkpoint_dir, seeds), strict=True):
        own = {"num_runs": 1, "seed": seed, "checkpoint_dir": folder, "checkpoint": folder / BEST_CHECKPOINT}
        own["output_dir"] = args.output_dir / folder.name
        of_runs.append(argparse.Namespace(**vars(args) | own))
    return of_runs


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    device = select_device(args.device, args.deterministic)
    precision = Precision(args.precision, device)
    splits = {name: open_split_of(args, args.dataset, name, device) for name in args.splits}
    scores: list[RunScores] = []
    of_runs = args_of_runs(args)
    for of_run in of_runs or [args]:
        scores.append(evaluate(of_run, splits, precision))
        table = report(of_run, scores[-1:])
        finish_run(of_run.output_dir, scores[-1])
    log = open_log(args.output_dir)
    if of_runs:
        write_args(args.output_dir, args)
        table = report(args, scores)
        finish_run(args.output_dir, {of_run.output_dir.name: run for of_run, run in zip(of_runs, scores, strict=True)})
    log.info("\n" + format_text(table))
    log.info(f"tables, per-class scores and timeline figures: {args.output_dir}")


if __name__ == "__main__":
    run_entry_point(main)
