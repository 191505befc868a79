"""CoLeaF (Sardari et al., ECCV 2024): two unimodal reference networks guide CMPAE's network in training."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from baselines import cmpae
from baselines.cmpae import CMPAELosses, CMPAEStep
from baselines.cmpae.cmpae_network import CMPAEOutput, split_frames
from baselines.coleaf.coleaf_network import CoLeaF, ReferenceOutput
from baselines.jomold import noise_contrastive_loss
from baselines.ma import segment_cosines
from dataloaders.batches import Batch
from utils.audio_visual import MODALITIES, AudioVisual
from utils.method.losses import Losses, Moment

REFERENCE_WARM_UP = 3  # epochs in which the reference networks are trained without the anchor
FIRST_GUIDED_EPOCH = 2  # first epoch in which the reference networks guide the anchor
CORRELATION_WEIGHT = 1e-4


@dataclass(frozen=True)
class ReferenceWeights:
    """Loss weights and thresholds of one modality."""

    early_tokens: float  # weight of the class tokens' loss in the first epochs
    tokens: float  # the same in later epochs
    anchor_reaches: float  # lowest probability of the anchor that confirms a label
    confident: tuple[float, float]  # reference probabilities outside this open interval guide the anchor
    contrastive: float  # weight of the contrastive loss


WEIGHTS = AudioVisual(
    ReferenceWeights(early_tokens=1.2, tokens=0.001, anchor_reaches=0.5, confident=(0.1, 0.8), contrastive=0.009),
    ReferenceWeights(early_tokens=1.0, tokens=0.0, anchor_reaches=0.6, confident=(0.4, 0.6), contrastive=1.0),
)


def asymmetric_loss(probs: Tensor, targets: Tensor, margin: float = 0.05) -> Tensor:
    """Compute CoLeaF's `AsymmetricLoss` of any shape, the sum of -(1 - pt)·[y log p + (1 - y) log q].

    q = min(1 - p + margin, 1) and pt = y·p + (1 - y)·q; no gradient flows through the focus 1 - pt (released code).
    """
    kept = (1 - probs + margin).clamp(max=1)
    focus = 1 - (targets * probs + (1 - targets) * kept).detach()
    log_probs, log_kept = probs.clamp(min=1e-8).log(), kept.clamp(min=1e-8).log()
    return -(focus * (targets * log_probs + (1 - targets) * log_kept)).sum()


def reference_loss(
    reference: ReferenceOutput, targets: Tensor, anchor_probs: Tensor, weights: ReferenceWeights, epoch: int
) -> Tensor:
    """Compute the loss of a reference network, summed over videos and classes, on cleaned labels (B, C).

    After epoch 3, half of it is computed on labels that the anchor confirms.
    """
    pooled, tokens = asymmetric_loss(reference.probs, targets), asymmetric_loss(reference.token_probs, targets)
    if epoch <= REFERENCE_WARM_UP:
        return pooled + weights.early_tokens * tokens
    confirmed = targets * (anchor_probs >= weights.anchor_reaches)
    return 0.5 * pooled + weights.tokens * tokens + 0.5 * asymmetric_loss(reference.probs, confirmed)


def guided_probs(
    anchor_probs: Tensor, reference_probs: Tensor, targets: Tensor, confident: tuple[float, float]
) -> Tensor:
    """Compute t = m·r + (1 - m)·s: the reference's probability r where it is confident, else the anchor's s, (B, C).

    m is the target where r is confident and 0 elsewhere, so smoothed targets of 0.05 leak in (released code).
    """
    share = targets * ((reference_probs <= confident[0]) | (reference_probs >= confident[1]))
    return share * reference_probs + (1 - share) * anchor_probs.detach()


def unimodal_shares(reference_probs: AudioVisual[Tensor], threshold: float = 0.5) -> AudioVisual[Tensor]:
    """Compute the share of a modality's events that the other lacks, 0 without events: (B, C) -> (B,) each."""
    audio, visual = reference_probs.audio >= threshold, reference_probs.visual >= threshold
    audio_only, visual_only = (audio & ~visual).sum(dim=1), (visual & ~audio).sum(dim=1)
    return AudioVisual(audio_only / audio.sum(dim=1).clamp(min=1), visual_only / visual.sum(dim=1).clamp(min=1))


