"""Everything but training: evaluation, metrics, threshold search, pseudo-labels, opening the packed store."""

from contextlib import closing
from dataclasses import astuple, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks import naive, naive_scores
from benchmarks.floor import han_operations, temporal_transformer_operations
from benchmarks.measure import (
    CPU,
    LLP_VIDEOS,
    Measurement,
    Setup,
    in_turn,
    median_after_warm_up,
    timed,
)
from benchmarks.naive_networks import NaiveHAN, NaiveTemporalTransformer
from benchmarks.stages import STAGE_1, STAGE_3, predicted_events
from dataloaders.batches import SplitBatches, open_batches, open_split, open_texts
from dataloaders.datasets import load_annotations
from dataloaders.pseudo_labels import save_pseudo_labels
from models import HAN, TemporalTransformer
from utils.audio_visual import AudioVisual
from utils.evaluation.inference import temporal_transformer_logits
from utils.evaluation.tasks import find_task, true_events
from utils.evaluation.teachers import hard_events, make_pseudo_labels
from utils.method.metrics import parsing_scores
from utils.method.thresholds import classwise_thresholds
from utils.training.device import Precision

EVAL_BATCH_SIZE = STAGE_3.device.eval_batch_size
NUM_EVALUATED = LLP_VIDEOS["val"] + LLP_VIDEOS["test"]
NUM_LABELLED = sum(LLP_VIDEOS.values())


def evaluation(setup: Setup) -> list[Measurement]:
    """Stage 4 on val and test: opening the packed files, HAN, decoding, metrics."""
    data_dir, effort, task = setup.folder / "LLP", setup.effort, find_task("LLP")
    settings = replace(STAGE_3.data, data_dir=data_dir)
    splits = [load_annotations("LLP", data_dir, name) for name in ("val", "test")]
    opened = open_batches(splits[0], settings, CPU)
    sizes = (len(splits[0].classes), opened.widths.audio, opened.feature_widths.visual, effort.han)
    model, slow = HAN(*sizes), NaiveHAN(*sizes)
    slow.load_state_dict(model.state_dict())
    few = splits[0].subset(torch.arange(min(effort.naive_evaluated, splits[0].num_videos)))
    files = naive.VideoFiles(few, settings)

    def evaluate(precision: str) -> None:
        for annotations in splits:
            split = open_batches(annotations, settings, CPU)
            prediction = predicted_events(model, split, EVAL_BATCH_SIZE, Precision(precision, CPU))
            task.score(prediction, true_events(annotations, CPU))

    seconds = in_turn(
        {
            "naive": lambda: timed(lambda: naive.evaluate(slow, files)),
            "float32": lambda: timed(lambda: evaluate("float32")),
            "bf16": lambda: timed(lambda: evaluate("bf16")),
        },
        1 + effort.rounds,
    )
    num_videos = sum(annotations.num_videos for annotations in splits)
    operations = NUM_EVALUATED * han_operations(10, False, *sizes)
    return [
        Measurement(
            f"evaluating 1,849 videos, metrics included, {precision}",
            NUM_EVALUATED / few.num_videos * median_after_warm_up(seconds["naive"]),
            NUM_EVALUATED / num_videos * median_after_warm_up(seconds[precision]),
            "10x",
            setup.machine.floor_seconds(precision, operations, 0),
            f"naive {few.num_videos} videos, ours {num_videos}, {effort.rounds} rounds, scaled",
            {name: seconds[name] for name in ("naive", precision)},
        )
        for precision in ("float32", "bf16")
    ]


def metrics(setup: Setup) -> Measurement:
    """All F-scores of random events."""
    generator = torch.Generator().manual_seed(2)

    def predict(events: Tensor, seed: int) -> Tensor:
        wrong = (torch.rand(events.shape, generator=generator) < 0.15) & events.any(dim=1, keepdim=True)
        other = random_events(NUM_EVALUATED, seed) & (torch.rand(NUM_EVALUATED, 1, 1, generator=generator) < 0.3)
        return (events ^ wrong) | other

    truth = AudioVisual(0, 1).map(lambda seed: random_events(NUM_EVALUATED, seed))
    prediction = truth.map(predict, AudioVisual(2, 3))
    few = [events.map(lambda of_all: of_all[: setup.effort.naive_scored]) for events in (prediction, truth)]
    arrays = [events.map(Tensor.numpy) for events in few]
    literal, vectorised = naive_scores.parsing_scores(*arrays), parsing_scores(*few)
    for level in ("segment", "event"):
        np.testing.assert_allclose(astuple(getattr(literal, level)), astuple(getattr(vectorised, level)), rtol=1e-12)
    seconds = in_turn(
        {
            "naive": lambda: timed(lambda: naive_scores.parsing_scores(*arrays)),
            "ours": lambda: timed(lambda: parsing_scores(prediction, truth)),
        },
        1 + setup.effort.rounds,
    )
    return Measurement(
        "metrics alone, 1,849 videos",
        NUM_EVALUATED / len(few[0].audio) * median_after_warm_up(seconds["naive"]),
        median_after_warm_up(seconds["ours"]),
        "200x",
        sample=f"naive {len(few[0].audio)} videos, scaled; {setup.effort.rounds} rounds",
        rounds=seconds,
    )


