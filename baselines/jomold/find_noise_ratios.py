"""JoMoLD, stage 2: estimate for each class how many of its video labels each modality does not have."""

from utils.entry_point import run_entry_point

from pathlib import Path
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from baselines.han.han_objective import Smoothing
from baselines.jomold.label_denoising import LIMITS
from baselines.jomold.noise_estimation import estimate_noise_ratios
from baselines.jomold.noise_ratios import NoiseRatios, save_noise_ratios
from dataloaders.annotations import SplitAnnotations, Subset
from dataloaders.batches import DataSettings, open_split
from dataloaders.datasets import PARSED_DATASETS
from utils.audio_visual import AudioVisual
from utils.base_runs import parse_settings_on_run
from utils.evaluation.trained_han import TrainedHAN
from utils.reporting.tables import Cell, Column, Row, Table, format_text, write_tables
from utils.run_folders import DEFAULT_RUNS_DIR, begin_output, finish_run
from utils.settings import FromFile, settings_group
from utils.training.device import DeviceSettings


@settings_group
class Settings(FromFile):
    """What the estimation can be told; network and data default to those of the estimator's run."""

    dataset: Literal[tuple(PARSED_DATASETS)] = "LLP"
    """data set"""
    checkpoint_dir: Path | None = None
    """the estimator's run (default: the newest finished one of jomold_base in runs_dir)"""
    runs_dir: Path = DEFAULT_RUNS_DIR
    """folder in which runs are looked for"""
    checkpoint: Path | None = None
    """weights (default: checkpoints/checkpoint_best.pt of the run)"""
    output_dir: Path | None = None
    """folder of the ratios (default: <checkpoint_dir>/<dataset>_Noise)"""
    mean_batch_size: PositiveInt = 128
    """videos of each batch whose means are averaged (released: 128)"""
    audio_limit: PositiveFloat = LIMITS.audio
    """an audio label is noise below this share of its class's mean"""
    visual_limit: PositiveFloat = LIMITS.visual
    """the same of visual labels"""
    audio_smoothing: Smoothing = 0.0
    """smoothing s of the audio's labels that the estimator learned"""
    visual_smoothing: Smoothing = 0.1
    """smoothing s of the visual labels that it learned"""
    trained: TrainedHAN = TrainedHAN()
    data: DataSettings = DataSettings()
    subset: Subset = Subset()
    device: DeviceSettings = DeviceSettings()


def noise_table(annotations: SplitAnnotations, ratios: AudioVisual[Tensor]) -> Table:
    """For each class: its videos, and the share of its labels that each modality does not seem to have."""
    counts = annotations.video_labels.sum(dim=0)  # (C,)
    rows = tuple(
        Row((name,), tuple(map(Cell, values)))
        for name, *values in zip(annotations.classes, counts.tolist(), *ratios.map(Tensor.tolist), strict=True)
    )
    columns = (Column("videos", decimals=0), Column("audio", "Noise ratio", 3), Column("visual", "Noise ratio", 3))
    return Table(f"Noise ratios, {annotations.dataset} {annotations.split}", ("Class",), columns, rows)


def main(argv: list[str] | None = None) -> None:
    # 1 Settings
    settings = parse_settings_on_run(Settings(), __doc__, argv, method="jomold_base", output="Noise")
    output_dir = settings.output_dir
    device, precision = settings.device.select()

    # 2 Data and model
    train = open_split(settings.dataset, "train", settings.data, device, subset=settings.subset)
    annotations = train.annotations
    estimator = settings.trained.load(settings.checkpoint, train)

    # 3 Noise ratios
    log = begin_output(output_dir, settings, ("noise_ratios.*",))
    smoothing = AudioVisual(settings.audio_smoothing, settings.visual_smoothing)
    limits = AudioVisual(settings.audio_limit, settings.visual_limit)
    ratios = estimate_noise_ratios(estimator, train, smoothing, precision, settings.mean_batch_size, limits)
    save_noise_ratios(NoiseRatios(settings.dataset, annotations.classes, ratios), output_dir)

    # 4 Report
    table = noise_table(annotations, ratios)
    write_tables(output_dir / "noise_ratios", table)
    log.info("\n" + format_text(table))
    log.info(f"noise ratios: {output_dir}")
    occurring = annotations.video_labels.any(dim=0)
    audio, visual = ratios.map(lambda of_modality: torch.mean(of_modality[occurring]).item())
    finish_run(output_dir, {"audio_mean": audio, "visual_mean": visual})


if __name__ == "__main__":
    run_entry_point(main)
