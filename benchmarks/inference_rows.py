"""Rows of all but training: evaluation, metrics, threshold search, pseudo-labels, opening the packed store."""

from contextlib import closing
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import NAIVE, Measurement, Way, compare, count_operations, timed
from benchmarks.training_rows import CPU, STAGE_1, STAGE_3, Setup, predicted_events
from dataloaders.batches import open_batches, open_split, open_texts
from dataloaders.datasets import SPLITS, load_annotations
from dataloaders.pseudo_labels import save_pseudo_labels
from models import HAN, TemporalTransformer
from simulation.generated_annotations import SIZES
from tests.naive import naive_scores, naive_stages
from tests.naive.made_up_data import random_events
from tests.naive.naive_networks import naive_twin
from utils.audio_visual import AudioVisual
from utils.evaluation.inference import hard_events, make_pseudo_labels, temporal_transformer_logits
from utils.evaluation.tasks import find_task, true_events
from utils.method.metrics import parsing_scores
from utils.method.thresholds import classwise_thresholds
from utils.training.device import Precision

NUM_VAL = SIZES["LLP"]["val"]
NUM_EVALUATED = NUM_VAL + SIZES["LLP"]["test"]
NUM_LABELLED = sum(SIZES["LLP"].values())
NUM_SCORED = 200  # videos, by the naive metrics
NUM_SEARCHED_CLASSES = 5  # of 25, by the naive search


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
