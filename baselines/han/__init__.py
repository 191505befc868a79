"""HAN (Tian, Li and Xu, ECCV 2020), trained on video labels; the network is in `models/han.py`."""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from dataloaders.batches import Batch, SplitBatches
from models import HANOutput
from utils.audio_visual import AudioVisual
from utils.method.label_folders import LabelFolder
from utils.method.losses import Losses, Moment, Run, video_loss
from utils.recipes import Method
from utils.settings import settings_group

Smoothing = Annotated[float, Field(ge=0, le=1)]


@settings_group
class HANLosses(LabelFolder):
    """Settings of the losses of HAN, which MA, JoMoLD, CMPAE and CoLeaF extend."""

    video_weight: NonNegativeFloat = 1.0  # weight of the loss on the fused probability
    audio_guided_weight: NonNegativeFloat = 1.0  # weight of the loss on the audio probability
    visual_guided_weight: NonNegativeFloat = 1.0  # weight of the loss on the visual probability
    audio_smoothing: Smoothing = 0.0  # smoothing s of audio labels: (1 - s)·y + s/2
    visual_smoothing: Smoothing = 0.1  # smoothing s of visual labels


def smooth_labels(labels: Tensor, smoothing: float) -> Tensor:
    """Return smoothed binary labels (1 - s)·y + s/2 of any shape; s = 0.1 gives 0.95 and 0.05 (HAN, 2020)."""
    return (1 - smoothing) * labels + smoothing / 2


def with_term(losses: Losses, name: str, weight: float, term: Tensor) -> Losses:
    """Return the losses with one more term, which is added to the total with its weight."""
    return {**losses, name: term, "total": losses["total"] + weight * term}


class HANStep:
    """The training step of HAN, which MA, JoMoLD, CMPAE and CoLeaF extend."""

    def __init__(self, settings: HANLosses, train: SplitBatches, run: Run):
        self.settings, self.run = settings, run
        labels = train.annotations.video_labels.to(train.device, torch.get_default_dtype())
        smoothing = AudioVisual(settings.audio_smoothing, settings.visual_smoothing)
        self.targets = smoothing.map(lambda s: smooth_labels(labels, s))  # (N, C) of all training videos

    def __call__(self, network: nn.Module, batch: Batch, moment: Moment) -> Losses:
        """Compute the losses by name; "total" is minimised."""
        output = self.run(network, *batch.features, **batch.padding)
        targets = self.learned_targets(network, batch, moment)
        return self.losses(output, batch, targets, moment)

    def learned_targets(self, network: nn.Module, batch: Batch, moment: Moment) -> AudioVisual[Tensor]:
        """Return each modality's targets P for a batch: (B, C)."""
        return self.targets.map(lambda targets: targets[batch.videos])

    def losses(self, output: HANOutput, batch: Batch, targets: AudioVisual[Tensor], moment: Moment) -> Losses:
        """Compute BCE(fused, y), BCE(p_a, P_a) and BCE(p_v, P_v) by name, and their weighted sum (HAN, 2020)."""
        video = video_loss(output.video_probs, batch.video_labels)
        audio, visual = output.modality_probs.map(video_loss, targets)
        total = self.settings.video_weight * video
        total = total + self.settings.audio_guided_weight * audio + self.settings.visual_guided_weight * visual
        return {"video": video, "audio_guided": audio, "visual_guided": visual, "total": total}


METHODS = {"han": Method("HAN", losses=HANLosses, make_step=HANStep)}
