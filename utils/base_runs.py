"""Stages that build on the run of another: what they take from it, and what their tables have to say of it."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from dataloaders.datasets import DATASETS
from dataloaders.provenance import feature_note
from utils.command_settings import ARGS_FILE, parse_settings, read_args, read_settings, with_settings
from utils.errors import InputError
from utils.run_folders import newest_finished_run
from utils.training.loop import BEST_CHECKPOINT

Settings = TypeVar("Settings")
NOT_FROM_RUN = ("output_dir", "seed", "device", "precision", "eval_batch_size", "deterministic")


def parse_settings_on_run(
    kind: type[Settings], description: str, argv: list[str] | None, method: str, output: str
) -> Settings:
    """As `parse_settings`, over the settings of the base run, with the folders and files that follow from it.

    Args:
        kind: with `dataset`, `checkpoint_dir`, `runs_dir`, `checkpoint` and `output_dir`.
        method: of the base run, the newest finished one unless `checkpoint_dir` names another.
        output: the folder in the run is called `<dataset>_<output>`.

    Raises:
        InputError: as `parse_settings`, and when there is no such run, or several seeds were trained in it.
    """
    settings = parse_settings(kind, description, argv, partial(_settings_of_run, method=method))
    run_dir = settings.checkpoint_dir
    return with_settings(
        settings,
        checkpoint=settings.checkpoint or run_dir / BEST_CHECKPOINT,
        output_dir=settings.output_dir or run_dir / f"{settings.dataset}_{output}",
    )


def _settings_of_run(settings: Settings, method: str) -> Mapping[str, object]:
    way_out = f"Run train_han.py --method {method} first, or give --checkpoint_dir."
    prefix = f"HAN_{method}_{settings.dataset}_"
    run_dir = settings.checkpoint_dir or newest_finished_run(settings.runs_dir, prefix, way_out)
    num_runs = read_args(run_dir / ARGS_FILE).get("num_runs", 1)
    if num_runs != 1:
        way_out = "Name one of its folders run_<seed> as --checkpoint_dir."
        raise InputError(run_dir, f"the runs of {num_runs} seeds", "one run", way_out)
    of_run = read_settings(run_dir / ARGS_FILE, type(settings))
    return {n: value for n, value in of_run.items() if n not in NOT_FROM_RUN} | {"checkpoint_dir": run_dir}


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
