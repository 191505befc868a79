"""Flags that several entry points share. Their defaults, the paper's constants, are set by each entry point."""

import argparse
from functools import partial
from pathlib import Path

import torch

from dataloaders.batches import SplitBatches, open_split
from dataloaders.datasets import DEFAULT_DATA_DIR, load_annotations
from dataloaders.features import FEATURES
from dataloaders.subsets import Subset
from models import HAN
from utils.checkpoints import load_network
from utils.device import PRECISIONS
from utils.errors import InputError
from utils.schedule import learning_rate, step_learning_rate
from utils.training import Recipe

# What a data set changes in the recipe of HAN, stages 3 and 4; the flags' own defaults are those of LLP.
HAN_DEFAULTS: dict[str, dict[str, object]] = {
    "LLP": {},
    "AVE": {
        "audio_features": ["clap"],
        "visual_features": ["clip", "r2plus1d_18"],
        "batch_size": 16,
        "mixup_labels": "ceiling",
    },
}


def add_data_arguments(parser: argparse.ArgumentParser, audio_features: list[str], visual_features: list[str]) -> None:
    """Where data lie and which features are used."""
    group = parser.add_argument_group("data")
    group.add_argument("--data_dir", type=Path, help="the data set's folder (default: data/<dataset>)")
    group.add_argument("--annotations_dir", type=Path, help="folder of the annotation files (default: data_dir)")
    group.add_argument("--packed_dir", type=Path, help="folder of the packed features (default: data_dir/packed)")
    group.add_argument("--audio_features", nargs="+", choices=FEATURES, default=audio_features)
    group.add_argument("--visual_features", nargs="+", choices=FEATURES, default=visual_features)
    group.add_argument(
        "--allow_missing",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="leave out videos without feature files instead of stopping",
    )
    group.add_argument(
        "--residency",
        choices=("auto", "resident", "stream"),
        default="auto",
        help="keep a split's features on the device, or stream them from disk; auto: keep them if they fit",
    )


def add_subset_arguments(parser: argparse.ArgumentParser) -> None:
    """Which part of the data set is used (Table A7)."""
    group = parser.add_argument_group("part of the data")
    group.add_argument(
        "--num_classes", type=int, help="the first so many classes and the videos that have one (default: all)"
    )
    group.add_argument("--train_fraction", type=float, default=1.0, help="share of the training videos")


def add_device_arguments(parser: argparse.ArgumentParser, eval_batch_size: int = 256) -> None:
    """Where and how precisely to compute. Ten-second videos are evaluated fastest in batches of 256 or more."""
    group = parser.add_argument_group("device")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or mps (default: the fastest there is)")
    group.add_argument(
        "--deterministic",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="the same result from the same seed on CUDA, too, more slowly; on the CPU it is so anyway",
    )
    group.add_argument("--precision", choices=PRECISIONS, default="float32")
    group.add_argument("--eval_batch_size", type=int, default=eval_batch_size)


def add_compile_argument(parser: argparse.ArgumentParser) -> None:
    """Whether training compiles its network."""
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="compile the network for training, with CUDA graphs on a GPU; takes a minute first, needs a C++ compiler",
    )


def add_recipe_arguments(
    parser: argparse.ArgumentParser,
    *,
    lr: float,
    lr_min: float,
    betas: tuple[float, float],
    weight_decay: float,
    clip_norm: float,
    batch_size: int,
    seed: int,
    num_epochs: int = 80,
    warmup_epochs: int = 10,
    eps: float = 1e-8,
) -> None:
    """Optimisation. The keyword arguments are the stage's defaults."""
    group = parser.add_argument_group("recipe")
    group.add_argument("--num_epochs", type=int, default=num_epochs)
    group.add_argument("--batch_size", type=int, default=batch_size)
    group.add_argument("--optimizer", choices=("adamw", "adam"), default="adamw")
    group.add_argument("--lr", type=float, default=lr)
    group.add_argument(
        "--schedule",
        choices=("cosine", "step"),
        default="cosine",
        help="cosine has a warm-up, step has none",
    )
    group.add_argument("--lr_min", type=float, default=lr_min, help="learning rate at the end of the cosine")
    group.add_argument("--warmup_epochs", type=int, default=warmup_epochs)
    group.add_argument("--lr_decay", type=float, default=0.1, help="factor of each step of the step schedule")
    group.add_argument("--lr_decay_every", type=int, default=10, help="epochs between steps of the step schedule")
    group.add_argument("--betas", type=float, nargs=2, default=list(betas), metavar=("BETA1", "BETA2"))
    group.add_argument("--eps", type=float, default=eps)
    group.add_argument("--weight_decay", type=float, default=weight_decay)
    group.add_argument("--clip_norm", type=float, default=clip_norm, help="largest gradient norm")
    group.add_argument("--seed", type=int, default=seed)