def threshold_search(setup: Setup) -> Measurement:
    """Class-wise thresholds of both modalities on the validation split."""
    num_videos = setup.effort.searched
    labels = AudioVisual(3, 4).map(lambda seed: random_events(num_videos, seed))
    in_video = labels.audio.any(dim=1) | labels.visual.any(dim=1)  # (N, C)
    generator = torch.Generator().manual_seed(5)
    logits = labels.map(lambda truth: torch.randn(truth.shape, generator=generator) + truth)
    found: dict[str, AudioVisual] = {}

    def ours() -> None:
        found["ours"] = logits.map(lambda z, y: classwise_thresholds(z, y, in_video).thresholds, labels)

    def literal() -> None:
        found["naive"] = logits.map(
            lambda z, y: naive_scores.classwise_thresholds(z.numpy(), y.numpy(), in_video.numpy()), labels
        )

    seconds = in_turn({"ours": lambda: timed(ours)}, 1 + setup.effort.rounds)
    seconds["naive"] = [timed(literal)]
    for one, other in zip(found["ours"], found["naive"], strict=True):
        np.testing.assert_array_equal(one.numpy(), other)
    return Measurement(
        f"threshold search, {num_videos} videos, 25 classes, both modalities",
        seconds["naive"][0],
        median_after_warm_up(seconds["ours"]),
        "20x",
        sample=f"naive once, ours {setup.effort.rounds} rounds",
        rounds=seconds,
    )


def pseudo_labels(setup: Setup) -> list[Measurement]:
    """Stage 2 after its thresholds: opening the packed files, the temporal transformer, hard labels, output."""
    data_dir, effort = setup.folder / "LLP", setup.effort
    annotations = load_annotations("LLP", data_dir, "train")
    annotations = annotations.subset(torch.arange(min(effort.labelled, annotations.num_videos)))
    settings = replace(STAGE_1.data, data_dir=data_dir, packed_dir=setup.folder / f"packed_{annotations.num_videos}")
    widths, texts = open_batches(annotations, settings, CPU).widths, open_texts("LLP", settings, CPU)
    sizes = (*widths, *texts.map(lambda x: x.shape[1]), effort.transformer)
    model, slow = TemporalTransformer(*sizes), NaiveTemporalTransformer(*sizes)
    slow.load_state_dict(model.state_dict())
    thresholds = texts.map(lambda x: torch.zeros(x.shape[0], dtype=torch.float64))
    few = annotations.subset(torch.arange(min(effort.naive_labelled, annotations.num_videos)))
    files = naive.VideoFiles(few, settings)

    def generate(precision: str) -> None:
        split = open_batches(annotations, settings, CPU)
        logits = temporal_transformer_logits(model, split, texts, EVAL_BATCH_SIZE, Precision(precision, CPU))
        events = hard_events(logits, thresholds, annotations.video_labels)
        pseudo = make_pseudo_labels(split, logits, events, thresholds)
        save_pseudo_labels(pseudo, setup.folder / "ours" / "train.safetensors")

    seconds = in_turn(
        {
            "naive": lambda: timed(
                lambda: naive.write_pseudo_labels(slow, files, texts, thresholds, setup.folder / "naive")
            ),
            "float32": lambda: timed(lambda: generate("float32")),
            "bf16": lambda: timed(lambda: generate("bf16")),
        },
        1 + effort.rounds,
    )
    lengths = torch.full((NUM_LABELLED,), 10)
    operations = temporal_transformer_operations(lengths, False, widths, texts, effort.transformer)
    return [
        Measurement(
            f"pseudo-labels of 11,849 videos, packed, {precision}",
            NUM_LABELLED / few.num_videos * median_after_warm_up(seconds["naive"]),
            NUM_LABELLED / annotations.num_videos * median_after_warm_up(seconds[precision]),
            "20x",
            setup.machine.floor_seconds(precision, operations, 0),
            f"naive {few.num_videos} videos, ours {annotations.num_videos}, {effort.rounds} rounds, scaled",
            {name: seconds[name] for name in ("naive", precision)},
        )
        for precision in ("float32", "bf16")
    ]


def opening(setup: Setup) -> Measurement:
    """From nothing to the first training batch: annotations and packed features of all three splits."""
    data_dir = setup.folder / "LLP"
    settings = replace(STAGE_3.data, data_dir=data_dir)

    def open_all() -> dict[str, SplitBatches]:
        return {name: open_split("LLP", name, settings, CPU) for name in LLP_VIDEOS}

    def ours() -> Tensor:
        return next(open_all()["train"].shuffled(setup.effort.batch_size, 0, 1)).features.visual.sum()

    def first_naive_batch() -> Tensor:
        splits = {name: load_annotations("LLP", data_dir, name) for name in LLP_VIDEOS}
        files = naive.VideoFiles(splits["train"], settings)
        with closing(naive.batches(files, setup.effort.batch_size)) as batches:
            return next(batches).features.visual.sum()

    num_videos = sum(split.num_videos for split in open_all().values())  # packs what is not packed
    seconds = in_turn({"naive": lambda: timed(first_naive_batch), "ours": lambda: timed(ours)}, 1 + setup.effort.rounds)
    return Measurement(
        f"opening the packed LLP store ({num_videos:,} videos) to the first batch",
        median_after_warm_up(seconds["naive"]),
        median_after_warm_up(seconds["ours"]),
        "under 1 s",
        sample=f"files in the page cache, {setup.effort.rounds} rounds",
        rounds=seconds,
    )


def random_events(num_videos: int, seed: int, num_segments: int = 10, num_classes: int = 25) -> Tensor:
    """Events as LLP has them, one span of each of a video's one or two classes: (N, T, C) bool."""
    generator = torch.Generator().manual_seed(seed)
    events = torch.zeros(num_videos, num_segments, num_classes, dtype=torch.bool)
    steps = torch.arange(num_segments)
    for _ in range(2):
        classes = torch.randint(num_classes, (num_videos,), generator=generator)
        ends = torch.randint(0, num_segments + 1, (2, num_videos, 1), generator=generator)
        first, last = ends.amin(dim=0), ends.amax(dim=0)
        events[torch.arange(num_videos), :, classes] |= (steps >= first) & (steps < last)
    return events
