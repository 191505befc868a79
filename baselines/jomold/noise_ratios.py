"""JoMoLD's noise ratios: how many of a class's video labels a modality does not have (Cheng et al., ECCV 2022)."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from baselines.han.han_objective import smooth_labels
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import SplitBatches
from dataloaders.datasets import DATASETS
from dataloaders.records import load_record, save_record
from models import HAN
from utils.audio_visual import MODALITIES, AudioVisual
from utils.errors import InputError
from utils.files import atomic_write
from utils.training.device import Precision

LIMITS = AudioVisual(0.6, 1.8)  # a label is noise below this share of its class's mean probability
FILE, RELEASED_FILE = "noise_ratios.safetensors", "noise_ratios.npz"  # ours, and that of the released code
WAY_OUT = (
    "Run python -m baselines.jomold.find_noise_ratios for this data set, or name the folder that holds its output."
)


def noise_ratios(probs: Tensor, targets: Tensor, labels: Tensor, batch_size: int, limit: float) -> Tensor:
    """Return the share of each class's labels that a modality does not seem to have: p·P / mean < limit.

    This is `calculate_noise_ratio` of the released code. The mean is that of the batches' means: a last, smaller batch
    weighs as much as the others.

    Args:
        probs: p, (N, C), the estimator's time-pooled probabilities.
        targets: P, (N, C), what it was trained on (0.95 for a visual label).
        labels: (N, C) bool, of the videos.

    Returns:
        (C,) in [0, 1]; 0 for a class without a label
    """
    class_means = torch.stack([batch.mean(dim=0) for batch in probs.split(batch_size)]).mean(dim=0)  # (C,)
    noisy = labels & (probs * targets < limit * class_means)
    return noisy.sum(dim=0) / labels.sum(dim=0).clamp(min=1)


@torch.inference_mode()
def estimate_noise_ratios(
    estimator: HAN,
    split: SplitBatches,
    smoothing: AudioVisual[float],
    precision: Precision,
    batch_size: int,
    limits: AudioVisual[float] = LIMITS,
) -> AudioVisual[Tensor]:
    """Return the noise ratios of a split, (C,) of each modality on the CPU.

    Args:
        estimator: runs without cross-attention.
        smoothing: of the targets that it was trained on.
        batch_size: of the means that are averaged.
        limits: a label is noise below this share of its class's mean probability.
    """
    estimator.eval()
    total = math.ceil(split.num_videos / batch_size)
    batches = [
        precision.run(estimator, *batch.features, False, **batch.padding).modality_probs.map(Tensor.cpu)
        for batch in tqdm(split.in_order(batch_size), disable=None, total=total)
    ]
    labels = split.annotations.video_labels  # (N, C)

    def ratios(probs: tuple[Tensor, ...], smoothing: float, limit: float) -> Tensor:
        targets = smooth_labels(labels.float(), smoothing)
        return noise_ratios(torch.cat(probs), targets, labels, batch_size, limit)

    return AudioVisual(*zip(*batches, strict=True)).map(ratios, smoothing, limits)


def save_noise_ratios(ratios: AudioVisual[Tensor], annotations: SplitAnnotations, folder: Path) -> None:
    """Write the ratios of the annotated classes, (C,) each, to `noise_ratios.safetensors`, atomically."""
    save_record(folder / FILE, ratios._asdict(), annotations.dataset, annotations.classes)


def export_noise_ratios(ratios: AudioVisual[Tensor], folder: Path) -> None:
    """Write the ratios of LLP's classes, (25,) each, to `noise_ratios.npz`, as the released code does."""
    with atomic_write(folder / RELEASED_FILE) as file:
        np.savez(file, **ratios.map(lambda values: values.double().numpy())._asdict())


def load_noise_ratios(folder: Path, annotations: SplitAnnotations) -> AudioVisual[Tensor]:
    """Read the noise ratios of the annotated classes, which may be the first of those in the file: (C,) each.

    Raises:
        InputError: when there are none, they are of other classes or another data set, or no shares.
    """
    released = folder / RELEASED_FILE
    if released.is_file() and not (folder / FILE).exists():
        path, ratios = released, _load_released(released, annotations)
    else:
        path = folder / FILE
        record = load_record(path, annotations.dataset, annotations.classes, WAY_OUT)
        ratios = AudioVisual(*(record.get(modality, torch.float32, len(record.classes)) for modality in MODALITIES))
    for modality, values in zip(MODALITIES, ratios, strict=True):
        if len(wrong := values[~((values >= 0) & (values <= 1))]):
            raise InputError(path, f"a ratio of {wrong[0]:g} in {modality}", "shares between 0 and 1", WAY_OUT)
    return ratios.map(lambda values: values[: len(annotations.classes)])


def _load_released(path: Path, annotations: SplitAnnotations) -> AudioVisual[Tensor]:
    """Read the file that JoMoLD, CMPAE and CoLeaF ship: (25,) of each modality, in the order of LLP's classes."""
    classes = DATASETS["LLP"].classes
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ratios = AudioVisual(*(torch.from_numpy(arrays[modality]).float() for modality in MODALITIES))
        shapes = {tuple(values.shape) for values in ratios}
        if shapes != {(len(classes),)} or classes[: len(annotations.classes)] != annotations.classes:
            raise ValueError(f"shapes {shapes} for {len(annotations.classes)} classes of {annotations.dataset}")
    except Exception as error:  # whatever a damaged archive makes zipfile and numpy raise
        expected = f"arrays `audio` and `visual`, a number for each of LLP's {len(classes)} classes"
        raise InputError(path, f"no readable ratios ({error})", expected, WAY_OUT) from error
    return ratios
