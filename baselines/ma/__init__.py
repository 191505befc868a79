"""MA (Wu and Yang, CVPR 2021): exchanging modalities reveals labels that are wrong for a modality."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from baselines.han import HANLosses, HANStep, with_term
from baselines.ma.exchange import load_cleaned_labels
from dataloaders.batches import Batch, SplitBatches
from models import HANOutput
from utils.audio_visual import AudioVisual
from utils.method.losses import Losses, Moment, Run
from utils.recipes import Method
from utils.settings import settings_group


@settings_group
class MABaseLosses(HANLosses):
    """Settings of the losses of MA's base model."""

    contrastive_weight: NonNegativeFloat = 1.0  # weight of the contrastive loss
    contrastive_temperature: PositiveFloat = 0.2  # temperature of the contrastive loss
    contrastive_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1  # s: the target of the same second is 1 - s


@settings_group
class MALosses(MABaseLosses):
    """Settings of the losses of MA on labels cleaned by `python -m baselines.ma.find_exchange`."""

    flag: ClassVar = "cleaned_label_dir"
    run_prefix: ClassVar = "HAN_"
    suffix: ClassVar = "Exchange"
    command: ClassVar = "python -m baselines.ma.find_exchange"
    base_command: ClassVar = "train_han.py --method ma_base --dataset {dataset}"
    cleaned_label_dir: Path | None = None  # folder of cleaned labels; None: the newest in output_dir
    fused_labels: Literal["audio", "video"] = "audio"
    """targets of the fused probability: the labels kept for audio (released code), or all video labels"""


def segment_cosines(audio: Tensor, visual: Tensor, temperature: float, mask: Tensor | None = None) -> Tensor:
    """Compute cosine / temperature of each audio with every visual segment of its video: (B, T, D) -> (B·T, T)."""
    cosines = F.normalize(audio, dim=-1) @ F.normalize(visual, dim=-1).transpose(1, 2)  # (B, T, T)
    if mask is not None:
        cosines = cosines.masked_fill(~mask.unsqueeze(1), -torch.inf)  # columns of padding
    return cosines.flatten(0, 1) / temperature


def own_second_targets(mask: Tensor, smoothing: float) -> Tensor:
    """Return 1 - s for each segment's own second, s / (T - 1) for the others of its video: (B, T) -> (B, T, T)."""
    itself = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    others = smoothing / (mask.sum(dim=1) - 1).clamp(min=1)  # (B,)
    return torch.where(itself, 1 - smoothing, others[:, None, None]) * mask.unsqueeze(1)


def contrastive_loss(
    audio: Tensor, visual: Tensor, temperature: float, label_smoothing: float, mask: Tensor | None = None
) -> Tensor:
    """Compute MA's contrastive loss, which matches audio and visual features of the same second: (B, T, D) each.

    It is the cross-entropy of `segment_cosines` over a video's T seconds with `own_second_targets` (`step1` of the
    released code, `main_avvp.py`). `mask`, (B, T) bool, is False for padding.
    """
    if mask is not None:
        log_probs = torch.log_softmax(segment_cosines(audio, visual, temperature, mask), dim=-1).view(*mask.shape, -1)
        log_probs = log_probs.masked_fill(~mask.unsqueeze(1), 0)
        return -(own_second_targets(mask, label_smoothing) * log_probs).sum(dim=-1)[mask].mean()
    num_videos, num_segments, _ = audio.shape
    # PyTorch distributes label smoothing over all T seconds, including the right one.
    spread = label_smoothing * num_segments / max(num_segments - 1, 1)
    same_second = torch.arange(num_segments, device=audio.device).repeat(num_videos)  # (B·T,)
    return F.cross_entropy(segment_cosines(audio, visual, temperature), same_second, label_smoothing=spread)


class MAStep(HANStep):
    """The training step of MA, on labels cleaned by the exchange, or of its base model."""

    def __init__(self, settings: MABaseLosses, train: SplitBatches, run: Run):
        super().__init__(settings, train, run)
        self.fused_targets = None  # (N, C); None: the videos' labels
        if isinstance(settings, MALosses):
            labels = train.annotations.video_labels
            left = load_cleaned_labels(settings.cleaned_label_dir, train.annotations)
            # A removed label is 0, while one that the video never had is s/2 (`step3_retrain/dataloader.py`).
            removed = left.map(lambda kept: (labels & ~kept).to(train.device))
            self.targets = self.targets.map(lambda targets, gone: targets.masked_fill(gone, 0), removed)
            if settings.fused_labels == "audio":
                self.fused_targets = left.audio.to(self.targets.audio)

    def losses(self, output: HANOutput, batch: Batch, targets: AudioVisual[Tensor], moment: Moment) -> Losses:
        """Compute HAN's losses and the contrastive loss of audio after and visual features before the encoder."""
        if self.fused_targets is not None:
            batch = replace(batch, video_labels=self.fused_targets[batch.videos])
        losses, settings = super().losses(output, batch, targets, moment), self.settings
        constants = settings.contrastive_temperature, settings.contrastive_smoothing
        contrastive = contrastive_loss(output.features.audio, output.visual_inputs, *constants, batch.mask)
        return with_term(losses, "contrastive", settings.contrastive_weight, contrastive)


METHODS = {
    "ma_base": Method("MA", losses=MABaseLosses, make_step=MAStep),
    "ma": Method("MA", losses=MALosses, make_step=MAStep),
}
