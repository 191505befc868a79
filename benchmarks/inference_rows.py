"""Everything but training: evaluation, metrics, threshold search, pseudo-labels, opening the packed store."""

from contextlib import closing
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.effort import LLP_VIDEOS, Setup, count_operations
from benchmarks.harness import NAIVE, Measurement, Way, compare, timed
from benchmarks.training_rows import CPU, STAGE_1, STAGE_3
from dataloaders.batches import SplitBatches, open_batches, open_split, open_texts
from dataloaders.datasets import load_annotations
from dataloaders.pseudo_labels import save_pseudo_labels
from models import HAN, TemporalTransformer
from tests.naive import naive_scores, naive_stages
from tests.naive.made_up_data import random_events
from tests.naive.naive_networks import naive_twin
from utils.audio_visual import AudioVisual
from utils.evaluation.inference import hard_events, make_pseudo_labels, run_han, temporal_transformer_logits
from utils.evaluation.tasks import Events, find_task, true_events
from utils.method.metrics import parsing_scores
from utils.method.thresholds import classwise_thresholds
from utils.training.device import Precision

EVAL_BATCH_SIZE = STAGE_3.device.eval_batch_size
NUM_EVALUATED = LLP_VIDEOS["val"] + LLP_VIDEOS["test"]
NUM_LABELLED = sum(LLP_VIDEOS.values())
NUM_SCORED = 200  # videos, by the naive metrics
NUM_SEARCHED_CLASSES = 5  # of 25, by the naive search


def evaluation(setup: Setup) -> list[Measurement]:
    """Stage 4 on val and test: opening the packed files, HAN, decoding, metrics."""
    data_dir, effort, task = setup.folder / "LLP", setup.effort, find_task("LLP")
    settings = replace(STAGE_3.data, data_dir=data_dir)
    splits = [load_annotations("LLP", data_dir, name) for name in ("val", "test")]
    opened = open_batches(splits[0], settings, CPU)
    model = HAN(len(splits[0].classes), opened.widths.audio, opened.feature_widths.visual, effort.han)
    few = splits[0].subset(torch.arange(min(effort.naive_videos, splits[0].num_videos)))
    files = naive_stages.VideoFiles(few, settings)

    def evaluate(precision: str) -> None:
        for annotations in splits:
            split = open_batches(annotations, settings, CPU)
            prediction = predicted_events(model, split, EVAL_BATCH_SIZE, Precision(precision, CPU))
            task.score(prediction, true_events(annotations, CPU))

    num_videos = sum(annotations.num_videos for annotations in splits)
    video = next(opened.in_order(1))
    operations = NUM_EVALUATED * count_operations(lambda: model(*video.features))
    ways = {NAIVE: Way(partial(timed, naive_stages.evaluate, naive_twin(model), files), few.num_videos)}
    for precision in ("float32", "bf16"):
        floor = setup.machine.floor(precision, operations)
        ways[precision] = Way(partial(timed, evaluate, precision), num_videos, "10x", floor)
    return compare("evaluating 1,849 videos, metrics included", ways, effort.rounds, NUM_EVALUATED, "videos")


def metrics(setup: Setup) -> list[Measurement]:
    """All F-scores of random events."""
    truth = AudioVisual(random_events(NUM_EVALUATED, 0), random_events(NUM_EVALUATED, 1))
    others = AudioVisual(random_events(NUM_EVALUATED, 2), random_events(NUM_EVALUATED, 3))
    generator = torch.Generator().manual_seed(2)

    def predict(events: Tensor, other: Tensor) -> Tensor:
        wrong = (torch.rand(events.shape, generator=generator) < 0.15) & events.any(dim=1, keepdim=True)
        return (events ^ wrong) | (other & (torch.rand(NUM_EVALUATED, 1, 1, generator=generator) < 0.3))

    prediction = truth.map(predict, others)
    few = [events.map(lambda of_all: of_all[:NUM_SCORED].numpy()) for events in (prediction, truth)]
    ways = {
        NAIVE: Way(partial(timed, naive_scores.parsing_scores, *few), NUM_SCORED),
        "vectorised": Way(partial(timed, parsing_scores, prediction, truth), NUM_EVALUATED, "200x"),
    }
    return compare("metrics alone, 1,849 videos", ways, setup.effort.rounds, NUM_EVALUATED, "videos")


