"""Stage 3: train HAN on video labels and pseudo-labels (paper sections 3.3 to 3.5)."""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.batches import SplitBatches
from dataloaders.cleaned_labels import load_cleaned_labels
from models import HAN
from utils.arguments import (
    HAN_DEFAULTS,
    add_compile_argument,
    add_data_arguments,
    add_device_arguments,
    add_num_runs_argument,
    add_recipe_arguments,
    add_run_arguments,
    add_subset_arguments,
    open_split_of,
    recipe_of,
    seeds_of,
)
from utils.device import Precision, compile_network, select_device
from utils.errors import InputError
from utils.evaluation import BEST_METRIC, DECODING_HELP, decoder, predict_events, score_events, true_events
from utils.losses import smooth_labels
from utils.methods import METHOD_DEFAULTS
from utils.networks import SingleNetwork, StackedNetworks
from utils.objectives import ContrastiveObjective, GuidedObjective, HANObjective, add_objectives
from utils.runs import (
    SUMMARY_FILE,
    create_run_dir,
    finish_run,
    folders_of_runs,
    is_one_of_several,
    newest_finished_run,
    open_log,
    parse_settings,
    run_entry_point,
    write_args,
)
from utils.training import BEST_CHECKPOINT, fit


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--method",
        choices=tuple(METHOD_DEFAULTS),
        default="uwav",
        help="sets the defaults of all flags below to this method's (utils/methods.py); every flag still counts",
    )
    parser.add_argument("--dataset", choices=tuple(HAN_DEFAULTS), default="LLP")
    parser.add_argument(
        "--pseudo_label_dir",
        type=Path,
        help="output of stage 2 (default: <dataset>_Dataset of the newest finished stage-1 run in output_dir)",
    )
    parser.add_argument(
        "--cleaned_label_dir",
        type=Path,
        help="output of find_exchange.py (default: <dataset>_Exchange of the newest such run in output_dir)",
    )
    add_data_arguments(parser, audio_features=["vggish"], visual_features=["res152", "r2plus1d_18"])
    add_subset_arguments(parser)

    model = parser.add_argument_group("model")
    model.add_argument("--dim", type=int, default=512)
    model.add_argument("--num_heads", type=int, default=16)
    model.add_argument("--ffn_dim", type=int, default=2048)
    model.add_argument("--num_layers", type=int, default=5)
    model.add_argument("--dropout", type=float, default=0.1)
    model.add_argument("--num_proj_layers", type=int, default=1, help="layers of the visual input projection")
    model.add_argument("--num_mmil_layers", type=int, default=1, help="layers of each MMIL attention head")
    model.add_argument("--pre_norm", action=argparse.BooleanOptionalAction, default=False)
    model.add_argument(
        "--encoder_order",
        choices=("sequential", "parallel"),
        default="sequential",
        help="sequential: visual attends to the updated audio (released); parallel: to the layer's input (paper)",
    )

    model.add_argument("--num_audio_proj_layers", type=int, default=2, help="layers of the audio input projection")
    model.add_argument(
        "--visual_fusion",
        choices=("concatenated", "projected"),
        default="concatenated",
        help="projected: a linear layer for each visual feature before they are fused (HAN)",
    )
    model.add_argument("--decoding", choices=("video", "modality"), default="video", help=DECODING_HELP)

    losses = parser.add_argument_group("losses")
    losses.add_argument(
        "--segment_labels", choices=("soft", "hard", "none"), default="soft", help="none: video labels only"
    )
    losses.add_argument("--temperature", type=float, default=2.0, help="of soft labels: 2 (released) or 1 (paper)")
    losses.add_argument("--reweight", action=argparse.BooleanOptionalAction, default=True, help="class-balance weights")
    losses.add_argument("--positive_weight", type=float, default=0.5, help="W of the class-balance weights")
    losses.add_argument(
        "--weight_normalization",
        choices=("sum", "mean"),
        default="sum",
        help="class frequencies summed (released) or averaged (paper) over classes",
    )
    losses.add_argument("--mixup", action=argparse.BooleanOptionalAction, default=True, help="feature mixup")
    losses.add_argument("--mixup_alpha", type=float, default=1.7)
    losses.add_argument("--mixup_labels", choices=("soft", "hard", "ceiling"), default="soft")
    losses.add_argument("--segment_weight", type=float, default=1.0)
    losses.add_argument("--mixup_weight", type=float, default=1.0)
    losses.add_argument(
        "--guided_labels",
        choices=("none", "video", "cleaned"),
        default="none",
        help="what each modality's pooled probability learns: video labels (HAN), or find_exchange.py's (MA)",
    )
    losses.add_argument("--audio_smoothing", type=float, default=0.0, help="smoothing s of guided audio labels")
    losses.add_argument("--visual_smoothing", type=float, default=0.1, help="of visual ones: (1 - s)·y + s/2")
    losses.add_argument("--contrastive_weight", type=float, default=0.0, help="0: no contrastive loss (MA's is 1)")
    losses.add_argument("--contrastive_temperature", type=float, default=0.2)
    losses.add_argument("--contrastive_smoothing", type=float, default=0.1, help="label smoothing")

    add_recipe_arguments(
        parser,
        lr=1e-4,
        lr_min=5e-6,
        betas=(0.9, 0.999),
        weight_decay=1e-4,
        clip_norm=1.0,
        batch_size=64,
        seed=20000,
    )
    add_num_runs_argument(parser)
    add_device_arguments(parser)
    add_compile_argument(parser)
    add_run_arguments(parser)
    return parser


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Flags over the defaults of the method and the data set.

    Raises:
        InputError: as `parse_settings`; when the number of runs is impossible, several are to be compiled, or one of
            several is to be resumed without the others.
    """
    args = parse_settings(
        build_parser(),
        argv,
        lambda args: HAN_DEFAULTS[args.dataset] | METHOD_DEFAULTS[args.method],
        fixed=("method",),
        fixed_on_resume=("seed", "num_runs"),
    )
    seeds_of(args)
    if args.compile and args.num_runs > 1:
        raise InputError("--compile", f"--num_runs {args.num_runs}", "one run", "Leave out one of the two flags.")
    if args.resume and is_one_of_several(args.resume):
        found, expected = f"one of several runs ({args.resume})", "the folder of all runs that were trained together"
        raise InputError("--resume", found, expected, "Name the folder above it.")
    return args


def variant(args: argparse.Namespace) -> str:
    """Name of the method that the flags make, for the run folder."""
    if args.method != "uwav":
        return args.method
    if args.segment_labels == "none":
        return "video"
    return args.segment_labels + "_reweight" * args.reweight + "_mixup" * args.mixup


def find_label_folders(args: argparse.Namespace) -> None:
    """Fill in the newest folders of the labels that the flags ask for, and None for those that they do not."""
    if args.segment_labels == "none":
        args.pseudo_label_dir = None
    elif args.pseudo_label_dir is None:
        teacher = "Framewise_" if args.method == "valor" else "TemporalTransformer_"
        way_out = "Run pseudo_label_generation.py first, or give --pseudo_label_dir."
        folder = f"{args.dataset}_Dataset"
        newest = newest_finished_run(args.output_dir, teacher, way_out, f"{folder}/{SUMMARY_FILE}")
        args.pseudo_label_dir = newest / folder
    if args.guided_labels != "cleaned":
        args.cleaned_label_dir = None
    elif args.cleaned_label_dir is None:
        way_out = "Run find_exchange.py first, or give --cleaned_label_dir."
        folder = f"{args.dataset}_Exchange"
        newest = newest_finished_run(args.output_dir, "HAN_", way_out, f"{folder}/{SUMMARY_FILE}")
        args.cleaned_label_dir = newest / folder


def guided_objective(args: argparse.Namespace, train: SplitBatches) -> GuidedObjective:
    """Losses on each modality's pooled probability, with the labels that the flags ask for."""
    audio = visual = train.annotations.video_labels  # (N, C)
    if args.guided_labels == "cleaned":
        cleaned = load_cleaned_labels(args.cleaned_label_dir, train.annotations)
        audio, visual = cleaned.audio_labels, cleaned.visual_labels
    return GuidedObjective(
        audio_targets=smooth_labels(audio.to(train.device, torch.float32), args.audio_smoothing),
        visual_targets=smooth_labels(visual.to(train.device, torch.float32), args.visual_smoothing),
    )


