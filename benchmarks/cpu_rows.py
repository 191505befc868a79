"""Rows of the CPU table: training epochs, scaled from some steps; evaluation, metrics, threshold search, pseudo-labels;
the packed store; time and peak memory of stage 3 by number and length of videos.
"""

import logging
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

import train_han
import train_transformer
from benchmarks.harness import NAIVE, Measurement, Seconds, Way, compare, count_operations, resident_bytes, timed
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import Batch, SplitBatches, open_batches, open_split, open_texts
from dataloaders.datasets import SPLITS, load_annotations
from dataloaders.pseudo_labels import export_npy, save_pseudo_labels
from models import HAN, HANConfig, TemporalTransformer, TemporalTransformerConfig
from simulation.generated_annotations import SIZES
from simulation.simulate import simulate
from tests.naive import naive_scores, naive_stages
from tests.naive.made_up_data import random_events, random_pseudo_labels, zero_split
from tests.naive.naive_networks import naive_twin
from utils.audio_visual import AudioVisual
from utils.evaluation.inference import hard_events, make_pseudo_labels, run_han, temporal_transformer_logits
from utils.evaluation.tasks import Events, find_task, true_events
from utils.method.losses import Losses, Moment, audio_visual_loss
from utils.method.metrics import parsing_scores
from utils.method.thresholds import classwise_thresholds
from utils.method.uwav_objective import make_step
from utils.training.device import Precision, compile_network
from utils.training.loop import Recipe, Saving, fit

CPU = torch.device("cpu")
STAGE_1, STAGE_3 = train_transformer.Settings(), train_han.Settings()
QUICK = {"llp_videos": {"train": 640, "val": 128, "test": 128}, "unav_videos": 64, "rounds": 1, "han_steps": 3}
QUICK |= {"transformer_batch": 32, "labelled": 256, "naive_videos": 30}
PREFETCHED = 6  # batches that two workers hold ready or are reading, offered beyond those that are used
LONGEST_UNAV = 60  # segments
GOALS = {"float32": "2x", "bf16": "5x"}
GROWTH = (1, 2, 4, 10)  # times as many videos
SEGMENTS = (10, 60, 300)  # of longer videos
SEGMENTS_BATCH = 8  # 64 videos of 300 segments would need about 40 GB of activations
ALLOWANCE = 2e9  # bytes of memory beyond the tensors of the split
NUM_VAL = SIZES["LLP"]["val"]
NUM_EVALUATED = NUM_VAL + SIZES["LLP"]["test"]
NUM_LABELLED = sum(SIZES["LLP"].values())
NUM_SCORED = 200  # videos, by the naive metrics
NUM_SEARCHED_CLASSES = 5  # of 25, by the naive search
BatchLosses = Callable[[Batch], Losses]


@dataclass(frozen=True)
class Setup:
    """What every measurement starts from. What is not measured whole is scaled up, as the table notes."""

    folder: Path  # holds LLP/ and UnAV/, and takes all output
    rates: dict[str, float]  # operations a second of matrix products, by precision
    llp_videos: dict[str, int | None] = field(default_factory=dict)  # whose features are simulated; empty: all
    unav_videos: int = 512
    rounds: int = 3  # turns of the naive and the optimised way
    han_steps: int = 6
    han_batch: int = 64
    transformer_batch: int = 64
    labelled: int = 1_024  # videos
    naive_videos: int = 100  # evaluated and labelled by the naive way
    compiled: bool = False  # also train compiled networks; compiling takes a minute or two each
    han: HANConfig = HANConfig()
    transformer: TemporalTransformerConfig = TemporalTransformerConfig()


def prepare(work_dir: Path, annotations: Path | None, rates: dict[str, float], **effort: object) -> Setup:
    """Simulate the data that are not there yet, in one folder whatever the number of videos."""
    setup = Setup(work_dir / ("generated" if annotations is None else "annotated"), rates, **effort)
    print(f"simulating what is not yet in {setup.folder}", flush=True)
    simulate("LLP", setup.folder, annotations, setup.llp_videos)
    simulate("UnAV", setup.folder, annotations, {"train": setup.unav_videos, "val": 2, "test": 2})
    return setup


def predicted_events(network: HAN, split: SplitBatches, precision: str) -> Events:
    """Return what stage 4 predicts for a split."""
    output = run_han(network, split, STAGE_3.device.eval_batch_size, Precision(precision, split.device))
    return find_task(split.annotations.dataset).decode(output, STAGE_3.decoding)


