"""What each stage minimises: the losses of `utils.method.losses` put together for one batch.

A new loss is a function in `utils.method.losses`, its settings in `HANLosses`, and its line in `HANObjective.__call__`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.jomold.label_denoising import cleaned_targets, labels_over_time
from dataloaders.batches import Batch
from models import HANOutput, TemporalTransformerOutput
from utils.audio_visual import AudioVisual
from utils.method.agreement_losses import (
    mutual_learning_loss,
    noise_contrastive_loss,
    segment_cosines,
    semantic_similarity_loss,
)
from utils.method.losses import (
    audio_visual_loss,
    class_balance_weights,
    contrastive_loss,
    mixup_features,
    mixup_loss,
    segment_loss,
    soft_pseudo_labels,
    video_loss,
)
from utils.settings import setting

Losses = dict[str, Tensor]  # scalars by name; "total" is minimised


@dataclass(frozen=True)
class TemporalTransformerLosses:
    """The loss of stage 1."""

    occurring_weight: float = setting(
        5.0,
        "weight of every segment of a class that occurs in the video (the paper does not mention it; 1: off)",
        least=0,
    )


@dataclass(frozen=True)
class HANLosses:
    """The losses of stage 3; the defaults are the released recipe on LLP."""

    segment_labels: str = setting(
        "soft",
        "none: video labels only; refined: the probabilities that baselines.lsld.refine_labels wrote (LSLD)",
        choices=("soft", "hard", "refined", "none"),
    )
    temperature: float = setting(2.0, "temperature of soft labels: 2 (released) or 1 (paper)", above=0)
    reweight: bool = setting(True, "class-balance weights")
    positive_weight: float = setting(0.5, "W of the class-balance weights", least=0)
    weight_normalization: str = setting(
        "sum", "class frequencies summed (released) or averaged (paper) over classes", choices=("sum", "mean")
    )
    mixup: bool = setting(True, "feature mixup")
    mixup_alpha: float = setting(1.7, "alpha of the beta distribution that draws lambda", above=0)
    mixup_labels: str = setting(
        "soft", "ceiling: soft labels rounded up (the paper on AVE)", choices=("soft", "hard", "ceiling")
    )
    video_weight: float = setting(1.0, "weight of the video loss (LEAP: 0, its released one has no gradient)", least=0)
    segment_weight: float = setting(1.0, "weight of the segment losses", least=0)
    audio_segment_weight: float = setting(1.0, "weight of the audio's among the segment losses (LSLD: 3)", least=0)
    mixup_weight: float = setting(1.0, "weight of the mixup losses", least=0)
    guided_labels: str = setting(
        "none",
        "what each modality's pooled probability learns: video labels (HAN), those of baselines.ma.find_exchange (MA), "
        "video labels cleaned batch by batch (JoMoLD), or what any of its segments has (LEAP)",
        choices=("none", "video", "cleaned", "denoised", "segments"),
    )
    audio_guided_weight: float = setting(1.0, "weight of the audio's guided loss (JoMoLD: 2)", least=0)
    visual_guided_weight: float = setting(1.0, "weight of the visual guided loss (CMPAE: 0.6)", least=0)
    clean_from_epoch: int = setting(
        2, "first epoch whose labels are denoised: 2 (released) or 1 (what the papers of JoMoLD and CMPAE say)", least=1
    )
    audio_smoothing: float = setting(0.0, "smoothing s of guided audio labels: (1 - s)·y + s/2", least=0, most=1)
    visual_smoothing: float = setting(0.1, "smoothing s of guided visual labels", least=0, most=1)
    contrastive_loss: str = setting(
        "cross_entropy",
        "of audio with the visual inputs (MA), or the log of a sum, with the encoded visual features (JoMoLD)",
        choices=("cross_entropy", "log_of_sum"),
    )
    contrastive_weight: float = setting(0.0, "weight of the contrastive loss; 0: none (MA's is 1)", least=0)
    contrastive_temperature: float = setting(0.2, "temperature of the contrastive loss", above=0)
    contrastive_smoothing: float = setting(0.1, "label smoothing of the contrastive loss", least=0, below=1)
    mutual_weight: float = setting(0.0, "weight of the mutual learning with the video branch (CMPAE: 1)", least=0)
    similarity_weight: float = setting(0.0, "weight of the audio-visual semantic similarity (LEAP: 1)", least=0)


class Moment(NamedTuple):
    """Where training is."""

    epoch: int = 1  # from 1
    step: int = 0  # of the epoch, from 0


BEGINNING = Moment()


def temporal_transformer_losses(
    output: TemporalTransformerOutput, batch: Batch, settings: TemporalTransformerLosses
) -> Losses:
    """Stage 1: the audio-visual segment loss as "total"."""
    mask = batch.mask
    if mask is None:
        mask = torch.ones(batch.features.audio.shape[:2], dtype=torch.bool, device=batch.features.audio.device)
    loss = audio_visual_loss(output.logits, batch.labels.audio, mask, settings.occurring_weight)
    return {"total": loss}


@dataclass(frozen=True)
class HANObjective:
    """Stage 3: the weighted sum of its losses (paper sections 3.3 to 3.5; HAN's and MA's where they are switched on).

    N training videos, C classes.
    """

    settings: HANLosses
    thresholds: AudioVisual[Tensor] | None = None  # (C,), for soft labels
    class_frequencies: AudioVisual[Tensor] | None = None  # (C,) f_c, for re-weighting
    guided_targets: AudioVisual[Tensor] | None = None  # (N, C) in [0, 1], smoothed labels of each modality
    noise_ratios: AudioVisual[Tensor] | None = None  # (C,), for denoised targets

    def __call__(
        self,
        output: HANOutput,
        batch: Batch,
        classifier: Callable[[Tensor], Tensor],
        moment: Moment = BEGINNING,
        guided_targets: AudioVisual[Tensor] | None = None,
    ) -> Losses:
        """Every loss by name, and their weighted sum as "total".

        Args:
            classifier: the segment classifier, (..., D) -> (..., C), for the mixed features.
            moment: where training is.
            guided_targets: (B, C), cleaned by `targets`; None: as they were given.
        """
        if guided_targets is None:
            guided_targets = self._given_targets(batch)
        settings = self.settings
        weighted: list[tuple[str, float, Tensor]] = [
            ("video", settings.video_weight, video_loss(output.video_probs, batch.video_labels))
        ]

        def add(name: str, losses: AudioVisual[Tensor], audio_weight: float, visual_weight: float) -> None:
            weighted.extend([(f"audio_{name}", audio_weight, losses.audio)])
            weighted.extend([(f"visual_{name}", visual_weight, losses.visual)])

        if settings.segment_labels != "none":
            weight = settings.segment_weight
            add("segment", self._segment_losses(output, batch), weight * settings.audio_segment_weight, weight)
            if settings.mixup:
                weight = settings.mixup_weight
                add("mixup", self._mixup_losses(output, batch, classifier), weight, weight)
        if guided_targets is not None:
            losses = output.modality_probs.map(video_loss, guided_targets)
            add("guided", losses, settings.audio_guided_weight, settings.visual_guided_weight)
        if settings.contrastive_weight:
            weighted.append(("contrastive", settings.contrastive_weight, self._contrastive_loss(output)))
        if settings.mutual_weight:
            teach_video = moment.step % 2 == 1  # even batches teach the modalities
            loss = mutual_learning_loss(output, batch.video_labels, teach_video)
            weighted.append(("mutual", settings.mutual_weight, loss))
        if settings.similarity_weight:
            loss = semantic_similarity_loss(self._targets("hard", batch), output.features)
            weighted.append(("similarity", settings.similarity_weight, loss))
        total = sum(weight * loss for _, weight, loss in weighted)
        return {name: loss for name, _, loss in weighted} | {"total": total}

    def targets(self, batch: Batch, moment: Moment, parse_alone: Callable[[], HANOutput]) -> AudioVisual[Tensor] | None:
        """What each modality's pooled probability shall learn, (B, C) in [0, 1], cleaned if asked for; None: nothing.

        Args:
            parse_alone: the network on this batch without cross-attention, in training mode, dropout and all. It is
                called only where labels are denoised, and without gradients (JoMoLD).
        """
        targets = self._given_targets(batch)
        if self.noise_ratios is None or moment.epoch < self.settings.clean_from_epoch:
            return targets
        with torch.no_grad():
            probs = parse_alone().modality_probs
        return cleaned_targets(probs, targets, self.noise_ratios, batch.video_labels)

    def _given_targets(self, batch: Batch) -> AudioVisual[Tensor] | None:
        if self.settings.guided_labels == "segments":
            return self._targets("hard", batch).map(labels_over_time)
        return self.guided_targets and self.guided_targets.map(lambda of_all: of_all[batch.videos])

    def _contrastive_loss(self, output: HANOutput) -> Tensor:
        temperature, smoothing = self.settings.contrastive_temperature, self.settings.contrastive_smoothing
        if self.settings.contrastive_loss == "log_of_sum":
            return noise_contrastive_loss(segment_cosines(*output.features, temperature), smoothing)
        return contrastive_loss(output.features.audio, output.visual_inputs, temperature, smoothing)

    def _segment_losses(self, output: HANOutput, batch: Batch) -> AudioVisual[Tensor]:
        targets = self._targets(self.settings.segment_labels, batch)
        if not self.settings.reweight:
            return output.logits.map(segment_loss, targets)
        weights = self.class_frequencies.map(
            lambda frequencies: class_balance_weights(
                batch.video_labels, frequencies, self.settings.positive_weight, self.settings.weight_normalization
            )
        )
        return output.logits.map(segment_loss, targets, weights)

    def _mixup_losses(
        self, output: HANOutput, batch: Batch, classifier: Callable[[Tensor], Tensor]
    ) -> AudioVisual[Tensor]:
        """Each modality with a lambda and a permutation of its own."""

        def mix(features: Tensor, targets: Tensor) -> Tensor:
            lam, permutation = self._draw_mixup(features)
            return mixup_loss(classifier(mixup_features(features, lam, permutation)), targets, lam, permutation)

        return output.features.map(mix, self._targets(self.settings.mixup_labels, batch))

    def _draw_mixup(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """lambda from Beta(alpha, alpha), and an order of all B·T segments of features (B, T, D)."""
        lam = torch.distributions.Beta(self.settings.mixup_alpha, self.settings.mixup_alpha).sample()
        permutation = torch.randperm(features.shape[0] * features.shape[1], device=features.device)
        return lam.to(features.device, non_blocking=True), permutation

    def _targets(self, kind: str, batch: Batch) -> AudioVisual[Tensor]:
        """Targets (B, T, C) of each modality: "soft", "hard", "ceiling" or "refined"."""
        if kind == "hard":
            return batch.pseudo.labels.map(lambda labels: labels.to(batch.video_labels.dtype))
        if kind == "refined":
            return batch.pseudo.logits.map(torch.sigmoid)
        soft = batch.pseudo.logits.map(
            lambda logits, thresholds: soft_pseudo_labels(
                logits, thresholds, batch.video_labels, self.settings.temperature
            ),
            self.thresholds,
        )
        return soft.map(torch.ceil) if kind == "ceiling" else soft