def per_modality(split: SplitBatches, of_modality) -> dict[str, Tensor]:
    return {m: of_modality(m).to(split.device, torch.float32) for m in ("audio", "visual")}


def make_networks(args: argparse.Namespace, train: SplitBatches) -> SingleNetwork | StackedNetworks:
    """HAN for the split's features and classes, on its device, with random weights: one, or one a seed."""

    def make() -> HAN:
        return HAN(
            num_classes=len(train.annotations.classes),
            audio_dim=train.audio_width,
            visual_dim=train.visual_width,
            dim=args.dim,
            num_heads=args.num_heads,
            ffn_dim=args.ffn_dim,
            num_layers=args.num_layers,
            num_proj_layers=args.num_proj_layers,
            num_mmil_layers=args.num_mmil_layers,
            dropout=args.dropout,
            pre_norm=args.pre_norm,
            encoder_order=args.encoder_order,
            num_audio_proj_layers=args.num_audio_proj_layers,
            visual_dims=train.visual_widths if args.visual_fusion == "projected" else None,
        ).to(train.device)

    seed = seeds_of(args)
    if isinstance(seed, int):
        torch.manual_seed(seed)
        return SingleNetwork(make(), seed, train.device)
    return StackedNetworks(make, seed, train.device)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    device = select_device(args.device, args.deterministic)
    precision = Precision(args.precision, device)
    find_label_folders(args)

    train = open_split_of(args, args.dataset, "train", device, args.pseudo_label_dir)
    val = open_split_of(args, args.dataset, "val", device)
    truth = true_events(val.annotations, device)
    objective = HANObjective(
        segment_labels=args.segment_labels,
        temperature=args.temperature,
        reweight=args.reweight,
        positive_weight=args.positive_weight,
        weight_normalization=args.weight_normalization,
        mixup=args.mixup,
        mixup_alpha=args.mixup_alpha,
        mixup_labels=args.mixup_labels,
        segment_weight=args.segment_weight,
        mixup_weight=args.mixup_weight,
        thresholds=None if train.pseudo is None else per_modality(train, train.pseudo.thresholds),
        class_frequencies=None if train.pseudo is None else per_modality(train, train.pseudo.class_frequencies),
    )

    guided = None if args.guided_labels == "none" else guided_objective(args, train)
    contrastive = None
    if args.contrastive_weight:
        contrastive = ContrastiveObjective(
            args.contrastive_weight, args.contrastive_temperature, args.contrastive_smoothing
        )

    networks = make_networks(args, train)
    run_dir = args.resume or create_run_dir(args.output_dir, f"HAN_{variant(args)}_{args.dataset}")
    folders = folders_of_runs(run_dir, networks.seed)
    log = open_log(run_dir)
    log.info(f"{run_dir}: {train.num_videos} training videos, {val.num_videos} validation videos, {device}")

    compiled = compile_network(networks.network, device) if args.compile else None

    def step_losses(network, batch):
        output = precision.run(network if compiled is None else compiled, batch.audio, batch.visual)
        parts = [objective.losses(output, batch, network.fc_prob)]
        if guided is not None:
            parts.append(guided.losses(output, batch))
        if contrastive is not None:
            parts.append(contrastive.losses(output))
        return add_objectives(parts)

    decode = decoder(args.dataset, args.decoding)

    def validate(network) -> dict[str, float]:
        prediction = predict_events(network, val, args.eval_batch_size, precision, decode)
        return score_events(args.dataset, prediction, truth)

    def write_settings() -> None:
        write_args(run_dir, args)
        if args.num_runs > 1:  # each can be evaluated, and repeated alone
            for folder, seed in zip(folders, networks.seed, strict=True):
                write_args(folder, argparse.Namespace(**vars(args) | {"num_runs": 1, "seed": seed}))

    best_metric = BEST_METRIC[args.dataset]
    runs = fit(
        networks,
        train,
        step_losses,
        validate,
        recipe_of(args),
        best_metric,
        run_dir,
        log,
        resume=args.resume is not None,
        on_start=write_settings,
    )
    summaries = [{"best_epoch": run.best_epoch, best_metric: run.best_score} for run in runs]
    for folder, summary in zip(folders, summaries, strict=True):
        finish_run(folder, summary)
        log.info(
            f"best {best_metric} {summary[best_metric]:.2f} in epoch {summary['best_epoch']}: "
            f"{folder / BEST_CHECKPOINT}"
        )
    if len(runs) > 1:
        finish_run(run_dir, {folder.name: summary for folder, summary in zip(folders, summaries, strict=True)})


if __name__ == "__main__":
    run_entry_point(main)
