"""Losses that make modalities or networks agree, of the methods between HAN and UWAV.

B videos, T segments, C classes, D features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.cmpae.cmpae_network import CMPAEOutput
from utils.audio_visual import AudioVisual


def segment_cosines(audio: Tensor, visual: Tensor, temperature: float) -> Tensor:
    """Cosine of each audio segment with every visual segment of its video, over the temperature.

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


def mutual_learning_loss(
    output: CMPAEOutput, video_labels: Tensor, teach_video: bool, least_video_uncertainty: float = 0.9
) -> Tensor:
    """CMPAE's agreement of the video branch and the modalities, weighted by how certain each is.

    Of a labelled class the modalities say m = max(p_a, p_v), with that modality's uncertainty u; of another class the
    mean of both. With g the video's probability and U its uncertainty, the loss is the mean over (B, C) of
    U(1 - u)(g - sg(m))² where the video is taught, and of (1 - U)(1 - u)(sg(g) - m)² where the modalities are. sg stops
    the gradient; the weights keep theirs (released code).

    Args:
        output: its video's uncertainty is raised to `least_video_uncertainty`.
        video_labels: (B, C) in {0, 1}.
        teach_video: True in odd batches (counted from 0), False in even ones.
    """
    probs, doubts = output.modality_probs, output.modality_uncertainty  # (B, C) each
    audio_leads = probs.audio > probs.visual

    def of_modalities(pair: AudioVisual[Tensor]) -> Tensor:
        leading = torch.where(audio_leads, pair.audio, pair.visual)
        return torch.where(video_labels.bool(), leading, (pair.audio + pair.visual) / 2)

    said, uncertainty = of_modalities(probs), of_modalities(doubts)
    video_uncertainty = output.video_uncertainty.clamp(min=least_video_uncertainty).unsqueeze(1)  # (B, 1)
    if teach_video:
        return (video_uncertainty * (1 - uncertainty) * (output.video_probs - said.detach()).square()).mean()
    return ((1 - video_uncertainty) * (1 - uncertainty) * (output.video_probs.detach() - said).square()).mean()


def semantic_similarity_loss(labels: AudioVisual[Tensor], features: AudioVisual[Tensor]) -> Tensor:
    """LEAP's audio-visual semantic similarity loss (AVSS): features are as similar as the events they hold.

    The overlap x of audio segment s and visual segment t is the number of events of both, divided by the largest number
    of events of any segment of the video in either modality; a video without events has x = 0. (The paper speaks of an
    intersection over union; the released code divides by that count.) Target: x / (1 + x) + 0.01 for relu(cosine); mean
    squared error.

    Args:
        labels: of the segments, (B, T, C) in {0, 1}.
        features: (B, T, D), after the encoder.
    """
    shared = labels.audio @ labels.visual.transpose(1, 2)  # (B, T, T)
    most = torch.maximum(*labels.map(lambda of_modality: of_modality.sum(dim=-1).amax(dim=1)))  # (B,)
    overlap = shared / most.clamp(min=1).view(-1, 1, 1)
    audio, visual = features.map(lambda x: F.normalize(x, dim=-1))
    cosines = audio @ visual.transpose(1, 2)  # (B, T, T)
    return F.mse_loss(F.relu(cosines), overlap / (1 + overlap) + 0.01)


def asymmetric_loss(probs: Tensor, targets: Tensor, margin: float = 0.05) -> Tensor:
    """CoLeaF's asymmetric loss, a sum: -(1 - pt)·[y log p + (1 - y) log q] with q = min(1 - p + margin, 1).

    pt = y·p + (1 - y)·q; no gradient flows through the focus 1 - pt (released code).

    Args:
        probs: any shape, in (0, 1).
        targets: the same shape, in [0, 1].
    """
    kept = (1 - probs + margin).clamp(max=1)
    focus = 1 - (targets * probs + (1 - targets) * kept).detach()
    log_probs, log_kept = (x.clamp(min=1e-8).log() for x in (probs, kept))
    return -(focus * (targets * log_probs + (1 - targets) * log_kept)).sum()


def class_correlation_loss(probs: Tensor, guides: Tensor) -> Tensor:
    """CoLeaF's loss on which classes go together: sum over videos of |t t' - s s'|², times B / C.

    t t' is a video's C x C matrix of products. The released code multiplies by the number of videos where a mean would
    divide. The specification does not say whether products are taken over the classes or the videos; classes is our
    reading of the name.

    Args:
        probs: s, (B, C) of the anchor.
        guides: t, (B, C).
    """
    num_videos, num_classes = probs.shape
    difference = guides.unsqueeze(2) * guides.unsqueeze(1) - probs.unsqueeze(2) * probs.unsqueeze(1)  # (B, C, C)
    return difference.square().sum() * num_videos / num_classes
