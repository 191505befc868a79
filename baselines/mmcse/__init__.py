"""MM-CSE (Zhao et al., AAAI 2025): a vector per class and segment, and eleven losses on VALOR's labels.

B videos, T segments, C classes, E features of a class.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor

from baselines.mmcse.mmcse_network import MMCSE, MMCSEConfig
from dataloaders.batches import Batch, SplitBatches
from utils.audio_visual import AudioVisual
from utils.method.label_folders import PseudoLabels
from utils.method.losses import Losses, Moment, Run, segment_loss, video_loss
from utils.recipes import Method
from utils.settings import settings_group


@settings_group
class MMCSELosses(PseudoLabels):
    """Settings of MM-CSE's pseudo-labels, which are VALOR's, and losses."""

    command: ClassVar = "pseudo_label_generation.py --teacher framewise"
    run_prefix: ClassVar = "Framewise_"
    reconstruction_weight: NonNegativeFloat = 0.5  # weight of reconstructing segments from events and background
    orthogonality_weight: NonNegativeFloat = 0.1  # weight of the orthogonality of events and background
    map_weight: NonNegativeFloat = 0.1  # weight of the loss on attention between co-occurring events


def event_maps(labels: AudioVisual[Tensor], others: AudioVisual[Tensor]) -> AudioVisual[Tensor]:
    """Return which pairs of events co-occur in a segment: 0/1 (B, T, C) per modality -> (B, T, C, C)."""
    return labels.map(lambda own, other: own.unsqueeze(-1) * other.unsqueeze(-2), others)


@dataclass(frozen=True)
class MMCSEStep:
    """The training step of MM-CSE. Targets of attention are not normalised, unlike the maps (released code)."""

    settings: MMCSELosses
    train: SplitBatches
    run: Run

    def __call__(self, network: MMCSE, batch: Batch, moment: Moment) -> Losses:
        """Compute the losses by name, most of them summed over both modalities; "total" is minimised."""
        settings, output = self.settings, self.run(network, *batch.features, **batch.padding)
        labels = batch.pseudo.labels.map(lambda hard: batch.valid(hard).to(batch.video_labels))
        logits, events = output.logits.map(batch.valid), output.events.map(batch.valid)
        background, segments = output.background.map(batch.valid), output.segments.map(batch.valid)
        rebuilt = output.reconstructed.map(batch.valid)
        own_maps, other_maps = output.own_maps.map(batch.valid), output.other_maps.map(batch.valid)
        swapped = AudioVisual(labels.visual, labels.audio)
        pairs = [*zip(own_maps, event_maps(labels, labels), strict=True)]
        pairs += zip(other_maps, event_maps(labels, swapped), strict=True)
        losses = {
            "video": video_loss(output.video_probs, batch.video_labels),
            "audio_segment": segment_loss(logits.audio, labels.audio),
            "visual_segment": segment_loss(logits.visual, labels.visual),
            "reconstruction": F.mse_loss(segments.audio, rebuilt.audio) + F.mse_loss(segments.visual, rebuilt.visual),
            # every audio event, but the mean of the visual ones (released code)
            "orthogonality": F.cosine_similarity(events.audio, background.audio.unsqueeze(2), dim=-1).mean()
            + F.cosine_similarity(events.visual.mean(dim=2), background.visual, dim=-1).mean(),
            "map": sum(F.mse_loss(found, target) for found, target in pairs),
        }
        total = losses["video"] + losses["audio_segment"] + losses["visual_segment"]
        total = total + settings.reconstruction_weight * losses["reconstruction"]
        total = total + settings.orthogonality_weight * losses["orthogonality"]
        return {**losses, "total": total + settings.map_weight * losses["map"]}


METHODS = {"mmcse": Method("MM-CSE", losses=MMCSELosses, make_step=MMCSEStep, network=MMCSE, config=MMCSEConfig)}
