"""The noise ratios that JoMoLD's estimator finds: how many of a class's video labels a modality does not have."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.files import atomic_write

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
    audio, visual = noise.ratios.map(lambda ratios: ratios.cpu().clone())
    metadata = {"dataset": noise.dataset, "classes": "\n".join(noise.classes)}
    with atomic_write(folder / FILE) as file:
        file.write(save({"audio": audio, "visual": visual}, metadata))


def load_noise_ratios(folder: Path, dataset: str, classes: tuple[str, ...]) -> NoiseRatios:
    """Read the noise ratios of these classes, which may be the first of those in the file.

    Raises:
        InputError: when there are none, or they are of other classes or another data set.
    """
    path = folder / FILE
    if not path.exists():
        raise InputError(folder, f"no {FILE}", "noise ratios written by baselines.jomold.find_noise_ratios", WAY_OUT)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            found, found_classes = metadata["dataset"], tuple(metadata["classes"].split("\n"))
            ratios = AudioVisual(file.get_tensor("audio"), file.get_tensor("visual"))
    except (SafetensorError, KeyError) as error:
        raise InputError(
            path, f"a damaged file ({error})", "noise ratios of baselines.jomold.find_noise_ratios", WAY_OUT
        ) from error
    if found != dataset or found_classes[: len(classes)] != classes:
        raise InputError(
            path,
            f"noise ratios of {found} with {len(found_classes)} classes",
            f"those of {dataset} with its {len(classes)} classes in order",
            WAY_OUT,
        )
    return NoiseRatios(dataset, classes, ratios.map(lambda of_modality: of_modality[: len(classes)]))
