"""LEAP (Zhou et al., ECCV 2024): class-name queries attend to segments encoded by MM-Pyramid; labels are VALOR's."""

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
    """Settings of LEAP's labels and losses."""

    run_prefix: ClassVar = "Framewise_"
    command: ClassVar = "pseudo_label_generation.py --teacher framewise"
    glove: Path | None = None
    """word vectors in GloVe's text format, or the .pt file released with LEAP; None: glove.txt in data_dir"""
    video_weight: NonNegativeFloat = 0.0  # weight of the video loss (without gradient in the released code)
    segment_weight: NonNegativeFloat = 1.0  # weight of the segment losses
    audio_guided_weight: NonNegativeFloat = 1.0  # weight of the audio loss on events in any audio segment
    visual_guided_weight: NonNegativeFloat = 1.0  # weight of the visual loss on events in any visual segment
    similarity_weight: NonNegativeFloat = 1.0  # weight of the audio-visual semantic similarity


def semantic_similarity_loss(
    labels: AudioVisual[Tensor], features: AudioVisual[Tensor], mask: Tensor | None = None
) -> Tensor:
    """Compute LEAP's semantic similarity loss (AVSS, `avss_loss`) of encoded features (B, T, D) and labels (B, T, C).

    The overlap x of an audio and a visual segment is the number of their common events, divided by the largest number
    of events in any segment of the video and either modality (released code; an intersection over union in the paper).
    The loss is the mean squared error of relu(cosine) against x / (1 + x) + 0.01 over pairs of segments in the `mask`.
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
    """The training step of LEAP."""

    def __init__(self, settings: LEAPLosses, train: SplitBatches, run: Run):
        self.settings, self.run = settings, run

    def __call__(self, network: nn.Module, batch: Batch, moment: Moment) -> Losses:
        """Compute the losses by name; "total" is minimised. A modality's labels are those of its segments."""
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
