"""LEAP (Zhou et al., ECCV 2024): class-name queries attend to MM-Pyramid's encoded segments; labels are VALOR's."""

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from baselines.leap.leap_network import LEAP, LEAPConfig, make_network
from dataloaders.batches import Batch, SplitBatches
from utils.audio_visual import AudioVisual
from utils.method.label_folders import PseudoLabels
from utils.method.losses import Losses, Moment, Run, segment_loss, video_loss
from utils.recipes import Method
from utils.settings import settings_group


@settings_group
class LEAPLosses(PseudoLabels):
    """The labels and losses of LEAP."""

    run_prefix: ClassVar = "Framewise_"
    command: ClassVar = "pseudo_label_generation.py --teacher framewise"
    glove: Path | None = None
    """word vectors in GloVe's text format, or LEAP's own .pt of the classes (default: glove.txt in data_dir)"""
    video_weight: NonNegativeFloat = 0.0  # weight of the video loss (the released one has no gradient)
    segment_weight: NonNegativeFloat = 1.0  # weight of the segment losses
    audio_guided_weight: NonNegativeFloat = 1.0
    """weight of the audio loss on the events that any audio segment has"""
    visual_guided_weight: NonNegativeFloat = 1.0  # weight of the visual loss on those of any visual segment
    similarity_weight: NonNegativeFloat = 1.0  # weight of the audio-visual semantic similarity


def semantic_similarity_loss(
    labels: AudioVisual[Tensor], features: AudioVisual[Tensor], mask: Tensor | None = None
) -> Tensor:
    """Return LEAP's semantic similarity loss (AVSS, `avss_loss`) of encoded features (B, T, D) and labels (B, T, C).

    The overlap x of audio segment s and visual segment t is the number of events of both, divided by the largest number
    of events of any segment of the video in either modality; a video without events has x = 0. (The paper speaks of an
    intersection over union; the released code divides by that count.) The mean squared error of relu(cosine) against
    x / (1 + x) + 0.01 is taken over pairs of segments where `mask`, (B, T) bool, is True.
    """
    shared = labels.audio @ labels.visual.transpose(1, 2)  # (B, T, T)
    most = torch.maximum(labels.audio.sum(dim=-1).amax(dim=1), labels.visual.sum(dim=-1).amax(dim=1))  # (B,)
    overlap = shared / most.clamp(min=1).view(-1, 1, 1)
    cosines = F.normalize(features.audio, dim=-1) @ F.normalize(features.visual, dim=-1).transpose(1, 2)  # (B, T, T)
    similar, target = F.relu(cosines), overlap / (1 + overlap) + 0.01
    if mask is not None:
        pairs = mask.unsqueeze(2) & mask.unsqueeze(1)
        similar, target = similar[pairs], target[pairs]
    return F.mse_loss(similar, target)


class LEAPStep:
    """One training step of LEAP."""

    def __init__(self, settings: LEAPLosses, train: SplitBatches, run: Run):
        self.settings, self.run = settings, run

    def __call__(self, network: nn.Module, batch: Batch, moment: Moment) -> Losses:
        """Return the losses by name; "total" is minimised. A modality's label is that of any of its segments."""
        settings, output = self.settings, self.run(network, *batch.features, **batch.padding)
        audio, visual = (labels.to(batch.video_labels.dtype) for labels in batch.pseudo.labels)  # (B, T, C) each
        losses = {
            "video": video_loss(output.video_probs, batch.video_labels),
            "audio_segment": segment_loss(batch.valid(output.logits.audio), batch.valid(audio)),
            "visual_segment": segment_loss(batch.valid(output.logits.visual), batch.valid(visual)),
            "audio_guided": video_loss(output.modality_probs.audio, audio.amax(dim=1)),
            "visual_guided": video_loss(output.modality_probs.visual, visual.amax(dim=1)),
            "similarity": semantic_similarity_loss(AudioVisual(audio, visual), output.features, batch.mask),
        }
        weights = [settings.video_weight, settings.segment_weight, settings.segment_weight]
        weights += [settings.audio_guided_weight, settings.visual_guided_weight, settings.similarity_weight]
        total = sum(weight * loss for weight, loss in zip(weights, losses.values(), strict=True))
        return {**losses, "total": total}


network = {"network": LEAP, "config": LEAPConfig, "make_network": make_network}
METHODS = {"leap": Method("LEAP", losses=LEAPLosses, make_step=LEAPStep, **network)}
