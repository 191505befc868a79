"""Networks over a whole split, batch by batch, without gradients."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from dataloaders.batches import Batch, SplitBatches
from models import HAN, TemporalTransformer
from utils.device import Precision


@dataclass(frozen=True)
class SegmentLogits:
    """Logits of a split's segments: N videos, T segments of the longest, C classes. Padding holds -inf."""

    audio: Tensor  # (N, T, C)
    visual: Tensor  # (N, T, C)


@dataclass(frozen=True)
class HANScores:
    """What HAN says of a split: N videos, T segments, C classes."""

    audio_logits: Tensor  # (N, T, C)
    visual_logits: Tensor  # (N, T, C)
    video_probs: Tensor  # (N, C)
    audio_probs: Tensor  # (N, C) pooled over time
    visual_probs: Tensor  # (N, C) pooled over time


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
    events: tuple[Tensor, Tensor],
    batch_size: int,
    precision: Precision,
    progress: bool = False,
) -> SegmentLogits:
    """Score every segment of a split.

    Args:
        events: text features of the class names, (C, D) audio and (C, D) visual.
    """
    model.eval()

    def score(batch: Batch) -> tuple[Tensor, Tensor]:
        output = precision.run(model, batch.audio, batch.visual, *events, batch.mask, batch.valid_rows)
        return output.audio_logits, output.visual_logits

    return _segment_logits(score, split, events[0].shape[0], batch_size, progress)


@torch.inference_mode()
def framewise_logits(
    split: SplitBatches, events: tuple[Tensor, Tensor], scales: tuple[float, float], batch_size: int
) -> SegmentLogits:
    """Score every segment of a split by itself, without a network (VALOR): scale · cosine(segment, text).

    Args:
        events: text features of the classes, (C, D) audio and (C, D) visual.
        scales: of audio and visual cosines.
    """
    audio_events, visual_events = (F.normalize(e, dim=-1) for e in events)

    def score(batch: Batch) -> tuple[Tensor, Tensor]:
        audio = scales[0] * (F.normalize(batch.audio, dim=-1) @ audio_events.T)
        return audio, scales[1] * (F.normalize(batch.visual, dim=-1) @ visual_events.T)

    return _segment_logits(score, split, audio_events.shape[0], batch_size)


def _segment_logits(
    score: Callable[[Batch], tuple[Tensor, Tensor]],
    split: SplitBatches,
    num_classes: int,
    batch_size: int,
    progress: bool = False,
) -> SegmentLogits:
    """Logits of a split from those of its batches: a batch -> (B, T, C) audio, (B, T, C) visual."""
    num_segments = int(split.annotations.lengths.max())
    audio, visual = (
        torch.full((split.num_videos, num_segments, num_classes), -torch.inf, device=split.device) for _ in range(2)
    )
    first = 0
    for batch in _in_order(split, batch_size, progress):
        parts = score(batch)
        count, length = parts[0].shape[:2]
        for whole, part in zip((audio, visual), parts, strict=True):
            if batch.mask is not None:
                part = part.masked_fill(~batch.mask.unsqueeze(-1), -torch.inf)
            whole[first : first + count, :length] = part
        first += count
    return SegmentLogits(audio, visual)


@torch.inference_mode()
def han_scores(
    model: HAN, split: SplitBatches, batch_size: int, precision: Precision, progress: bool = False
) -> HANScores:
    """Run HAN over a split of videos of equal length."""
    model.eval()
    parts = []
    for batch in _in_order(split, batch_size, progress):
        output = precision.run(model, batch.audio, batch.visual)
        parts.append(
            (output.audio_logits, output.visual_logits, output.video_probs, output.audio_probs, output.visual_probs)
        )
    return HANScores(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
