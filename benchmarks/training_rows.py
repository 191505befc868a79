"""Training steps of stages 1 and 3 and of their naive counterparts, data included, and epochs scaled from them."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

import train_han
import train_transformer
from benchmarks.effort import LLP_VIDEOS, PARAMETER_PASSES, UNAV_TRAIN_VIDEOS, Setup, count_operations
from benchmarks.harness import NAIVE, Measurement, Seconds, Way, compare, start_clock, timed
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import Batch, SplitBatches, open_batches, open_texts
from dataloaders.datasets import load_annotations
from dataloaders.pseudo_labels import export_npy, save_pseudo_labels
from models import HAN, TemporalTransformer
from tests.naive import naive_stages
from tests.naive.made_up_data import random_pseudo_labels
from tests.naive.naive_networks import naive_twin
from utils.audio_visual import AudioVisual
from utils.method.losses import Losses, Moment, audio_visual_loss
from utils.method.uwav_objective import make_step
from utils.training.device import Precision, compile_network
from utils.training.loop import Recipe, Saving, fit

CPU = torch.device("cpu")
STAGE_1 = train_transformer.Settings()
STAGE_3 = train_han.Settings()
PREFETCHED = 6  # batches that two workers hold ready or are reading, offered beyond those that are used
LONGEST_UNAV = 60  # segments
COUNTED_VIDEOS = 8  # whose step's operations are counted
GOALS = {"float32": "2x", "bf16": "5x"}
BatchLosses = Callable[[Batch], Losses]


def han_epoch(setup: Setup) -> list[Measurement]:
    """Stage 3: float32 and bf16 beside the naive float32."""
    effort, data_dir, pseudo_dir = setup.effort, setup.folder / "LLP", setup.folder / "pseudo_labels"
    annotations = load_annotations("LLP", data_dir, "train")
    offered = repeated(annotations, (effort.han_steps + 1 + PREFETCHED) * effort.batch_size)
    save_pseudo_labels(random_pseudo_labels(annotations), pseudo_dir / "train.safetensors")
    export_npy(random_pseudo_labels(offered), pseudo_dir / "npy", {name: name for name in offered.sample_ids})
    settings = replace(STAGE_3.data, data_dir=data_dir)
    split = open_batches(annotations, settings, CPU, pseudo_dir)
    files = naive_stages.VideoFiles(offered, settings, pseudo_label_dir=pseudo_dir / "npy")
    network = HAN(len(annotations.classes), split.widths.audio, split.feature_widths.visual, effort.han)
    losses, size = partial(han_losses, split=split), (effort.han_steps, effort.batch_size)
    what = f"HAN epoch of {LLP_VIDEOS['train']:,} videos"
    return epoch_rows(setup, what, LLP_VIDEOS["train"], network, losses, split, files, STAGE_3.recipe, size)


def transformer_epoch(setup: Setup) -> list[Measurement]:
    """Stage 1 on videos whose lengths are spread as in the whole split: float32 and bf16 beside the naive float32."""
    effort, data_dir = setup.effort, setup.folder / "UnAV"
    size = (effort.transformer_steps, effort.transformer_batch)
    annotations = load_annotations("UnAV", data_dir, "train")
    spread = torch.linspace(0, annotations.num_videos - 1, size[0] * size[1]).long()
    chosen = annotations.lengths.argsort()[spread]
    annotations = annotations.subset(chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))])
    offered = repeated(annotations, (size[0] + 1 + PREFETCHED) * size[1])
    settings = replace(STAGE_1.data, data_dir=data_dir)
    split, texts = open_batches(annotations, settings, CPU), open_texts("UnAV", settings, CPU)
    files = naive_stages.VideoFiles(offered, settings, num_segments=LONGEST_UNAV)
    network = TemporalTransformer(*split.widths, texts.audio.shape[1], texts.visual.shape[1], effort.transformer)
    losses = partial(transformer_losses, texts=texts)
    seconds = annotations.lengths.double().mean()
    what = f"temporal transformer epoch of {UNAV_TRAIN_VIDEOS:,} videos of {seconds:.0f} s"
    return epoch_rows(setup, what, UNAV_TRAIN_VIDEOS, network, losses, split, files, STAGE_1.recipe, size)


def epoch_rows(
    setup: Setup,
    what: str,
    num_videos: int,
    network: HAN | TemporalTransformer,
    losses_of: Callable[..., BatchLosses],
    split: SplitBatches,
    files: naive_stages.VideoFiles,
    recipe: Recipe,
    size: tuple[int, int],
) -> list[Measurement]:
    """Some steps of both networks, scaled to an epoch.

    Args:
        num_videos: of the epoch.
        losses_of: makes the losses of a network, from the network, its precision, and whether it is compiled.
        size: number of steps that are measured, and videos of a batch.
    """
    slow, amount = naive_twin(network), size[0] * size[1]
    few = next(split.in_order(COUNTED_VIDEOS))
    operations = count_operations(lambda: losses_of(network, "float32")(few)["total"].backward())
    lengths = split.annotations.lengths.double()
    operations *= num_videos * float(lengths.mean() / lengths[few.videos].sum())
    num_bytes = PARAMETER_PASSES * sum(4 * p.numel() for p in network.parameters()) * num_videos / size[1]
    ways = {NAIVE: Way(partial(seconds_of_naive_steps, slow, losses_of(slow, "float32"), files, recipe, *size), amount)}
    for compiled in (False, True)[: 1 + setup.effort.compiled]:
        for precision, goal in GOALS.items():
            losses = losses_of(network, precision, compiled=compiled)
            run = partial(seconds_of_steps, network, losses, split, recipe, *size)
            floor = setup.machine.floor(precision, operations, num_bytes)
            ways[f"{precision}, compiled" if compiled else precision] = Way(run, amount, goal, floor)
    return compare(what, ways, setup.effort.rounds, num_videos, f"videos in batches of {size[1]}", warm_up=0)


def repeated(annotations: SplitAnnotations, num_videos: int) -> SplitAnnotations:
    """The videos of a split again and again, as many as are wanted."""
    return annotations.subset(torch.arange(num_videos) % annotations.num_videos)


def han_losses(network: nn.Module, precision: str, split: SplitBatches, compiled: bool = False) -> BatchLosses:
    """The losses of stage 3 for HAN or its naive counterpart, with what the pseudo-labels of a split give."""
    how, forward = Precision(precision, split.device), compile_network(network, split.device) if compiled else network
    step = make_step(STAGE_3.losses, split, lambda _, *inputs: how.run(forward, *inputs))
    return lambda batch: step(network, batch, Moment())


def transformer_losses(
    network: nn.Module, precision: str, texts: AudioVisual[Tensor], compiled: bool = False
) -> BatchLosses:
    """The losses of stage 1 for the temporal transformer or its naive counterpart."""
    how, forward = Precision(precision, CPU), compile_network(network, CPU) if compiled else network

    def losses(batch: Batch) -> Losses:
        output = how.run(forward, *batch.features, *texts, batch.mask, batch.valid_rows)
        occurring_weight = STAGE_1.losses.occurring_weight
        return {"total": audio_visual_loss(output.logits, batch.labels.audio, batch.mask, occurring_weight)}

    return losses


class FirstSteps:
    """The first steps of every epoch of a split, for `fit`, and how long those of the last epoch took."""

    def __init__(self, split: SplitBatches, num_steps: int, batch_size: int):
        self.split = split
        self.device = split.device
        self.num_steps = num_steps
        self.num_videos = min(num_steps * batch_size, split.num_videos)
        self.seconds = Seconds(0, 0)

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        read_clock = start_clock()
        yield from islice(self.split.shuffled(batch_size, seed, epoch), self.num_steps)
        self.seconds = read_clock()  # the loop asks for more batches after the last step


def seconds_of_steps(
    network: nn.Module, losses: BatchLosses, split: SplitBatches, recipe: Recipe, num_steps: int, batch_size: int
) -> Seconds:
    """Time of some steps of the training loop, data included, after as many to warm up."""
    steps = FirstSteps(split, num_steps, batch_size)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            network,
            steps,
            lambda network, batch, moment: losses(batch),
            lambda: {"none": float("nan")},  # no validation, and so no best checkpoint
            replace(recipe, num_epochs=2, batch_size=batch_size),
            "none",
            Path(folder),
            logging.getLogger("benchmark"),
            Saving(save_every=2),
        )
    return steps.seconds


def seconds_of_naive_steps(
    network: nn.Module,
    losses: BatchLosses,
    files: naive_stages.VideoFiles,
    recipe: Recipe,
    num_steps: int,
    batch_size: int,
) -> Seconds:
    """Time of some naive steps, after one to warm up; the workers read ahead all the while, as within an epoch."""
    with closing(naive_stages.train(network, losses, files, recipe, batch_size)) as steps:
        next(steps)
        return timed(lambda: list(islice(steps, num_steps)))
