"""VALOR's teacher: CLIP and CLAP, applied to single segments (Lai, Chen and Wang, NeurIPS 2023)."""

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from dataloaders.batches import Batch, DataSettings, SplitBatches, features_with_text
from dataloaders.features import text_features_path
from dataloaders.prompts import PROMPTS_FILE, load_prompts
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.inference import Teacher, segment_logits
from utils.settings import settings_group, with_settings

# VALOR's thresholds by class, for logits 26.87 · cosine (CLAP) and 100 · cosine (CLIP) of the real encoders.
FIXED_THRESHOLDS = {
    "LLP": AudioVisual(
        audio=(0, 0, 1, 4, 6, -2, 4, 4, 2, 2, 2, 1, 2, 3, 0, 2, 2, 2, 0, 2, -1, 2, 3, 3, 0),
        visual=(20, 15, 18, 14, 15, 18, 18, 15, 15, 15, 15, 18, 15, 15, 15, 15, 15, 15, 15, 16, 14, 15, 15, 15, 18),
    )
}


@settings_group
class FramewiseSettings:
    """Settings of VALOR's teacher."""

    audio_logit_scale: PositiveFloat = 26.87  # scale of the cosines of CLAP features
    visual_logit_scale: PositiveFloat = 100.0  # scale of the cosines of CLIP features
    prompts: Literal["auto", "valor", "event_names"] = "auto"
    """texts of the classes; auto: VALOR's sentences if their features exist, else event_names"""
    prompts_file: Path = PROMPTS_FILE  # file of VALOR's sentences


@torch.inference_mode()
def framewise_logits(
    split: SplitBatches, texts: AudioVisual[Tensor], scales: AudioVisual[float], batch_size: int
) -> AudioVisual[Tensor]:
    """Compute scale · cosine(segment, text) for every segment of a split and the classes' texts (C, D): (N, T, C)."""
    texts = texts.map(lambda rows: F.normalize(rows, dim=-1))

    def score(batch: Batch) -> AudioVisual[Tensor]:
        return batch.features.map(lambda x, rows, scale: scale * (F.normalize(x, dim=-1) @ rows.T), texts, scales)

    return segment_logits(score, split, batch_size)


def framewise_teacher(
    settings: FramewiseSettings, val: SplitBatches, texts: AudioVisual[Tensor], batch_size: int
) -> Teacher:
    """Return VALOR's teacher, CLIP and CLAP on single segments. Raises InputError for features of unequal width."""
    for flag, width, text in zip(("--audio_features", "--visual_features"), val.widths, texts, strict=True):
        if width != text.shape[1]:
            found = f"segment features of width {width}, and text features of width {text.shape[1]}"
            way_out = "Use clap for audio and clip for visual features, and text features of the same encoder."
            raise InputError(flag, found, "segments and text in one space", way_out)
    scales = AudioVisual(settings.audio_logit_scale, settings.visual_logit_scale)
    return lambda split: framewise_logits(split, texts, scales, batch_size)


def refuse_network_flags(settings: Any) -> None:
    """Raise InputError for flags of stage 1's network, which this teacher does not use."""
    for name in ("transformer_dir", "checkpoint", "num_heads"):
        if (given := getattr(settings, name)) is not None:
            expected = f"no such flag with --teacher {settings.teacher}"
            raise InputError(f"--{name}", str(given), expected, "Leave out the flag, or the teacher.")


def framewise_settings(settings: Any) -> Any:
    """Return the settings of stage 2 with thresholds and prompts. Raises InputError for flags without effect."""
    refuse_network_flags(settings)
    thresholds = settings.thresholds or ("fixed" if settings.dataset in FIXED_THRESHOLDS else "search")
    if thresholds == "fixed" and settings.threshold_type != "class_wise":
        found, expected = settings.threshold_type, "class_wise with fixed thresholds"
        raise InputError("--threshold_type", found, expected, "Pass --thresholds search, or leave out the flag.")
    prompts = settings.framewise.prompts
    if prompts == "auto":
        prompts = "valor" if has_valor_prompts(settings.dataset, settings.data) else "event_names"
    if prompts == "valor":
        load_prompts(settings.framewise.prompts_file, settings.dataset)  # raises InputError if a class has no sentence
    return with_settings(settings, prompts=prompts, thresholds=thresholds)


def has_valor_prompts(dataset: str, data: DataSettings) -> bool:
    """Return whether there are features of VALOR's sentences. Raises InputError if only one modality has them."""
    folder = data.folder(dataset)
    audio, visual = (text_features_path(folder, name, "valor") for name in features_with_text(data))
    if audio.exists() != visual.exists():
        there, absent = (audio, visual) if audio.exists() else (visual, audio)
        expected = "text features of VALOR's prompts for both modalities"
        raise InputError(absent, f"no file, but {there}", expected, "Add the file.")
    return audio.exists()


def valor_thresholds(dataset: str) -> AudioVisual[Tensor]:
    """Return VALOR's own thresholds, (C,) float64. Raises InputError for a data set without them."""
    if dataset not in FIXED_THRESHOLDS:
        expected = f"a data set that VALOR has thresholds for ({', '.join(FIXED_THRESHOLDS)})"
        raise InputError("--thresholds", f"fixed, for {dataset}", expected, "Search them: --thresholds search.")
    return FIXED_THRESHOLDS[dataset].map(lambda values: torch.tensor(values, dtype=torch.float64))
