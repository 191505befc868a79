"""JoMoLD, stage 2: estimate the share of each class's video labels that are wrong for a modality."""

from utils.entry_point import run_entry_point

import torch
from pydantic import PositiveFloat, PositiveInt

from baselines.han import Smoothing
from baselines.jomold import JoMoLDLosses
from baselines.jomold.noise_ratios import LIMITS, estimate_noise_ratios, export_noise_ratios, save_noise_ratios
from dataloaders.batches import open_split
from utils.audio_visual import MODALITIES, AudioVisual
from utils.base_runs import OnBaseRun, finish_labels, parse_settings_on_run, record_on_run
from utils.reporting.tables import Column, class_table
from utils.run_folders import begin_output
from utils.settings import settings_group


@settings_group
class Settings(OnBaseRun):
    """Settings of the estimation of noise ratios."""

    mean_batch_size: PositiveInt = 128  # videos per batch in the mean over batch means (released code: 128)
    audio_limit: PositiveFloat = LIMITS.audio  # audio labels are noise below this share of the class's mean probability
    visual_limit: PositiveFloat = LIMITS.visual  # the same for visual labels
    audio_smoothing: Smoothing = 0.0  # smoothing s of the audio labels in the estimator's training
    visual_smoothing: Smoothing = 0.1  # smoothing s of the visual labels in the estimator's training


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
    labels = train.annotations.video_labels
    columns, summary = {Column("videos", decimals=0): labels.sum(dim=0)}, {}
    for modality, of_classes in zip(MODALITIES, ratios, strict=True):
        columns[Column(modality, "Noise ratio", decimals=3)] = of_classes
        summary[f"{modality}_mean"] = torch.mean(of_classes[labels.any(dim=0)]).item()
    table = class_table(f"Noise ratios, {settings.dataset} train", train.annotations.classes, columns)
    finish_labels(settings.output_dir, "noise_ratios", table, summary, log, record.note)


if __name__ == "__main__":
    run_entry_point(main)
