"""LSLD (Fan et al., NeurIPS 2023): segment labels from texts that name subsets of a video's labels."""

from typing import ClassVar

import torch
from pydantic import NonNegativeFloat
from torch import nn

from dataloaders.batches import Batch, SplitBatches
from utils.method.label_folders import PseudoLabels
from utils.method.losses import Losses, Moment, Run, segment_loss, video_loss
from utils.recipes import Method
from utils.settings import settings_group


@settings_group
class LSLDLosses(PseudoLabels):
    """Settings of LSLD's labels and losses."""

    run_prefix: ClassVar = "Language_"
    command: ClassVar = "python -m baselines.lsld.refine_labels"
    video_weight: NonNegativeFloat = 1.0  # weight of the video loss
    audio_segment_weight: NonNegativeFloat = 3.0  # weight of the audio segment loss relative to the visual one
    segment_weight: NonNegativeFloat = 1.0  # weight of both segment losses


class LSLDStep:
    """The training step of LSLD (`train_all_model` of the released code)."""

    def __init__(self, settings: LSLDLosses, train: SplitBatches, run: Run):
        self.settings, self.run = settings, run

    def __call__(self, network: nn.Module, batch: Batch, moment: Moment) -> Losses:
        """Compute the losses by name; "total" is minimised. Labels are stored as log-odds in place of logits."""
        settings, output = self.settings, self.run(network, *batch.features, **batch.padding)
        video = video_loss(output.video_probs, batch.video_labels)
        logits, labels = output.logits.map(batch.valid), batch.pseudo.logits.map(batch.valid)
        audio, visual = logits.map(segment_loss, labels.map(torch.sigmoid))
        total = settings.video_weight * video
        total = total + settings.segment_weight * settings.audio_segment_weight * audio
        total = total + settings.segment_weight * visual
        return {"video": video, "audio_segment": audio, "visual_segment": visual, "total": total}


METHODS = {"lsld": Method("LSLD", losses=LSLDLosses, make_step=LSLDStep)}
