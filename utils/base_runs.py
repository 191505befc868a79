"""Commands that write labels with the network of a base run: settings, provenance and output."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from logging import Logger
from pathlib import Path
from typing import Any, Literal, TypeVar

from dataloaders.annotations import WHOLE, Subset
from dataloaders.batches import DataSettings, SplitBatches
from dataloaders.datasets import PARSED_DATASETS
from utils.errors import InputError
from utils.evaluation.trained_han import TrainedHAN
from utils.files import hash_of_file
from utils.provenance import HAN_RUN, LABELS, Provenance, provenance_of, read_provenance
from utils.reporting.tables import Table, format_text, write_tables
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
NOT_FROM_RUN = ("output_dir", "device", "precision", "eval_batch_size", "deterministic")  # every stage has its own


def settings_of(start: Settings, path: Path, *own: str) -> Settings:
    """Replace settings by those of a run or recipe, except for those in `NOT_FROM_RUN` and `own`."""
    kept = {name: value for name, value in flat(start).items() if name in (*NOT_FROM_RUN, *own)}
    return with_settings(with_file(start, path, others=True), **kept)


def recorded_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of an evaluation over those of the evaluated run, whose `NOT_FROM_RUN` are kept.

    `checkpoint` is left out if it is the run's best one. Raises InputError for unreadable settings.
    """
    own = read_args(folder / ARGS_FILE)
    run_dir = own.get("checkpoint_dir") and Path(own["checkpoint_dir"])
    if not run_dir or not (run_dir / ARGS_FILE).is_file():
        return own
    of_run = read_args(run_dir / ARGS_FILE)
    own = {name: value for name, value in own.items() if name not in of_run or name not in NOT_FROM_RUN}
    if own.get("checkpoint") == str(run_dir / BEST_CHECKPOINT):
        del own["checkpoint"]
    return of_run | own


@settings_group
class OnBaseRun(FromFile):
    """Settings of a command that writes labels with a base run's network; network and data default to the run's."""

    dataset: Literal[PARSED_DATASETS] = "LLP"  # data set
    checkpoint_dir: Path | None = None  # run of train_han.py; None: the newest of the base method in runs_dir
    runs_dir: Path = DEFAULT_RUNS_DIR  # folder searched for the newest run
    checkpoint: Path | None = None  # weights; None: checkpoints/checkpoint_best.pt of the run
    output_dir: Path | None = None  # folder of the labels; None: in the run folder, named after the data set
    export: bool = False  # LLP: also write the labels in the format of the authors' code
    trained: TrainedHAN = TrainedHAN()
    data: DataSettings = DataSettings()
    subset: Subset = Subset()
    device: DeviceSettings = DeviceSettings()


def parse_settings_on_run(
    start: Settings, description: str, argv: Sequence[str] | None, method: str, output: str
) -> Settings:
    """Parse `OnBaseRun` settings over those of the base run, and fill in its paths.

    The base run is `checkpoint_dir`, or the newest finished run of `method`; labels go to `<dataset>_<output>` in it.
    Raises InputError if there is no such single-seed run, and for an export of anything but the whole of LLP.
    """
    named = parse_settings(start, description, argv)
    run_dir = named.checkpoint_dir
    if run_dir is None:
        way_out = f"Run train_han.py --method {method} first, or pass --checkpoint_dir."
        run_dir = newest_finished_run(named.runs_dir, "HAN_", way_out, method=method, dataset=named.dataset)
    if (num_runs := read_args(run_dir / ARGS_FILE).get("num_runs", 1)) != 1:
        raise InputError(run_dir, f"the runs of {num_runs} seeds", "one run", "Choose one of its folders run_<seed>.")
    way_out = f"Choose a run of train_han.py --method {method} on {named.dataset}."
    read_provenance(run_dir).check(run_dir, way_out, kind=HAN_RUN.format(method), dataset=named.dataset)
    settings = parse_settings(settings_of(start, run_dir / ARGS_FILE, "seed"), description, argv)
    if settings.export and (settings.dataset != "LLP" or settings.subset != WHOLE):
        found = settings.dataset if settings.subset == WHOLE else f"a part of {settings.dataset}"
        raise InputError("--export", found, "all videos and classes of LLP", "Leave out the flag.")
    return with_settings(
        settings,
        checkpoint_dir=run_dir,
        checkpoint=settings.checkpoint or run_dir / BEST_CHECKPOINT,
        output_dir=settings.output_dir or run_dir / f"{settings.dataset}_{output}",
    )


def record_on_run(settings: OnBaseRun, command: str, splits: Mapping[str, SplitBatches]) -> Provenance:
    """Return the provenance of the labels that a command makes for these splits with the base run's network."""
    record = provenance_of(LABELS.format(command), splits, {"weights": hash_of_file(settings.checkpoint)})
    return record.inherit(read_provenance(settings.checkpoint_dir), "base run")


def finish_labels(output_dir: Path, name: str, table: Table, summary: dict, log: Logger, note: str) -> None:
    """Write and print the table on new labels, with a note, and mark their folder as finished."""
    table = replace(table, notes=(*table.notes, f"Made from {note}.")) if note else table
    write_tables(output_dir / name, table)
    log.info("\n" + format_text(table))
    log.info(f"labels: {output_dir}")
    finish_run(output_dir, summary)
