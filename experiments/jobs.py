"""Jobs (calls of entry points) from which tables are made: their settings, their output, and running each only once."""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

import pseudo_label_generation
import test_han
import train_han
import train_transformer
from baselines.jomold import find_noise_ratios
from baselines.lsld import refine_labels
from baselines.ma import find_exchange
from dataloaders.feature_origin import MARKERS, feature_note
from experiments import epochs
from lavish import train_classifier
from utils.errors import InputError
from utils.files import exclusive, write_text
from utils.recipes import CONFIGS, method_names
from utils.run_folders import SUMMARY_FILE
from utils.settings import ARGS_FILE
from utils.training.device import machine_name

STAGES = (train_transformer, pseudo_label_generation, train_han, test_han)
COMMANDS = (*STAGES, find_exchange, find_noise_ratios, refine_labels, epochs, train_classifier)
ENTRY_POINTS = {module.__name__.rpartition(".")[-1]: module for module in COMMANDS}
TRAINING = ("train_transformer", "train_han", "train_classifier")  # these write a run folder, which --resume continues
JOB_FILE = "job.yaml"
PRESETS = ("paper", "small", "tiny")
SECTIONS = ("transformer", "lavish", *(name for name in method_names() if not name.endswith("_base")))


@dataclass(frozen=True)
class Job:
    """One call of an entry point. Jobs with equal settings and inputs are equal, so that tables share them."""

    entry_point: str
    name: str  # readable part of the folder's name
    settings: Mapping[str, object]  # by flag (without dashes)
    inputs: Mapping[str, "Job"] = field(default_factory=dict)  # by flag: the job whose output folder is its value
    data: str = ""  # digest of the markers of simulated data, which distinguishes runs on different data

    def __hash__(self) -> int:
        return hash(self.key)

    @cached_property
    def key(self) -> str:
        """Return the name of the job's folder, which depends on its settings and inputs only."""
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
    """Runs jobs below a folder, each once: finished jobs are skipped, interrupted training runs are resumed."""

    runs_dir: Path
    device: str = "auto"

    def run(self, job: Job) -> Path:
        """Run a job and its inputs unless finished, and return its output. Raises InputError as the entry points do."""
        if self.output(job) is None:
            inputs, folder = {flag: self.run(needed) for flag, needed in job.inputs.items()}, self.runs_dir / job.key
            with exclusive(folder):
                if self.output(job) is None:  # another process may have run it in the meantime
                    self._call(job, inputs, folder)
        return self.finished_output(job)

    def _call(self, job: Job, inputs: Mapping[str, Path], folder: Path) -> None:
        flags = to_flags({**job.settings, **inputs, "output_dir": folder, "device": self.device})
        begun = sorted(path.parent for path in folder.glob(f"*/{ARGS_FILE}"))
        if begun and job.entry_point in TRAINING:  # interrupted
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
        # Seconds since the last start; a resumed training itself records the times of all epochs.
        record["seconds"] = round(time.perf_counter() - started, 2)
        write_text(folder / JOB_FILE, yaml.safe_dump(record, sort_keys=False))

    def output(self, job: Job) -> Path | None:
        """Return the folder with a finished job's `summary.json`; None if it is not finished."""
        pattern = f"*/{SUMMARY_FILE}" if job.entry_point in TRAINING else SUMMARY_FILE
        return next((path.parent for path in sorted((self.runs_dir / job.key).glob(pattern))), None)

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """Return the unfinished jobs among these and their inputs, each once and after its own inputs."""
        found: dict[Job, None] = {}
        for job in jobs:
            if self.output(job) is None:
                found |= dict.fromkeys([*self.missing(job.inputs.values()), job])
        return list(found)

    def finished_output(self, job: Job) -> Path:
        """Return the output folder of a finished job. Raises InputError if it is not finished."""
        if (output := self.output(job)) is None:
            folder, expected = self.runs_dir / job.key, f"one with {SUMMARY_FILE}"
            raise InputError(folder, "no finished run", expected, "Run the script again.")
        return output

    def test_scores(self, job: Job) -> dict[str, float]:
        """Return the scores on the test split of a finished job of stage 2 or 4, by name."""
        return json.loads((self.finished_output(job) / SUMMARY_FILE).read_text())["test"]

    def record(self, job: Job) -> dict:
        """Return the record of a finished job: its settings, inputs, machine and seconds."""
        return yaml.safe_load((self.runs_dir / job.key / JOB_FILE).read_text())


def load_preset(name: str) -> dict[str, dict]:
    """Return the settings of a preset by section. `name` is one of `PRESETS` or the path of a YAML file."""
    path = CONFIGS / f"presets/{name}.yaml" if name in PRESETS else Path(name)
    preset = None
    with suppress(OSError, ValueError, yaml.YAMLError):
        preset = yaml.safe_load(path.read_text())
    if not isinstance(preset, dict) or preset.keys() != set(SECTIONS):
        expected = f"{', '.join(PRESETS)}, or a YAML file with the sections {', '.join(SECTIONS)}"
        raise InputError(path, "no preset", expected, "See configs/presets/small.yaml.")
    return {section: settings or {} for section, settings in preset.items()}


