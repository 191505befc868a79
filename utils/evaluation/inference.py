"""Networks over a whole split, batch by batch, without gradients; pseudo-labels from a teacher's logits."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from dataloaders.batches import Batch, SplitBatches
from dataloaders.pseudo_labels import PseudoLabels
from models import HANOutput, TemporalTransformer
from utils.audio_visual import AudioVisual
from utils.training.device import Precision

Teacher = Callable[[SplitBatches], AudioVisual[Tensor]]  # of stage 2: logits (N, T, C) of a split


@dataclass(frozen=True)
class SplitOutput:
    """Output of HAN for a split: N videos, T segments, C classes."""

    logits: AudioVisual[Tensor]  # (N, T, C)
    video_probs: Tensor  # (N, C)
    modality_probs: AudioVisual[Tensor]  # (N, C) pooled over time


def pad_rows(rows: Tensor, lengths: Tensor) -> Tensor:
    """Lay out rows of consecutive videos as one tensor padded with zeros: (R, C), (N,) -> (N, T, C)."""
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)  # (N, T)
    padded = rows.new_zeros((*mask.shape, rows.shape[-1]))
    padded[mask.to(rows.device)] = rows
    return padded


def _in_order(split: SplitBatches, batch_size: int, progress: bool) -> Iterator[Batch]:
    """Yield all batches of a split, with a progress bar on a terminal where it is wanted."""
    total = math.ceil(split.num_videos / batch_size)
    return tqdm(split.in_order(batch_size), disable=None if progress else True, total=total)


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


@torch.inference_mode()
def segment_logits(
    score: Callable[[Batch], AudioVisual[Tensor]],
    split: SplitBatches,
    num_classes: int,
    batch_size: int,
    progress: bool = False,
) -> AudioVisual[Tensor]:
    """Put together the logits of a split, (N, T, C), from those of its batches, (B, T, C)."""
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


def run_han(
    model: nn.Module, split: SplitBatches, batch_size: int, precision: Precision, progress: bool = False
) -> SplitOutput:
    """Run HAN, or another network of stage 3, over a split."""
    return over_split(model, partial(precision.run, model), split, batch_size, progress)


@torch.inference_mode()
def over_split(
    model: nn.Module, parse: Callable[..., HANOutput], split: SplitBatches, batch_size: int, progress: bool = False
) -> SplitOutput:
    """Parse every batch of a split. Padding at the end of shorter videos has logits of -inf.

    Args:
        model: brought into evaluation mode.
        parse: (audio, visual), with a `mask` where there is padding -> what the network makes of a batch.
    """
    model.eval()
    longest, outputs = int(split.annotations.lengths.max()), []
    for batch in _in_order(split, batch_size, progress):
        output = parse(*batch.features, **batch.padding)
        if batch.mask is not None:
            beyond = (0, 0, 0, longest - batch.mask.shape[1])
            kept = [z.masked_fill(~batch.mask.unsqueeze(-1), -torch.inf) for z in output.logits]
            output = replace(output, logits=AudioVisual(*(F.pad(z, beyond, value=-torch.inf) for z in kept)))
        outputs.append(output)
    return SplitOutput(
        AudioVisual(torch.cat([o.logits.audio for o in outputs]), torch.cat([o.logits.visual for o in outputs])),
        torch.cat([o.video_probs for o in outputs]),
        AudioVisual(
            torch.cat([o.modality_probs.audio for o in outputs]), torch.cat([o.modality_probs.visual for o in outputs])
        ),
    )


def hard_events(
    logits: AudioVisual[Tensor], thresholds: AudioVisual[Tensor], video_labels: Tensor
) -> AudioVisual[Tensor]:
    """Return hard pseudo-labels 1[logit > threshold] · y (Eq. 10): (N, T, C), (C,), (N, C) bool -> (N, T, C) bool."""
    in_video = video_labels.unsqueeze(1)  # (N, 1, C)
    return AudioVisual((logits.audio > thresholds.audio) & in_video, (logits.visual > thresholds.visual) & in_video)


def make_pseudo_labels(
    split: SplitBatches, logits: AudioVisual[Tensor], events: AudioVisual[Tensor], thresholds: AudioVisual[Tensor]
) -> PseudoLabels:
    """Return pseudo-labels of a split from its teacher's logits and the hard ones: (N, T, C) each, thresholds (C,)."""
    annotations = split.annotations
    valid = torch.arange(logits.audio.shape[1]) < annotations.lengths.unsqueeze(1)  # (N, T)
    return PseudoLabels(
        dataset=annotations.dataset,
        classes=annotations.classes,
        sample_ids=annotations.sample_ids,
        lengths=annotations.lengths,
        logits=AudioVisual(logits.audio[valid], logits.visual[valid]),
        labels=AudioVisual(events.audio[valid], events.visual[valid]),
        thresholds=thresholds,
    )
