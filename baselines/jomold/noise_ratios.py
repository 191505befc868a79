"""The noise ratios that JoMoLD's estimator finds: how many of a class's video labels a modality does not have."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dataloaders.records import load_record, save_record
from utils.audio_visual import AudioVisual

FILE = "noise_ratios.safetensors"
WAY_OUT = (
    "Run python -m baselines.jomold.find_noise_ratios for this data set, or name the folder that holds its output."
)


@dataclass(frozen=True)
class NoiseRatios:
    """Of a data set's training split. C classes."""

    dataset: str
    classes: tuple[str, ...]  # (C,)
    ratios: AudioVisual[Tensor]  # (C,) of each modality, in [0, 1]


def save_noise_ratios(noise: NoiseRatios, folder: Path) -> None:
    """Write `noise_ratios.safetensors`, atomically."""
    save_record(folder / FILE, noise.ratios._asdict(), noise.dataset, noise.classes)


def load_noise_ratios(folder: Path, dataset: str, classes: tuple[str, ...]) -> NoiseRatios:
    """Read the noise ratios of these classes, which may be the first of those in the file.

    Raises:
        InputError: when there are none, or they are of other classes or another data set.
    """
    record = load_record(folder / FILE, dataset, classes, WAY_OUT)
    audio = record.get("audio", torch.float32, len(record.classes))[: len(classes)]
    visual = record.get("visual", torch.float32, len(record.classes))[: len(classes)]
    return NoiseRatios(dataset, classes, AudioVisual(audio, visual))
