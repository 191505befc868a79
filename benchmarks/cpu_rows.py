"""Rows of the CPU tables: training epochs (extrapolated from a few steps), evaluation, threshold search, pseudo-labels;
time and peak memory of stage 3 for more and for longer videos.
"""

import logging
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

import train_han
import train_transformer
from benchmarks.harness import NAIVE, WALL, Measurement, Way, clock, compare, count_operations, resident_bytes, timed
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import Batch, SplitBatches, open_batches, open_texts
from dataloaders.datasets import load_annotations
from dataloaders.pseudo_labels import export_npy, save_pseudo_labels
from models import TemporalTransformer
from simulation.generated_annotations import SIZES
from simulation.simulate import simulate
from tests.naive import naive_scores, naive_stages
from tests.naive.made_up_data import random_events, random_pseudo_labels, zero_split
from tests.naive.naive_networks import naive_twin
from utils.audio_visual import AudioVisual
from utils.evaluation.inference import hard_events, make_pseudo_labels, run_han, temporal_transformer_logits
from utils.evaluation.tasks import Events, find_task, true_events
from utils.method.losses import Losses, Moment, audio_visual_loss
from utils.method.thresholds import classwise_thresholds
from utils.method.uwav_objective import make_step
from utils.recipes import make_network
from utils.settings import with_settings
from utils.training.device import Precision
from utils.training.loop import Recipe, Saving, fit

CPU = torch.device("cpu")
STAGE_1, STAGE_3 = train_transformer.Settings(), train_han.Settings()
QUICK = {"llp_videos": {"train": 640, "val": 128, "test": 128}, "unav_videos": 64, "rounds": 1, "han_steps": 3}
QUICK |= {"stage_1": with_settings(STAGE_1, batch_size=32), "labelled": 256, "naive_videos": 30}
PREFETCHED = 6  # batches that two workers prefetch beyond those that are used
LONGEST_UNAV = 60  # segments
GOALS = {"float32": "2x", "bf16": "5x"}
NUM_VAL = SIZES["LLP"]["val"]
NUM_EVALUATED = NUM_VAL + SIZES["LLP"]["test"]
NUM_LABELLED = sum(SIZES["LLP"].values())
NUM_SEARCHED_CLASSES = 5  # classes (of 25) of the naive search
BatchLosses = Callable[[Batch], Losses]


@dataclass
class Setup:
    """Data, settings and effort of the measurements, which are extrapolated from a part of each job."""

    work_dir: Path
    annotations: Path | None  # folder with LLP/ and UnAV/; None: generated annotations
    rates: dict[str, float]  # operations per second of matrix products, by precision
    stage_1: train_transformer.Settings = STAGE_1
    stage_3: train_han.Settings = STAGE_3
    llp_videos: dict[str, int] | None = None  # number of simulated videos by split; None: all
    unav_videos: int = 512
    rounds: int = 3  # repetitions of which the median is reported
    han_steps: int = 6
    labelled: int = 1_024  # videos
    naive_videos: int = 100  # videos that the naive implementation evaluates and labels

    def __post_init__(self):
        """Simulate missing data."""
        self.folder = self.work_dir / ("generated" if self.annotations is None else "annotated")
        print(f"simulating missing data in {self.folder}", flush=True)
        llp = simulate("LLP", self.folder, self.annotations, self.llp_videos)
        unav = simulate("UnAV", self.folder, self.annotations, {"train": self.unav_videos, "val": 2, "test": 2})
        self.stage_1 = with_settings(self.stage_1, data_dir=unav)
        self.stage_3 = with_settings(self.stage_3, data_dir=llp)


def predicted_events(network: nn.Module, split: SplitBatches, precision: str) -> Events:
    """Return the events that stage 4 predicts for a split."""
    output = run_han(network, split, STAGE_3.device.eval_batch_size, Precision(precision, split.device))
    return find_task(split.annotations.dataset).decode(output, STAGE_3.decoding)


