"""What each stage minimises: the losses of `utils.losses` put together for one batch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dataloaders.batches import Batch
from models import HANOutput, TemporalTransformerOutput
from models.streams import drawn_per_run
from utils.losses import (
    audio_visual_loss,
    class_balance_weights,
    contrastive_loss,
    mixup_features,
    mixup_loss,
    segment_loss,
    soft_pseudo_labels,
    video_loss,
)


def temporal_transformer_losses(
    output: TemporalTransformerOutput, batch: Batch, occurring_weight: float = 5.0
) -> dict[str, Tensor]:
    """Stage 1: the audio-visual segment loss as "total"."""
    mask = batch.mask
    if mask is None:
        mask = torch.ones(batch.audio.shape[:2], dtype=torch.bool, device=batch.audio.device)
    loss = audio_visual_loss(output.audio_logits, output.visual_logits, batch.audio_labels, mask, occurring_weight)
    return {"total": loss}


@dataclass(frozen=True)
class HANObjective:
    """Stage 3: video loss, segment loss on pseudo-labels and mixup loss (paper Eq. 10 to 19).

    The defaults are the paper's LLP recipe as released.
    """

    segment_labels: str = "soft"  # "soft", "hard" or "none" (video labels only)
    temperature: float = 2.0  # of soft labels; the paper's Eq. 12 has 1
    reweight: bool = True
    positive_weight: float = 0.5  # W
    weight_normalization: str = "sum"  # "sum" (released) or "mean" (paper) over classes
    mixup: bool = True
    mixup_alpha: float = 1.7
    mixup_labels: str = "soft"  # "soft", "hard" or "ceiling" (soft labels rounded up)
    segment_weight: float = 1.0
    mixup_weight: float = 1.0
    thresholds: dict[str, Tensor] | None = None  # (C,) of each modality, for soft labels
    class_frequencies: dict[str, Tensor] | None = None  # (C,) f_c of each modality, for re-weighting

    def losses(self, output: HANOutput, batch: Batch, classifier: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Every loss term by name, and their weighted sum as "total".

        Args:
            classifier: the segment classifier, (..., D) -> (..., C), for the mixed features.
        """
        losses = {"video": video_loss(output.video_probs, batch.video_labels)}
        total = losses["video"]
        if self.segment_labels != "none":
            for modality in ("audio", "visual"):
                logits = getattr(output, f"{modality}_logits")
                targets = self._targets(modality, self.segment_labels, batch)
                weights = None
                if self.reweight:
                    weights = class_balance_weights(
                        batch.video_labels,
                        self.class_frequencies[modality],
                        self.positive_weight,
                        self.weight_normalization,
                    )
                losses[f"{modality}_segment"] = segment_loss(logits, targets, weights)
                total = total + self.segment_weight * losses[f"{modality}_segment"]
                if self.mixup:
                    losses[f"{modality}_mixup"] = self._mixup_loss(modality, output, batch, classifier)
                    total = total + self.mixup_weight * losses[f"{modality}_mixup"]
        losses["total"] = total
        return losses

    def _targets(self, modality: str, kind: str, batch: Batch) -> Tensor:
        """Targets (B, T, C) of one modality: "soft", "hard" or "ceiling"."""
        if kind == "hard":
            return getattr(batch.teacher, f"{modality}_labels").to(batch.video_labels.dtype)
        logits = getattr(batch.teacher, f"{modality}_logits")
        soft = soft_pseudo_labels(logits, self.thresholds[modality], batch.video_labels, self.temperature)
        return soft.ceil() if kind == "ceiling" else soft

    def _mixup_loss(
        self, modality: str, output: HANOutput, batch: Batch, classifier: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """One modality's mixup loss with a lambda and a permutation of its own."""
        features = getattr(output, f"{modality}_features")
        lam, permutation = drawn_per_run(self._draw_mixup, features)
        mixed_logits = classifier(mixup_features(features, lam, permutation))
        return mixup_loss(mixed_logits, self._targets(modality, self.mixup_labels, batch), lam, permutation)

    def _draw_mixup(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """lambda from Beta(alpha, alpha), and an order of all B·T segments of features (B, T, D)."""
        lam = torch.distributions.Beta(self.mixup_alpha, self.mixup_alpha).sample()
        permutation = torch.randperm(features.shape[0] * features.shape[1], device=features.device)
        return lam.to(features.device, non_blocking=True), permutation


@dataclass(frozen=True)
class GuidedObjective:
    """Losses on each modality's own time-pooled probabilities (HAN's "guided" losses, MA's retraining). N videos."""

    audio_targets: Tensor  # (N, C) in [0, 1], of all training videos
    visual_targets: Tensor  # (N, C) in [0, 1]

    def losses(self, output: HANOutput, batch: Batch) -> dict[str, Tensor]:
        """Both terms by name, and their sum as "total"."""
        audio = video_loss(output.audio_probs, self.audio_targets[batch.videos])
        visual = video_loss(output.visual_probs, self.visual_targets[batch.videos])
        return {"audio_guided": audio, "visual_guided": visual, "total": audio + visual}


@dataclass(frozen=True)
class ContrastiveObjective:
    """MA's loss: the audio after the encoder has to find the visual input of its own second."""

    weight: float = 1.0
    temperature: float = 0.2
    label_smoothing: float = 0.1

    def losses(self, output: HANOutput) -> dict[str, Tensor]:
        """The term by name, and its weighted value as "total"."""
        loss = contrastive_loss(output.audio_features, output.visual_inputs, self.temperature, self.label_smoothing)
        return {"contrastive": loss, "total": self.weight * loss}


def add_objectives(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The terms of several objectives together, their totals added up."""
    total = sum(part["total"] for part in parts[1:]) + parts[0]["total"]
    return {name: value for part in parts for name, value in part.items()} | {"total": total}
