"""Training with several seeds: ordinary runs in parallel, each with its own process and folder."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import PositiveInt
from tqdm import tqdm

from utils.errors import InputError
from utils.run_folders import SUMMARY_FILE, create_run_dir, finish_run, open_log, seed_folders
from utils.settings import ARGS_FILE, read_args, settings_group, with_settings, write_args

Settings = TypeVar("Settings")
POLL_SECONDS = 0.2
PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>
OUTPUT_FILE = "output.txt"  # what a seed's process prints


@settings_group
class SeveralSeeds:
    """Settings of training with several seeds."""

    num_runs: PositiveInt = 1  # number of consecutive seeds from --seed on, each trained in a folder run_<seed>
    jobs: PositiveInt | None = None  # seeds trained at the same time; None: all on a GPU, one on the CPU


def train_seeds(script: Path, settings: Settings, name: str, on_gpu: bool) -> Path:
    """Train every unfinished seed with an entry point, several in parallel, and return the folder `name` of all seeds.

    Each seed is an ordinary run, started by `script --resume run_<seed>`: a failed one does not stop the others, and
    each can be resumed, repeated and evaluated alone. On a CPU, runs share the cores. Raises InputError if one fails.
    """
    run_dir = settings.run.resume or create_run_dir(settings.run.output_dir, name)
    (run_dir / SUMMARY_FILE).unlink(missing_ok=True)
    num_runs, first_seed = settings.seeds.num_runs, settings.recipe.seed
    write_args(run_dir, settings)
    log = open_log(run_dir)
    waiting = []
    for n, folder in enumerate(seed_folders(run_dir, first_seed, num_runs)):
        folder.mkdir(exist_ok=True)
        own = with_settings(settings, num_runs=1, seed=first_seed + n, resume=None)
        summary = folder / SUMMARY_FILE
        if not summary.exists() or read_args(folder / ARGS_FILE)["num_epochs"] != own.recipe.num_epochs:
            summary.unlink(missing_ok=True)
            waiting.append(folder)
        write_args(folder, own)
    jobs = settings.seeds.jobs or (num_runs if on_gpu else 1)
    log.info(f"{run_dir}: {num_runs} seeds, {len(waiting)} of them to train, {jobs} at a time")
    log.info(f"progress of each run: {run_dir / 'run_<seed>' / OUTPUT_FILE}")
    environment = dict(os.environ)
    if not on_gpu and jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    if failed := _run_all(script, waiting, jobs, environment, log.info):
        found = f"failed runs: {', '.join(folder.name for folder in failed)} (see {failed[0] / OUTPUT_FILE})"
        raise InputError(run_dir, found, "successful runs", f"Continue them with --resume {run_dir}.")
    folders = seed_folders(run_dir, first_seed, num_runs)
    finish_run(run_dir, {folder.name: json.loads((folder / SUMMARY_FILE).read_text()) for folder in folders})
    log.info(f"{num_runs} seeds: {run_dir}")
    return run_dir


def _end_with_parent() -> None:
    """Ask the system to end this process when its parent is killed, as a surviving one would prevent resuming."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _run_all(script: Path, folders: list[Path], jobs: int, environment: dict[str, str], say: Callable) -> list[Path]:
    """Train the runs of these folders, `jobs` at a time, and return those that failed."""
    waiting, running, failed = list(folders), {}, []
    bar = tqdm(total=len(folders), desc="seeds", unit="run", disable=None)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                folder = waiting.pop(0)
                command = [sys.executable, str(script), "--resume", str(folder)]
                with open(folder / OUTPUT_FILE, "ab") as output:
                    options = {"stdout": output, "stderr": output, "env": environment, "preexec_fn": _end_with_parent}
                    running[folder] = subprocess.Popen(command, **options)
            time.sleep(POLL_SECONDS)
            for folder, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[folder]
                bar.update()
                if process.returncode:
                    failed.append(folder)
                say(f"{folder.name} {'failed' if process.returncode else 'is finished'}")
    finally:
        bar.close()
        for process in running.values():  # only if this process is being ended; the runs can be resumed
            process.terminate()
        for process in running.values():
            process.wait()
    return failed