def han_epoch(setup: Setup) -> list[Measurement]:
    """Measure an epoch of stage 3 in float32 and bf16 against naive float32."""
    settings, pseudo_dir = setup.stage_3, setup.folder / "pseudo_labels"
    annotations = load_annotations("LLP", settings.data.data_dir, "train")
    offered = offered_to_workers(annotations, setup.han_steps, settings.recipe.batch_size)
    save_pseudo_labels(random_pseudo_labels(annotations), pseudo_dir / "train.safetensors")
    export_npy(random_pseudo_labels(offered), pseudo_dir / "npy", {name: name for name in offered.sample_ids})
    files = naive_stages.VideoFiles(offered, settings.data, pseudo_label_dir=pseudo_dir / "npy")
    split = open_batches(annotations, settings.data, CPU, pseudo_dir)
    network, losses = make_network(settings, split), partial(han_losses, split=split)
    return epoch_rows(setup, "HAN", network, losses, split, files, settings.recipe, setup.han_steps)


def transformer_epoch(setup: Setup) -> list[Measurement]:
    """Measure an epoch of stage 1 from one step on videos whose lengths are distributed as in the whole split."""
    settings, batch_size = setup.stage_1, setup.stage_1.recipe.batch_size
    annotations = load_annotations("UnAV", settings.data.data_dir, "train")
    spread = annotations.lengths.argsort()[torch.linspace(0, annotations.num_videos - 1, batch_size).long()]
    annotations = annotations.subset(spread[torch.randperm(batch_size, generator=torch.Generator().manual_seed(0))])
    files = naive_stages.VideoFiles(offered_to_workers(annotations, 1, batch_size), settings.data, LONGEST_UNAV)
    split, texts = open_batches(annotations, settings.data, CPU), open_texts("UnAV", settings.data, CPU)
    network = TemporalTransformer(*split.widths, *(text.shape[1] for text in texts), settings.model)
    losses = partial(transformer_losses, texts=texts)
    return epoch_rows(setup, "temporal transformer", network, losses, split, files, settings.recipe, 1)


def offered_to_workers(annotations: SplitAnnotations, num_steps: int, batch_size: int) -> SplitAnnotations:
    """Repeat a split's videos, so that workers read during all steps (the first one is not timed)."""
    return annotations.subset(torch.arange((num_steps + 1 + PREFETCHED) * batch_size) % annotations.num_videos)


def epoch_rows(
    setup: Setup,
    name: str,
    network: nn.Module,
    losses_of: Callable[..., BatchLosses],
    split: SplitBatches,
    files: naive_stages.VideoFiles,
    recipe: Recipe,
    num_steps: int,
) -> list[Measurement]:
    """Measure steps of a network and its naive counterpart with losses from `losses_of`, extrapolated to an epoch."""
    slow, amount = naive_twin(network), num_steps * recipe.batch_size
    num_videos = SIZES[split.annotations.dataset]["train"]
    batch = next(split.in_order(recipe.batch_size))
    operations = count_operations(lambda: losses_of(network, "float32")(batch)["total"].backward())
    operations *= num_videos / len(batch.videos)

    def run_naively() -> np.ndarray:  # after a warm-up step; workers keep prefetching, as in an epoch
        with closing(naive_stages.train(slow, losses_of(slow, "float32"), files, recipe, recipe.batch_size)) as steps:
            next(steps)
            return timed(lambda: list(islice(steps, num_steps)))

    ways = {NAIVE: Way(run_naively, amount)}
    for precision, goal in GOALS.items():
        run = partial(seconds_of_steps, network, losses_of(network, precision), split, recipe, num_steps)
        ways[precision] = Way(run, amount, goal, operations / setup.rates[precision])
    what = f"{name} epoch of {num_videos:,} videos of {split.annotations.lengths.double().mean():.0f} s"
    return compare(what, ways, setup.rounds, num_videos, f"videos in batches of {recipe.batch_size}", warm_up=0)


def han_losses(network: nn.Module, precision: str, split: SplitBatches) -> BatchLosses:
    """Return the loss function of stage 3 for HAN or its naive counterpart on a split with pseudo-labels."""
    how = Precision(precision, split.device)
    # LLP's videos have equal lengths, so naive batches need no masks.
    step = make_step(STAGE_3.losses, split, lambda network, *inputs, **masks: how.run(network, *inputs))
    return lambda batch: step(network, batch, Moment())


