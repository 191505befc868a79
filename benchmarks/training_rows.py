"""One epoch of stage 1 and of stage 3 at the networks' size, data included."""

import statistics
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import naive
from benchmarks.floor import PARAMETER_PASSES, han_operations, parameter_bytes, temporal_transformer_operations
from benchmarks.measure import (
    CPU,
    HAN_AUDIO,
    HAN_VISUAL,
    LLP_VIDEOS,
    TEACHER_AUDIO,
    TEACHER_VISUAL,
    UNAV_TRAIN_VIDEOS,
    Effort,
    Measurement,
    Setup,
    in_turn,
    timed,
)
from benchmarks.naive_networks import NaiveHAN, NaiveTemporalTransformer
from benchmarks.stages import (
    HAN_RECIPE,
    SEED,
    TRANSFORMER_RECIPE,
    han_objective,
    seconds_of_han_steps,
    seconds_of_transformer_steps,
)
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import open_events, open_split
from dataloaders.datasets import load_annotations
from dataloaders.pseudo_labels import NPY_LABELS, NPY_LOGITS, PseudoLabels, save_pseudo_labels
from models import HAN, TemporalTransformer
from utils.networks import SingleNetwork, StackedNetworks
from utils.objectives import temporal_transformer_losses
from utils.training import Recipe

PREFETCHED = 6  # batches that two workers hold ready or are reading: so many more are offered than are used
LONGEST_UNAV = 60  # segments
NUM_RUNS = 5
GOALS = {"float32": "2x", "bf16": "5x"}


def han_epoch(setup: Setup) -> list[Measurement]:
    """Stage 3: float32 and bf16 beside the naive float32."""
    effort, data_dir, pseudo_dir = setup.effort, setup.folder / "LLP", setup.folder / "pseudo_labels"
    steps, batch_size = effort.han_steps, effort.batch_size
    annotations = load_annotations("LLP", data_dir, "train")
    offered = annotations.subset(torch.arange((steps + 1 + PREFETCHED) * batch_size) % annotations.num_videos)
    write_random_pseudo_labels(pseudo_dir, annotations, set(offered.sample_ids))
    split = open_split(annotations, HAN_AUDIO, HAN_VISUAL, data_dir, None, False, CPU, "auto", pseudo_dir)
    objective = han_objective(split)
    dims = {"num_classes": len(annotations.classes), "audio_dim": split.audio_width, "visual_dim": split.visual_width}
    dims |= effort.han
    model, slow = HAN(**dims), NaiveHAN(**dims)
    slow.load_state_dict(model.state_dict())
    single = SingleNetwork(model, SEED, CPU)
    files = naive.VideoFiles(offered, data_dir, HAN_AUDIO, HAN_VISUAL, pseudo_dir=pseudo_dir)

    def naive_losses(batch: naive.NaiveBatch) -> dict[str, Tensor]:
        return objective.losses(slow(batch.audio, batch.visual), batch, slow.fc_prob)

    seconds = in_turn(
        {
            "naive": lambda: seconds_of_naive_steps(slow, HAN_RECIPE, naive_losses, files, steps, batch_size),
            **{
                name: partial(seconds_of_han_steps, single, split, precision, steps, batch_size, compiled)
                for name, precision, compiled in variants(effort)
            },
        },
        effort.rounds,
    )
    operations = han_operations(int(annotations.lengths[0]), True, **dims)
    return epoch_rows(
        setup, "HAN epoch", LLP_VIDEOS["train"], seconds, steps * batch_size, batch_size, operations, model
    )


def several_runs(setup: Setup) -> list[Measurement]:
    """Stage 3 of several seeds trained together; "naive" stands for training them one after the other, as ours does."""
    effort, data_dir, pseudo_dir = setup.effort, setup.folder / "LLP", setup.folder / "pseudo_labels"
    steps, batch_size = effort.several_steps, effort.batch_size
    annotations = load_annotations("LLP", data_dir, "train")
    write_random_pseudo_labels(pseudo_dir, annotations, set())
    split = open_split(annotations, HAN_AUDIO, HAN_VISUAL, data_dir, None, False, CPU, "auto", pseudo_dir)
    dims = {"num_classes": len(annotations.classes), "audio_dim": split.audio_width, "visual_dim": split.visual_width}
    dims |= effort.han
    one = SingleNetwork(HAN(**dims), SEED, CPU)
    together = StackedNetworks(partial(HAN, **dims), range(SEED, SEED + NUM_RUNS), CPU)
    ways = {"one": one, "together": together}
    scale = LLP_VIDEOS["train"] / (steps * batch_size)
    rows = []
    for precision in GOALS:
        seconds = in_turn(
            {
                name: partial(seconds_of_han_steps, networks, split, precision, steps, batch_size)
                for name, networks in ways.items()
            },
            effort.rounds,
        )
        rows.append(
            Measurement(
                f"HAN epoch, {NUM_RUNS} seeds together beside one after the other, {precision}",
                scale * NUM_RUNS * statistics.median(seconds["one"]),
                scale * statistics.median(seconds["together"]),
                "",
                sample=f"{steps * batch_size} videos in batches of {batch_size}, {effort.rounds} rounds, scaled",
                rounds=seconds,
            )
        )
    return rows


