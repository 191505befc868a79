"""Stages that build on the run of another: what they take from it, and what their tables have to say of it."""

from collections.abc import Mapping, Sequence
from logging import Logger
from pathlib import Path
from typing import Literal, TypeVar

from torch import Tensor

from dataloaders.annotations import Subset
from dataloaders.batches import DataSettings
from dataloaders.datasets import DATASETS, PARSED_DATASETS
from dataloaders.provenance import feature_note
from utils.errors import InputError
from utils.evaluation.trained_han import TrainedHAN
from utils.reporting.tables import Cell, Column, Row, Table, format_text, write_tables
from utils.run_folders import DEFAULT_RUNS_DIR, finish_run, newest_finished_run
from utils.settings import (
    ARGS_FILE,
    FromFile,
    flat,
    parse_settings,
    read_args,
    settings_group,
    with_file,
    with_settings,
)
from utils.training.device import DeviceSettings
from utils.training.loop import BEST_CHECKPOINT

Settings = TypeVar("Settings")
NOT_FROM_RUN = ("output_dir", "device", "precision", "eval_batch_size", "deterministic")  # of the stage itself


def settings_of(start: Settings, path: Path, *own: str) -> Settings:
    """Return settings with those that a run or recipe has, too, but for `NOT_FROM_RUN` and the names in `own`."""
    kept = {name: value for name, value in flat(start).items() if name in (*NOT_FROM_RUN, *own)}
    return with_settings(with_file(start, path, others=True), **kept)


@settings_group
class OnBaseRun(FromFile):
    """Settings of a command that makes labels with a base run's network; network and data are by default the run's."""

    dataset: Literal[PARSED_DATASETS] = "LLP"
    """data set"""
    checkpoint_dir: Path | None = None
    """run of train_han.py (default: the newest finished one of the base method in runs_dir)"""
    runs_dir: Path = DEFAULT_RUNS_DIR
    """where runs are looked for"""
    checkpoint: Path | None = None
    """weights (default: checkpoints/checkpoint_best.pt of the run)"""
    output_dir: Path | None = None
    """folder of the labels (default: one in the run that is named after the data set)"""
    trained: TrainedHAN = TrainedHAN()
    data: DataSettings = DataSettings()
    subset: Subset = Subset()
    device: DeviceSettings = DeviceSettings()


def parse_settings_on_run(
    start: Settings, description: str, argv: Sequence[str] | None, method: str, output: str
) -> Settings:
    """As `parse_settings`, over the settings of the base run, with the folders and files that follow from it.

    Args:
        start: of `OnBaseRun`.
        method: of the base run, the newest finished one unless `checkpoint_dir` names another.
        output: the folder in the run is called `<dataset>_<output>`.

    Raises:
        InputError: as `parse_settings`, and when there is no such run, or several seeds were trained in it.
    """
    named = parse_settings(start, description, argv)
    run_dir = named.checkpoint_dir
    if run_dir is None:
        way_out = f"Run train_han.py --method {method} first, or give --checkpoint_dir."
        run_dir = newest_finished_run(named.runs_dir, f"HAN_{method}_{named.dataset}_", way_out)
    if (num_runs := read_args(run_dir / ARGS_FILE).get("num_runs", 1)) != 1:
        way_out = "Name one of its folders run_<seed> as --checkpoint_dir."
        raise InputError(run_dir, f"the runs of {num_runs} seeds", "one run", way_out)
    settings = parse_settings(settings_of(start, run_dir / ARGS_FILE, "seed"), description, argv)
    return with_settings(
        settings,
        checkpoint_dir=run_dir,
        checkpoint=settings.checkpoint or run_dir / BEST_CHECKPOINT,
        output_dir=settings.output_dir or run_dir / f"{settings.dataset}_{output}",
    )


def class_table(
    title: str, classes: Sequence[str], columns: Mapping[Column, Tensor], notes: Sequence[str] = ()
) -> Table:
    """Return a table of one row a class from columns of numbers, (C,) each."""
    values = zip(classes, *(column.tolist() for column in columns.values()), strict=True)
    rows = [Row((name,), tuple(Cell(number) for number in numbers)) for name, *numbers in values]
    return Table(title, ("Class",), tuple(columns), tuple(rows), tuple(notes))


def finish_labels(output_dir: Path, name: str, table: Table, summary: dict, log: Logger) -> None:
    """Write and print the table of a command that has made labels, and mark its output as whole."""
    write_tables(output_dir / name, table)
    log.info("\n" + format_text(table))
    log.info(f"labels: {output_dir}")
    finish_run(output_dir, summary)


def note_with_stage_one(note: str, transformer_dir: Path | None) -> str:
    """A table's note, and that of the features that the temporal transformer learned from where it is another.

    Args:
        transformer_dir: the run of stage 1; without its settings nothing is added.
    """
    if transformer_dir is None or not (transformer_dir / ARGS_FILE).is_file():
        return note
    (folder,) = (dataset.folder for dataset in DATASETS.values() if dataset.task is None)
    of_stage_one = feature_note(Path(read_args(transformer_dir / ARGS_FILE).get("data_dir") or folder))
    if of_stage_one in ("", note):
        return note
    return ", ".join(filter(None, (note, f"stage 1: {of_stage_one}")))


def transformer_of_labels(pseudo_label_dir: Path | None) -> Path | None:
    """The run of stage 1 that a folder of pseudo-labels was made with, if its settings name one."""
    if pseudo_label_dir is None or not (pseudo_label_dir / ARGS_FILE).is_file():
        return None
    transformer_dir = read_args(pseudo_label_dir / ARGS_FILE).get("transformer_dir")
    return None if transformer_dir is None else Path(transformer_dir)