def transformer_losses(network: nn.Module, precision: str, texts: AudioVisual[Tensor]) -> BatchLosses:
    """Return the loss function of stage 1 for the temporal transformer or its naive counterpart."""
    how, weight = Precision(precision, CPU), STAGE_1.losses.occurring_weight

    def losses(batch: Batch) -> Losses:
        output = how.run(network, *batch.features, *texts, batch.mask, batch.valid_rows)
        return {"total": audio_visual_loss(output.logits, batch.labels.audio, batch.mask, weight)}

    return losses


def seconds_of_steps(
    network: nn.Module, losses: BatchLosses, split: SplitBatches, recipe: Recipe, num_steps: int
) -> np.ndarray:
    """Return the time (2,) of some steps of the training loop, data included, after as many warm-up steps."""
    epochs, scores = [], {"none": float("nan")}  # NaN: no best checkpoint is saved

    def shuffled(*which: int) -> Iterator[Batch]:
        begin = clock()
        yield from islice(split.shuffled(*which), num_steps)
        epochs.append(clock() - begin)  # reached when the loop requests a batch after the last step

    steps = SimpleNamespace(device=split.device, num_videos=split.num_videos, shuffled=shuffled)
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder), logging.getLogger("benchmark"), Saving(save_every=2)
        step, recipe = lambda _, batch, moment: losses(batch), replace(recipe, num_epochs=2)
        fit(network, steps, step, lambda: scores, recipe, "none", *where)
    return epochs[-1]


def evaluation(setup: Setup) -> list[Measurement]:
    """Measure stage 4 on val and test: opening packed files, HAN, decoding and metrics."""
    settings, task = setup.stage_3.data, find_task("LLP")
    splits = [load_annotations("LLP", settings.data_dir, name) for name in ("val", "test")]
    val = open_batches(splits[0], settings, CPU)
    model = make_network(setup.stage_3, val)
    few = splits[0].subset(torch.arange(min(setup.naive_videos, val.num_videos)))
    files = naive_stages.VideoFiles(few, settings)

    def evaluate(precision: str) -> None:
        for annotations in splits:
            prediction = predicted_events(model, open_batches(annotations, settings, CPU), precision)
            task.score(prediction, true_events(annotations, CPU))

    num_videos, features = sum(annotations.num_videos for annotations in splits), next(val.in_order(1)).features
    operations = NUM_EVALUATED * count_operations(lambda: model(*features))
    ways = {NAIVE: Way(partial(timed, naive_stages.evaluate, naive_twin(model), files), few.num_videos)}
    for precision, rate in setup.rates.items():
        ways[precision] = Way(partial(timed, evaluate, precision), num_videos, "10x", operations / rate)
    what = f"evaluating {NUM_EVALUATED:,} videos, metrics included"
    return compare(what, ways, setup.rounds, NUM_EVALUATED, "videos")


def threshold_search(setup: Setup) -> list[Measurement]:
    """Measure the search of class-wise thresholds of both modalities on the validation split."""
    labels = AudioVisual(random_events(NUM_VAL, 3), random_events(NUM_VAL, 4))
    in_video = labels.audio.any(dim=1) | labels.visual.any(dim=1)  # (N, C)
    noise = torch.randn(2, *labels.audio.shape, generator=torch.Generator().manual_seed(5))
    logits = AudioVisual(*noise).map(torch.add, labels)

    def search_naively(*tensors: Tensor) -> None:
        naive_scores.classwise_thresholds(*(x[..., :NUM_SEARCHED_CLASSES].numpy() for x in tensors))

    num_classes, searched = in_video.shape[1], (labels, AudioVisual(in_video, in_video))
    ways = {
        NAIVE: Way(partial(timed, logits.map, search_naively, *searched), NUM_SEARCHED_CLASSES),
        "vectorised": Way(partial(timed, logits.map, classwise_thresholds, *searched), num_classes, "20x"),
    }
    what = f"threshold search, {NUM_VAL} videos, {num_classes} classes, both modalities"
    return compare(what, ways, setup.rounds, num_classes, "classes")


