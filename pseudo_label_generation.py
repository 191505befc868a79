"""Stage 2: write segment-level pseudo-labels with the pre-trained temporal transformer (paper section 3.2).

With `--teacher framewise` without it: each segment by itself from CLIP and CLAP, as the baseline VALOR does.
"""

import argparse
from collections.abc import Callable
from logging import Logger
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import SplitBatches, feature_with_text, open_events
from dataloaders.features import event_features_path
from dataloaders.prompts import PROMPTS_FILE, load_prompts
from dataloaders.pseudo_labels import PseudoLabels, export_npy, save_pseudo_labels
from models import TemporalTransformer
from utils.arguments import HAN_DEFAULTS, add_data_arguments, add_device_arguments, data_dir_of, open_split_of
from utils.checkpoints import load_network
from utils.device import Precision, select_device
from utils.errors import InputError
from utils.evaluation import Events, is_simulated, score_events, true_events
from utils.inference import SegmentLogits, framewise_logits, temporal_transformer_logits
from utils.metrics import parsing_scores
from utils.paper import published_segment_row
from utils.reports import ParsingRow, Table, accuracy_table, format_text, parsing_table, write_tables
from utils.runs import (
    ARGS_FILE,
    create_run_dir,
    finish_run,
    newest_finished_run,
    open_log,
    parse_settings,
    read_args,
    run_entry_point,
    write_args,
)
from utils.thresholds import FIXED_THRESHOLDS, accuracy_thresholds, class_agnostic_threshold, classwise_thresholds
from utils.training import BEST_CHECKPOINT

SPLITS = ("val", "test", "train")
PROMPTS_HELP = {"valor": "VALOR's sentences", "event_names": "the event names"}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", choices=tuple(HAN_DEFAULTS), default="LLP")
    parser.add_argument("--teacher", choices=("temporal_transformer", "framewise"), default="temporal_transformer")
    parser.add_argument(
        "--transformer_dir", type=Path, help="stage-1 run (default: the newest finished one in runs_dir)"
    )
    parser.add_argument("--runs_dir", type=Path, default=Path("temp_train_logs"), help="where runs are looked for")
    parser.add_argument("--checkpoint", type=Path, help=f"its weights (default: {BEST_CHECKPOINT} of the run)")
    parser.add_argument("--num_heads", type=int, help="attention heads (default: as the stage-1 run says, else 16)")
    parser.add_argument(
        "--thresholds",
        choices=("search", "fixed"),
        help="searched on val, or VALOR's own for LLP (default: fixed for the framewise teacher on LLP, else search)",
    )
    parser.add_argument("--threshold_type", choices=("class_wise", "class_agnostic"), default="class_wise")
    parser.add_argument(
        "--grid_search",
        choices=("joint", "apart"),
        default="joint",
        help="AVE: thresholds of both modalities searched together, or each by itself",
    )
    parser.add_argument("--output_dir", type=Path, help="(default: <dataset>_Dataset in the run folder)")
    parser.add_argument(
        "--export_npy",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also write the released layout, one .npy a video",
    )
    framewise = parser.add_argument_group("framewise teacher")
    framewise.add_argument("--audio_logit_scale", type=float, default=26.87, help="of cosines between CLAP features")
    framewise.add_argument("--visual_logit_scale", type=float, default=100.0, help="of cosines between CLIP features")
    framewise.add_argument(
        "--prompts",
        choices=("auto", "valor", "event_names"),
        default="auto",
        help="text features that stand for the classes; auto: VALOR's sentences where their features are there",
    )
    framewise.add_argument("--prompts_file", type=Path, default=PROMPTS_FILE, help="VALOR's sentences")
    add_data_arguments(parser, audio_features=["clap"], visual_features=["clip"])
    add_device_arguments(parser)
    return parser


def f1_thresholds(
    logits: SegmentLogits, truth: Events, annotations: SplitAnnotations, class_wise: bool, log: Logger
) -> dict[str, Tensor]:
    """LLP: each modality's thresholds of the best F1 on the validation split, (C,) float64."""
    thresholds = {}
    for modality in ("audio", "visual"):
        streams = (getattr(logits, modality), getattr(truth, modality), annotations.video_labels)
        agnostic = class_agnostic_threshold(*streams).thresholds  # (1,)
        if not class_wise:
            thresholds[modality] = agnostic.expand(len(annotations.classes)).clone()
            continue
        search = classwise_thresholds(*streams)
        without_positive = search.f1.isnan()  # (C,)
        warn_of_classes(log, without_positive, annotations.classes, "no positive validation segment")
        thresholds[modality] = torch.where(without_positive, agnostic, search.thresholds)
    return thresholds