def threshold_search(setup: Setup) -> list[Measurement]:
    """Class-wise thresholds of both modalities on the validation split."""
    num_videos = LLP_VIDEOS["val"]
    labels = AudioVisual(random_events(num_videos, 3), random_events(num_videos, 4))
    in_video = labels.audio.any(dim=1) | labels.visual.any(dim=1)  # (N, C)
    generator = torch.Generator().manual_seed(5)
    logits = labels.map(lambda truth: torch.randn(truth.shape, generator=generator) + truth)

    def search() -> None:
        for of_modality, truth in zip(logits, labels, strict=True):
            classwise_thresholds(of_modality, truth, in_video)

    def search_naively() -> None:
        few = slice(NUM_SEARCHED_CLASSES)
        for of_modality, truth in zip(logits, labels, strict=True):
            arrays = (x[..., few].numpy() for x in (of_modality, truth, in_video))
            naive_scores.classwise_thresholds(*arrays)

    ways = {
        NAIVE: Way(partial(timed, search_naively), NUM_SEARCHED_CLASSES),
        "vectorised": Way(partial(timed, search), labels.audio.shape[-1], "20x"),
    }
    what = f"threshold search, {num_videos} videos, 25 classes, both modalities"
    return compare(what, ways, setup.effort.rounds, labels.audio.shape[-1], "classes")


def pseudo_labels(setup: Setup) -> list[Measurement]:
    """Stage 2 after its thresholds: opening the packed files, the temporal transformer, hard labels, output."""
    data_dir, effort = setup.folder / "LLP", setup.effort
    annotations = load_annotations("LLP", data_dir, "train")
    annotations = annotations.subset(torch.arange(min(effort.labelled, annotations.num_videos)))
    settings = replace(STAGE_1.data, data_dir=data_dir, packed_dir=setup.folder / f"packed_{annotations.num_videos}")
    opened, texts = open_batches(annotations, settings, CPU), open_texts("LLP", settings, CPU)
    model = TemporalTransformer(*opened.widths, texts.audio.shape[1], texts.visual.shape[1], effort.transformer)
    zeros = torch.zeros(len(annotations.classes), dtype=torch.float64)
    thresholds = AudioVisual(zeros, zeros.clone())
    few = annotations.subset(torch.arange(min(effort.naive_videos, annotations.num_videos)))
    files, folder = naive_stages.VideoFiles(few, settings), setup.folder / "naive"

    def generate(precision: str) -> None:
        split = open_batches(annotations, settings, CPU)
        logits = temporal_transformer_logits(model, split, texts, EVAL_BATCH_SIZE, Precision(precision, CPU))
        events = hard_events(logits, thresholds, annotations.video_labels)
        pseudo = make_pseudo_labels(split, logits, events, thresholds)
        save_pseudo_labels(pseudo, setup.folder / "ours" / "train.safetensors")

    naive = partial(timed, naive_stages.write_pseudo_labels, naive_twin(model), files, texts, thresholds, folder)
    ways = {NAIVE: Way(naive, few.num_videos)}
    video = next(opened.in_order(1))
    operations = NUM_LABELLED * count_operations(lambda: model(*video.features, *texts))
    for precision in ("float32", "bf16"):
        floor = setup.machine.floor(precision, operations)
        ways[precision] = Way(partial(timed, generate, precision), annotations.num_videos, "20x", floor)
    return compare("pseudo-labels of 11,849 videos, packed", ways, effort.rounds, NUM_LABELLED, "videos")


def opening(setup: Setup) -> list[Measurement]:
    """From nothing to the first training batch: annotations and packed features of all three splits."""
    data_dir, batch_size = setup.folder / "LLP", setup.effort.batch_size
    settings = replace(STAGE_3.data, data_dir=data_dir)

    def first_batch() -> Tensor:
        splits = {name: open_split("LLP", name, settings, CPU) for name in LLP_VIDEOS}
        return next(splits["train"].shuffled(batch_size, 0, 1)).features.visual.sum()

    def first_naive_batch() -> Tensor:
        splits = {name: load_annotations("LLP", data_dir, name) for name in LLP_VIDEOS}
        with closing(naive_stages.batches(naive_stages.VideoFiles(splits["train"], settings), batch_size)) as batches:
            return next(batches).features.visual.sum()

    first_batch()  # packs what is not packed
    num_videos = sum(load_annotations("LLP", data_dir, name).num_videos for name in LLP_VIDEOS)
    ways = {NAIVE: Way(partial(timed, first_naive_batch)), "packed": Way(partial(timed, first_batch), goal="under 1 s")}
    return compare(f"opening the LLP store ({num_videos:,} videos) to the first batch", ways, setup.effort.rounds)


def predicted_events(network: HAN, split: SplitBatches, batch_size: int, precision: Precision) -> Events:
    """What stage 4 predicts for a split."""
    output = run_han(network, split, batch_size, precision)
    return find_task(split.annotations.dataset).decode(output, STAGE_3.decoding)
