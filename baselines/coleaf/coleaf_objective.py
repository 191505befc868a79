"""What CoLeaF minimises: the reference networks' losses, and what they add to the anchor's. B videos, C classes."""

from dataclasses import dataclass

from torch import Tensor

from baselines.cmpae.cmpae_network import CMPAEOutput
from baselines.coleaf.coleaf_network import ReferenceOutput
from utils.audio_visual import AudioVisual
from utils.method.agreement_losses import (
    asymmetric_loss,
    class_correlation_loss,
    noise_contrastive_loss,
    segment_cosines,
)
from utils.method.objectives import HANLosses, Losses

REFERENCE_WARM_UP = 3  # epochs in which the reference networks learn without the anchor


@dataclass(frozen=True)
class ReferenceWeights:
    """Weights and thresholds of one modality."""

    early_tokens: float  # of the class tokens' loss in the first epochs
    tokens: float  # and later
    anchor_reaches: float  # an anchor's probability from here on confirms a label
    confident: tuple[float, float]  # a reference probability at or below the first, or at or above the second, guides
    contrastive: float


WEIGHTS = AudioVisual(
    ReferenceWeights(early_tokens=1.2, tokens=0.001, anchor_reaches=0.5, confident=(0.1, 0.8), contrastive=0.009),
    ReferenceWeights(early_tokens=1.0, tokens=0.0, anchor_reaches=0.6, confident=(0.4, 0.6), contrastive=1.0),
)


def reference_loss(
    reference: ReferenceOutput, targets: Tensor, anchor_probs: Tensor, weights: ReferenceWeights, epoch: int
) -> Tensor:
    """Loss of one reference network, a sum over videos and classes.

    Args:
        targets: (B, C), the modality's cleaned labels.
        anchor_probs: (B, C), what the anchor predicts for the modality; no gradient flows there.
        epoch: counted from 1.
    """
    pooled, tokens = asymmetric_loss(reference.probs, targets), asymmetric_loss(reference.token_probs, targets)
    if epoch <= REFERENCE_WARM_UP:
        return pooled + weights.early_tokens * tokens
    confirmed = targets * (anchor_probs.detach() >= weights.anchor_reaches)
    return 0.5 * pooled + weights.tokens * tokens + 0.5 * asymmetric_loss(reference.probs, confirmed)


def guided_probs(
    anchor_probs: Tensor, reference_probs: Tensor, targets: Tensor, confident: tuple[float, float]
) -> Tensor:
    """t = m·r + (1 - m)·s: the reference's probability of labels that it is sure of, else the anchor's own, (B, C).

    m is the target where the reference is sure and 0 elsewhere, so a smoothed target of 0.05 leaks in (released code).
    """
    sure = (reference_probs <= confident[0]) | (reference_probs >= confident[1])
    share = targets * sure
    return share * reference_probs + (1 - share) * anchor_probs.detach()


def unimodal_shares(reference_probs: AudioVisual[Tensor], threshold: float = 0.5) -> AudioVisual[Tensor]:
    """For each video the share of a modality's events that it has alone, (B,) of each; 0 for a modality without events.

    Args:
        reference_probs: (B, C) of each modality.
    """
    audio, visual = reference_probs.map(lambda probs: probs >= threshold)
    both = (audio & visual).sum(dim=1)
    only = AudioVisual((audio & ~visual).sum(dim=1), (visual & ~audio).sum(dim=1))
    return only.map(lambda count: count / (count + both).clamp(min=1))


@dataclass(frozen=True)
class Guidance:
    """What the reference networks add to the anchor's loss from the second epoch on."""

    correlation_weight: float = 1e-4
    contrastive_temperature: float = HANLosses.contrastive_temperature
    contrastive_smoothing: float = HANLosses.contrastive_smoothing
    weights: AudioVisual[ReferenceWeights] = WEIGHTS
    first_epoch: int = 2

    def losses(
        self, output: CMPAEOutput, references: AudioVisual[ReferenceOutput], targets: AudioVisual[Tensor]
    ) -> Losses:
        """Both modalities' terms by name, and their weighted sum as "total".

        Args:
            output: of the anchor.
            references: computed without gradients, in training mode, after the reference networks' own step.
            targets: (B, C) of each modality, cleaned.
        """
        shares = unimodal_shares(references.map(lambda reference: reference.probs))

        def correlation(probs: Tensor, reference: ReferenceOutput, target: Tensor, own: ReferenceWeights) -> Tensor:
            return class_correlation_loss(probs, guided_probs(probs, reference.probs, target, own.confident))

        def contrast(features: Tensor, reference: ReferenceOutput, share: Tensor) -> Tensor:
            cosines = segment_cosines(reference.features, features, self.contrastive_temperature)
            return noise_contrastive_loss(cosines, self.contrastive_smoothing, share)

        correlations = output.modality_probs.map(correlation, references, targets, self.weights)
        contrasts = output.features.map(contrast, references, shares)
        total = self.correlation_weight * (correlations.audio + correlations.visual)
        total = total + self.weights.audio.contrastive * contrasts.audio
        total = total + self.weights.visual.contrastive * contrasts.visual
        return {
            "audio_correlation": correlations.audio,
            "visual_correlation": correlations.visual,
            "audio_reference_contrast": contrasts.audio,
            "visual_reference_contrast": contrasts.visual,
            "total": total,
        }


def reference_losses(
    references: AudioVisual[ReferenceOutput],
    targets: AudioVisual[Tensor],
    anchor_probs: AudioVisual[Tensor],
    epoch: int,
    weights: AudioVisual[ReferenceWeights] = WEIGHTS,
) -> Losses:
    """Both reference networks' losses by name, and their sum as "total"; see `reference_loss`."""
    audio, visual = references.map(
        lambda reference, target, probs, own: reference_loss(reference, target, probs, own, epoch),
        targets,
        anchor_probs,
        weights,
    )
    return {"audio_reference": audio, "visual_reference": visual, "total": audio + visual}


GUIDANCE = Guidance()