def add_num_runs_argument(parser: argparse.ArgumentParser) -> None:
    """How many seeds are trained together, or were."""
    parser.add_argument(
        "--num_runs",
        type=int,
        default=1,
        help="so many seeds from --seed on, trained together, each as it would train alone, in folders run_<seed>",
    )


def seeds_of(args: argparse.Namespace) -> int | tuple[int, ...]:
    """The seed of one run, or the seeds of several that are trained together.

    Raises:
        InputError: when there is no run.
    """
    if args.num_runs < 1:
        raise InputError("--num_runs", str(args.num_runs), "at least 1", "Leave it out to train one run.")
    return args.seed if args.num_runs == 1 else tuple(range(args.seed, args.seed + args.num_runs))


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Run folders and resuming."""
    group = parser.add_argument_group("run")
    group.add_argument("--output_dir", type=Path, default=Path("temp_train_logs"), help="folder of the run folders")
    group.add_argument("--checkpoint_every", type=int, default=20, help="epochs between checkpoints that are kept")
    group.add_argument("--save_every", type=int, default=1, help="epochs between states that --resume goes on from")
    group.add_argument("--resume", type=Path, metavar="RUN", help="run folder to continue, with its own settings")


def data_dir_of(args: argparse.Namespace, dataset: str) -> Path:
    """The data set's folder."""
    return args.data_dir or DEFAULT_DATA_DIR[dataset]


def open_split_of(
    args: argparse.Namespace, dataset: str, split: str, device: torch.device, pseudo_dir: Path | None = None
) -> SplitBatches:
    """A split as the data flags say; see `open_split`."""
    data_dir = data_dir_of(args, dataset)
    return open_split(
        load_annotations(dataset, args.annotations_dir or data_dir, split),
        args.audio_features,
        args.visual_features,
        data_dir,
        args.packed_dir,
        args.allow_missing,
        device,
        args.residency,
        pseudo_dir,
        Subset(getattr(args, "train_fraction", 1.0), getattr(args, "num_classes", None)),
    )


def load_han_of(args: argparse.Namespace, split: SplitBatches) -> HAN:
    """The HAN of `args.checkpoint`, on the split's device.

    Raises:
        InputError: when it does not fit the split's features and classes.
    """
    expected = {
        "audio_dim": split.audio_width,
        "visual_dim": split.visual_width,
        "num_classes": len(split.annotations.classes),
    }
    settings = {"num_heads": args.num_heads, "pre_norm": args.pre_norm, "encoder_order": args.encoder_order}
    return load_network(HAN, args.checkpoint, expected, **settings).to(split.device)


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe that the recipe flags say."""
    if args.schedule == "step":
        schedule = partial(step_learning_rate, lr=args.lr, decay=args.lr_decay, decay_every=args.lr_decay_every)
    else:
        schedule = partial(
            learning_rate, num_epochs=args.num_epochs, warmup_epochs=args.warmup_epochs, lr=args.lr, lr_min=args.lr_min
        )
    return Recipe(
        num_epochs=args.num_epochs,
        batch_size=args.batch_size,
        learning_rate=schedule,
        optimizer=args.optimizer,
        betas=tuple(args.betas),
        eps=args.eps,
        weight_decay=args.weight_decay,
        clip_norm=args.clip_norm,
        checkpoint_every=args.checkpoint_every,
        save_every=args.save_every,
    )
