"""MA's objective: HAN's on cleaned labels, and a contrastive loss over the seconds (Wu and Yang, CVPR 2021)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from baselines.han.han_objective import HANLosses, guided_losses, smoothed_targets, with_term
from baselines.ma.cleaned_labels import load_cleaned_labels
from dataloaders.batches import Batch, SplitBatches
from utils.audio_visual import AudioVisual
from utils.method.losses import Losses, Moment, Run
from utils.settings import settings_group


@settings_group
class MABaseLosses(HANLosses):
    """The losses of MA's base model."""

    contrastive_weight: NonNegativeFloat = 1.0
    """weight of the contrastive loss"""
    contrastive_temperature: PositiveFloat = 0.2
    """temperature of the contrastive loss"""
    contrastive_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """label smoothing of the contrastive loss"""


@settings_group
class MALosses(MABaseLosses):
    """The losses of MA, whose labels `python -m baselines.ma.find_exchange` has cleaned."""

    setting: ClassVar = "cleaned_label_dir"
    teacher: ClassVar = "HAN_"
    suffix: ClassVar = "Exchange"
    command: ClassVar = "python -m baselines.ma.find_exchange"
    cleaned_label_dir: Path | None = None
    """folder of cleaned labels (default: the newest in output_dir)"""


def contrastive_loss(audio: Tensor, visual: Tensor, temperature: float, label_smoothing: float) -> Tensor:
    """Match each segment's audio with the visual feature of the same second among all of the video.

    Cross-entropy over the video's T seconds of the cosines divided by the temperature; the target is 1 - s for the same
    second and s / (T - 1) for each other one (released code).

    Args:
        audio, visual: (B, T, D).
        label_smoothing: s.
    """
    cosines = F.normalize(audio, dim=-1) @ F.normalize(visual, dim=-1).transpose(1, 2)  # (B, T, T)
    num_segments = audio.shape[1]
    # PyTorch shares its label smoothing among all T seconds, the right one included.
    spread = label_smoothing * num_segments / max(num_segments - 1, 1)
    same_second = torch.arange(audio.shape[1], device=audio.device).repeat(audio.shape[0])  # (B·T,)
    return F.cross_entropy(cosines.flatten(0, 1) / temperature, same_second, label_smoothing=spread)


@dataclass(frozen=True)
class MAStep:
    """One training step of MA, or of its base model."""

    settings: MABaseLosses
    targets: AudioVisual[Tensor]  # (N, C), of all training videos
    run: Run

    def __call__(self, network: nn.Module, batch: Batch, moment: Moment) -> Losses:
        """Return the losses by name; "total" is minimised. Visual features are contrasted before the encoder."""
        settings, output = self.settings, self.run(network, *batch.features)
        losses = guided_losses(output, batch, self.targets.map(lambda of_all: of_all[batch.videos]), settings)
        constants = settings.contrastive_temperature, settings.contrastive_smoothing
        contrastive = contrastive_loss(output.features.audio, output.visual_inputs, *constants)
        return with_term(losses, "contrastive", settings.contrastive_weight, contrastive)


def make_step(settings: MABaseLosses, train: SplitBatches, run: Run) -> MAStep:
    """Return the training step on a split, with the labels that the exchange has left where MA is retrained."""
    labels = AudioVisual(train.annotations.video_labels, train.annotations.video_labels)
    if isinstance(settings, MALosses):
        labels = load_cleaned_labels(settings.cleaned_label_dir, train.annotations).labels
    return MAStep(settings, smoothed_targets(labels, settings, train.device), run)
