"""Run folders: settings, log, and which run is the newest finished one."""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from utils.errors import InputError
from utils.files import write_text

ARGS_FILE = "args.yaml"
SUMMARY_FILE = "summary.json"  # written last: a run folder that has it is finished
NOT_SETTINGS = ("config", "resume")  # flags that tell how to start, not what to compute


def parse_settings(
    parser: argparse.ArgumentParser,
    argv: list[str] | None = None,
    defaults_for: Callable[[argparse.Namespace], dict[str, object]] | None = None,
    fixed: tuple[str, ...] = (),
    fixed_on_resume: tuple[str, ...] = (),
) -> argparse.Namespace:
    """Parse flags over the settings of `--config FILE`, or of the run that `--resume RUN` continues.

    Args:
        defaults_for: given the settings so far, defaults that depend on them, as on the data set. They yield to flags
            and to the file; those that the script has no flag for are passed over.
        fixed: settings that a flag must not change when a file gives them, because others of the file depend on them.
        fixed_on_resume: settings that a flag must not change when a run is continued.

    Raises:
        InputError: when the file is absent, is no YAML mapping, has settings that this script does not know, or a flag
            contradicts a fixed one.
    """
    parser.add_argument("--config", type=Path, help="YAML file of settings, such as another run's args.yaml")
    first, _ = parser.parse_known_args(argv)
    resumed = getattr(first, "resume", None)
    config = resumed / ARGS_FILE if resumed else first.config
    settings = {} if config is None else _read_settings(config, parser)
    parser.set_defaults(**settings)
    chosen = parser.parse_known_args(argv)[0]
    for name in (*fixed, *(fixed_on_resume if resumed else ())):
        if name in settings and getattr(chosen, name) != settings[name]:
            raise InputError(
                f"--{name}",
                repr(getattr(chosen, name)),
                f"{settings[name]!r} as in {config}, which depends on it",
                "Leave out the flag, or the file.",
            )
    if defaults_for is not None:
        flags = {action.dest for action in parser._actions}
        dependent = defaults_for(chosen)
        parser.set_defaults(**{name: value for name, value in dependent.items() if name in flags - settings.keys()})
    return parser.parse_args(argv)


def _read_settings(path: Path, parser: argparse.ArgumentParser) -> dict:
    settings = read_args(path)
    actions = {action.dest: action for action in parser._actions if action.dest not in ("help", *NOT_SETTINGS)}
    unknown = sorted(settings.keys() - actions.keys())
    if unknown:
        raise InputError(
            path, f"unknown settings {unknown}", f"settings of {parser.prog}", f"See `{parser.prog} --help`."
        )
    parsed = {}
    for name, value in settings.items():
        action = actions[name]
        values = value if isinstance(value, list) else [value]
        if action.choices is not None and any(v not in action.choices for v in values):
            raise InputError(path, f"{name}: {value}", f"one of {list(action.choices)}", "Correct the file.")
        if action.type is not None and value is not None:
            try:
                converted = [action.type(v) for v in values]
            except (TypeError, ValueError) as error:
                raise InputError(
                    path, f"{name}: {value!r}", f"a {action.type.__name__}", "Correct the file."
                ) from error
            value = converted if isinstance(value, list) else converted[0]
        parsed[name] = value
    return parsed


def read_args(path: Path) -> dict:
    """The settings in a YAML file.

    Raises:
        InputError: when it is absent or no YAML mapping.
    """
    try:
        settings = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(path, "no readable file", "a YAML file of settings", "Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(path, f"no YAML ({error})", "a YAML file of settings", "Correct the file.") from error
    if not isinstance(settings, dict):
        raise InputError(path, f"a {type(settings).__name__}", "a mapping of settings", "Write `name: value` lines.")
    return settings


def write_args(run_dir: Path, args: argparse.Namespace) -> None:
    """Write `args.yaml`, from which `--config` repeats the run."""
    settings = {name: _plain(value) for name, value in vars(args).items() if name not in NOT_SETTINGS}
    write_text(run_dir / ARGS_FILE, yaml.safe_dump(settings, sort_keys=False))


def _plain(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def create_run_dir(root: Path, name: str) -> Path:
    """Make the new folder `root/<name>_<time>`, never one that exists."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    number = 1
    while True:
        run_dir = root / (f"{name}_{stamp}" if number == 1 else f"{name}_{stamp}_{number}")
        try:
            run_dir.mkdir(parents=True)
            return run_dir
        except FileExistsError:
            number += 1


def is_one_of_several(run_dir: Path) -> bool:
    """Whether this run was trained together with others, in a folder of the one that belongs to all of them."""
    run_dir = run_dir.resolve()
    args_file = run_dir.parent / ARGS_FILE
    return run_dir.name.startswith("run_") and args_file.exists() and read_args(args_file).get("num_runs", 1) > 1


def run_name(run_dir: Path) -> str:
    """What a run is called in tables and folders of results: one of several has the name of all before its own."""
    run_dir = run_dir.resolve()
    return f"{run_dir.parent.name}/{run_dir.name}" if is_one_of_several(run_dir) else run_dir.name


def folders_of_runs(run_dir: Path, seed: int | tuple[int, ...]) -> list[Path]:
    """Where each run's checkpoints lie: `run_dir` itself, or a folder in it for each of several seeds."""
    return [run_dir] if isinstance(seed, int) else [run_dir / f"run_{s}" for s in seed]


def finish_run(run_dir: Path, summary: dict) -> None:
    """Mark a run as finished and keep its key figures."""
    write_text(run_dir / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")


def newest_finished_run(root: Path, prefix: str, way_out: str, marker: str = SUMMARY_FILE) -> Path:
    """The newest finished run `root/<prefix>*`: the one whose `marker` was written last.

    Raises:
        InputError: when there is none.
    """
    patterns = [f"{prefix}*/{marker}"]
    if marker != SUMMARY_FILE:  # what was made from one of several runs lies in that run's folder
        patterns.append(f"{prefix}*/run_*/{marker}")
    finished = [path for pattern in patterns for path in root.glob(pattern) if path.is_file()]
    if not finished:
        raise InputError(root, f"no finished run {prefix}*", "at least one", way_out)
    newest = max(finished, key=lambda path: path.stat().st_mtime_ns)
    return newest.parents[len(Path(marker).parts) - 1]


def open_log(run_dir: Path) -> logging.Logger:
    """The run's logger: to the terminal, and appended to `log.txt` with the time."""
    logger = logging.getLogger(str(run_dir))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers.clear()
    to_file = logging.FileHandler(run_dir / "log.txt")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(to_file)
    logger.addHandler(logging.StreamHandler(sys.stdout))
    return logger


def run_entry_point(main: Callable[[], None]) -> None:
    """Run a script's `main`; bad input ends it with one message and status 2, Ctrl-C with status 130."""
    try:
        main()
    except InputError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
