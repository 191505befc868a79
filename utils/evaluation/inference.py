"""Inference over whole splits, batch by batch, and pseudo-labels from a teacher's logits."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from dataloaders.batches import Batch, SplitBatches
from dataloaders.pseudo_labels import PseudoLabels
from models import HANOutput, TemporalTransformer
from utils.audio_visual import AudioVisual
from utils.training.device import Precision

Teacher = Callable[[SplitBatches], AudioVisual[Tensor]]  # teacher of stage 2: computes the logits (N, T, C) of a split


@dataclass(frozen=True)
class SplitOutput:
    """Output of HAN for a split: N videos, T segments, C classes."""

    logits: AudioVisual[Tensor]  # (N, T, C)
    video_probs: Tensor  # (N, C)
    modality_probs: AudioVisual[Tensor]  # (N, C) pooled over time


def pad_rows(rows: Tensor, lengths: Tensor) -> Tensor:
    """Arrange rows of consecutive videos in one tensor, padded with zeros: (R, C), (N,) -> (N, T, C)."""
    return pad_sequence(rows.split(lengths.tolist()), batch_first=True)


def _in_order(split: SplitBatches, batch_size: int, progress: bool) -> Iterator[Batch]:
    """Yield all batches of a split; `progress` shows a progress bar on terminals."""
    total = math.ceil(split.num_videos / batch_size)
    return tqdm(split.in_order(batch_size), disable=None if progress else True, total=total)


def _mask_padding(logits: AudioVisual[Tensor], batch: Batch, split: SplitBatches) -> AudioVisual[Tensor]:
    """Set logits of padding to -inf, and pad a batch to the split's longest video: (B, T', C) -> (B, T, C)."""
    if batch.mask is None:
        return logits
    beyond = (0, 0, 0, int(split.annotations.lengths.max()) - batch.mask.shape[1])
    padding = ~batch.mask.unsqueeze(-1)
    return logits.map(lambda z: F.pad(z.masked_fill(padding, -torch.inf), beyond, value=-torch.inf))


def _concatenated(batches: Iterable[AudioVisual[Tensor]]) -> AudioVisual[Tensor]:
    """Concatenate each modality's tensors of all batches."""
    return AudioVisual(*map(torch.cat, zip(*batches, strict=True)))


def temporal_transformer_logits(
    model: TemporalTransformer,
    split: SplitBatches,
    texts: AudioVisual[Tensor],
    batch_size: int,
    precision: Precision,
    progress: bool = False,
) -> AudioVisual[Tensor]:
    """Compute the logits of a split as `segment_logits` does, for the classes' text features (C, D)."""
    model.eval()

    def score(batch: Batch) -> AudioVisual[Tensor]:
        return precision.run(model, *batch.features, *texts, batch.mask, batch.valid_rows).logits

    return segment_logits(score, split, batch_size, progress)


@torch.inference_mode()
def segment_logits(
    score: Callable[[Batch], AudioVisual[Tensor]], split: SplitBatches, batch_size: int, progress: bool = False
) -> AudioVisual[Tensor]:
    """Compute the logits of a split, (N, T, C) with -inf for padding; `score` computes those of a batch, (B, T, C)."""
    batches = _in_order(split, batch_size, progress)
    return _concatenated(_mask_padding(score(batch), batch, split) for batch in batches)


def run_han(
    model: nn.Module, split: SplitBatches, batch_size: int, precision: Precision, progress: bool = False
) -> SplitOutput:
    """Run HAN or another network of stage 3 over a split."""
    return over_split(model, partial(precision.run, model), split, batch_size, progress)


@torch.inference_mode()
def over_split(
    model: nn.Module, parse: Callable[..., HANOutput], split: SplitBatches, batch_size: int, progress: bool = False
) -> SplitOutput:
    """Run `parse`, (audio, visual, mask=) -> output, on every batch in evaluation mode; logits of padding are -inf."""
    model.eval()
    outputs = []
    for batch in _in_order(split, batch_size, progress):
        output = parse(*batch.features, **batch.padding)
        outputs.append(replace(output, logits=_mask_padding(output.logits, batch, split)))
    return SplitOutput(
        _concatenated(output.logits for output in outputs),
        torch.cat([output.video_probs for output in outputs]),
        _concatenated(output.modality_probs for output in outputs),
    )


def hard_events(
    logits: AudioVisual[Tensor], thresholds: AudioVisual[Tensor], video_labels: Tensor
) -> AudioVisual[Tensor]:
    """Return hard pseudo-labels 1[logit > threshold] · y (Eq. 10): (N, T, C), (C,), (N, C) bool -> (N, T, C) bool."""
    return logits.map(lambda z, threshold: (z > threshold) & video_labels.unsqueeze(1), thresholds)


def make_pseudo_labels(
    split: SplitBatches, logits: AudioVisual[Tensor], events: AudioVisual[Tensor], thresholds: AudioVisual[Tensor]
) -> PseudoLabels:
    """Return a split's pseudo-labels from the teacher's logits and hard events, (N, T, C) each, and thresholds (C,)."""
    annotations = split.annotations
    valid = torch.arange(logits.audio.shape[1]) < annotations.lengths.unsqueeze(1)  # (N, T)
    of_split = annotations.dataset, annotations.classes, annotations.sample_ids, annotations.lengths
    return PseudoLabels(*of_split, *(pair.map(lambda x: x[valid]) for pair in (logits, events)), thresholds)
