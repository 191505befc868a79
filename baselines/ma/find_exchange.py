"""MA, stage 2: find by exchanging modalities which labels of the training videos each modality does not show."""

from utils.entry_point import run_entry_point

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from baselines.ma.cleaned_labels import CleanedLabels, save_cleaned_labels
from baselines.ma.exchange import Exchange, error_rates, exchange_modalities
from dataloaders.annotations import SplitAnnotations, Subset
from dataloaders.batches import DataSettings, open_split
from dataloaders.datasets import PARSED_DATASETS
from utils.audio_visual import AudioVisual
from utils.base_runs import parse_settings_on_run
from utils.evaluation.tasks import true_events
from utils.evaluation.trained_han import TrainedHAN
from utils.reporting.tables import Cell, Column, Row, Table, format_text, write_tables
from utils.run_folders import DEFAULT_RUNS_DIR, begin_output, finish_run
from utils.settings import FromFile, settings_group
from utils.training.device import DeviceSettings
from utils.training.loop import Recipe


@settings_group
class Settings(FromFile):
    """What the exchange can be told; network and data settings default to those of the base model's run."""

    dataset: Literal[tuple(PARSED_DATASETS)] = "LLP"
    """data set"""
    checkpoint_dir: Path | None = None
    """run of train_han.py --method ma_base (default: the newest finished one in runs_dir)"""
    runs_dir: Path = DEFAULT_RUNS_DIR
    """where runs are looked for"""
    checkpoint: Path | None = None
    """weights (default: checkpoints/checkpoint_best.pt of the run)"""
    output_dir: Path | None = None
    """(default: <checkpoint_dir>/<dataset>_Exchange)"""
    keep_one_modality: bool = False
    """give labels that would be removed from both modalities back to both"""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Recipe.seed
    """seed of the choice of unrelated videos"""
    trained: TrainedHAN = TrainedHAN()
    data: DataSettings = DataSettings()
    subset: Subset = Subset()
    device: DeviceSettings = DeviceSettings()


def cleaning_table(annotations: SplitAnnotations, exchange: Exchange, rates: AudioVisual[Tensor]) -> Table:
    """For each class: its videos, the share that each modality lost, and the error rates."""
    labels = annotations.video_labels
    counts = labels.sum(dim=0)  # (C,)
    columns, cells = [Column("videos", decimals=0)], [counts.tolist()]
    for name, left, rate in zip(("Audio", "Visual"), exchange.labels, rates, strict=True):
        columns += [Column("removed (%)", name), Column("error rate", name, decimals=2)]
        cells += [(100 * (counts - left.sum(dim=0)) / counts.clamp(min=1)).tolist(), rate.tolist()]
    rows = [
        Row((name,), tuple(Cell(value) for value in values))
        for name, *values in zip(annotations.classes, *cells, strict=True)
    ]
    notes = ("Error rates in proportion to the average class.",)
    title = f"Labels that the exchange removes, {annotations.dataset} {annotations.split}"
    return Table(title, ("Class",), tuple(columns), tuple(rows), notes)


def agreement(annotations: SplitAnnotations, exchange: Exchange) -> dict[str, float]:
    """How well the exchange does where the truth is known, in percent of a modality's labels.

    "precision": share of the removed labels whose event is truly absent from the modality, 100 where none was removed;
    "recall": share of the absent events whose labels were removed, 100 where none is absent.
    """
    labels, truth = annotations.video_labels, true_events(annotations, torch.device("cpu"))
    absent = truth.map(lambda events: labels & ~events.any(dim=1))  # (N, C)
    removed = exchange.labels.map(lambda left: labels & ~left)
    both = absent.map(torch.logical_and, removed)
    precision, recall = both.map(percentage, removed), both.map(percentage, absent)
    return {
        "audio_precision": precision.audio,
        "audio_recall": recall.audio,
        "visual_precision": precision.visual,
        "visual_recall": recall.visual,
    }


def percentage(part: Tensor, whole: Tensor) -> float:
    """How much of `whole` is in `part`, in percent; 100 of nothing."""
    return 100 * part.sum().item() / whole.sum().item() if whole.any() else 100.0


def summarise(train: SplitAnnotations, cleaned: Exchange, val: SplitAnnotations, on_val: Exchange) -> dict[str, float]:
    """Key figures of the exchange."""
    given, left = train.video_labels, cleaned.labels
    return {
        "labels": int(given.sum()),
        "removed_from_audio": int((given & ~left.audio).sum()),
        "removed_from_visual": int((given & ~left.visual).sum()),
        "removed_from_both": int((given & ~left.audio & ~left.visual).sum()),
        **{f"val_{name}": value for name, value in agreement(val, on_val).items()},
    }


def main(argv: list[str] | None = None) -> None:
    # 1 Settings
    settings = parse_settings_on_run(Settings(), __doc__, argv, method="ma_base", output="Exchange")
    output_dir, batch_size = settings.output_dir, settings.device.eval_batch_size
    device, precision = settings.device.select()

    # 2 Data
    train, val = (
        open_split(settings.dataset, name, settings.data, device, subset=settings.subset) for name in ("train", "val")
    )

    # 3 Model
    model = settings.trained.load(settings.checkpoint, train)
    log = begin_output(output_dir, settings, ("cleaned_labels.safetensors", "removed_labels.*"))

    # 4 Exchange
    rates = error_rates(model, train, batch_size, precision)
    generator = torch.Generator().manual_seed(settings.seed)
    cleaned, on_val = (
        exchange_modalities(model, split, rates, batch_size, precision, generator) for split in (train, val)
    )
    annotations = train.annotations
    if settings.keep_one_modality:
        cleaned = cleaned.keeping_one(annotations.video_labels)
        on_val = on_val.keeping_one(val.annotations.video_labels)
    of_split = (annotations.dataset, annotations.classes, annotations.sample_ids)
    save_cleaned_labels(CleanedLabels(*of_split, cleaned.labels), output_dir)

    # 5 Report
    if cleaned.without_partner:
        log.warning(f"{cleaned.without_partner} videos have no unrelated video; they keep all labels")
    table = cleaning_table(annotations, cleaned, rates)
    write_tables(output_dir / "removed_labels", table)
    log.info("\n" + format_text(table))
    summary = summarise(annotations, cleaned, val.annotations, on_val)
    for name, value in summary.items():
        log.info(f"{name}: {value:.1f}" if isinstance(value, float) else f"{name}: {value}")
    log.info(f"cleaned labels: {output_dir}")
    finish_run(output_dir, summary)


if __name__ == "__main__":
    run_entry_point(main)
