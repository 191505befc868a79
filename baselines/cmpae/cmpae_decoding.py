"""CMPAE's decoding: probabilities with and without cross-attention are mixed, and each class has a visual gate."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from baselines.cmpae.gates import search_gates
from dataloaders.batches import SplitBatches
from models import HANOutput
from utils.evaluation.inference import SplitOutput, over_split
from utils.evaluation.tasks import true_events
from utils.method.decoding import DecodingSettings
from utils.settings import settings_group
from utils.training.device import Precision


@settings_group
class CMPAEDecoding(DecodingSettings):
    """How probabilities become events in CMPAE and CoLeaF."""

    decoding: Literal["video", "modality"] = "modality"
    """LLP: the probability that an event also needs: the video's (UWAV), or its modality's own (MA)"""
    cross_share: Annotated[float, Field(ge=0, le=1)] = 0.7
    """share of the probabilities with cross-attention, the rest is without"""
    class_gates: bool = True
    """LLP: instead of gate_threshold a visual gate for each class, searched on val in stage 4"""
    gates_epoch: NonNegativeInt = 8
    """epoch whose checkpoint the gates are searched with (released: 8); 0: the evaluated one"""


def predict(
    network: nn.Module, split: SplitBatches, batch_size: int, precision: Precision, settings: CMPAEDecoding
) -> SplitOutput:
    """Parse a split with cross-attention, mixed with what the network says without it."""

    def parse(*features: Tensor) -> HANOutput:
        output = precision.run(network, *features)
        if settings.cross_share == 1:
            return output
        return mixed_output(output, precision.run(network, *features, False), settings.cross_share)

    return over_split(network, parse, split, batch_size)


def mixed_output(first: HANOutput, second: HANOutput, share: float) -> HANOutput:
    """Return the first output with probabilities share·first + (1 - share)·second, and the logits of these."""

    def mix(one: Tensor, other: Tensor) -> Tensor:
        return share * one + (1 - share) * other

    segment_probs = first.logits.map(torch.sigmoid).map(mix, second.logits.map(torch.sigmoid))
    return replace(
        first,
        video_probs=mix(first.video_probs, second.video_probs),
        modality_probs=first.modality_probs.map(mix, second.modality_probs),
        logits=segment_probs.map(torch.logit),
    )


def find_gates(
    settings: CMPAEDecoding, checkpoint: Path, val: SplitBatches, parse: Callable[[Path], SplitOutput]
) -> tuple[Tensor, str]:
    """Search the visual gate of each class on val, (C,), with the checkpoint that the settings name.

    Args:
        checkpoint: the evaluated one.
        parse: returns what a checkpoint's network makes of val.

    Returns:
        The gates, and a line for the log.
    """
    if settings.gates_epoch:
        checkpoint = checkpoint.with_name(f"checkpoint_epoch_{settings.gates_epoch:03d}.pt")
    output = parse(checkpoint)
    truth = true_events(val.annotations, val.device).visual
    probs = torch.sigmoid(output.logits.visual), output.modality_probs.visual
    gates = search_gates(*probs, truth, settings.segment_threshold, settings.gate_threshold).gates
    named = ", ".join(f"{name} {gate:g}" for name, gate in zip(val.annotations.classes, gates.tolist(), strict=True))
    return gates.to(val.device), f"visual gates of {checkpoint.name}: {named}"