def han_epoch(setup: Setup) -> list[Measurement]:
    """Measure an epoch of stage 3: float32 and bf16 beside the naive float32."""
    settings, pseudo_dir = replace(STAGE_3.data, data_dir=setup.folder / "LLP"), setup.folder / "pseudo_labels"
    annotations = load_annotations("LLP", settings.data_dir, "train")
    offered = offered_to_workers(annotations, setup.han_steps, setup.han_batch)
    save_pseudo_labels(random_pseudo_labels(annotations), pseudo_dir / "train.safetensors")
    export_npy(random_pseudo_labels(offered), pseudo_dir / "npy", {name: name for name in offered.sample_ids})
    files = naive_stages.VideoFiles(offered, settings, pseudo_label_dir=pseudo_dir / "npy")
    split = open_batches(annotations, settings, CPU, pseudo_dir)
    network = HAN(len(annotations.classes), split.widths.audio, split.feature_widths.visual, setup.han)
    recipe = replace(STAGE_3.recipe, batch_size=setup.han_batch)
    return epoch_rows(setup, "HAN", network, partial(han_losses, split=split), split, files, recipe, setup.han_steps)


def transformer_epoch(setup: Setup) -> list[Measurement]:
    """Measure an epoch of stage 1 by a step on videos whose lengths are spread as in the whole split."""
    settings, batch_size = replace(STAGE_1.data, data_dir=setup.folder / "UnAV"), setup.transformer_batch
    annotations = load_annotations("UnAV", settings.data_dir, "train")
    spread = annotations.lengths.argsort()[torch.linspace(0, annotations.num_videos - 1, batch_size).long()]
    annotations = annotations.subset(spread[torch.randperm(batch_size, generator=torch.Generator().manual_seed(0))])
    files = naive_stages.VideoFiles(offered_to_workers(annotations, 1, batch_size), settings, LONGEST_UNAV)
    split, texts = open_batches(annotations, settings, CPU), open_texts("UnAV", settings, CPU)
    network = TemporalTransformer(*split.widths, texts.audio.shape[1], texts.visual.shape[1], setup.transformer)
    recipe, losses = replace(STAGE_1.recipe, batch_size=batch_size), partial(transformer_losses, texts=texts)
    return epoch_rows(setup, "temporal transformer", network, losses, split, files, recipe, 1)


def offered_to_workers(annotations: SplitAnnotations, num_steps: int, batch_size: int) -> SplitAnnotations:
    """Repeat a split's videos, so that workers read during all steps, the first of which is not timed."""
    return annotations.subset(torch.arange((num_steps + 1 + PREFETCHED) * batch_size) % annotations.num_videos)


def epoch_rows(
    setup: Setup,
    name: str,
    network: HAN | TemporalTransformer,
    losses_of: Callable[..., BatchLosses],
    split: SplitBatches,
    files: naive_stages.VideoFiles,
    recipe: Recipe,
    num_steps: int,
) -> list[Measurement]:
    """Measure some steps of a network and its naive counterpart with losses by `losses_of`, scaled to an epoch."""
    slow, amount = naive_twin(network), num_steps * recipe.batch_size
    num_videos = SIZES[split.annotations.dataset]["train"]
    batch = next(split.in_order(recipe.batch_size))
    operations = count_operations(lambda: losses_of(network, "float32")(batch)["total"].backward())
    operations *= num_videos / len(batch.videos)
    run_naively = partial(seconds_of_naive_steps, slow, losses_of(slow, "float32"), files, recipe, num_steps)
    ways = {NAIVE: Way(run_naively, amount)}
    for title, compiled in (("{}", False), ("{}, compiled", True))[: 1 + setup.compiled]:
        for precision, goal in GOALS.items():
            losses = losses_of(network, precision, compiled=compiled)
            run = partial(seconds_of_steps, network, losses, split, recipe, num_steps)
            ways[title.format(precision)] = Way(run, amount, goal, operations / setup.rates[precision])
    what = f"{name} epoch of {num_videos:,} videos of {split.annotations.lengths.double().mean():.0f} s"
    return compare(what, ways, setup.rounds, num_videos, f"videos in batches of {recipe.batch_size}", warm_up=0)


def han_losses(network: nn.Module, precision: str, split: SplitBatches, compiled: bool = False) -> BatchLosses:
    """Return the losses of stage 3 for HAN or its naive counterpart on a split with pseudo-labels."""
    how, forward = Precision(precision, split.device), compile_network(network, split.device) if compiled else network
    # LLP's videos are equally long: the masks of naive batches hide nothing.
    step = make_step(STAGE_3.losses, split, lambda _, *inputs, **masks: how.run(forward, *inputs))
    return lambda batch: step(network, batch, Moment())


def transformer_losses(
    network: nn.Module, precision: str, texts: AudioVisual[Tensor], compiled: bool = False
) -> BatchLosses:
    """Return the losses of stage 1 for the temporal transformer or its naive counterpart."""
    how, forward = Precision(precision, CPU), compile_network(network, CPU) if compiled else network
    weight = STAGE_1.losses.occurring_weight

    def losses(batch: Batch) -> Losses:
        output = how.run(forward, *batch.features, *texts, batch.mask, batch.valid_rows)
        return {"total": audio_visual_loss(output.logits, batch.labels.audio, batch.mask, weight)}

    return losses


