"""Networks over a whole split, batch by batch, without gradients."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from baselines.ma.exchange import Exchange, absent_labels, normalized_error_rates, unrelated_videos
from dataloaders.batches import Batch, SplitBatches
from models import HAN, HANOutput, TemporalTransformer
from utils.audio_visual import AudioVisual
from utils.training.device import Precision


@dataclass(frozen=True)
class SplitOutput:
    """Output of HAN for a split: N videos, T segments, C classes."""

    logits: AudioVisual[Tensor]  # (N, T, C)
    video_probs: Tensor  # (N, C)
    modality_probs: AudioVisual[Tensor]  # (N, C) pooled over time


def pad_rows(rows: Tensor, lengths: Tensor, value: float | bool = False) -> Tensor:
    """Rows of consecutive videos as one padded tensor: (R, C), (N,) -> (N, T, C)."""
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)  # (N, T)
    padded = rows.new_full((*mask.shape, rows.shape[-1]), value)
    padded[mask.to(rows.device)] = rows
    return padded


def _in_order(split: SplitBatches, batch_size: int, progress: bool) -> Iterator[Batch]:
    """All batches of a split, with a progress bar on a terminal where it is wanted."""
    total = math.ceil(split.num_videos / batch_size)
    return tqdm(split.in_order(batch_size), disable=None if progress else True, total=total)


@torch.inference_mode()
def temporal_transformer_logits(
    model: TemporalTransformer,
    split: SplitBatches,
    texts: AudioVisual[Tensor],
    batch_size: int,
    precision: Precision,
    progress: bool = False,
) -> AudioVisual[Tensor]:
    """Score every segment of a split: (N, T, C) with T of the longest video; padding holds -inf.

    Args:
        texts: text features of the class names, (C, D).
    """
    model.eval()

    def score(batch: Batch) -> AudioVisual[Tensor]:
        return precision.run(model, *batch.features, *texts, batch.mask, batch.valid_rows).logits

    return _segment_logits(score, split, texts.audio.shape[0], batch_size, progress)


@torch.inference_mode()
def framewise_logits(
    split: SplitBatches, texts: AudioVisual[Tensor], scales: AudioVisual[float], batch_size: int
) -> AudioVisual[Tensor]:
    """Score every segment of a split by itself, without a network (VALOR): scale · cosine(segment, text), (N, T, C).

    Args:
        texts: text features of the classes, (C, D).
        scales: of the cosines.
    """
    directions = texts.map(lambda x: F.normalize(x, dim=-1))

    def score(batch: Batch) -> AudioVisual[Tensor]:
        return batch.features.map(lambda x, text, scale: scale * (F.normalize(x, dim=-1) @ text.T), directions, scales)

    return _segment_logits(score, split, texts.audio.shape[0], batch_size)


def _segment_logits(
    score: Callable[[Batch], AudioVisual[Tensor]],
    split: SplitBatches,
    num_classes: int,
    batch_size: int,
    progress: bool = False,
) -> AudioVisual[Tensor]:
    """Logits of a split from those of its batches, (B, T, C)."""
    shape = (split.num_videos, int(split.annotations.lengths.max()), num_classes)
    whole = AudioVisual(*(torch.full(shape, -torch.inf, device=split.device) for _ in range(2)))
    first = 0
    for batch in _in_order(split, batch_size, progress):
        for of_split, part in zip(whole, score(batch), strict=True):
            if batch.mask is not None:
                part = part.masked_fill(~batch.mask.unsqueeze(-1), -torch.inf)
            of_split[first : first + part.shape[0], : part.shape[1]] = part
        first += len(batch.videos)
    return whole


@torch.inference_mode()
def run_han(
    model: nn.Module,
    split: SplitBatches,
    batch_size: int,
    precision: Precision,
    progress: bool = False,
    cross_share: float = 1.0,
) -> SplitOutput:
    """Run HAN, or another network of stage 3, over a split of videos of equal length.

    Args:
        cross_share: share of all probabilities with cross-attention; the rest is of the network without it (CMPAE).
    """
    model.eval()

    def parse(batch: Batch) -> HANOutput:
        output = precision.run(model, *batch.features)
        if cross_share == 1:
            return output
        return mixed_output(output, precision.run(model, *batch.features, False), cross_share)

    outputs = [parse(batch) for batch in _in_order(split, batch_size, progress)]

    def join(pairs: list[AudioVisual[Tensor]]) -> AudioVisual[Tensor]:
        return AudioVisual(*(torch.cat(parts) for parts in zip(*pairs, strict=True)))

    return SplitOutput(
        logits=join([output.logits for output in outputs]),
        video_probs=torch.cat([output.video_probs for output in outputs]),
        modality_probs=join([output.modality_probs for output in outputs]),
    )


def mixed_output(first: HANOutput, second: HANOutput, share: float) -> HANOutput:
    """The first output with probabilities share·first + (1 - share)·second, its logits those of the mixed ones."""

    def mix(one: Tensor, other: Tensor) -> Tensor:
        return share * one + (1 - share) * other

    segment_probs = first.logits.map(torch.sigmoid).map(mix, second.logits.map(torch.sigmoid))
    return replace(
        first,
        video_probs=mix(first.video_probs, second.video_probs),
        modality_probs=first.modality_probs.map(mix, second.modality_probs),
        logits=segment_probs.map(torch.logit),
    )


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
