"""CMPAE (Gao, Chen and Xu, CVPR 2023): evidence for presence and absence, JoMoLD's cleaning, class-wise gates."""

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from baselines.cmpae.cmpae_decoding import CMPAEDecoding, find_gates, predict
from baselines.cmpae.cmpae_network import CMPAE, CMPAEConfig, CMPAEData, CMPAEOutput
from baselines.han import with_term
from baselines.jomold import JoMoLDLosses, JoMoLDStep
from dataloaders.batches import Batch
from utils.audio_visual import AudioVisual
from utils.method.losses import Losses, Moment
from utils.recipes import Method
from utils.settings import settings_group


@settings_group
class CMPAELosses(JoMoLDLosses):
    """Settings of the losses of CMPAE and of CoLeaF's anchor."""

    mutual_weight: NonNegativeFloat = 1.0  # weight of mutual learning with the video branch


_LEAST_VIDEO_UNCERTAINTY = 0.9  # "mutual_loss.py" of the released code


def mutual_learning_loss(output: CMPAEOutput, video_labels: Tensor, teach_video: bool) -> Tensor:
    """Compute CMPAE's mutual-learning loss between the video branch and the modalities (`mutual_loss.py`).

    For labelled classes m = max(p_a, p_v), and u is that modality's uncertainty; for other classes both are means over
    the modalities. With the video's probability g and its uncertainty U, clamped to at least 0.9, the loss is the mean
    over (B, C) of U(1 - u)(g - sg(m))² if the video branch is trained (`teach_video`, in odd batches), and of
    (1 - U)(1 - u)(sg(g) - m)² if the modalities are. sg is the stop-gradient; the weights are not detached.
    """
    probs, doubts = output.modality_probs, output.modality_uncertainty  # (B, C) each
    present, audio_leads = video_labels.bool(), probs.audio > probs.visual
    leading = torch.where(audio_leads, probs.audio, probs.visual)
    agreed = torch.where(present, leading, (probs.audio + probs.visual) / 2)  # m
    of_leading = torch.where(audio_leads, doubts.audio, doubts.visual)
    uncertainty = torch.where(present, of_leading, (doubts.audio + doubts.visual) / 2)
    video_uncertainty = output.video_uncertainty.clamp(min=_LEAST_VIDEO_UNCERTAINTY).unsqueeze(1)  # (B, 1)
    if teach_video:
        return (video_uncertainty * (1 - uncertainty) * (output.video_probs - agreed.detach()).square()).mean()
    return ((1 - video_uncertainty) * (1 - uncertainty) * (output.video_probs.detach() - agreed).square()).mean()


class CMPAEStep(JoMoLDStep):
    """The training step of CMPAE."""

    def losses(self, output: CMPAEOutput, batch: Batch, targets: AudioVisual[Tensor], moment: Moment) -> Losses:
        """Return JoMoLD's losses and mutual learning, which trains the video branch in odd batches only."""
        losses = super().losses(output, batch, targets, moment)
        mutual = mutual_learning_loss(output, batch.video_labels, teach_video=moment.step % 2 == 1)
        return with_term(losses, "mutual", self.settings.mutual_weight, mutual)


network = {"network": CMPAE, "config": CMPAEConfig, "data": CMPAEData}
decoding = {"decoding": CMPAEDecoding, "predict": predict, "find_gates": find_gates}
METHODS = {"cmpae": Method("CMPAE", losses=CMPAELosses, make_step=CMPAEStep, **network, **decoding)}
