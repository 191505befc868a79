"""This repository's stages, wrapped so that a part of one can be timed: the functions that the entry points call."""

import logging
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.batches import SplitBatches
from models import TemporalTransformer
from utils.device import Precision, compile_network
from utils.networks import SingleNetwork, StackedNetworks, StepLosses
from utils.objectives import HANObjective, temporal_transformer_losses
from utils.training import Recipe, fit

SEED = 20000
HAN_RECIPE = Recipe(
    num_epochs=1,
    batch_size=64,
    learning_rate=lambda epoch: 1e-4,
    optimizer="adamw",
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=1e-4,
    clip_norm=1.0,
    checkpoint_every=1000,
    save_every=1000,
)
TRANSFORMER_RECIPE = replace(HAN_RECIPE, betas=(0.5, 0.999), weight_decay=1e-3, clip_norm=2.0)


class FirstSteps:
    """The first steps of every epoch of a split, for `fit`."""

    def __init__(self, split: SplitBatches, num_steps: int, batch_size: int):
        self.split = split
        self.device = split.device
        self.num_steps = num_steps
        self.num_videos = num_steps * batch_size

    def shuffled(self, batch_size: int, seed: int | tuple[int, ...], epoch: int):
        return islice(self.split.shuffled(batch_size, seed, epoch), self.num_steps)


def han_objective(split: SplitBatches) -> HANObjective:
    """The paper's objective with the split's pseudo-labels."""

    def per_modality(of_modality) -> dict[str, Tensor]:
        return {m: of_modality(m).to(split.device, torch.float32) for m in ("audio", "visual")}

    return HANObjective(
        thresholds=per_modality(split.pseudo.thresholds), class_frequencies=per_modality(split.pseudo.class_frequencies)
    )


def seconds_of_han_steps(
    networks: SingleNetwork | StackedNetworks,
    split: SplitBatches,
    precision: str,
    num_steps: int,
    batch_size: int,
    compiled: bool = False,
) -> float:
    """Seconds of some steps of stage 3, data included, after as many to warm up."""
    how = Precision(precision, split.device)
    objective = han_objective(split)
    forward = compile_network(networks.network, split.device) if compiled else None

    def step_losses(network, batch):
        return objective.losses(
            how.run(network if forward is None else forward, batch.audio, batch.visual), batch, network.fc_prob
        )

    return _seconds_of_steps(networks, split, step_losses, HAN_RECIPE, num_steps, batch_size)


def seconds_of_transformer_steps(
    model: TemporalTransformer,
    split: SplitBatches,
    events: tuple[Tensor, Tensor],
    precision: str,
    num_steps: int,
    batch_size: int,
    compiled: bool = False,
) -> float:
    """Seconds of some steps of stage 1, data included, after as many to warm up."""
    how = Precision(precision, split.device)
    forward = compile_network(model, split.device) if compiled else None

    def step_losses(network, batch):
        output = how.run(
            network if forward is None else forward, batch.audio, batch.visual, *events, batch.mask, batch.valid_rows
        )
        return temporal_transformer_losses(output, batch)

    networks = SingleNetwork(model, SEED, split.device)
    return _seconds_of_steps(networks, split, step_losses, TRANSFORMER_RECIPE, num_steps, batch_size)


def _seconds_of_steps(
    networks: SingleNetwork | StackedNetworks,
    split: SplitBatches,
    step_losses: StepLosses,
    recipe: Recipe,
    num_steps: int,
    batch_size: int,
) -> float:
    with tempfile.TemporaryDirectory() as folder:
        first_run, *_ = fit(
            networks,
            FirstSteps(split, num_steps, batch_size),
            step_losses,
            lambda network: {"none": float("nan")},  # no validation, and so no best checkpoint
            replace(recipe, num_epochs=2, batch_size=batch_size),
            "none",
            Path(folder),
            logging.getLogger("benchmark"),
        )
    return first_run.history[-1]["train_seconds"]
