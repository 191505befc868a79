"""JoMoLD's objective: HAN's on labels cleaned batch by batch, and a contrastive loss (Cheng et al., ECCV 2022)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from baselines.han.han_objective import HANLosses, guided_losses, smoothed_targets, with_term
from baselines.jomold.label_denoising import cleaned_targets
from baselines.jomold.noise_ratios import load_noise_ratios
from dataloaders.batches import Batch, SplitBatches
from models import HANOutput
from utils.audio_visual import AudioVisual
from utils.method.losses import Losses, Moment, Run
from utils.settings import settings_group


@settings_group
class JoMoLDBaseLosses(HANLosses):
    """The losses of JoMoLD's estimator, which learns the video labels as they are."""

    contrastive_weight: NonNegativeFloat = 1.0
    """weight of the contrastive loss"""
    contrastive_temperature: PositiveFloat = 0.2
    """temperature of the contrastive loss"""
    contrastive_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """s: the contrastive target is 1 - s on the same second"""


@settings_group
class JoMoLDLosses(JoMoLDBaseLosses):
    """The losses of JoMoLD, whose labels are cleaned in proportion to the estimated noise ratios."""

    setting: ClassVar = "noise_ratio_dir"
    teacher: ClassVar = "HAN_"
    suffix: ClassVar = "Noise"
    command: ClassVar = "python -m baselines.jomold.find_noise_ratios"
    noise_ratio_dir: Path | None = None
    """folder of noise ratios (default: the newest in output_dir)"""
    clean_from_epoch: PositiveInt = 2
    """first epoch whose labels are cleaned: 2 (released) or 1 (what the papers of JoMoLD and CMPAE say)"""


def segment_cosines(audio: Tensor, visual: Tensor, temperature: float) -> Tensor:
    """Return the cosine of each audio segment with every visual segment of its video, over the temperature.

    Args:
        audio, visual: (B, T, D).

    Returns:
        (B·T, T); the row of segment t has its own second in column t
    """
    cosines = F.normalize(audio, dim=-1) @ F.normalize(visual, dim=-1).transpose(1, 2)  # (B, T, T)
    return cosines.flatten(0, 1) / temperature


def noise_contrastive_loss(cosines: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
    """JoMoLD's contrastive loss: -mean log(sum_j t_j·p_j), p the softmax of a row.

    The target t is 1 - s on the row's own second and s / (T - 1) on the others. The logarithm is taken of the sum, so
    this is not the cross-entropy with smoothed labels that MA has (released code).

    Args:
        cosines: (B·T, T) from `segment_cosines`.
        weights: (B,), of the videos (CoLeaF); None: 1 each. The mean is over all rows, whatever they weigh.
    """
    num_segments = cosines.shape[-1]
    own = torch.eye(num_segments, dtype=torch.bool, device=cosines.device).repeat(cosines.shape[0] // num_segments, 1)
    shares = torch.where(own, 1 - smoothing, smoothing / (num_segments - 1))  # (B·T, T)
    log_probs = torch.log_softmax(cosines, dim=-1)
    losses = -torch.logsumexp(log_probs + shares.log(), dim=-1)  # (B·T,)
    return losses.mean() if weights is None else (losses.unflatten(0, (-1, num_segments)).mean(dim=1) * weights).mean()


def jomold_losses(output: HANOutput, batch: Batch, targets: AudioVisual[Tensor], settings: JoMoLDBaseLosses) -> Losses:
    """Return HAN's losses against the targets (B, C), and the contrastive loss of the encoded features."""
    losses = guided_losses(output, batch, targets, settings)
    cosines = segment_cosines(*output.features, settings.contrastive_temperature)
    contrastive = noise_contrastive_loss(cosines, settings.contrastive_smoothing)
    return with_term(losses, "contrastive", settings.contrastive_weight, contrastive)


@dataclass(frozen=True)
class JoMoLDTargets:
    """What each modality shall learn, cleaned by the network that learns it."""

    targets: AudioVisual[Tensor]  # (N, C), of all training videos
    ratios: AudioVisual[Tensor] | None  # (C,) noise ratios; None: nothing is cleaned
    first_epoch: int  # that cleans
    run: Run

    def __call__(self, network: nn.Module, batch: Batch, moment: Moment) -> AudioVisual[Tensor]:
        """Return the targets of a batch, (B, C).

        The network judges them without cross-attention and without gradients, but in training mode, dropout and all.
        """
        targets = self.targets.map(lambda of_all: of_all[batch.videos])
        if self.ratios is None or moment.epoch < self.first_epoch:
            return targets
        with torch.no_grad():
            probs = self.run(network, *batch.features, False).modality_probs
        return cleaned_targets(probs, targets, self.ratios, batch.video_labels)


@dataclass(frozen=True)
class JoMoLDStep:
    """One training step of JoMoLD, or of its estimator."""

    settings: JoMoLDBaseLosses
    targets: JoMoLDTargets
    run: Run

    def __call__(self, network: nn.Module, batch: Batch, moment: Moment) -> Losses:
        """Return the losses by name; "total" is minimised."""
        output = self.run(network, *batch.features)
        return jomold_losses(output, batch, self.targets(network, batch, moment), self.settings)


def make_targets(settings: JoMoLDBaseLosses, train: SplitBatches, run: Run) -> JoMoLDTargets:
    """Return the targets on a split, with the noise ratios that its labels are cleaned by, if there are any."""
    labels = AudioVisual(train.annotations.video_labels, train.annotations.video_labels)
    targets = smoothed_targets(labels, settings, train.device)
    if not isinstance(settings, JoMoLDLosses):
        return JoMoLDTargets(targets, None, 1, run)
    annotations = train.annotations
    noise = load_noise_ratios(settings.noise_ratio_dir, annotations.dataset, annotations.classes)
    ratios = noise.ratios.map(lambda ratios: ratios.to(train.device, torch.get_default_dtype()))
    return JoMoLDTargets(targets, ratios, settings.clean_from_epoch, run)


def make_step(settings: JoMoLDBaseLosses, train: SplitBatches, run: Run) -> JoMoLDStep:
    """Return the training step on a split."""
    return JoMoLDStep(settings, make_targets(settings, train, run), run)
