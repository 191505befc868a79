"""Run folders: creation, log, end of a run, and the search for the newest finished run."""

import itertools
import json
import logging
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from utils.errors import InputError
from utils.files import claim, write_error, write_text
from utils.provenance import Provenance, read_provenance, write_provenance
from utils.settings import ARGS_FILE, read_args, settings_group, write_args

SUMMARY_FILE = "summary.json"  # written last, which marks a run as finished
DEFAULT_RUNS_DIR = Path("temp_train_logs")


@settings_group
class TrainingRun:
    """Settings of the folder of a training run."""

    output_dir: Path = DEFAULT_RUNS_DIR  # parent folder of the run folders
    name: str | None = None  # name of the run, in its folder's name and in tables; None: from network and variant
    resume: Path | None = None  # run folder to continue, with its own settings

    def __post_init__(self):
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}", self.name):
            expected = "a letter or digit, then up to 99 letters, digits or . _ + = -"
            raise InputError("--name", repr(self.name), expected, "Choose another name.")


def begin_run(settings: object, name: str, record: Provenance) -> tuple[Path, logging.Logger]:
    """Create the folder of a new run `name`, or open that of the run to resume, and return it with its log.

    `settings` have a group `run` (`TrainingRun`); `record` is the provenance of the training data. Raises InputError
    if the run to resume was started with other data.
    """
    run_dir = settings.run.resume or create_run_dir(settings.run.output_dir, name)
    claim(run_dir, "Wait for it, or end it, before you resume this run.")
    same = {"kind": record.kind, "dataset": record.dataset, "classes": record.classes}
    way_out = "Restore the data that it was started with, or start a new run."
    former = read_provenance(run_dir)
    former.check(run_dir, way_out, **same, videos=record.videos, sources=record.sources)
    (run_dir / SUMMARY_FILE).unlink(missing_ok=True)  # a finished run that is extended is unfinished again
    write_args(run_dir, settings)
    write_provenance(run_dir, replace(record, marks=tuple(dict.fromkeys((*former.marks, *record.marks)))))
    return run_dir, open_log(run_dir)


def begin_output(folder: Path, settings: object, files: Sequence[str], record: Provenance) -> logging.Logger:
    """Prepare a command's output folder, write its settings and provenance into it, and return its log.

    An earlier command's summary is removed first, then its `files` (patterns), so that the folder counts as unfinished
    if this process is killed. Raises InputError if the folder is not writable, or of another kind.
    """
    way_out = "Choose another folder with --output_dir."
    read_provenance(folder).check(folder, way_out, kind=record.kind)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SUMMARY_FILE).unlink(missing_ok=True)
        if (folder / ARGS_FILE).exists():  # otherwise the files are not ours
            for path in [path for pattern in files for path in folder.glob(pattern) if path.is_file()]:
                path.unlink()
        write_args(folder, settings)
        write_provenance(folder, record)
        return open_log(folder)
    except OSError as error:
        raise write_error(folder, error, way_out) from error


def create_run_dir(root: Path, name: str) -> Path:
    """Create the new folder `root/<name>_<time>`; existing folders are never used."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in itertools.count(1):
        run_dir = root / (f"{name}_{stamp}" if number == 1 else f"{name}_{stamp}_{number}")
        try:
            run_dir.mkdir(parents=True)
            return run_dir
        except OSError as error:
            if not isinstance(error, FileExistsError) or not run_dir.is_dir():
                raise write_error(root, error, "Choose another folder with --output_dir or --runs_dir.") from error


def seed_folders(run_dir: Path, first_seed: int, num_runs: int) -> list[Path]:
    """Return the run folders of several seeds, which are in the folder of all of them."""
    return [run_dir / f"run_{seed}" for seed in range(first_seed, first_seed + num_runs)]


def is_one_of_several(run_dir: Path) -> bool:
    """Return whether this is the run of one of several seeds, in the folder of all of them."""
    run_dir = run_dir.resolve()
    args_file = run_dir.parent / ARGS_FILE
    return run_dir.name.startswith("run_") and args_file.exists() and read_args(args_file).get("num_runs", 1) > 1


def run_name(run_dir: Path) -> str:
    """Return a run's name in tables and result folders, such as `<name>/run_<seed>` for one of several seeds."""
    run_dir = run_dir.resolve()
    return f"{run_dir.parent.name}/{run_dir.name}" if is_one_of_several(run_dir) else run_dir.name


def finish_run(run_dir: Path, summary: dict, seconds: float | None = None) -> None:
    """Mark a run as finished by writing its key figures; a training run's seconds go to `provenance.json`."""
    if seconds is not None:
        write_provenance(run_dir, replace(read_provenance(run_dir), seconds=round(seconds, 2)))
    write_text(run_dir / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")


def read_summary(run_dir: Path) -> dict:
    """Read the key figures of a run, empty if it is not finished. Raises InputError if they are damaged."""
    path = run_dir / SUMMARY_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise InputError(path, f"no summary ({error})", "an intact summary", "Train the run again.") from error


def newest_finished_run(
    root: Path, prefix: str, way_out: str, marker: str = SUMMARY_FILE, fallback: Path | None = None, **settings: str
) -> Path:
    """Return the newest run `<prefix>*` with `marker` and these settings in `root`, else `fallback`, or InputError."""
    roots = list(dict.fromkeys(filter(None, (root, fallback))))
    patterns = [f"{prefix}*/{marker}"]
    if marker != SUMMARY_FILE:  # labels made with one of several seeds are in the folder of its run
        patterns.append(f"{prefix}*/run_*/{marker}")
    for folder in roots:
        finished = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
        for path in sorted(finished, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            run_dir = path.parents[len(Path(marker).parts) - 1]
            if not settings or settings.items() <= read_args(run_dir / ARGS_FILE).items():
                return run_dir
    wanted = "".join(f" with {name} {value}" for name, value in settings.items())
    wanted += f" with {Path(marker).parent}" if marker != SUMMARY_FILE else ""
    raise InputError(", ".join(map(str, roots)), f"no finished run {prefix}*{wanted}", "at least one", way_out)


class _LogFile(logging.FileHandler):
    """A log file that raises InputError when the disk is full, as a checkpoint does."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (its name in `logging`)
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise write_error(Path(self.baseFilename), error) from error
        super().handleError(record)


def open_log(run_dir: Path) -> logging.Logger:
    """Return the run's logger, which prints to the terminal and appends to `log.txt` with the time."""
    logger = logging.getLogger(str(run_dir))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers.clear()
    to_file = _LogFile(run_dir / "log.txt")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(to_file)
    logger.addHandler(logging.StreamHandler(sys.stdout))
    return logger
