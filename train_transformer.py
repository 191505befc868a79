"""Stage 1: pre-train the temporal transformer on UnAV-100 (paper section 3.2)."""

import argparse

import torch

from dataloaders.batches import SplitBatches, open_events
from models import TemporalTransformer
from utils.arguments import (
    add_compile_argument,
    add_data_arguments,
    add_device_arguments,
    add_recipe_arguments,
    add_run_arguments,
    data_dir_of,
    open_split_of,
    recipe_of,
)
from utils.device import Precision, compile_network, select_device
from utils.inference import pad_rows, temporal_transformer_logits
from utils.metrics import segment_counts, video_f_scores
from utils.networks import SingleNetwork
from utils.objectives import temporal_transformer_losses
from utils.runs import create_run_dir, finish_run, open_log, parse_settings, run_entry_point, write_args
from utils.training import BEST_CHECKPOINT, fit

DATASET = "UnAV"
BEST_METRIC = "segment_AV"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_arguments(parser, audio_features=["clap"], visual_features=["clip"])
    model = parser.add_argument_group("model")
    model.add_argument("--dim", type=int, default=1024)
    model.add_argument("--num_heads", type=int, default=16)
    model.add_argument("--ffn_dim", type=int, default=2048)
    model.add_argument("--num_layers", type=int, default=5)
    model.add_argument("--dropout", type=float, default=0.3)
    model.add_argument("--audio_logit_scale", type=float, default=3.2912)
    model.add_argument("--visual_logit_scale", type=float, default=4.6052)
    # The paper clips at 1.0 and does not give the betas; these are the released code's.
    add_recipe_arguments(
        parser,
        lr=1e-4,
        lr_min=1e-5,
        betas=(0.5, 0.999),
        weight_decay=1e-3,
        clip_norm=2.0,
        batch_size=64,
        seed=1000,
    )
    parser.add_argument(
        "--occurring_weight",
        type=float,
        default=5.0,
        help="loss weight of every segment of a class that occurs in the video (the paper does not mention it; 1: off)",
    )
    add_device_arguments(parser, eval_batch_size=128)  # of videos of up to a minute
    add_compile_argument(parser)
    add_run_arguments(parser)
    return parser


@torch.inference_mode()
def validate(model, split: SplitBatches, events, batch_size: int, precision: Precision) -> dict[str, float]:
    """Segment-level F-score of p_av > 0.5 against the audio-visual labels, averaged over videos, in percent."""
    logits = temporal_transformer_logits(model, split, events, batch_size, precision)
    prediction = torch.sigmoid(logits.audio) * torch.sigmoid(logits.visual) > 0.5  # (N, T, C)
    truth = pad_rows(split.annotations.audio_labels, split.annotations.lengths).to(prediction.device)
    return {BEST_METRIC: 100 * video_f_scores(segment_counts(prediction, truth)).mean().item()}


def main(argv: list[str] | None = None) -> None:
    args = parse_settings(build_parser(), argv, fixed_on_resume=("seed",))
    device = select_device(args.device, args.deterministic)
    precision = Precision(args.precision, device)
    torch.manual_seed(args.seed)
    train, val = (open_split_of(args, DATASET, name, device) for name in ("train", "val"))
    num_classes = len(train.annotations.classes)
    events = open_events(data_dir_of(args, DATASET), args.audio_features, args.visual_features, num_classes, device)
    model = TemporalTransformer(
        audio_dim=train.audio_width,
        visual_dim=train.visual_width,
        audio_text_dim=events[0].shape[1],
        visual_text_dim=events[1].shape[1],
        dim=args.dim,
        num_heads=args.num_heads,
        ffn_dim=args.ffn_dim,
        num_layers=args.num_layers,
        dropout=args.dropout,
        audio_logit_scale=args.audio_logit_scale,
        visual_logit_scale=args.visual_logit_scale,
    ).to(device)

    run_dir = args.resume or create_run_dir(args.output_dir, f"TemporalTransformer_{DATASET}")
    log = open_log(run_dir)
    log.info(f"{run_dir}: {train.num_videos} training videos, {val.num_videos} validation videos, {device}")

    compiled = compile_network(model, device) if args.compile else None

    def step_losses(network, batch):
        output = precision.run(
            network if compiled is None else compiled, batch.audio, batch.visual, *events, batch.mask, batch.valid_rows
        )
        return temporal_transformer_losses(output, batch, args.occurring_weight)

    (progress,) = fit(
        SingleNetwork(model, args.seed, device),
        train,
        step_losses,
        lambda network: validate(network, val, events, args.eval_batch_size, precision),
        recipe_of(args),
        BEST_METRIC,
        run_dir,
        log,
        resume=args.resume is not None,
        on_start=lambda: write_args(run_dir, args),
    )
    finish_run(run_dir, {"best_epoch": progress.best_epoch, BEST_METRIC: progress.best_score})
    log.info(
        f"best {BEST_METRIC} {progress.best_score:.2f} in epoch {progress.best_epoch}: {run_dir / BEST_CHECKPOINT}"
    )


if __name__ == "__main__":
    run_entry_point(main)