def grid_thresholds(
    logits: SegmentLogits, truth: Events, annotations: SplitAnnotations, class_wise: bool, jointly: bool, log: Logger
) -> dict[str, Tensor]:
    """AVE: each modality's thresholds of the best accuracy on the validation split, (C,) float64."""
    streams = (logits.audio, logits.visual, truth.audio & truth.visual, annotations.video_labels)
    agnostic = accuracy_thresholds(*streams, class_wise=False, jointly=jointly)  # of (1,)
    if not class_wise:
        return {m: getattr(agnostic, m).expand(len(annotations.classes)).clone() for m in ("audio", "visual")}
    search = accuracy_thresholds(*streams, jointly=jointly)
    without_video = search.accuracy.isnan()  # (C,)
    warn_of_classes(log, without_video, annotations.classes, "no validation video")
    return {m: torch.where(without_video, getattr(agnostic, m), getattr(search, m)) for m in ("audio", "visual")}


def warn_of_classes(log: Logger, lacking: Tensor, classes: tuple[str, ...], what: str) -> None:
    """Say which classes' thresholds could not be searched: lacking (C,) bool."""
    if lacking.any():
        names = ", ".join(classes[c] for c in lacking.nonzero().squeeze(1).tolist())
        log.warning(f"{what} of {names}: taking the class-agnostic threshold")


def valor_thresholds(dataset: str, simulated: bool, log: Logger) -> dict[str, Tensor]:
    """VALOR's own thresholds of each modality, (C,) float64. Raises InputError for a data set that has none."""
    if dataset not in FIXED_THRESHOLDS:
        raise InputError(
            "--thresholds",
            f"fixed, for {dataset}",
            f"a data set that VALOR has thresholds for ({', '.join(FIXED_THRESHOLDS)})",
            "Search them: --thresholds search.",
        )
    if simulated:
        log.warning("VALOR's thresholds belong to the real CLIP and CLAP; --thresholds search fits simulated features")
    return {m: torch.tensor(values, dtype=torch.float64) for m, values in FIXED_THRESHOLDS[dataset].items()}


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


def quality_of_llp(method: str, pairs: dict[str, tuple[Events, Events]], note: str) -> Table:
    """F-scores of the pseudo-labels of each split, from pairs of pseudo-labels and truth (paper Table 3)."""
    rows = []
    for name, (pseudo, truth) in pairs.items():
        scores = parsing_scores(pseudo.audio, pseudo.visual, truth.audio, truth.visual)
        rows.append(ParsingRow(f"{method} pseudo-labels", name, scores, note))
    published = published_segment_row("table3_pseudo_label_quality_segment", method)
    rows.append(ParsingRow(method, "test", published, "published"))
    return parsing_table("Quality of the pseudo-labels on LLP (paper Table 3)", rows)


def quality_of_ave(method: str, pairs: dict[str, tuple[Events, Events]], note: str) -> Table:
    """Accuracy of the pseudo-labels of each split; the paper prints none."""
    accuracies = [(name, score_events("AVE", *events)["accuracy"]) for name, events in pairs.items()]
    rows = [(f"{method} pseudo-labels", name, [accuracy], note) for name, accuracy in accuracies]
    return accuracy_table(
        "Quality of the pseudo-labels on AVE", rows, ["The video's class is given; Table 2's accuracies are without."]
    )


METHOD_OF_TEACHER = {"temporal_transformer": "UWAV", "framewise": "VALOR"}
QUALITY = {"LLP": quality_of_llp, "AVE": quality_of_ave}


def find_settings(args: argparse.Namespace) -> None:
    """Fill in what the flags leave to the teacher: its run, thresholds, prompts and where the output goes."""
    if args.teacher == "framewise":
        run_dir = None
        args.thresholds = args.thresholds or ("fixed" if args.dataset in FIXED_THRESHOLDS else "search")
        if args.prompts == "auto":
            args.prompts = "valor" if has_valor_prompts(args) else "event_names"
        if args.prompts == "valor":
            load_prompts(args.prompts_file, args.dataset)  # stops here when a class has no sentence
    else:
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
        args.thresholds = args.thresholds or "search"
        if args.thresholds == "fixed" or args.prompts == "valor":
            raise InputError(
                "--teacher",
                "temporal_transformer with VALOR's thresholds or prompts",
                "searched thresholds and the event names that it was trained with",
                "Leave out --thresholds and --prompts, or choose --teacher framewise.",
            )
        args.prompts = "event_names"
    if args.output_dir is None:
        run_dir = run_dir or create_run_dir(args.runs_dir, f"Framewise_{args.dataset}")
        args.output_dir = run_dir / f"{args.dataset}_Dataset"


