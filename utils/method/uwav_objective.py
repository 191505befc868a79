"""UWAV's objective: video loss, uncertainty-weighted segment loss and feature mixup (paper sections 4.2 to 4.4)."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from dataloaders.batches import Batch, SplitBatches
from utils.audio_visual import AudioVisual
from utils.method import losses
from utils.method.label_folders import PseudoLabels
from utils.method.losses import Losses, Moment, Run, soft_pseudo_labels
from utils.settings import settings_group


@settings_group
class UWAVLosses(PseudoLabels):
    """Settings of UWAV's pseudo-labels and losses; the defaults are the released recipe on LLP."""

    run_prefix: ClassVar = "TemporalTransformer_"
    base_command: ClassVar = "train_transformer.py"
    segment_labels: Literal["soft", "hard", "none"] = "soft"  # labels of the segment losses; none: video labels only
    temperature: PositiveFloat = 2.0  # temperature of soft labels: 2 (released code) or 1 (paper)
    reweight: bool = True  # weight segment losses to balance classes
    positive_weight: NonNegativeFloat = 0.5  # W of the class-balance weights
    weight_normalization: Literal["sum", "mean"] = "sum"
    """class-balance weights from the sum (released code) or the mean (paper) of the class frequencies"""
    mixup: bool = True  # mix features of segments
    mixup_alpha: PositiveFloat = 1.7  # alpha of the beta distribution of lambda
    mixup_labels: Literal["soft", "hard", "ceiling"] = "soft"
    """labels of the mixup loss; ceiling: soft labels rounded up (paper, AVE)"""
    video_weight: NonNegativeFloat = 1.0  # weight of the video loss
    segment_weight: NonNegativeFloat = 1.0  # weight of the segment losses
    mixup_weight: NonNegativeFloat = 1.0  # weight of the mixup losses

    @property
    def wants_labels(self) -> bool:
        """Return whether the losses use pseudo-labels."""
        return self.segment_labels != "none"


@dataclass(frozen=True)
class UWAVStep:
    """The training step of UWAV."""

    settings: UWAVLosses
    thresholds: AudioVisual[Tensor] | None  # (C,), for soft labels
    class_frequencies: AudioVisual[Tensor] | None  # (C,) f_c, for re-weighting
    run: Run

    def __call__(self, network: nn.Module, batch: Batch, moment: Moment) -> Losses:
        """Return L = L_video + L_w-soft + L_mix (Eq. 20), and its terms by name."""
        settings, output = self.settings, self.run(network, *batch.features, **batch.padding)
        terms = {"video": losses.video_loss(output.video_probs, batch.video_labels)}
        total = settings.video_weight * terms["video"]
        if settings.wants_labels:
            targets, weights = self.targets(settings.segment_labels, batch), self.class_weights(batch)
            segment = output.logits.map(batch.valid).map(losses.segment_loss, targets, weights)
            terms |= {"audio_segment": segment.audio, "visual_segment": segment.visual}
            total = total + settings.segment_weight * segment.audio + settings.segment_weight * segment.visual
            if settings.mixup:
                targets = self.targets(settings.mixup_labels, batch)
                mixed = output.features.map(batch.valid).map(partial(self.mixup, network), targets)
                terms |= {"audio_mixup": mixed.audio, "visual_mixup": mixed.visual}
                total = total + settings.mixup_weight * mixed.audio + settings.mixup_weight * mixed.visual
        return {**terms, "total": total}

    def targets(self, kind: str, batch: Batch) -> AudioVisual[Tensor]:
        """Return "soft", "hard" or "ceiling" pseudo-labels of the valid segments, (B, T, C) in [0, 1] (Eq. 10, 12)."""
        if kind == "hard":
            return batch.pseudo.labels.map(lambda labels: batch.valid(labels).to(batch.video_labels))
        constants = batch.video_labels, self.settings.temperature
        soft = batch.pseudo.logits.map(lambda z, t: batch.valid(soft_pseudo_labels(z, t, *constants)), self.thresholds)
        return soft.map(Tensor.ceil) if kind == "ceiling" else soft

    def class_weights(self, batch: Batch) -> AudioVisual[Tensor | None]:
        """Return the class-balance weights of each modality, broadcast to the valid segments, or None (Eq. 18, 19)."""
        if not self.settings.reweight:
            return AudioVisual(None, None)
        constants = self.settings.positive_weight, self.settings.weight_normalization
        weights = self.class_frequencies.map(lambda f: losses.class_balance_weights(batch.video_labels, f, *constants))
        if batch.mask is None:
            return weights  # (B, 1, C)
        return weights.map(lambda w: batch.valid(w.expand(-1, batch.mask.shape[1], -1)))  # (1, R, C)

    def mixup(self, network: nn.Module, features: Tensor, targets: Tensor) -> Tensor:
        """Compute the mixup loss of one modality with its own lambda (Eq. 14 to 16): (B, T, D) encoded, (B, T, C)."""
        alpha = self.settings.mixup_alpha
        lam = torch.distributions.Beta(alpha, alpha).sample()
        permutation = torch.randperm(features.shape[0] * features.shape[1], device=features.device)
        lam = lam.to(features.device, non_blocking=True)
        # fc_prob is called without `run`, that is, in float32 and not compiled.
        logits = network.fc_prob(losses.mixup_features(features, lam, permutation))
        return losses.mixup_loss(logits, targets, lam, permutation)


def make_step(settings: UWAVLosses, train: SplitBatches, run: Run) -> UWAVStep:
    """Return the training step on a split, with the thresholds and class frequencies of its pseudo-labels."""
    if train.pseudo is None:
        return UWAVStep(settings, None, None, run)
    constants = train.pseudo.thresholds, train.pseudo.class_frequencies
    return UWAVStep(settings, *(pair.map(lambda x: x.to(train.device, torch.float32)) for pair in constants), run)
