"""MA's exchange: which labels of a video does each modality not show (Wu and Yang, CVPR 2021)?

A model hears a video's own sound beside the pictures of an unrelated video, and sees its pictures beside the sound of
one. An event that it then finds nowhere is not in the modality that was kept.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dataloaders.batches import SplitBatches
from models import HAN
from utils.device import Precision
from utils.inference import han_scores


@dataclass(frozen=True)
class ErrorRates:
    """How often the base model misses each class, in proportion to the average class."""

    audio: Tensor  # (C,)
    visual: Tensor  # (C,)


@dataclass(frozen=True)
class Exchange:
    """What the exchange finds: N videos, C classes."""

    audio_labels: Tensor  # (N, C) bool, labels left to the audio
    visual_labels: Tensor  # (N, C) bool
    without_partner: int  # videos that every other one shares a label with: they keep all labels

    def keeping_one(self, labels: Tensor) -> "Exchange":
        """The same, but labels (N, C) that were removed from both modalities are given back to both."""
        neither = labels & ~self.audio_labels & ~self.visual_labels
        return replace(self, audio_labels=self.audio_labels | neither, visual_labels=self.visual_labels | neither)


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
    rates = ((probs < 0.5) & labels).sum(dim=0) / counts.clamp(min=1)
    mean = rates[occurring].mean()
    return torch.where(occurring & (mean > 0), rates / mean, 1.0)


def absent_labels(audio_probs: Tensor, visual_probs: Tensor, rates: ErrorRates) -> Tensor:
    """Classes that neither modality shows after the exchange: p / r < 0.5 in both, (B, C) bool.

    It is computed as p < r / 2, since a class that is never missed has r = 0.

    Args:
        audio_probs, visual_probs: (B, C) pooled over time, with one stream exchanged.
    """
    return (audio_probs < rates.audio / 2) & (visual_probs < rates.visual / 2)


@torch.inference_mode()
def error_rates(model: HAN, split: SplitBatches, batch_size: int, precision: Precision) -> ErrorRates:
    """The normalised error rates of MA's base model on a split's video labels."""
    scores = han_scores(model, split, batch_size, precision, progress=True)
    labels = split.annotations.video_labels.to(split.device)
    return ErrorRates(*(normalized_error_rates(p, labels) for p in (scores.audio_probs, scores.visual_probs)))


@torch.inference_mode()
def exchange_streams(
    model: HAN,
    split: SplitBatches,
    rates: ErrorRates,
    batch_size: int,
    precision: Precision,
    generator: torch.Generator,
) -> Exchange:
    """Clean the labels of each modality of a split.

    Args:
        model: MA's base model.
        generator: on the CPU; draws the unrelated videos, one for each video.
    """
    labels = split.annotations.video_labels  # (N, C)
    model.eval()
    partners = unrelated_videos(labels, generator)
    with_partner = (partners >= 0).nonzero().squeeze(1)  # (K,)
    not_heard, not_seen = torch.zeros_like(labels), torch.zeros_like(labels)
    pairs = zip(
        split.of_videos(with_partner, batch_size), split.of_videos(partners[with_partner], batch_size), strict=True
    )
    for batch, partner in pairs:
        heard = precision.run(model, batch.audio, partner.visual)
        seen = precision.run(model, partner.audio, batch.visual)
        videos = batch.videos.cpu()
        for absent, output in ((not_heard, heard), (not_seen, seen)):
            absent[videos] = absent_labels(output.audio_probs, output.visual_probs, rates).cpu()
    return Exchange(
        audio_labels=labels & ~not_heard,
        visual_labels=labels & ~not_seen,
        without_partner=labels.shape[0] - with_partner.shape[0],
    )