def has_valor_prompts(args: argparse.Namespace) -> bool:
    """Whether both modalities have features of VALOR's sentences; just one is more likely a mistake than a choice."""
    data_dir = data_dir_of(args, args.dataset)
    names = (
        feature_with_text("--audio_features", args.audio_features),
        feature_with_text("--visual_features", args.visual_features),
    )
    paths = [event_features_path(data_dir, name, "valor") for name in names]
    if paths[0].exists() != paths[1].exists():
        there, absent = sorted(paths, key=Path.exists, reverse=True)
        raise InputError(absent, f"no file, but {there}", "text features of VALOR's prompts for both", "Add the file.")
    return paths[0].exists()


def temporal_transformer_teacher(
    args: argparse.Namespace, val: SplitBatches, events: tuple[Tensor, Tensor], device: torch.device
) -> Callable[[SplitBatches], SegmentLogits]:
    """The pre-trained temporal transformer, which sees a video's other segments."""
    expected = {
        "audio_dim": val.audio_width,
        "visual_dim": val.visual_width,
        "audio_text_dim": events[0].shape[1],
        "visual_text_dim": events[1].shape[1],
    }
    model = load_network(TemporalTransformer, args.checkpoint, expected, num_heads=args.num_heads).to(device)
    precision = Precision(args.precision, device)
    return lambda split: temporal_transformer_logits(
        model, split, events, args.eval_batch_size, precision, progress=True
    )


def framewise_teacher(
    args: argparse.Namespace, val: SplitBatches, events: tuple[Tensor, Tensor]
) -> Callable[[SplitBatches], SegmentLogits]:
    """CLIP and CLAP themselves, which see one segment at a time (VALOR)."""
    widths = {"audio": (val.audio_width, events[0].shape[1]), "visual": (val.visual_width, events[1].shape[1])}
    for modality, (width, text_width) in widths.items():
        if width != text_width:
            raise InputError(
                f"--{modality}_features",
                f"{width} wide beside text features {text_width} wide",
                "segments and text in one space",
                "Use clap for audio and clip for visual features, and text features of the same encoder.",
            )
    scales = (args.audio_logit_scale, args.visual_logit_scale)
    return lambda split: framewise_logits(split, events, scales, args.eval_batch_size)


def main(argv: list[str] | None = None) -> None:
    args = parse_settings(build_parser(), argv)
    device = select_device(args.device, args.deterministic)
    data_dir = data_dir_of(args, args.dataset)
    find_settings(args)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    write_args(args.output_dir, args)
    log = open_log(args.output_dir)

    splits = {name: open_split_of(args, args.dataset, name, device) for name in SPLITS}
    val = splits["val"]
    num_classes = len(val.annotations.classes)
    events = open_events(data_dir, args.audio_features, args.visual_features, num_classes, device, args.prompts)
    if args.teacher == "framewise":
        log.info(f"each segment by itself, against the text features of {PROMPTS_HELP[args.prompts]}")
        teacher = framewise_teacher(args, val, events)
    else:
        teacher = temporal_transformer_teacher(args, val, events, device)

    thresholds: dict[str, Tensor] = {}
    pairs: dict[str, tuple[Events, Events]] = {}  # pseudo-labels and truth
    for name, split in splits.items():
        logits = teacher(split)
        logits = SegmentLogits(logits.audio.cpu(), logits.visual.cpu())
        if name == "val":  # comes first
            truth = true_events(val.annotations, torch.device("cpu"))
            class_wise = args.threshold_type == "class_wise"
            if args.thresholds == "fixed":
                thresholds = valor_thresholds(args.dataset, is_simulated(data_dir), log)
            elif args.dataset == "AVE":
                jointly = args.grid_search == "joint"
                thresholds = grid_thresholds(logits, truth, val.annotations, class_wise, jointly, log)
            else:
                thresholds = f1_thresholds(logits, truth, val.annotations, class_wise, log)
        pseudo = make_pseudo_labels(split, logits, thresholds)
        save_pseudo_labels(pseudo, args.output_dir / f"{name}.safetensors")
        if args.export_npy:
            export_npy(pseudo, args.output_dir)
        log.info(f"{name}: pseudo-labels of {split.num_videos} videos in {args.output_dir}")
        if name != "train":
            shape = logits.audio.shape
            truth = true_events(split.annotations, torch.device("cpu"))
            pairs[name] = (Events(pseudo.audio_labels.view(shape), pseudo.visual_labels.view(shape)), truth)

    method = METHOD_OF_TEACHER[args.teacher]
    table = QUALITY[args.dataset](method, pairs, "simulated features" * is_simulated(data_dir))
    write_tables(args.output_dir / "pseudo_label_quality", table)
    log.info("\n" + format_text(table))
    finish_run(args.output_dir, {name: score_events(args.dataset, *events) for name, events in pairs.items()})


if __name__ == "__main__":
    run_entry_point(main)
