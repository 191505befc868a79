"""The teachers of stage 2, which score every segment of a split, and the pseudo-labels made from their logits."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.batches import SplitBatches
from dataloaders.pseudo_labels import PseudoLabels
from models import TemporalTransformer
from utils.audio_visual import AudioVisual
from utils.evaluation.inference import temporal_transformer_logits
from utils.training.checkpoints import load_network
from utils.training.device import Precision

Teacher = Callable[[SplitBatches], AudioVisual[Tensor]]  # logits (N, T, C) of a split


def temporal_transformer_teacher(
    checkpoint: Path,
    num_heads: int,
    val: SplitBatches,
    texts: AudioVisual[Tensor],
    batch_size: int,
    precision: Precision,
) -> Teacher:
    """The pre-trained temporal transformer, which sees a video's other segments."""
    expected = {
        "audio_dim": val.widths.audio,
        "visual_dim": val.widths.visual,
        "audio_text_dim": texts.audio.shape[1],
        "visual_text_dim": texts.visual.shape[1],
    }
    model = load_network(TemporalTransformer, checkpoint, expected, num_heads=num_heads).to(val.device)
    return lambda split: temporal_transformer_logits(model, split, texts, batch_size, precision, progress=True)


def hard_events(
    logits: AudioVisual[Tensor], thresholds: AudioVisual[Tensor], video_labels: Tensor
) -> AudioVisual[Tensor]:
    """Hard pseudo-labels 1[logit > threshold] · y: (N, T, C), (C,), (N, C) bool -> (N, T, C) bool."""
    return logits.map(lambda z, threshold: (z > threshold) & video_labels.unsqueeze(1), thresholds)


def make_pseudo_labels(
    split: SplitBatches, logits: AudioVisual[Tensor], events: AudioVisual[Tensor], thresholds: AudioVisual[Tensor]
) -> PseudoLabels:
    """Pseudo-labels of a split from its teacher's logits and the hard ones: (N, T, C) each, thresholds (C,)."""
    annotations = split.annotations
    valid = torch.arange(logits.audio.shape[1]) < annotations.lengths.unsqueeze(1)  # (N, T)
    return PseudoLabels(
        dataset=annotations.dataset,
        classes=annotations.classes,
        sample_ids=annotations.sample_ids,
        lengths=annotations.lengths,
        logits=logits.map(lambda z: z[valid]),
        labels=events.map(lambda labels: labels[valid]),
        thresholds=thresholds,
    )
