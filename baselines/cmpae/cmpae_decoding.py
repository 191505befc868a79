"""CMPAE's decoding: mixed probabilities with and without cross-attention, and class-wise visual gates."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from dataloaders.batches import SplitBatches
from models import HANOutput
from utils.errors import InputError
from utils.evaluation.inference import SplitOutput, over_split
from utils.evaluation.tasks import true_events
from utils.method.decoding import DecodingSettings, gated_events
from utils.method.metrics import Counts, event_counts, video_f_scores
from utils.settings import settings_group
from utils.training.device import Precision

CANDIDATES = tuple(n / 100 for n in range(25, 71, 5))  # candidate gates, 0.25 to 0.70


@settings_group
class CMPAEDecoding(DecodingSettings):
    """Settings of decoding in CMPAE and CoLeaF."""

    decoding: Literal["video", "modality"] = "modality"
    """LLP: gate by the video's probability (UWAV), or by the modality's own (MA)"""
    cross_share: Annotated[float, Field(ge=0, le=1)] = 0.7
    """weight of the probabilities with cross-attention; the rest is the weight of those without"""
    class_gates: bool = True  # LLP: class-wise visual gates instead of gate_threshold, searched on val in stage 4
    gates_epoch: NonNegativeInt = 8
    """epoch of the checkpoint for the search of gates (released code: 8); 0: the evaluated checkpoint"""

    def __post_init__(self):
        if self.class_gates and self.decoding == "video":
            way_out = "Add --no-class_gates, or change --decoding."
            raise InputError("--class_gates", "--decoding video", "--decoding modality", way_out)


def predict(
    network: nn.Module, split: SplitBatches, batch_size: int, precision: Precision, settings: CMPAEDecoding
) -> SplitOutput:
    """Return a split's output, with probabilities mixed from those with and without cross-attention."""

    def parse(*features: Tensor, **padding: Tensor) -> HANOutput:
        output = precision.run(network, *features, **padding)
        if settings.cross_share == 1:
            return output
        return mixed_output(output, precision.run(network, *features, False, **padding), settings.cross_share)

    return over_split(network, parse, split, batch_size)


def mixed_output(first: HANOutput, second: HANOutput, share: float) -> HANOutput:
    """Return the first output with the probabilities share·first + (1 - share)·second, and their logits."""

    def mix(one: Tensor, other: Tensor) -> Tensor:
        return share * one + (1 - share) * other

    segment_probs = first.logits.map(torch.sigmoid).map(mix, second.logits.map(torch.sigmoid))
    return replace(
        first,
        video_probs=mix(first.video_probs, second.video_probs),
        modality_probs=first.modality_probs.map(mix, second.modality_probs),
        logits=segment_probs.map(torch.logit),
    )


def search_gates(
    segment_probs: Tensor,
    modality_probs: Tensor,
    truth: Tensor,
    segment_threshold: float,
    others: float,
    candidates: Sequence[float] = CANDIDATES,
) -> tuple[Tensor, Tensor]:
    """Search each class's gate for the best event-level F-score, with those of other classes at `others`.

    Arguments are (N, T, C), (N, C) and (N, T, C) bool of one modality. Returns gates and F-scores (%), (C,) each; ties
    go to the largest gate (`eval` in the released `main.py`).
    """
    num_classes = truth.shape[-1]
    gates = torch.full((num_classes,), others, dtype=torch.float64)
    best = torch.full((num_classes,), -1.0, dtype=torch.float64)
    base = event_counts(gated_events(segment_probs, modality_probs, segment_threshold, others), truth)  # (N, C)
    for gate in sorted(candidates):
        counts = event_counts(gated_events(segment_probs, modality_probs, segment_threshold, gate), truth)
        for c in range(num_classes):  # a class's counts do not depend on the other gates
            mixed = Counts(base.tp.clone(), base.fp.clone(), base.fn.clone())
            mixed.tp[:, c], mixed.fp[:, c], mixed.fn[:, c] = counts.tp[:, c], counts.fp[:, c], counts.fn[:, c]
            score = 100 * video_f_scores(mixed).mean().item()
            if score >= best[c]:
                best[c], gates[c] = score, gate
    return gates, best


def find_gates(
    settings: CMPAEDecoding, checkpoint: Path, val: SplitBatches, parse: Callable[[Path], SplitOutput]
) -> tuple[Tensor, str]:
    """Return the class-wise visual gates, (C,), searched on val, and a line for the log; `parse` runs a checkpoint."""
    if settings.gates_epoch:
        checkpoint = checkpoint.with_name(f"checkpoint_epoch_{settings.gates_epoch:03d}.pt")
    output = parse(checkpoint)
    truth = true_events(val.annotations, val.device).visual
    probs = torch.sigmoid(output.logits.visual), output.modality_probs.visual
    gates, _ = search_gates(*probs, truth, settings.segment_threshold, settings.gate_threshold)
    named = ", ".join(f"{name} {gate:g}" for name, gate in zip(val.annotations.classes, gates.tolist(), strict=True))
    return gates.to(val.device), f"visual gates of {checkpoint.name}: {named}"
