"""One call of an entry point: what it computes, where its output lies, and how it is run once only."""

import hashlib
import json
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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

ENTRY_POINTS = {
    "train_transformer": train_transformer,
    "pseudo_label_generation": pseudo_label_generation,
    "train_han": train_han,
    "find_exchange": find_exchange,
    "find_noise_ratios": find_noise_ratios,
    "refine_labels": refine_labels,
    "test_han": test_han,
}
TRAINING = ("train_transformer", "train_han")  # make a run folder of their own and can --resume it
JOB_FILE = "job.yaml"


@dataclass(frozen=True)
class Job:
    """One run. Jobs of equal settings and inputs are equal, so tables share them."""

    entry_point: str
    name: str  # for people
    settings: Mapping[str, object]  # by flag without dashes
    inputs: Mapping[str, "Job"] = field(default_factory=dict)  # by flag without dashes: whose output folder it takes
    data: str = ""  # what marks simulated data; other data make another run

    def __hash__(self) -> int:
        return hash(self.key)

    @cached_property
    def key(self) -> str:
        """Name of the job's folder: the same for the same settings, whichever table asks for it."""
        inputs = [(flag, job.key) for flag, job in self.inputs.items()]
        content = json.dumps([self.entry_point, sorted(self.settings.items()), inputs, self.data], default=str)
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def to_flags(settings: Mapping[str, object]) -> list[str]:
    """Return command-line flags: {"dim": 64, "mixup": False} -> --dim 64 --no-mixup."""
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
        """Return the job's folder, after running what is not finished. Raises InputError as the entry points do."""
        if (output := self.output(job)) is not None:
            return output
        inputs = {flag: self.run(needed) for flag, needed in job.inputs.items()}
        folder = self.runs_dir / job.key
        with exclusive(folder):
            if self.output(job) is None:  # another process may have run it meanwhile
                self._call(job, inputs, folder)
        return self.finished_output(job)

    def _call(self, job: Job, inputs: Mapping[str, Path], folder: Path) -> None:
        """Call the entry point, and note how and where it ran."""
        flags = to_flags({**job.settings, **inputs, "output_dir": folder, "device": self.device})
        begun = sorted(path.parent for path in folder.glob(f"*/{ARGS_FILE}"))
        if begun and job.entry_point in TRAINING:  # it was killed
            flags = ["--resume", str(begun[-1]), "--device", self.device]
        record = {
            "entry_point": job.entry_point,
            "settings": json.loads(json.dumps(job.settings, default=str)),
            "inputs": {flag: needed.key for flag, needed in job.inputs.items()},
            "machine": machine_name(self.device),
        }
        write_text(folder / JOB_FILE, yaml.safe_dump(record, sort_keys=False))
        started = time.perf_counter()
        ENTRY_POINTS[job.entry_point].main(flags)
        # Of the last start: a training that was killed before keeps the times of its epochs itself.
        record["seconds"] = round(time.perf_counter() - started, 2)
        write_text(folder / JOB_FILE, yaml.safe_dump(record, sort_keys=False))

    def output(self, job: Job) -> Path | None:
        """Return the folder with the finished job's `summary.json`; None while it is not finished."""
        pattern = f"*/{SUMMARY_FILE}" if job.entry_point in TRAINING else SUMMARY_FILE
        return next((path.parent for path in sorted((self.runs_dir / job.key).glob(pattern))), None)

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """Return what has to be run for these jobs, each once and after those that it needs."""
        found: dict[Job, None] = {}
        for job in jobs:
            if self.output(job) is None:
                found |= dict.fromkeys([*self.missing(job.inputs.values()), job])
        return list(found)

    def finished_output(self, job: Job) -> Path:
        """Return the folder of a job that has been run. Raises InputError when it is not finished."""
        output = self.output(job)
        if output is None:
            expected = f"a {SUMMARY_FILE} below it"
            raise InputError(self.runs_dir / job.key, "no finished run", expected, "Run the script again.")
        return output

    def test_scores(self, job: Job) -> dict[str, float]:
        """Return what a finished job of stage 2 or 4 reports of the test split, by name."""
        return json.loads((self.finished_output(job) / SUMMARY_FILE).read_text())["test"]

    def record(self, job: Job) -> dict:
        """Return how and where a finished job was run: settings, inputs, machine, seconds."""
        return yaml.safe_load((self.runs_dir / job.key / JOB_FILE).read_text())


def machine_name(device: str) -> str:
    """Return the processor that a job runs on, as tables name it."""
    chosen = select_device(device)
    if chosen.type == "cuda":
        return torch.cuda.get_device_name(chosen)
    info = Path("/proc/cpuinfo")  # absent but on Linux
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads"
    return name if chosen.type == "cpu" else f"{chosen.type}, {name}"