@dataclass(frozen=True)
class Study:
    """Factory of the jobs of one command; equal commands make equal jobs."""

    preset_name: str
    data_root: Path  # holds LLP/, UnAV/ and AVE/
    annotations_root: Path  # holds the annotation files, in folders of the same names
    seeds: tuple[int, ...]
    precision: str = "float32"
    allow_missing: bool = False  # leave out videos without feature files; tables state how many remain

    @cached_property
    def preset(self) -> dict[str, dict]:
        return load_preset(self.preset_name)

    def note(self, *datasets: str) -> str:
        """Return the note that tables carry for simulated features; empty for real ones."""
        notes = (feature_note(self.data_root / dataset) for dataset in datasets)
        return ", ".join(dict.fromkeys(filter(None, notes)))

    def over_seeds(self, method: str, dataset: str = "LLP", **settings: object) -> tuple[Job, ...]:
        """Return the evaluations of a method, one per seed."""
        return tuple(self.evaluation(self.training(method, seed, dataset, **settings)) for seed in self.seeds)

    def evaluation(self, training: Job, **settings: object) -> Job:
        """Return the stage-4 job of a stage-3 job."""
        settings = {"num_figures": 0, "precision": self.precision, **settings}
        return Job("test_han", f"test_{training.name}", settings, {"checkpoint_dir": training}, training.data)

    def epochs(self, method: str, seed: int, dataset: str) -> Job:
        """Return the job that scores every epoch of a training run on test."""
        training = self.training(method, seed, dataset, checkpoint_every=1)
        return Job("epochs", f"epochs_{training.name}", {}, {"checkpoint_dir": training}, training.data)

    def lavish(self, seed: int) -> Job:
        """Return a training run of LAVISH on AVE that is validated on test, as its authors did."""
        settings = {"dataset": "AVE", "select_on": "test", "seed": seed, **self.preset["lavish"]}
        return self._job("train_classifier", f"lavish_AVE_seed{seed}", "AVE", settings)

    def training(
        self, method: str, seed: int, dataset: str = "LLP", teacher: str = "transformer", **changes: object
    ) -> Job:
        """Return a stage-3 job with changes to its method's recipe; its inputs are the jobs that write its labels."""
        inputs = {}
        if method == "uwav" and changes.get("segment_labels") != "none":
            inputs["pseudo_label_dir"] = self.pseudo_labels(dataset, teacher)
        elif method in ("valor", "valor_plus", "valor_plus_plus", "leap", "mmcse"):
            inputs["pseudo_label_dir"] = self.pseudo_labels(dataset, "framewise")
        elif method == "lsld":
            inputs["pseudo_label_dir"] = self._job("refine_labels", f"labels_language_{dataset}", dataset, {})
        elif method == "ma":
            base, name = {"checkpoint_dir": self.training("ma_base", seed, dataset)}, f"exchange_{dataset}_seed{seed}"
            of_seed = {"dataset": dataset, "seed": seed}
            inputs["cleaned_label_dir"] = self._job("find_exchange", name, dataset, of_seed, base)
        elif method in ("jomold", "cmpae", "coleaf"):  # these clean labels with the noise ratios of JoMoLD's estimator
            base, name = {"checkpoint_dir": self.training("jomold_base", seed, dataset)}, f"noise_{dataset}_seed{seed}"
            inputs["noise_ratio_dir"] = self._job("find_noise_ratios", name, dataset, {"dataset": dataset}, base)
        values = {name: "+".join(value) if isinstance(value, tuple) else value for name, value in changes.items()}
        changed = "".join(f"_{setting}={value}" for setting, value in values.items())
        sizes = self.preset[method.removesuffix("_base")]
        settings = {"dataset": dataset, "method": method, "seed": seed, **sizes, **changes}
        return self._job("train_han", f"{method}_{dataset}{changed}_seed{seed}", dataset, settings, inputs)

    def pseudo_labels(self, dataset: str, teacher: str = "transformer") -> Job:
        """Return a stage-2 job. The teacher is UWAV's "transformer", VALOR's "framewise" or "pe_frame"."""
        settings, inputs, name = {"dataset": dataset}, {}, f"labels_{dataset}"
        if teacher == "transformer":
            inputs["transformer_dir"] = self._job("train_transformer", teacher, "UnAV", self.preset[teacher])
        else:
            settings["teacher"], name = teacher, f"labels_{teacher}_{dataset}"
            if self.note(dataset):  # the fixed thresholds, LLP's default, are valid for its real features only
                settings["thresholds"] = "search"
        return self._job("pseudo_label_generation", name, dataset, settings, inputs)

    def _job(
        self, entry_point: str, name: str, dataset: str, settings: dict[str, object], inputs: Mapping[str, Job] = {}
    ) -> Job:
        data_dir, annotations_dir = self.data_root / dataset, self.annotations_root / dataset
        where = {"data_dir": data_dir, "annotations_dir": annotations_dir, "precision": self.precision}
        where |= {"allow_missing": True} if self.allow_missing else {}
        markers = b"".join((data_dir / name).read_bytes() for name in MARKERS if (data_dir / name).exists())
        data = hashlib.sha256(markers).hexdigest() if markers else ""
        return Job(entry_point, name, where | settings, inputs, data)