class FirstSteps:
    """The first steps of every epoch of a split, for `fit`, and the time of those of the last epoch."""

    def __init__(self, split: SplitBatches, num_steps: int):
        self.split, self.num_steps = split, num_steps
        self.device, self.num_videos = split.device, split.num_videos

    def shuffled(self, *which: int) -> Iterator[Batch]:
        begin = Seconds.since()
        yield from islice(self.split.shuffled(*which), self.num_steps)
        self.seconds = Seconds.since(begin)  # the loop requests more batches after the last step


def seconds_of_steps(
    network: nn.Module, losses: BatchLosses, split: SplitBatches, recipe: Recipe, num_steps: int
) -> Seconds:
    """Return the time of some steps of the training loop, data included, after as many to warm up."""
    steps, recipe = FirstSteps(split, num_steps), replace(recipe, num_epochs=2)
    scores = {"none": float("nan")}  # and so there is no best checkpoint
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder), logging.getLogger("benchmark"), Saving(save_every=2)
        fit(network, steps, lambda _, batch, moment: losses(batch), lambda: scores, recipe, "none", *where)
    return steps.seconds


def seconds_of_naive_steps(
    network: nn.Module, losses: BatchLosses, files: naive_stages.VideoFiles, recipe: Recipe, num_steps: int
) -> Seconds:
    """Return the time of some naive steps, after one to warm up; workers read ahead all the while, as in an epoch."""
    with closing(naive_stages.train(network, losses, files, recipe, recipe.batch_size)) as steps:
        next(steps)
        return timed(lambda: list(islice(steps, num_steps)))


def evaluation(setup: Setup) -> list[Measurement]:
    """Measure stage 4 on val and test: opening the packed files, HAN, decoding, metrics."""
    settings, task = replace(STAGE_3.data, data_dir=setup.folder / "LLP"), find_task("LLP")
    splits = [load_annotations("LLP", settings.data_dir, name) for name in ("val", "test")]
    val = open_batches(splits[0], settings, CPU)
    model = HAN(len(splits[0].classes), val.widths.audio, val.feature_widths.visual, setup.han)
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


def metrics(setup: Setup) -> list[Measurement]:
    """Measure all F-scores of random events that are right in most videos."""
    truth = AudioVisual(random_events(NUM_EVALUATED, 0), random_events(NUM_EVALUATED, 1))
    right = torch.rand(NUM_EVALUATED, 1, 1, generator=torch.Generator().manual_seed(2)) < 0.7
    audio = torch.where(right, truth.audio, random_events(NUM_EVALUATED, 2))
    prediction = AudioVisual(audio, torch.where(right, truth.visual, random_events(NUM_EVALUATED, 3)))
    few = [events.map(lambda x: x[:NUM_SCORED].numpy()) for events in (prediction, truth)]
    ways = {
        NAIVE: Way(partial(timed, naive_scores.parsing_scores, *few), NUM_SCORED),
        "vectorised": Way(partial(timed, parsing_scores, prediction, truth), NUM_EVALUATED, "200x"),
    }
    return compare(f"metrics alone, {NUM_EVALUATED:,} videos", ways, setup.rounds, NUM_EVALUATED, "videos")


def threshold_search(setup: Setup) -> list[Measurement]:
    """Measure the search of class-wise thresholds of both modalities on the validation split."""
    labels = AudioVisual(random_events(NUM_VAL, 3), random_events(NUM_VAL, 4))
    in_video = labels.audio.any(dim=1) | labels.visual.any(dim=1)  # (N, C)
    noise = torch.randn(2, *labels.audio.shape, generator=torch.Generator().manual_seed(5))
    logits = AudioVisual(*noise).map(torch.add, labels)

    def search_naively(*tensors: Tensor) -> None:
        naive_scores.classwise_thresholds(*(x[..., :NUM_SEARCHED_CLASSES].numpy() for x in tensors))

    num_classes, searched = in_video.shape[1], (labels, AudioVisual(in_video, in_video))  # for each modality
    ways = {
        NAIVE: Way(partial(timed, logits.map, search_naively, *searched), NUM_SEARCHED_CLASSES),
        "vectorised": Way(partial(timed, logits.map, classwise_thresholds, *searched), num_classes, "20x"),
    }
    what = f"threshold search, {NUM_VAL} videos, {num_classes} classes, both modalities"
    return compare(what, ways, setup.rounds, num_classes, "classes")


