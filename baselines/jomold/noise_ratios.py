"""JoMoLD's noise ratios: the share of a class's video labels that are wrong for a modality (Cheng et al., 2022)."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from baselines.han import smooth_labels
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import SplitBatches
from dataloaders.datasets import DATASETS
from dataloaders.records import load_record, save_record
from models import HAN
from utils.audio_visual import MODALITIES, AudioVisual
from utils.errors import InputError
from utils.evaluation.inference import over_split
from utils.files import atomic_write
from utils.training.device import Precision

LIMITS = AudioVisual(0.6, 1.8)  # a label is noise below this share of its class's mean probability
FILE, RELEASED_FILE = "noise_ratios.safetensors", "noise_ratios.npz"  # ours, and that of the released code
WAY_OUT = "Run python -m baselines.jomold.find_noise_ratios for this data set, or pass the folder of its output."


def noise_ratios(probs: Tensor, targets: Tensor, labels: Tensor, batch_size: int, limit: float) -> Tensor:
    """Compute the share of each class's labels that are noise, p·P / mean < limit: (N, C) each -> (C,) in [0, 1].

    p are the estimator's time-pooled probabilities, P the targets of its training (0.95 for a visual label). The mean
    is over the means of batches, even if the last one is smaller (`calculate_noise_ratio` of the released code).
    """
    class_means = torch.stack([batch.mean(dim=0) for batch in probs.split(batch_size)]).mean(dim=0)  # (C,)
    noisy = labels & (probs * targets < limit * class_means)
    return noisy.sum(dim=0) / labels.sum(dim=0).clamp(min=1)


def estimate_noise_ratios(
    estimator: HAN,
    split: SplitBatches,
    smoothing: AudioVisual[float],
    precision: Precision,
    batch_size: int,
    limits: AudioVisual[float] = LIMITS,
) -> AudioVisual[Tensor]:
    """Compute a split's noise ratios, (C,) on the CPU, with an estimator trained on targets with this smoothing."""
    labels = split.annotations.video_labels  # (N, C)
    parse = partial(precision.run, estimator, with_cross_attention=False)
    probs = over_split(estimator, parse, split, batch_size, progress=True).modality_probs.map(Tensor.cpu)
    targets = smoothing.map(lambda s: smooth_labels(labels.float(), s))
    return probs.map(lambda p, target, limit: noise_ratios(p, target, labels, batch_size, limit), targets, limits)


def save_noise_ratios(ratios: AudioVisual[Tensor], annotations: SplitAnnotations, folder: Path) -> None:
    """Write the ratios of the annotated classes, (C,) each, to `noise_ratios.safetensors`."""
    save_record(folder / FILE, ratios._asdict(), annotations.dataset, annotations.classes)


def export_noise_ratios(ratios: AudioVisual[Tensor], folder: Path) -> None:
    """Write the ratios of LLP's classes, (25,) each, to `noise_ratios.npz`, as the released code does."""
    with atomic_write(folder / RELEASED_FILE) as file:
        np.savez(file, **ratios.map(lambda values: values.double().numpy())._asdict())


def load_noise_ratios(folder: Path, annotations: SplitAnnotations) -> AudioVisual[Tensor]:
    """Read the noise ratios of the annotated classes, (C,) each. Raises InputError if absent or unsuitable."""
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
    """Read the file released with JoMoLD, CMPAE and CoLeaF: (25,) per modality, in the order of LLP's classes."""
    classes = DATASETS["LLP"].classes
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ratios = AudioVisual(*(torch.from_numpy(arrays[modality]).float() for modality in MODALITIES))
        shapes = {tuple(values.shape) for values in ratios}
        if shapes != {(len(classes),)} or classes[: len(annotations.classes)] != annotations.classes:
            raise ValueError(f"shapes {shapes} for {len(annotations.classes)} classes of {annotations.dataset}")
    except Exception as error:  # zipfile and numpy may raise anything for a damaged archive
        expected = f"arrays `audio` and `visual` with a number for each of LLP's {len(classes)} classes"
        raise InputError(path, f"no readable ratios ({error})", expected, WAY_OUT) from error
    return ratios
