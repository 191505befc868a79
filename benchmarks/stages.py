"""This repository's stages, wrapped so that a part of one can be timed: the functions that the entry points call."""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from torch import Tensor, nn

import train_han
import train_transformer
from dataloaders.batches import Batch, SplitBatches
from models import HAN, TemporalTransformer
from utils.audio_visual import AudioVisual
from utils.evaluation.inference import run_han
from utils.evaluation.tasks import Events, find_task
from utils.method.objectives import Losses, temporal_transformer_losses
from utils.training.device import Precision, compile_network
from utils.training.loop import Recipe, Saving, fit

STAGE_1 = train_transformer.Settings()
STAGE_3 = train_han.Settings()


class FirstSteps:
    """The first steps of every epoch of a split, for `fit`."""

    def __init__(self, split: SplitBatches, num_steps: int, batch_size: int):
        self.split = split
        self.device = split.device
        self.num_steps = num_steps
        self.num_videos = min(num_steps * batch_size, split.num_videos)

    def shuffled(self, batch_size: int, seed: int, epoch: int):
        return islice(self.split.shuffled(batch_size, seed, epoch), self.num_steps)


def seconds_of_han_steps(
    model: HAN, split: SplitBatches, precision: str, num_steps: int, batch_size: int, compiled: bool = False
) -> float:
    """Seconds of some steps of stage 3, data included, after as many to warm up."""
    how = Precision(precision, split.device)
    objective = train_han.make_objective(STAGE_3.losses, split)
    forward = compile_network(model, split.device) if compiled else model

    def batch_losses(batch: Batch) -> Losses:
        return objective(how.run(forward, *batch.features), batch, model.fc_prob)

    return _seconds_of_steps(model, split, batch_losses, STAGE_3.recipe, num_steps, batch_size)


def seconds_of_transformer_steps(
    model: TemporalTransformer,
    split: SplitBatches,
    texts: AudioVisual[Tensor],
    precision: str,
    num_steps: int,
    batch_size: int,
    compiled: bool = False,
) -> float:
    """Seconds of some steps of stage 1, data included, after as many to warm up."""
    how = Precision(precision, split.device)
    forward = compile_network(model, split.device) if compiled else model

    def batch_losses(batch: Batch) -> Losses:
        output = how.run(forward, *batch.features, *texts, batch.mask, batch.valid_rows)
        return temporal_transformer_losses(output, batch, STAGE_1.losses)

    return _seconds_of_steps(model, split, batch_losses, STAGE_1.recipe, num_steps, batch_size)


def _seconds_of_steps(
    model: nn.Module,
    split: SplitBatches,
    batch_losses: Callable[[Batch], Losses],
    recipe: Recipe,
    num_steps: int,
    batch_size: int,
) -> float:
    with tempfile.TemporaryDirectory() as folder:
        progress = fit(
            model,
            FirstSteps(split, num_steps, batch_size),
            lambda batch, moment: iter((batch_losses(batch),)),
            lambda: {"none": float("nan")},  # no validation, and so no best checkpoint
            replace(recipe, num_epochs=2, batch_size=batch_size),
            "none",
            Path(folder),
            logging.getLogger("benchmark"),
            Saving(save_every=2),
        )
    return progress.history[-1]["train_seconds"]


def predicted_events(model: HAN, split: SplitBatches, batch_size: int, precision: Precision) -> Events:
    """What stage 4 predicts for a split."""
    output = run_han(model, split, batch_size, precision)
    return find_task(split.annotations.dataset).decode(output, STAGE_3.decoding)