def pseudo_labels(setup: Setup) -> list[Measurement]:
    """Measure stage 2 without threshold search: opening packed files, the network, hard labels and output."""
    annotations = load_annotations("LLP", setup.folder / "LLP", "train")
    annotations = annotations.subset(torch.arange(min(setup.labelled, annotations.num_videos)))
    packed_dir = setup.folder / f"packed_{annotations.num_videos}"
    settings = replace(STAGE_1.data, data_dir=setup.folder / "LLP", packed_dir=packed_dir)
    train, texts = open_batches(annotations, settings, CPU), open_texts("LLP", settings, CPU)
    model = TemporalTransformer(*train.widths, *(text.shape[1] for text in texts), setup.stage_1.model)
    thresholds = AudioVisual(*torch.zeros(2, len(annotations.classes), dtype=torch.float64))
    few = annotations.subset(torch.arange(min(setup.naive_videos, annotations.num_videos)))
    files, folder = naive_stages.VideoFiles(few, settings), setup.folder / "naive"

    def generate(precision: str) -> None:
        split, how = open_batches(annotations, settings, CPU), Precision(precision, CPU)
        logits = temporal_transformer_logits(model, split, texts, STAGE_3.device.eval_batch_size, how)
        events = hard_events(logits, thresholds, annotations.video_labels)
        pseudo = make_pseudo_labels(split, logits, events, thresholds)
        save_pseudo_labels(pseudo, setup.folder / "ours" / "train.safetensors")

    naive = partial(timed, naive_stages.write_pseudo_labels, naive_twin(model), files, texts, thresholds, folder)
    ways, features = {NAIVE: Way(naive, few.num_videos)}, next(train.in_order(1)).features
    operations = NUM_LABELLED * count_operations(lambda: model(*features, *texts))
    for precision, rate in setup.rates.items():
        ways[precision] = Way(partial(timed, generate, precision), annotations.num_videos, "20x", operations / rate)
    return compare(f"pseudo-labels of {NUM_LABELLED:,} videos, packed", ways, setup.rounds, NUM_LABELLED, "videos")


def growth(num_videos: int, num_steps: int) -> list[Measurement]:
    """Measure seconds per epoch and peak memory of stage 3 for more videos and for longer ones."""
    points = [
        (factor * num_videos, 10, 64, residency) for residency in ("resident", "stream") for factor in (1, 2, 4, 10)
    ]
    # 64 videos of 300 segments would need about 40 GB of activations.
    points += [(num_videos // 10, segments, 8, "resident") for segments in (10, 60, 300)]
    rows = []
    for count, segments, batch_size, residency in points:
        settings = with_settings(STAGE_3, batch_size=batch_size, residency=residency)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # a process with its own peak memory
            seconds, split_bytes, peak = pool.submit(measure, settings, count, segments, num_steps).result()
        step, what = seconds / num_steps, f"{count:,} videos of {segments} s, {residency}"
        sample = f"step {step:.2f} s, {batch_size} videos; features {split_bytes / 1e9:.2f} GB"
        rows.append(Measurement(f"HAN epoch of {what}", None, step * count / batch_size, sample=sample))
        rows.append(Measurement(f"peak memory, {what}", None, peak, sample=sample, unit="bytes"))
    return rows


def measure(settings: train_han.Settings, num_videos: int, num_segments: int, num_steps: int) -> tuple[float, int, int]:
    """Return seconds of some float32 steps, bytes of the split's features and peak bytes of this process.

    Features are sparse files of zeros, mapped like a packed file: neither time nor memory depends on their values.
    """
    with tempfile.TemporaryDirectory() as folder:
        how_long, residency = torch.full((num_videos,), num_segments), settings.data.residency
        train = zero_split(Path(folder), "LLP", "train", how_long, residency)
        network, recipe = make_network(settings, train), settings.recipe
        seconds = seconds_of_steps(network, han_losses(network, "float32", train), train, recipe, num_steps)
        for _ in train.in_order(recipe.batch_size):
            pass  # touch every page of the split, as a whole epoch does
    return seconds[WALL], 4 * sum(train.widths) * num_videos * num_segments, resident_bytes("VmHWM")