def transformer_epoch(setup: Setup) -> list[Measurement]:
    """Stage 1 on videos whose lengths are spread as in the whole split: float32 and bf16 beside the naive float32."""
    effort, data_dir = setup.effort, setup.folder / "UnAV"
    steps, batch_size = effort.transformer_steps, effort.transformer_batch
    annotations = load_annotations("UnAV", data_dir, "train")
    spread = torch.linspace(0, annotations.num_videos - 1, steps * batch_size).long()
    chosen = annotations.lengths.argsort()[spread]
    annotations = annotations.subset(chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))])
    split = open_split(annotations, TEACHER_AUDIO, TEACHER_VISUAL, data_dir, None, False, CPU, "auto")
    num_classes = len(annotations.classes)
    events = open_events(data_dir, TEACHER_AUDIO, TEACHER_VISUAL, num_classes, CPU)
    model, slow = TemporalTransformer(**effort.transformer), NaiveTemporalTransformer(**effort.transformer)
    slow.load_state_dict(model.state_dict())
    offered = annotations.subset(torch.arange((steps + 1 + PREFETCHED) * batch_size) % annotations.num_videos)
    files = naive.VideoFiles(offered, data_dir, TEACHER_AUDIO, TEACHER_VISUAL, num_segments=LONGEST_UNAV)

    def naive_losses(batch: naive.NaiveBatch) -> dict[str, Tensor]:
        return temporal_transformer_losses(slow(batch.audio, batch.visual, *events, batch.mask), batch)

    seconds = in_turn(
        {
            "naive": lambda: seconds_of_naive_steps(slow, TRANSFORMER_RECIPE, naive_losses, files, steps, batch_size),
            **{
                name: partial(
                    seconds_of_transformer_steps, model, split, events, precision, steps, batch_size, compiled
                )
                for name, precision, compiled in variants(effort)
            },
        },
        effort.rounds,
    )
    lengths = annotations.lengths
    operations = temporal_transformer_operations(lengths, True, num_classes, **effort.transformer) / len(lengths)
    detail = f" of {lengths.double().mean():.1f} s on average"
    return epoch_rows(
        setup,
        "temporal transformer epoch",
        UNAV_TRAIN_VIDEOS,
        seconds,
        steps * batch_size,
        batch_size,
        operations,
        model,
        detail,
    )


def variants(effort: Effort) -> list[tuple[str, str, bool]]:
    """Ways to train: name, precision, compiled."""
    plain = [(precision, precision, False) for precision in GOALS]
    return plain + [(f"{precision}, compiled", precision, True) for precision in GOALS if effort.compiled]


def epoch_rows(
    setup: Setup,
    what: str,
    num_videos: int,
    seconds: dict[str, list[float]],
    num_measured: int,
    batch_size: int,
    operations: float,
    model: nn.Module,
    detail: str = "",
) -> list[Measurement]:
    """Rows from the seconds of some steps, scaled to an epoch. `operations` are those of one video."""
    scale = num_videos / num_measured
    num_bytes = PARAMETER_PASSES * parameter_bytes(model) * num_videos / batch_size
    return [
        Measurement(
            f"{what}, {name}",
            scale * statistics.median(seconds["naive"]),
            scale * statistics.median(seconds[name]),
            GOALS[precision],
            setup.machine.floor_seconds(precision, operations * num_videos, num_bytes),
            f"{num_measured} videos{detail} in batches of {batch_size}, {len(seconds['naive'])} rounds, scaled",
            {way: seconds[way] for way in ("naive", name)},
        )
        for name, precision, _ in variants(setup.effort)
    ]


def seconds_of_naive_steps(
    model: nn.Module,
    recipe: Recipe,
    losses: Callable[[naive.NaiveBatch], dict[str, Tensor]],
    files: naive.VideoFiles,
    num_steps: int,
    batch_size: int,
) -> float:
    """Seconds of some naive steps, after one to warm up; the workers read ahead all the while, as within an epoch."""
    model.train()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=recipe.learning_rate(1),
        betas=recipe.betas,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
    )

    with closing(naive.batches(files, batch_size)) as batches:
        naive.train_step(model, optimizer, losses, next(batches), recipe.clip_norm)

        def steps() -> None:
            for _ in range(num_steps):
                naive.train_step(model, optimizer, losses, next(batches), recipe.clip_norm)

        return timed(steps)


def write_random_pseudo_labels(folder: Path, annotations: SplitAnnotations, as_files: set[str]) -> None:
    """Pseudo-labels of a split as a packed file, and of some of its videos (sample ids) also one `.npy` a video."""
    generator = torch.Generator().manual_seed(0)
    num_rows, num_classes = int(annotations.lengths.sum()), len(annotations.classes)
    logits = [torch.randn(num_rows, num_classes, generator=generator) for _ in range(2)]
    in_video = annotations.video_labels.repeat_interleave(annotations.lengths, dim=0)
    labels = [(stream > 0) & in_video for stream in logits]
    thresholds = torch.zeros(num_classes, dtype=torch.float64)
    identity = (annotations.dataset, annotations.classes, annotations.sample_ids, annotations.lengths)
    pseudo = PseudoLabels(*identity, *logits, *labels, thresholds, thresholds.clone())
    save_pseudo_labels(pseudo, folder / f"{annotations.split}.safetensors")
    offsets = annotations.offsets.tolist()
    for modality, of_logits, of_labels in zip(("audio", "visual"), logits, labels, strict=True):
        for subfolder, values in ((NPY_LOGITS[modality], of_logits), (NPY_LABELS[modality], of_labels.float())):
            (folder / subfolder).mkdir(parents=True, exist_ok=True)
            for n, sample_id in enumerate(annotations.sample_ids):
                if sample_id in as_files:
                    np.save(folder / subfolder / f"{sample_id}.npy", values[offsets[n] : offsets[n + 1]].numpy())
