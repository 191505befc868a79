"""JoMoLD (Cheng et al., ECCV 2022): in each batch, labels that are probably wrong for a modality are removed."""

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from baselines.han import HANStep, with_term
from baselines.jomold.noise_ratios import load_noise_ratios
from baselines.ma import MABaseLosses, own_second_targets, segment_cosines
from dataloaders.batches import Batch, SplitBatches
from models import HANOutput
from utils.audio_visual import AudioVisual
from utils.method.losses import Losses, Moment, Run
from utils.recipes import Method
from utils.settings import settings_group


@settings_group
class JoMoLDLosses(MABaseLosses):
    """Settings of the losses of JoMoLD on cleaned labels; its estimator uses those of MA's base model."""

    flag: ClassVar = "noise_ratio_dir"
    run_prefix: ClassVar = "HAN_"
    suffix: ClassVar = "Noise"
    command: ClassVar = "python -m baselines.jomold.find_noise_ratios"
    base_command: ClassVar = "train_han.py --method jomold_base --dataset {dataset}"
    noise_ratio_dir: Path | None = None  # folder of noise ratios; None: the newest in output_dir
    clean_from_epoch: PositiveInt = 2
    """first epoch with cleaned labels: 2 (released code) or 1 (papers of JoMoLD and CMPAE)"""


def cleaned_targets(
    probs: AudioVisual[Tensor], targets: AudioVisual[Tensor], ratios: AudioVisual[Tensor], labels: Tensor
) -> AudioVisual[Tensor]:
    """Return a batch's targets, (B, C), with 0 for those that are probably wrong: probs (B, C), ratios (C,).

    For a class with N positive videos by the video labels, (B, C), let n_m = floor(ratio_m · N). A visual target is
    removed if it is among the n_v smallest audio losses and the n_v largest visual ones, an audio target if it is among
    the n_a largest audio losses and the n_a smallest visual ones (`train_label_denoising` of the released code).
    """
    positive = labels.bool()
    counts = positive.sum(dim=0)  # (C,)

    def ranks(probs: Tensor, targets: Tensor) -> Tensor:  # (B, C), 0 for a class's smallest loss; ties: earlier video
        losses = F.binary_cross_entropy(probs.clamp(1e-7, 1 - 1e-7), targets, reduction="none")
        return losses.masked_fill(~positive, torch.inf).argsort(dim=0, stable=True).argsort(dim=0)

    audio_ranks, visual_ranks = probs.map(ranks, targets)
    audio_number, visual_number = ratios.map(lambda ratio: (ratio * counts).floor())  # (C,) each
    wrong_audio = positive & (audio_ranks >= counts - audio_number) & (visual_ranks < audio_number)
    wrong_visual = positive & (audio_ranks < visual_number) & (visual_ranks >= counts - visual_number)
    return AudioVisual(targets.audio.masked_fill(wrong_audio, 0), targets.visual.masked_fill(wrong_visual, 0))


def noise_contrastive_loss(
    cosines: Tensor, smoothing: float, weights: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Compute JoMoLD's contrastive loss, -mean log(sum_j t_j·p_j), with p the softmax of a row of `segment_cosines`.

    The target t is 1 - s for the row's own second and s / (T - 1) for the others. The logarithm is of the sum, unlike
    in MA's cross-entropy with smoothed labels (`LabelSmoothingNCELoss` of the released code). `weights`, (B,), are
    per video (CoLeaF); the mean is over all rows, whatever their weight. `mask`, (B, T), is False for padding.
    """
    if mask is not None:
        log_probs = torch.log_softmax(cosines, dim=-1).view(*mask.shape, -1)
        losses = -torch.logsumexp(log_probs + own_second_targets(mask, smoothing).log(), dim=-1)[mask]
        of_rows = 1.0 if weights is None else weights.unsqueeze(1).expand(mask.shape)[mask]
        return (losses * of_rows).mean()
    num_segments = cosines.shape[-1]
    own = torch.eye(num_segments, dtype=torch.bool, device=cosines.device).repeat(cosines.shape[0] // num_segments, 1)
    shares = torch.where(own, 1 - smoothing, smoothing / (num_segments - 1))  # (B·T, T)
    log_probs = torch.log_softmax(cosines, dim=-1)
    losses = -torch.logsumexp(log_probs + shares.log(), dim=-1)  # (B·T,)
    return losses.mean() if weights is None else (losses.unflatten(0, (-1, num_segments)).mean(dim=1) * weights).mean()


class JoMoLDStep(HANStep):
    """The training step of JoMoLD, or of its estimator, whose targets are not cleaned."""

    def __init__(self, settings: MABaseLosses, train: SplitBatches, run: Run):
        super().__init__(settings, train, run)
        self.ratios = None
        if isinstance(settings, JoMoLDLosses):
            self.ratios = load_noise_ratios(settings.noise_ratio_dir, train.annotations).map(Tensor.to, self.targets)

    def learned_targets(self, network: nn.Module, batch: Batch, moment: Moment) -> AudioVisual[Tensor]:
        """Return targets, (B, C), cleaned with probabilities without cross-attention or gradients, but with dropout."""
        targets = super().learned_targets(network, batch, moment)
        if self.ratios is None or moment.epoch < self.settings.clean_from_epoch:
            return targets
        with torch.no_grad():
            probs = self.run(network, *batch.features, False, **batch.padding).modality_probs
        return cleaned_targets(probs, targets, self.ratios, batch.video_labels)

    def losses(self, output: HANOutput, batch: Batch, targets: AudioVisual[Tensor], moment: Moment) -> Losses:
        """Compute HAN's losses and the contrastive loss of the encoded features."""
        losses, settings = super().losses(output, batch, targets, moment), self.settings
        cosines = segment_cosines(*output.features, settings.contrastive_temperature, batch.mask)
        contrastive = noise_contrastive_loss(cosines, settings.contrastive_smoothing, mask=batch.mask)
        return with_term(losses, "contrastive", settings.contrastive_weight, contrastive)


METHODS = {
    "jomold_base": Method("JoMoLD", losses=MABaseLosses, make_step=JoMoLDStep),
    "jomold": Method("JoMoLD", losses=JoMoLDLosses, make_step=JoMoLDStep),
}
