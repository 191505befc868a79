"""One call of an entry point: what it computes, where its output lies, and how it is run once only."""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import yaml

import pseudo_label_generation
import test_han
import train_han
import train_transformer
from baselines.jomold import find_noise_ratios
from baselines.lsld import refine_labels
from baselines.ma import find_exchange
from utils.errors import InputError
from utils.files import exclusive, write_text
from utils.run_folders import SUMMARY_FILE
from utils.settings import ARGS_FILE
from utils.training.device import select_device

ENTRY_POINTS: dict[str, Callable[[list[str]], None]] = {
    "train_transformer": train_transformer.main,
    "pseudo_label_generation": pseudo_label_generation.main,
    "train_han": train_han.main,
    "find_exchange": find_exchange.main,
    "find_noise_ratios": find_noise_ratios.main,
    "refine_labels": refine_labels.main,
    "test_han": test_han.main,
}
TRAINING = ("train_transformer", "train_han")  # make a run folder of their own and can --resume it
JOB_FILE = "job.yaml"


@dataclass(frozen=True)
class Job:
    """One run. Jobs of equal settings and inputs are equal, so tables share them."""

    entry_point: str
    name: str  # for people
    settings: tuple[tuple[str, object], ...]  # flag without dashes, value
    inputs: tuple[tuple[str, "Job"], ...] = ()  # flag without dashes, job whose output folder it takes
    data: str = ""  # what marks simulated data; other data make another run

    @cached_property
    def key(self) -> str:
        """Name of the job's folder: the same for the same settings, whichever table asks for it."""
        inputs = [(flag, job.key) for flag, job in self.inputs]
        content = json.dumps([self.entry_point, sorted(self.settings), inputs, self.data])
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def make_job(
    entry_point: str,
    name: str,
    settings: Mapping[str, object],
    inputs: Mapping[str, Job] | None = None,
    data: str = "",
) -> Job:
    """A job from dictionaries. Settings that are None are left out."""
    given = {flag: _plain(value) for flag, value in settings.items() if value is not None}
    return Job(entry_point, name, tuple(given.items()), tuple((inputs or {}).items()), data)


def _plain(value: object) -> object:
    if isinstance(value, list):
        return tuple(value)
    return str(value) if isinstance(value, Path) else value


def to_flags(settings: Mapping[str, object]) -> list[str]:
    """Command-line flags: {"dim": 64, "mixup": False} -> --dim 64 --no-mixup."""
    flags: list[str] = []
    for name, value in settings.items():
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        else:
            values = value if isinstance(value, (list, tuple)) else (value,)
            flags += [f"--{name}", *map(str, values)]
    return flags


@dataclass(frozen=True)
class Runner:
    """Runs jobs below a folder, each once: a finished job is not repeated, a killed training is continued."""

    runs_dir: Path
    device: str = "auto"

    def run(self, job: Job) -> Path:
        """The job's output folder, after running whatever is not finished yet.

        Raises:
            InputError: as the entry points do.
        """
        output = self.output(job)
        if output is not None:
            return output
        paths = {flag: str(self.run(needed)) for flag, needed in job.inputs}
        folder = self.runs_dir / job.key
        with exclusive(folder):
            output = self.output(job)  # another process may have run it meanwhile
            if output is not None:
                return output
            unfinished = self._unfinished(job)
            if unfinished is not None:
                flags = ["--resume", str(unfinished), "--device", self.device]
            else:
                settings = {**dict(job.settings), **paths, "output_dir": folder, "device": self.device}
                flags = to_flags(settings)
            record = {
                "entry_point": job.entry_point,
                "settings": {flag: list(v) if isinstance(v, tuple) else v for flag, v in job.settings},
                "inputs": {flag: needed.key for flag, needed in job.inputs},
                "machine": machine_name(self.device),
            }
            write_text(folder / JOB_FILE, yaml.safe_dump(record, sort_keys=False))
            started = time.perf_counter()
            ENTRY_POINTS[job.entry_point](flags)
            # Of the last start: a training that was killed before keeps the times of its epochs itself.
            record["seconds"] = round(time.perf_counter() - started, 2)
            write_text(folder / JOB_FILE, yaml.safe_dump(record, sort_keys=False))
        return self.finished_output(job)

    def output(self, job: Job) -> Path | None:
        """The folder with the finished job's `summary.json`; None while it is not finished."""
        folder = self.runs_dir / job.key
        pattern = f"*/{SUMMARY_FILE}" if job.entry_point in TRAINING else SUMMARY_FILE
        return next((path.parent for path in sorted(folder.glob(pattern))), None)

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """What has to be run for these jobs, each once and after those that it needs."""
        found: dict[Job, None] = {}
        for job in jobs:
            if self.output(job) is None:
                found |= dict.fromkeys([*self.missing(needed for _, needed in job.inputs), job])
        return list(found)

    def finished_output(self, job: Job) -> Path:
        """The folder of a job that has been run.

        Raises:
            InputError: when it is not finished.
        """
        output = self.output(job)
        if output is None:
            raise InputError(
                self.runs_dir / job.key, "no finished run", f"a {SUMMARY_FILE} below it", "Run the script again."
            )
        return output

    def summary(self, job: Job) -> dict:
        """What a finished job reports of itself."""
        return json.loads((self.finished_output(job) / SUMMARY_FILE).read_text())

    def record(self, job: Job) -> dict:
        """How and where a finished job was run: settings, inputs, machine, seconds."""
        return yaml.safe_load((self.runs_dir / job.key / JOB_FILE).read_text())

    def _unfinished(self, job: Job) -> Path | None:
        """The run folder of a training that was killed; None when there is none to go on with."""
        if job.entry_point not in TRAINING:
            return None
        started = [path.parent for path in (self.runs_dir / job.key).glob(f"*/{ARGS_FILE}")]
        return max(started, key=lambda path: path.stat().st_mtime_ns, default=None)


def machine_name(device: str) -> str:
    """The processor that a job runs on, as tables name it."""
    chosen = select_device(device)
    if chosen.type == "cuda":
        return torch.cuda.get_device_name(chosen)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or a processor that does not say
        model = platform.processor() or platform.machine()
    name = f"{model}, {torch.get_num_threads()} threads"
    return name if chosen.type == "cpu" else f"{chosen.type}, {name}"
