"""The teachers of stage 2, which score every segment of a split, and the pseudo-labels made from their logits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.batches import DataSettings, SplitBatches, features_with_text
from dataloaders.datasets import DATASETS
from dataloaders.features import text_features_path
from dataloaders.prompts import PROMPTS_FILE
from dataloaders.pseudo_labels import PseudoLabels
from models import TemporalTransformer
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.inference import framewise_logits, temporal_transformer_logits
from utils.settings import setting
from utils.training.checkpoints import load_network
from utils.training.device import Precision

Teacher = Callable[[SplitBatches], AudioVisual[Tensor]]  # logits (N, T, C) of a split


@dataclass(frozen=True)
class FramewiseSettings:
    """The framewise teacher (VALOR)."""

    audio_logit_scale: float = setting(26.87, "scale of cosines between CLAP features", above=0)
    visual_logit_scale: float = setting(100.0, "scale of cosines between CLIP features", above=0)
    prompts: str = setting(
        "auto",
        "texts that stand for the classes; auto: VALOR's sentences where their features are there",
        choices=("auto", "valor", "event_names"),
    )
    prompts_file: Path = setting(PROMPTS_FILE, "VALOR's sentences")


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


def framewise_teacher(
    settings: FramewiseSettings, val: SplitBatches, texts: AudioVisual[Tensor], batch_size: int
) -> Teacher:
    """CLIP and CLAP themselves, which see one segment at a time (VALOR)."""
    for flag, width, text in zip(("--audio_features", "--visual_features"), val.widths, texts, strict=True):
        if width != text.shape[1]:
            raise InputError(
                flag,
                f"{width} wide beside text features {text.shape[1]} wide",
                "segments and text in one space",
                "Use clap for audio and clip for visual features, and text features of the same encoder.",
            )
    scales = AudioVisual(settings.audio_logit_scale, settings.visual_logit_scale)
    return lambda split: framewise_logits(split, texts, scales, batch_size)


def has_valor_prompts(dataset: str, data: DataSettings) -> bool:
    """Whether both modalities have features of VALOR's sentences; just one is more likely a mistake than a choice."""
    folder = data.folder(dataset)
    paths = features_with_text(data).map(lambda name: text_features_path(folder, name, "valor"))
    if paths.audio.exists() != paths.visual.exists():
        there, absent = sorted(paths, key=Path.exists, reverse=True)
        raise InputError(absent, f"no file, but {there}", "text features of VALOR's prompts for both", "Add the file.")
    return paths.audio.exists()


def valor_thresholds(dataset: str) -> AudioVisual[Tensor]:
    """VALOR's own thresholds, (C,) float64. Raises InputError for a data set that has none."""
    thresholds = DATASETS[dataset].fixed_thresholds
    if thresholds is None:
        known = ", ".join(name for name, row in DATASETS.items() if row.fixed_thresholds)
        raise InputError(
            "--thresholds",
            f"fixed, for {dataset}",
            f"a data set that VALOR has thresholds for ({known})",
            "Search them: --thresholds search.",
        )
    return thresholds.map(lambda values: torch.tensor(values, dtype=torch.float64))


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
