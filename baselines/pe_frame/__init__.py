"""PE-A-Frame (CVPR 2026), with 25 frames per second, as the audio teacher; CLIP, as in VALOR, is the visual one.

B videos, T segments of F frames, C classes, D features.
"""

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.valor.framewise import FIXED_THRESHOLDS, FramewiseSettings, refuse_network_flags, valor_thresholds
from dataloaders.batches import Batch
from dataloaders.features import BIAS_FILE, PACKED, read_npy, text_features_path
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.inference import Teacher, segment_logits
from utils.settings import settings_group, with_settings

AUDIO = "pe_audio_frames"
FIXED_PROBABILITY = 0.3  # its authors' threshold
Pooling = Literal["mean_probability", "mean_logit", "max", "top5"]


@settings_group
class PEFrameSettings:
    """Settings of the audio teacher PE-A-Frame."""

    frame_pooling: Pooling = "mean_probability"  # how a segment's frames are pooled into one logit (ours)


def pool_frames(logits: Tensor, how: Pooling) -> Tensor:
    """Pool the logits of a segment's frames into one: (..., F, C) -> (..., C)."""
    if how == "mean_probability":
        return torch.logit(torch.sigmoid(logits.double()).mean(dim=-2), eps=1e-12).to(logits)
    if how == "mean_logit":
        return logits.mean(dim=-2)
    return logits.amax(dim=-2) if how == "max" else logits.topk(min(5, logits.shape[-2]), dim=-2).values.mean(dim=-2)


def pe_settings(settings: Any) -> Any:
    """Return the settings of stage 2 for PE-A-Frame's frames and CLIP. Raises InputError for flags without effect."""
    refuse_network_flags(settings)
    if settings.framewise.prompts == "valor":
        found, expected = "valor with --teacher pe_frame", "the event names, with the phrases of data/pe_prompts.yaml"
        raise InputError("--prompts", found, expected, "Leave out the flag, or the teacher.")
    if settings.thresholds == "fixed" and settings.dataset not in FIXED_THRESHOLDS:
        valor_thresholds(settings.dataset)  # raises InputError
    thresholds = settings.thresholds or "search"
    return with_settings(settings, audio_features=(AUDIO,), prompts="event_names", thresholds=thresholds)


def fixed_thresholds(dataset: str) -> AudioVisual[Tensor]:
    """Return the logit of 0.3 for audio, and VALOR's visual thresholds, (C,) float64 each."""
    visual = valor_thresholds(dataset).visual
    return AudioVisual(torch.full_like(visual, FIXED_PROBABILITY).logit(), visual)


def pe_teacher(
    settings: PEFrameSettings, visual: FramewiseSettings, data_dir: Path, texts: AudioVisual[Tensor], batch_size: int
) -> Teacher:
    """Return the teacher: pooled products of frames and `texts` (C, D), plus the bias. Raises InputError without it."""
    path = text_features_path(data_dir, "pe_audio").with_name(BIAS_FILE)
    try:
        bias = float(read_npy(path).item())
    except (OSError, ValueError) as error:
        way_out = "Extract the text features: `python -m video.extract_features --features pe_audio --text_only`."
        raise InputError(path, f"no readable file ({error})", "the bias of PE-A-Frame's logits", way_out) from error
    visual_texts = F.normalize(texts.visual, dim=-1)

    def score(batch: Batch) -> AudioVisual[Tensor]:
        frames = batch.features.audio.unflatten(-1, (PACKED[AUDIO].parts, -1))  # (B, T, F, D)
        audio = pool_frames(frames @ texts.audio.T + bias, settings.frame_pooling)  # texts include the scale
        scale = visual.visual_logit_scale
        return AudioVisual(audio, scale * (F.normalize(batch.features.visual, dim=-1) @ visual_texts.T))

    return lambda split: segment_logits(score, split, batch_size)
