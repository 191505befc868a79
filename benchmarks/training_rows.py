"""One epoch of stage 1 and of stage 3 at the networks' size, data included."""

import statistics
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import naive
from benchmarks.floor import PARAMETER_PASSES, han_operations, parameter_bytes, temporal_transformer_operations
from benchmarks.measure import (
    CPU,
    LLP_VIDEOS,
    UNAV_TRAIN_VIDEOS,
    Effort,
    Measurement,
    Setup,
    in_turn,
    timed,
)
from benchmarks.naive_networks import NaiveHAN, NaiveTemporalTransformer
from benchmarks.stages import STAGE_1, STAGE_3, seconds_of_han_steps, seconds_of_transformer_steps
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import Batch, open_batches, open_texts
from dataloaders.datasets import load_annotations
from dataloaders.pseudo_labels import NPY_LABELS, NPY_LOGITS, PseudoLabels, save_pseudo_labels
from models import HAN, TemporalTransformer
from train_han import make_objective
from utils.audio_visual import AudioVisual
from utils.method.objectives import Losses, temporal_transformer_losses
from utils.training.loop import Recipe

PREFETCHED = 6  # batches that two workers hold ready or are reading, offered beyond those that are used
LONGEST_UNAV = 60  # segments
GOALS = {"float32": "2x", "bf16": "5x"}


def han_epoch(setup: Setup) -> list[Measurement]:
    """Stage 3: float32 and bf16 beside the naive float32."""
    effort, data_dir, pseudo_dir = setup.effort, setup.folder / "LLP", setup.folder / "pseudo_labels"
    steps, batch_size = effort.han_steps, effort.batch_size
    annotations = load_annotations("LLP", data_dir, "train")
    offered = annotations.subset(torch.arange((steps + 1 + PREFETCHED) * batch_size) % annotations.num_videos)
    write_random_pseudo_labels(pseudo_dir, annotations, set(offered.sample_ids))
    settings = replace(STAGE_3.data, data_dir=data_dir)
    split = open_batches(annotations, settings, CPU, pseudo_dir)
    objective = make_objective(STAGE_3.losses, split)
    sizes = (len(annotations.classes), split.widths.audio, split.feature_widths.visual, effort.han)
    model, slow = HAN(*sizes), NaiveHAN(*sizes)
    slow.load_state_dict(model.state_dict())
    files = naive.VideoFiles(offered, settings, pseudo_label_dir=pseudo_dir)

    def naive_losses(batch: Batch) -> Losses:
        return objective(slow(*batch.features), batch, slow.fc_prob)

    seconds = in_turn(
        {
            "naive": lambda: seconds_of_naive_steps(slow, STAGE_3.recipe, naive_losses, files, steps, batch_size),
            **{
                name: partial(seconds_of_han_steps, model, split, precision, steps, batch_size, compiled)
                for name, precision, compiled in variants(effort)
            },
        },
        effort.rounds,
    )
    operations = han_operations(int(annotations.lengths[0]), True, *sizes)
    return epoch_rows(
        setup, "HAN epoch", LLP_VIDEOS["train"], seconds, steps * batch_size, batch_size, operations, model
    )


def transformer_epoch(setup: Setup) -> list[Measurement]:
    """Stage 1 on videos whose lengths are spread as in the whole split: float32 and bf16 beside the naive float32."""
    effort, data_dir = setup.effort, setup.folder / "UnAV"
    steps, batch_size = effort.transformer_steps, effort.transformer_batch
    annotations = load_annotations("UnAV", data_dir, "train")
    spread = torch.linspace(0, annotations.num_videos - 1, steps * batch_size).long()
    chosen = annotations.lengths.argsort()[spread]
    annotations = annotations.subset(chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))])
    settings = replace(STAGE_1.data, data_dir=data_dir)
    split, texts = open_batches(annotations, settings, CPU), open_texts("UnAV", settings, CPU)
    sizes = (*split.widths, *texts.map(lambda x: x.shape[1]), effort.transformer)
    model, slow = TemporalTransformer(*sizes), NaiveTemporalTransformer(*sizes)
    slow.load_state_dict(model.state_dict())
    offered = annotations.subset(torch.arange((steps + 1 + PREFETCHED) * batch_size) % annotations.num_videos)
    files = naive.VideoFiles(offered, settings, num_segments=LONGEST_UNAV)

    def naive_losses(batch: Batch) -> Losses:
        return temporal_transformer_losses(slow(*batch.features, *texts, batch.mask), batch, STAGE_1.losses)

    seconds = in_turn(
        {
            "naive": lambda: seconds_of_naive_steps(slow, STAGE_1.recipe, naive_losses, files, steps, batch_size),
            **{
                name: partial(seconds_of_transformer_steps, model, split, texts, precision, steps, batch_size, compiled)
                for name, precision, compiled in variants(effort)
            },
        },
        effort.rounds,
    )
    lengths = annotations.lengths
    operations = temporal_transformer_operations(lengths, True, split.widths, texts, effort.transformer) / len(lengths)
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
    losses: Callable[[Batch], Losses],
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
        naive.train_step(optimizer, losses, next(batches), recipe.clip_norm)

        def steps() -> None:
            for _ in range(num_steps):
                naive.train_step(optimizer, losses, next(batches), recipe.clip_norm)

        return timed(steps)


def write_random_pseudo_labels(folder: Path, annotations: SplitAnnotations, as_files: set[str]) -> None:
    """Pseudo-labels of a split as a packed file, and of some of its videos (sample ids) also one `.npy` a video."""
    generator = torch.Generator().manual_seed(0)
    num_rows, num_classes = int(annotations.lengths.sum()), len(annotations.classes)
    logits = AudioVisual(*(torch.randn(num_rows, num_classes, generator=generator) for _ in range(2)))
    in_video = annotations.video_labels.repeat_interleave(annotations.lengths, dim=0)
    labels = logits.map(lambda of_modality: (of_modality > 0) & in_video)
    thresholds = torch.zeros(num_classes, dtype=torch.float64)
    identity = (annotations.dataset, annotations.classes, annotations.sample_ids, annotations.lengths)
    pseudo = PseudoLabels(*identity, logits, labels, AudioVisual(thresholds, thresholds.clone()))
    save_pseudo_labels(pseudo, folder / f"{annotations.split}.safetensors")
    offsets = annotations.offsets.tolist()
    of_files = [n for n, sample_id in enumerate(annotations.sample_ids) if sample_id in as_files]

    def write_videos(subfolder: str, rows: Tensor) -> None:
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
        for n in of_files:
            values = rows[offsets[n] : offsets[n + 1]].float().numpy()
            np.save(folder / subfolder / f"{annotations.sample_ids[n]}.npy", values)

    NPY_LOGITS.map(write_videos, logits)
    NPY_LABELS.map(write_videos, labels)
