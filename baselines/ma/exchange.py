"""MA's exchange: which labels of a video does each modality not show (Wu and Yang, CVPR 2021)?

A model hears a video's own sound beside the pictures of an unrelated video, and sees its pictures beside the sound of
one. An event that it then finds nowhere is not in the modality that was kept.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dataloaders.batches import SplitBatches
from models import HAN
from utils.audio_visual import AudioVisual
from utils.evaluation.inference import run_han
from utils.training.device import Precision


@dataclass(frozen=True)
class Exchange:
    """What the exchange finds: N videos, C classes."""

    labels: AudioVisual[Tensor]  # (N, C) bool, labels left to each modality
    without_partner: int  # videos that every other one shares a label with: they keep all labels

    def keeping_one(self, labels: Tensor) -> "Exchange":
        """The same, but labels (N, C) that were removed from both modalities are given back to both."""
        neither = labels & ~self.labels.audio & ~self.labels.visual
        return replace(self, labels=self.labels.map(lambda left: left | neither))


def unrelated_videos(labels: Tensor, generator: torch.Generator, rows: int = 512) -> Tensor:
    """For each video another one, drawn at random among those without a common label; -1 where there is none.

    Args:
        labels: (N, C) bool, on the CPU.
        rows: videos at a time, which bounds the memory: rows x N.

    Returns:
        (N,) int64
    """
    as_numbers = labels.float()
    partners = []
    for part in as_numbers.split(rows):
        unrelated = (part @ as_numbers.T == 0).float()  # (rows, N)
        some = unrelated.any(dim=1)
        unrelated[~some] = 1  # multinomial wants a positive weight
        drawn = torch.multinomial(unrelated, 1, generator=generator).squeeze(1)  # (rows,)
        partners.append(torch.where(some, drawn, -1))
    return torch.cat(partners)


def normalized_error_rates(probs: Tensor, labels: Tensor) -> Tensor:
    """How often a modality misses each class, in proportion to the average class: (N, C), (N, C) bool -> (C,).

    The error rate of a class is the share of the videos labelled with it whose pooled probability is under 0.5. It is
    divided by the mean over the classes that occur; where nothing is missed at all, and for a class that does not
    occur, it is 1.
    """
    counts = labels.sum(dim=0)  # (C,)
    occurring = counts > 0
    rates = ((probs < 0.5) & labels).sum(dim=0) / counts
    mean = rates[occurring].mean()
    return torch.where(occurring & (mean > 0), rates / mean, 1.0)


def absent_labels(modality_probs: AudioVisual[Tensor], rates: AudioVisual[Tensor]) -> Tensor:
    """Classes that neither modality shows after the exchange: p / r < 0.5 in both, (B, C) bool.

    It is computed as p < r / 2, since a class that is never missed has r = 0.

    Args:
        modality_probs: (B, C) pooled over time, with one modality exchanged.
        rates: (C,), from `normalized_error_rates`.
    """
    return (modality_probs.audio < rates.audio / 2) & (modality_probs.visual < rates.visual / 2)


@torch.inference_mode()
def error_rates(model: HAN, split: SplitBatches, batch_size: int, precision: Precision) -> AudioVisual[Tensor]:
    """The normalised error rates of MA's base model on a split's video labels, (C,)."""
    labels = split.annotations.video_labels.to(split.device)
    output = run_han(model, split, batch_size, precision, progress=True)
    return output.modality_probs.map(lambda probs: normalized_error_rates(probs, labels))


@torch.inference_mode()
def exchange_modalities(
    model: HAN,
    split: SplitBatches,
    rates: AudioVisual[Tensor],
    batch_size: int,
    precision: Precision,
    generator: torch.Generator,
) -> Exchange:
    """Clean the labels of each modality of a split.

    Args:
        model: MA's base model.
        rates: (C,), from `error_rates`.
        generator: on the CPU; draws the unrelated videos, one for each video.
    """
    labels = split.annotations.video_labels  # (N, C)
    model.eval()
    partners = unrelated_videos(labels, generator)
    with_partner = (partners >= 0).nonzero().squeeze(1)  # (K,)
    absent = AudioVisual(torch.zeros_like(labels), torch.zeros_like(labels))
    pairs = zip(
        split.of_videos(with_partner, batch_size), split.of_videos(partners[with_partner], batch_size), strict=True
    )
    for batch, partner in pairs:
        heard = precision.run(model, batch.features.audio, partner.features.visual)
        seen = precision.run(model, partner.features.audio, batch.features.visual)
        videos = batch.videos.cpu()
        absent.audio[videos] = absent_labels(heard.modality_probs, rates).cpu()
        absent.visual[videos] = absent_labels(seen.modality_probs, rates).cpu()
    return Exchange(
        labels=absent.map(lambda of_modality: labels & ~of_modality),
        without_partner=labels.shape[0] - with_partner.shape[0],
    )