def class_correlation_loss(probs: Tensor, guides: Tensor) -> Tensor:
    """Compute CoLeaF's class-correlation loss (`cc_loss`): the sum over videos of |t t' - s s'|², times B / C.

    t t' is the C x C matrix of products of a video's guides, (B, C), and s s' that of the anchor's probabilities; that
    the products are over classes is our reading. The released code multiplies by B where a mean would divide.
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
    """Compute the losses by which the reference networks guide the anchor, by name, and their weighted sum, "total".

    Each modality has a class-correlation loss, and a contrastive loss that matches the reference's and the anchor's
    features of the same second, weighted by the video's `unimodal_shares`. Targets, (B, C), are cleaned.
    """
    shares = unimodal_shares(references.map(lambda reference: reference.probs))
    losses: Losses = {}
    for n, modality in enumerate(MODALITIES):
        reference, probs = references[n], output.modality_probs[n]
        guides = guided_probs(probs, reference.probs, targets[n], WEIGHTS[n].confident)
        losses[f"{modality}_correlation"] = class_correlation_loss(probs, guides)
        cosines = segment_cosines(reference.features, output.features[n], settings.contrastive_temperature, mask)
        contrastive = noise_contrastive_loss(cosines, settings.contrastive_smoothing, shares[n], mask)
        losses[f"{modality}_reference_contrast"] = contrastive
    total = CORRELATION_WEIGHT * (losses["audio_correlation"] + losses["visual_correlation"])
    total = total + WEIGHTS.audio.contrastive * losses["audio_reference_contrast"]
    total = total + WEIGHTS.visual.contrastive * losses["visual_reference_contrast"]
    return {**losses, "total": total}


class CoLeaFStep(CMPAEStep):
    """The training step of CoLeaF: one step of the reference networks, then one of the anchor, which they guide."""

    def __call__(self, network: CoLeaF, batch: Batch, moment: Moment, take_step: Callable[[], Tensor]) -> Losses:
        """Take both optimiser steps with `take_step`, which returns the gradient's norm, and return the losses."""
        output = self.run(network, *batch.features, **batch.padding)
        targets = self.learned_targets(network, batch, moment)
        references = self.references(network, batch)
        with torch.no_grad():  # labels are confirmed by a separate forward pass, with its own dropout
            probs = self.run(network, *batch.features, **batch.padding).modality_probs
        audio = reference_loss(references.audio, targets.audio, probs.audio, WEIGHTS.audio, moment.epoch)
        visual = reference_loss(references.visual, targets.visual, probs.visual, WEIGHTS.visual, moment.epoch)
        (audio + visual).backward()
        norm = take_step()

        losses = self.losses(output, batch, targets, moment)
        if moment.epoch >= FIRST_GUIDED_EPOCH:
            with torch.no_grad():  # after their own step, in training mode
                references = self.references(network, batch)
            guided = guidance_losses(output, references, targets, self.settings, batch.mask)
            losses = {**losses, **guided, "total": losses["total"] + guided["total"]}
        losses["total"].backward()
        norm = norm + take_step()
        total = audio + visual + losses["total"]
        return {"audio_reference": audio, "visual_reference": visual, **losses, "total": total, "gradient_norm": norm}

    def references(self, network: CoLeaF, batch: Batch) -> AudioVisual[ReferenceOutput]:
        """Compute the output of each reference network for its modality."""
        frames, clips = split_frames(batch.features.visual, network.anchor.visual_dims)
        seconds = torch.cat([frames.mean(dim=2), clips], dim=-1)  # the projection is linear, so averages suffice
        inputs = AudioVisual(batch.features.audio, seconds)
        networks = AudioVisual(network.audio_reference, network.visual_reference)
        return networks.map(lambda reference, features: self.run(reference, features, **batch.padding), inputs)


own = {"published_name": "CoLeaf", "make_step": CoLeaFStep, "network": CoLeaF, "takes_steps": True}
METHODS = {"coleaf": replace(cmpae.METHODS["cmpae"], **own)}
