"""CoLeaF's objective: CMPAE's for the anchor, and what two reference networks add to it (Sardari et al., ECCV 2024).

B videos, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.cmpae.cmpae_network import CMPAEOutput, split_frames
from baselines.cmpae.cmpae_objective import CMPAELosses, CMPAEStep
from baselines.coleaf.coleaf_network import CoLeaF, ReferenceOutput
from baselines.jomold.jomold_objective import noise_contrastive_loss
from baselines.ma.ma_objective import segment_cosines
from dataloaders.batches import Batch
from utils.audio_visual import MODALITIES, AudioVisual
from utils.method.losses import Losses, Moment

REFERENCE_WARM_UP = 3  # epochs in which the reference networks learn without the anchor
FIRST_GUIDED_EPOCH = 2  # from which the reference networks guide the anchor
CORRELATION_WEIGHT = 1e-4


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


def asymmetric_loss(probs: Tensor, targets: Tensor, margin: float = 0.05) -> Tensor:
    """Return CoLeaF's `AsymmetricLoss`, a sum: -(1 - pt)·[y log p + (1 - y) log q] with q = min(1 - p + margin, 1).

    pt = y·p + (1 - y)·q; no gradient flows through the focus 1 - pt (released code).

    Args:
        probs: any shape, in (0, 1).
        targets: the same shape, in [0, 1].
    """
    kept = (1 - probs + margin).clamp(max=1)
    focus = 1 - (targets * probs + (1 - targets) * kept).detach()
    log_probs, log_kept = probs.clamp(min=1e-8).log(), kept.clamp(min=1e-8).log()
    return -(focus * (targets * log_probs + (1 - targets) * log_kept)).sum()


def reference_loss(
    reference: ReferenceOutput, targets: Tensor, anchor_probs: Tensor, weights: ReferenceWeights, epoch: int
) -> Tensor:
    """Return the loss of one reference network, a sum over videos and classes.

    Args:
        targets: (B, C), the modality's cleaned labels.
        anchor_probs: (B, C), what the anchor predicts for the modality, without gradients.
        epoch: counted from 1.
    """
    pooled, tokens = asymmetric_loss(reference.probs, targets), asymmetric_loss(reference.token_probs, targets)
    if epoch <= REFERENCE_WARM_UP:
        return pooled + weights.early_tokens * tokens
    confirmed = targets * (anchor_probs >= weights.anchor_reaches)
    return 0.5 * pooled + weights.tokens * tokens + 0.5 * asymmetric_loss(reference.probs, confirmed)


def guided_probs(
    anchor_probs: Tensor, reference_probs: Tensor, targets: Tensor, confident: tuple[float, float]
) -> Tensor:
    """Return t = m·r + (1 - m)·s: the reference's probability of labels that it is sure of, else the anchor's, (B, C).

    m is the target where the reference is sure and 0 elsewhere, so a smoothed target of 0.05 leaks in (released code).
    """
    sure = (reference_probs <= confident[0]) | (reference_probs >= confident[1])
    share = targets * sure
    return share * reference_probs + (1 - share) * anchor_probs.detach()


def unimodal_shares(reference_probs: AudioVisual[Tensor], threshold: float = 0.5) -> AudioVisual[Tensor]:
    """Return for each video the share of a modality's events that it has alone: (B,) each, 0 where it has no events.

    Args:
        reference_probs: (B, C) of each modality.
    """
    audio, visual = reference_probs.audio >= threshold, reference_probs.visual >= threshold
    audio_only, visual_only = (audio & ~visual).sum(dim=1), (visual & ~audio).sum(dim=1)
    return AudioVisual(audio_only / audio.sum(dim=1).clamp(min=1), visual_only / visual.sum(dim=1).clamp(min=1))


def class_correlation_loss(probs: Tensor, guides: Tensor) -> Tensor:
    """Return CoLeaF's loss on which classes go together (`cc_loss`): sum over videos of |t t' - s s'|², times B / C.

    t t' is a video's C x C matrix of products. The released code multiplies by the number of videos where a mean would
    divide. The specification does not say whether products are taken over the classes or the videos; classes is our
    reading of the name.

    Args:
        probs: s, (B, C) of the anchor.
        guides: t, (B, C).
    """
    num_videos, num_classes = probs.shape
    difference = guides.unsqueeze(2) * guides.unsqueeze(1) - probs.unsqueeze(2) * probs.unsqueeze(1)  # (B, C, C)
    return difference.square().sum() * num_videos / num_classes


def guidance_losses(
    output: CMPAEOutput,
    references: AudioVisual[ReferenceOutput],
    targets: AudioVisual[Tensor],
    settings: CMPAELosses,
    mask: Tensor | None = None,
) -> Losses:
    """Return what the reference networks add to the anchor's loss, by name, and the weighted sum as "total".

    For each modality a class-correlation loss, and a contrastive loss in which the reference's features have to find
    the anchor's of the same second; a video weighs as much as its share of events that the modality has alone.

    Args:
        output: of the anchor.
        references: computed without gradients, in training mode, after the reference networks' own step.
        targets: (B, C) of each modality, cleaned.
    """
    shares = unimodal_shares(AudioVisual(references.audio.probs, references.visual.probs))
    losses: Losses = {}
    for n, modality in enumerate(MODALITIES):
        reference, probs = references[n], output.modality_probs[n]
        guides = guided_probs(probs, reference.probs, targets[n], WEIGHTS[n].confident)
        losses[f"{modality}_correlation"] = class_correlation_loss(probs, guides)
        cosines = segment_cosines(reference.features, output.features[n], settings.contrastive_temperature, mask)
        contrast = noise_contrastive_loss(cosines, settings.contrastive_smoothing, shares[n], mask)
        losses[f"{modality}_reference_contrast"] = contrast
    total = CORRELATION_WEIGHT * (losses["audio_correlation"] + losses["visual_correlation"])
    total = total + WEIGHTS.audio.contrastive * losses["audio_reference_contrast"]
    total = total + WEIGHTS.visual.contrastive * losses["visual_reference_contrast"]
    return {**losses, "total": total}


class CoLeaFStep(CMPAEStep):
    """Two training steps on a batch: the reference networks learn, then the anchor, also from what they now predict."""

    def __call__(self, network: CoLeaF, batch: Batch, moment: Moment, take_step: Callable[[], Tensor]) -> Losses:
        """Take both steps, and return their losses by name.

        Args:
            take_step: takes a step of the optimiser, and returns the norm of the gradient.
        """
        output = self.run(network, *batch.features, **batch.padding)
        targets = self.learned_targets(network, batch, moment)
        references = self.references(network, batch)
        with torch.no_grad():  # a pass of its own, with dropout of its own, confirms labels
            said = self.run(network, *batch.features, **batch.padding).modality_probs
        audio = reference_loss(references.audio, targets.audio, said.audio, WEIGHTS.audio, moment.epoch)
        visual = reference_loss(references.visual, targets.visual, said.visual, WEIGHTS.visual, moment.epoch)
        (audio + visual).backward()
        norm = take_step()

        losses = self.losses(output, batch, targets, moment)
        if moment.epoch >= FIRST_GUIDED_EPOCH:
            with torch.no_grad():
                references = self.references(network, batch)
            guided = guidance_losses(output, references, targets, self.settings, batch.mask)
            losses = {**losses, **guided, "total": losses["total"] + guided["total"]}
        losses["total"].backward()
        norm = norm + take_step()
        total = audio + visual + losses["total"]
        return {"audio_reference": audio, "visual_reference": visual, **losses, "total": total, "gradient_norm": norm}

    def references(self, network: CoLeaF, batch: Batch) -> AudioVisual[ReferenceOutput]:
        """Return what each reference network makes of its own modality."""
        audio, visual = batch.features
        frames, clips = split_frames(visual, network.anchor.visual_dims)
        seconds = torch.cat([frames.mean(dim=2), clips], dim=-1)  # the projection is linear: averages will do
        return AudioVisual(
            self.run(network.audio_reference, audio, **batch.padding),
            self.run(network.visual_reference, seconds, **batch.padding),
        )
