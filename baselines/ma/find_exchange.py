"""MA, stage 2: find training labels that are wrong for a modality by exchanging modalities between videos."""

from utils.entry_point import run_entry_point

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from baselines.ma import MALosses, exchange
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import open_split
from utils.audio_visual import MODALITIES, AudioVisual
from utils.base_runs import OnBaseRun, finish_labels, parse_settings_on_run, record_on_run
from utils.errors import InputError
from utils.evaluation.inference import run_han
from utils.evaluation.tasks import true_events
from utils.reporting.tables import Column, Table, class_table
from utils.run_folders import begin_output
from utils.settings import settings_group


@settings_group
class Settings(OnBaseRun):
    """Settings of the exchange."""

    keep_one_modality: bool = False  # keep labels that would be removed from both modalities
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 2  # seed of the choice of unrelated videos


def cleaning_table(annotations: SplitAnnotations, left: AudioVisual[Tensor], rates: AudioVisual[Tensor]) -> Table:
    """Return a table of each class's videos, the share of labels that each modality lost, and error rates, (C,)."""
    counts = annotations.video_labels.sum(dim=0)  # (C,)
    columns = {Column("videos", decimals=0): counts}
    for modality, kept, errors in zip(("Audio", "Visual"), left, rates, strict=True):
        columns[Column("removed (%)", modality)] = 100 * (counts - kept.sum(dim=0)) / counts.clamp(min=1)
        columns[Column("error rate", modality, decimals=2)] = errors
    title = f"Labels that the exchange removes, {annotations.dataset} {annotations.split}"
    return class_table(title, annotations.classes, columns, ["Error rates relative to that of the worst class."])


def agreement(annotations: SplitAnnotations, left: AudioVisual[Tensor]) -> dict[str, float]:
    """Return precision and recall of the removal per modality in percent, for a split with known ground truth.

    Precision is the share of removed labels whose event is absent from the modality, 100 if none was removed; recall is
    the share of absent events whose labels were removed, 100 if none is absent.
    """
    labels, truth = annotations.video_labels, true_events(annotations, torch.device("cpu"))
    shares = {}
    for modality, kept, events in zip(MODALITIES, left, truth, strict=True):
        removed, absent = labels & ~kept, labels & ~events.any(dim=1)  # (N, C)
        for name, of in ((f"{modality}_precision", removed), (f"{modality}_recall", absent)):
            shares[name] = 100 * (removed & absent).sum().item() / of.sum().item() if of.any() else 100.0
    return shares


def summarise(
    train: SplitAnnotations, left: AudioVisual[Tensor], val: SplitAnnotations, left_on_val: AudioVisual[Tensor]
) -> dict[str, float]:
    """Return key figures of the exchange."""
    labels = train.video_labels
    return {
        "labels": int(labels.sum()),
        "removed_from_audio": int((labels & ~left.audio).sum()),
        "removed_from_visual": int((labels & ~left.visual).sum()),
        "removed_from_both": int((labels & ~left.audio & ~left.visual).sum()),
        **{f"val_{name}": share for name, share in agreement(val, left_on_val).items()},
    }


def main(argv: list[str] | None = None) -> None:
    # 1 Settings
    settings = parse_settings_on_run(Settings(), __doc__, argv, method="ma_base", output="Exchange")
    output_dir, batch_size = settings.output_dir, settings.device.eval_batch_size
    device, precision = settings.device.select()

    # 2 Data and model
    names = ("train", "val")
    splits = {n: open_split(settings.dataset, n, settings.data, device, subset=settings.subset) for n in names}
    train, val = splits.values()
    if not (train.equal_length and val.equal_length):
        way_out = "MA swaps modalities between videos: choose another method, or cut videos to equal length."
        raise InputError(settings.dataset, "videos of different lengths", "videos of equal length", way_out)
    model = settings.trained.load(settings.checkpoint, settings.checkpoint_dir, train)

    # 3 Exchange, also on val, where the ground truth is known
    record = record_on_run(settings, MALosses.command, splits)
    log = begin_output(output_dir, settings, (exchange.FILE, exchange.RELEASED_FILE, "removed_labels.*"), record)
    probs = run_han(model, train, batch_size, precision, progress=True).modality_probs
    labels = train.annotations.video_labels
    rates = probs.map(lambda of_modality: exchange.error_rates(of_modality, labels.to(device)))
    generator, left_on = torch.Generator().manual_seed(settings.seed), []
    for split in (train, val):
        partners = exchange.unrelated_videos(split.annotations.video_labels, generator)
        if split is train and (partners < 0).any():
            log.warning(f"{(partners < 0).sum()} videos have no unrelated video; they keep all labels")
        left = exchange.exchange_modalities(model, split, partners, rates, batch_size, precision)
        keep = settings.keep_one_modality
        left_on.append(exchange.given_back(left, split.annotations.video_labels) if keep else left)
    left, left_on_val = left_on
    exchange.save_cleaned_labels(left, train.annotations, output_dir)
    if settings.export:
        exchange.export_cleaned_labels(left, labels, output_dir)

    # 4 Report
    summary = summarise(train.annotations, left, val.annotations, left_on_val)
    for name, value in summary.items():
        log.info(f"{name}: {value:.1f}" if isinstance(value, float) else f"{name}: {value}")
    table = cleaning_table(train.annotations, left, rates)
    finish_labels(output_dir, "removed_labels", table, summary, log, record.note)


if __name__ == "__main__":
    run_entry_point(main)
