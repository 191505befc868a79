"""Stages that build on the run of another: what they take from it, and what their tables have to say of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from dataloaders.datasets import DATASETS
from dataloaders.provenance import feature_note
from utils.errors import InputError
from utils.run_folders import newest_finished_run
from utils.settings import ARGS_FILE, flat, parse_settings, read_args, with_file, with_settings
from utils.training.loop import BEST_CHECKPOINT

Settings = TypeVar("Settings")
NOT_FROM_RUN = ("output_dir", "device", "precision", "eval_batch_size", "deterministic")  # of the stage itself


def settings_of(start: Settings, path: Path, *own: str) -> Settings:
    """Return settings with those that a run or recipe has, too, but for `NOT_FROM_RUN` and the names in `own`."""
    kept = {name: value for name, value in flat(start).items() if name in (*NOT_FROM_RUN, *own)}
    return with_settings(with_file(start, path, others=True), **kept)


def parse_settings_on_run(
    start: Settings, description: str, argv: Sequence[str] | None, method: str, output: str
) -> Settings:
    """As `parse_settings`, over the settings of the base run, with the folders and files that follow from it.

    Args:
        start: with `dataset`, `checkpoint_dir`, `runs_dir`, `checkpoint` and `output_dir`.
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
