"""Networks over a whole split, batch by batch, without gradients."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dataloaders.batches import Batch, SplitBatches
from models import HANOutput, TemporalTransformer
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

    return segment_logits(score, split, texts.audio.shape[0], batch_size, progress)


def segment_logits(
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
    model: nn.Module, split: SplitBatches, batch_size: int, precision: Precision, progress: bool = False
) -> SplitOutput:
    """Run HAN, or another network of stage 3, over a split of videos of equal length."""

    def parse(*features: Tensor) -> HANOutput:
        return precision.run(model, *features)

    return over_split(model, parse, split, batch_size, progress)


@torch.inference_mode()
def over_split(
    model: nn.Module,
    parse: Callable[..., HANOutput],
    split: SplitBatches,
    batch_size: int,
    progress: bool = False,
) -> SplitOutput:
    """Parse every batch of a split of videos of equal length.

    Args:
        model: brought into evaluation mode.
        parse: (audio, visual) -> what the network makes of a batch.
    """
    model.eval()
    outputs = [parse(*batch.features) for batch in _in_order(split, batch_size, progress)]

    def join(pairs: list[AudioVisual[Tensor]]) -> AudioVisual[Tensor]:
        return AudioVisual(*(torch.cat(parts) for parts in zip(*pairs, strict=True)))

    return SplitOutput(
        logits=join([output.logits for output in outputs]),
        video_probs=torch.cat([output.video_probs for output in outputs]),
        modality_probs=join([output.modality_probs for output in outputs]),
    )
