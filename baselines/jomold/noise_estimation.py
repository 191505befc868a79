"""JoMoLD's noise ratios of a training split, from its estimator (Cheng et al., ECCV 2022)."""

import math

import torch
from tqdm import tqdm

from baselines.han.han_objective import smooth_labels
from baselines.jomold.label_denoising import mean_of_batches, noise_ratios
from dataloaders.batches import SplitBatches
from models.han import HAN
from utils.audio_visual import AudioVisual
from utils.training.device import Precision


@torch.inference_mode()
def estimate_noise_ratios(
    estimator: HAN,
    split: SplitBatches,
    smoothing: AudioVisual[float],
    precision: Precision,
    batch_size: int,
    limits: AudioVisual[float],
) -> AudioVisual[torch.Tensor]:
    """Share of each class's labels that a modality does not seem to have, (C,) of each modality on the CPU.

    Args:
        estimator: runs without cross-attention.
        smoothing: of the targets that it was trained on.
        batch_size: of the means that are averaged, the last one smaller.
        limits: a label is noise below this share of its class's mean probability.
    """
    estimator.eval()
    total = math.ceil(split.num_videos / batch_size)
    batches = [
        precision.run(estimator, *batch.features, False).modality_probs
        for batch in tqdm(split.in_order(batch_size), disable=None, total=total)
    ]
    labels = split.annotations.video_labels  # (N, C)

    def of_modality(parts: list[torch.Tensor], smoothing: float, limit: float) -> torch.Tensor:
        targets = smooth_labels(labels.float(), smoothing)
        return noise_ratios(torch.cat(parts), targets, mean_of_batches(parts), labels, limit)

    probs = AudioVisual([batch.audio.cpu() for batch in batches], [batch.visual.cpu() for batch in batches])
    return probs.map(of_modality, smoothing, limits)