def pseudo_labels(setup: Setup) -> list[Measurement]:
    """Measure stage 2 after its thresholds: opening the packed files, the temporal transformer, hard labels, output."""
    annotations = load_annotations("LLP", setup.folder / "LLP", "train")
    annotations = annotations.subset(torch.arange(min(setup.labelled, annotations.num_videos)))
    packed_dir = setup.folder / f"packed_{annotations.num_videos}"
    settings = replace(STAGE_1.data, data_dir=setup.folder / "LLP", packed_dir=packed_dir)
    train, texts = open_batches(annotations, settings, CPU), open_texts("LLP", settings, CPU)
    model = TemporalTransformer(*train.widths, texts.audio.shape[1], texts.visual.shape[1], setup.transformer)
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


def opening(setup: Setup) -> list[Measurement]:
    """Measure the way to the first training batch: annotations and packed features of all three splits."""
    settings, batch_size = replace(STAGE_3.data, data_dir=setup.folder / "LLP"), setup.han_batch

    def first_batch() -> Tensor:
        splits = {name: open_split("LLP", name, settings, CPU) for name in SPLITS}
        return next(splits["train"].shuffled(batch_size, 0, 1)).features.visual.sum()

    def first_naive_batch() -> Tensor:
        splits = {name: load_annotations("LLP", settings.data_dir, name) for name in SPLITS}
        with closing(naive_stages.batches(naive_stages.VideoFiles(splits["train"], settings), batch_size)) as batches:
            return next(batches).features.visual.sum()

    first_batch()  # packs what is not packed
    num_videos = sum(load_annotations("LLP", settings.data_dir, name).num_videos for name in SPLITS)
    ways = {NAIVE: Way(partial(timed, first_naive_batch)), "packed": Way(partial(timed, first_batch), goal="under 1 s")}
    return compare(f"opening the LLP store ({num_videos:,} videos) to the first batch", ways, setup.rounds)


def peak_memory(config: HANConfig, num_videos: int) -> Measurement:
    """Measure the peak memory of stage 3 with its split resident, training steps and a validation included."""
    _, split_bytes, peak = in_own_process(config, num_videos, num_steps=2, validate=True)
    goal, sample = f"at most {(split_bytes + ALLOWANCE) / 1e9:.2f} GB", f"the split {split_bytes / 1e9:.2f} GB"
    what = f"peak memory of stage 3, {num_videos:,} videos resident"
    return Measurement(what, None, peak, goal, sample=sample, unit="bytes")


def growth(num_videos: int, num_steps: int) -> list[Measurement]:
    """Measure seconds of an epoch and peak memory for more videos, and for longer ones."""
    points = [(factor * num_videos, 10, 64, residency) for residency in ("resident", "stream") for factor in GROWTH]
    points += [(num_videos // 10, segments, SEGMENTS_BATCH, "resident") for segments in SEGMENTS]
    rows = []
    for count, segments, batch_size, residency in points:
        seconds, split_bytes, peak = in_own_process(HANConfig(), count, num_steps, segments, batch_size, residency)
        step, what = seconds / num_steps, f"{count:,} videos of {segments} s, {residency}"
        sample = f"step {step:.2f} s, {batch_size} videos; features {split_bytes / 1e9:.2f} GB"
        rows.append(Measurement(f"HAN epoch of {what}", None, step * count / batch_size, sample=sample))
        rows.append(Measurement(f"peak memory, {what}", None, peak, sample=sample, unit="bytes"))
    return rows


def in_own_process(*arguments: object, **flags: object) -> tuple[float, int, int]:
    """Call `measure` in a new process, whose peak memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments, **flags).result()


def measure(
    config: HANConfig,
    num_videos: int,
    num_steps: int,
    num_segments: int = 10,
    batch_size: int = 64,
    residency: str = "resident",
    validate: bool = False,
) -> tuple[float, int, int]:
    """Return seconds of some float32 steps, bytes of the training split's features, peak bytes of this process.

    Features are sparse files of zeros, mapped like a packed file: neither time nor memory depends on values.
    """
    with tempfile.TemporaryDirectory() as folder:
        train = zero_split(Path(folder), "LLP", "train", torch.full((num_videos,), num_segments), residency)
        network = HAN(len(train.annotations.classes), train.widths.audio, train.feature_widths.visual, config)
        recipe = replace(STAGE_3.recipe, batch_size=batch_size)
        seconds = seconds_of_steps(network, han_losses(network, "float32", train), train, recipe, num_steps)
        for _ in train.in_order(batch_size):
            pass  # every page of the split is touched, as in a whole epoch
        if validate:
            val = zero_split(Path(folder), "LLP", "val", torch.full((SIZES["LLP"]["val"],), num_segments), residency)
            find_task("LLP").score(predicted_events(network, val, "float32"), true_events(val.annotations, CPU))
    return seconds.wall, 4 * sum(train.widths) * num_videos * num_segments, resident_bytes("VmHWM")
