"""Losses of both stages as pure functions of tensors. B videos, T segments, C classes.

Where paper and released code differ, the docstring says so. Constants are settings of `utils.method.objectives`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.audio_visual import AudioVisual


def audio_visual_loss(logits: AudioVisual[Tensor], labels: Tensor, mask: Tensor, occurring_weight: float) -> Tensor:
    """Stage 1: binary cross-entropy of p_av = sigmoid(a)·sigmoid(v) against audio-visual segment labels (section 3.2).

    Args:
        logits: (B, T, C).
        labels: (B, T, C) in {0, 1}.
        mask: (B, T) bool, False where a segment is padding.
        occurring_weight: weight of every segment of a class that occurs anywhere in the video (the paper does not
            mention it; 1 switches it off).

    Returns:
        scalar: the weighted sum over valid segments and classes, divided by (number of valid segments · C).
    """
    p_av = torch.sigmoid(logits.audio) * torch.sigmoid(logits.visual)
    valid = mask.unsqueeze(-1).to(p_av.dtype)  # (B, T, 1)
    labels = labels.to(p_av.dtype)
    occurs = (labels * valid).amax(dim=1, keepdim=True)  # (B, 1, C)
    weights = valid * (1 + (occurring_weight - 1) * occurs)
    loss = _cross_entropy_of_probabilities(p_av, labels, weights, reduction="sum")
    return loss / (valid.sum() * labels.shape[-1])


def video_loss(video_probs: Tensor, video_labels: Tensor) -> Tensor:
    """Binary cross-entropy of pooled probabilities against labels, (B, C) of a video or a modality (HAN, 2020)."""
    return _cross_entropy_of_probabilities(video_probs.clamp(1e-7, 1 - 1e-7), video_labels)


def smooth_labels(labels: Tensor, smoothing: float) -> Tensor:
    """Binary labels drawn towards 1/2: (1 - s)·y + s/2, of any shape; 0.1 makes 0.95 and 0.05 (HAN, 2020)."""
    return (1 - smoothing) * labels + smoothing / 2


def contrastive_loss(audio: Tensor, visual: Tensor, temperature: float, label_smoothing: float) -> Tensor:
    """Match each segment's audio with the visual feature of the same second among all of the video (MA).

    Cross-entropy over the video's T seconds of the cosines divided by the temperature; the target is 1 - s for the same
    second and s / (T - 1) for each other one (Wu and Yang, CVPR 2021; released code).

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


def _cross_entropy_of_probabilities(
    probs: Tensor, targets: Tensor, weights: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Binary cross-entropy that is NaN where a probability is; PyTorch's stops the process, on CUDA for good."""
    loss = F.binary_cross_entropy(probs.nan_to_num(), targets, weights, reduction=reduction)
    return loss + (0 * probs).sum()


def soft_pseudo_labels(teacher_logits: Tensor, thresholds: Tensor, video_labels: Tensor, temperature: float) -> Tensor:
    """Uncertainty-weighted soft labels q = sigmoid((logit - threshold) / temperature) where y = 1, else 0 (Eq. 12).

    The released code divides by a temperature of 2; Eq. 12 has none (1). A threshold of -inf is first
    replaced by the class's smallest logit in this batch, less 1 (released code; the paper does not mention it).

    Args:
        teacher_logits: (B, T, C), logits of the temporal transformer, of absent classes also -inf.
        thresholds: (C,), class-wise; -inf means that every segment is positive.
        video_labels: (B, C) in {0, 1}.

    Returns:
        (B, T, C) in [0, 1]
    """
    # Logits of -inf mark classes absent from a video; they say nothing of the class's smallest logit.
    lowest = teacher_logits.masked_fill(torch.isneginf(teacher_logits), torch.inf).amin(dim=(0, 1)) - 1  # (C,)
    thresholds = torch.where(torch.isneginf(thresholds), lowest, thresholds)
    soft = torch.sigmoid((teacher_logits - thresholds) / temperature)
    return torch.where(video_labels.bool().unsqueeze(1), soft, 0.0)


def class_balance_weights(
    video_labels: Tensor, class_frequencies: Tensor, positive_weight: float, normalization: str
) -> Tensor:
    """Weights that balance positive and negative classes of the segment loss (Eq. 18, 19).

    With f_c the share of all training segments whose pseudo-label has class c and S = sum of f_c: (C - S)·W where
    y = 1, S where y = 0. `normalization="mean"` divides both by C, as the paper does.

    Args:
        video_labels: (B, C) in {0, 1}.
        class_frequencies: (C,).
        positive_weight: W.

    Returns:
        (B, 1, C)
    """
    num_classes = class_frequencies.shape[0]
    total = class_frequencies.sum()
    positive, negative = (num_classes - total) * positive_weight, total
    if normalization == "mean":
        positive, negative = positive / num_classes, negative / num_classes
    elif normalization != "sum":
        raise ValueError(f"normalization is {normalization!r}; expected 'sum' or 'mean'")
    return torch.where(video_labels.bool(), positive, negative).unsqueeze(1)


def segment_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Segment-level binary cross-entropy of one modality against soft or hard labels (section 3.4).

    Args:
        logits, targets: (B, T, C).
        weights: broadcast to (B, T, C), from `class_balance_weights`; None: no re-weighting.
    """
    return F.binary_cross_entropy_with_logits(logits, targets, weights)


def mixup_features(features: Tensor, lam: Tensor | float, permutation: Tensor) -> Tensor:
    """Mixed features lam·x + (1 - lam)·x_perm of all B·T segments (section 3.5): (B, T, D), (B·T,) -> (B·T, D)."""
    flat = features.flatten(0, 1)
    return lam * flat + (1 - lam) * flat[permutation]


def mixup_loss(mixed_logits: Tensor, targets: Tensor, lam: Tensor | float, permutation: Tensor) -> Tensor:
    """Loss of mixed features: lam·BCE(z_bar, q) + (1 - lam)·BCE(z_bar, q_perm) (section 3.5).

    Args:
        mixed_logits: (B·T, C), the classifier's output on `mixup_features`.
        targets: (B, T, C).
        lam: the mixing share, from Beta(alpha, alpha).
        permutation: (B·T,).
    """
    flat = targets.flatten(0, 1)
    loss = F.binary_cross_entropy_with_logits(mixed_logits, flat)
    loss_permuted = F.binary_cross_entropy_with_logits(mixed_logits, flat[permutation])
    return lam * loss + (1 - lam) * loss_permuted
