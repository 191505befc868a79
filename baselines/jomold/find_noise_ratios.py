"""JoMoLD, stage 2: estimate for each class the share of its video labels that do not hold for a modality."""

from utils.entry_point import run_entry_point

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from baselines.han import Smoothing
from baselines.jomold import JoMoLDLosses
from baselines.jomold.noise_ratios import LIMITS, estimate_noise_ratios, export_noise_ratios, save_noise_ratios
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import open_split
from utils.audio_visual import AudioVisual
from utils.base_runs import OnBaseRun, finish_labels, parse_settings_on_run, record_on_run
from utils.reporting.tables import Column, Table, class_table
from utils.run_folders import begin_output
from utils.settings import settings_group


@settings_group
class Settings(OnBaseRun):
    """Settings of the estimation of noise ratios."""

    mean_batch_size: PositiveInt = 128  # videos of each batch whose means are averaged (released: 128)
    audio_limit: PositiveFloat = LIMITS.audio  # an audio label is noise below this share of its class's mean
    visual_limit: PositiveFloat = LIMITS.visual  # the same for visual labels
    audio_smoothing: Smoothing = 0.0  # smoothing s of the audio labels that the estimator was trained on
    visual_smoothing: Smoothing = 0.1  # smoothing s of its visual labels


def noise_table(annotations: SplitAnnotations, ratios: AudioVisual[Tensor]) -> Table:
    """Return the table of each class's videos and noise ratios, (C,)."""
    columns = {
        Column("videos", decimals=0): annotations.video_labels.sum(dim=0),
        Column("audio", "Noise ratio", decimals=3): ratios.audio,
        Column("visual", "Noise ratio", decimals=3): ratios.visual,
    }
    return class_table(f"Noise ratios, {annotations.dataset} {annotations.split}", annotations.classes, columns)


def main(argv: list[str] | None = None) -> None:
    # 1 Settings
    settings = parse_settings_on_run(Settings(), __doc__, argv, method="jomold_base", output="Noise")
    device, precision = settings.device.select()

    # 2 Data and model
    train = open_split(settings.dataset, "train", settings.data, device, subset=settings.subset)
    estimator = settings.trained.load(settings.checkpoint, settings.checkpoint_dir, train)

    # 3 Noise ratios
    record = record_on_run(settings, JoMoLDLosses.command, {"train": train})
    log = begin_output(settings.output_dir, settings, ("noise_ratios.*",), record)
    smoothing = AudioVisual(settings.audio_smoothing, settings.visual_smoothing)
    limits = AudioVisual(settings.audio_limit, settings.visual_limit)
    ratios = estimate_noise_ratios(estimator, train, smoothing, precision, settings.mean_batch_size, limits)
    save_noise_ratios(ratios, train.annotations, settings.output_dir)
    if settings.export:
        export_noise_ratios(ratios, settings.output_dir)

    # 4 Report
    occurring = train.annotations.video_labels.any(dim=0)  # (C,)
    means = ratios.map(lambda of_classes: torch.mean(of_classes[occurring]).item())
    summary = {"audio_mean": means.audio, "visual_mean": means.visual}
    table = noise_table(train.annotations, ratios)
    finish_labels(settings.output_dir, "noise_ratios", table, summary, log, record.note)


if __name__ == "__main__":
    run_entry_point(main)
