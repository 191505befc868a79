"""The jobs that the tables are made of: the four stages with the sizes of a preset, on given data folders."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import yaml

from dataloaders.feature_origin import MARKERS, feature_note
from experiments.jobs import Job
from utils.errors import InputError
from utils.recipes import CONFIGS, method_names

PRESETS = ("paper", "small", "tiny")
SECTIONS = ("transformer", *(name for name in method_names() if not name.endswith("_base")))


def load_preset(name: str) -> dict[str, dict]:
    """Return the settings of each section: a name in `PRESETS`, or the path of a YAML file.

    Raises InputError when there is no such file, or its sections are others.
    """
    path = CONFIGS / f"presets/{name}.yaml" if name in PRESETS else Path(name)
    preset = None
    with suppress(OSError, ValueError, yaml.YAMLError):
        preset = yaml.safe_load(path.read_text())
    if not isinstance(preset, dict) or preset.keys() != set(SECTIONS):
        expected = f"{', '.join(PRESETS)}, or a YAML file with the sections {', '.join(SECTIONS)}"
        raise InputError(path, "no file with these sections", expected, "See configs/presets/small.yaml.")
    return {section: settings or {} for section, settings in preset.items()}


@dataclass(frozen=True)
class Study:
    """Makes the jobs of all experiments of one call. Equal calls make equal jobs."""

    preset_name: str
    data_root: Path  # holds LLP/, UnAV/ and AVE/
    annotations_root: Path  # holds the annotation files in folders of the same names
    seeds: tuple[int, ...]
    precision: str = "float32"

    @cached_property
    def preset(self) -> dict[str, dict]:
        return load_preset(self.preset_name)

    def note(self, *datasets: str) -> str:
        """Return what every table has to say of the data sets' features; nothing of real ones."""
        notes = [feature_note(self.data_root / dataset) for dataset in datasets]
        return ", ".join(dict.fromkeys(filter(None, notes)))

    def over_seeds(self, method: str, dataset: str = "LLP", **settings: object) -> tuple[Job, ...]:
        """Return evaluations of a method, one a seed."""
        return tuple(self.evaluation(self.training(method, seed, dataset, **settings)) for seed in self.seeds)

    def evaluation(self, training: Job, **settings: object) -> Job:
        """Make a job of stage 4 of one of stage 3."""
        settings = {"num_figures": 0, "precision": self.precision, **settings}
        return Job("test_han", f"test_{training.name}", settings, {"checkpoint_dir": training}, training.data)

    def training(
        self, method: str, seed: int, dataset: str = "LLP", teacher: str = "transformer", **changes: object
    ) -> Job:
        """Make a job of stage 3, with all that its method learns from, `changes` made to its recipe.

        UWAV learns from the pseudo-labels of a teacher that `pseudo_labels` knows.
        """
        inputs = {}
        if method == "uwav" and changes.get("segment_labels") != "none":
            inputs["pseudo_label_dir"] = self.pseudo_labels(dataset, teacher)
        elif method in ("valor", "valor_plus", "valor_plus_plus", "leap"):
            inputs["pseudo_label_dir"] = self.pseudo_labels(dataset, "framewise")
        elif method == "lsld":
            inputs["pseudo_label_dir"] = self._job("refine_labels", f"labels_language_{dataset}", dataset, {})
        elif method == "ma":
            base, name = {"checkpoint_dir": self.training("ma_base", seed, dataset)}, f"exchange_{dataset}_seed{seed}"
            of_seed = {"dataset": dataset, "seed": seed}
            inputs["cleaned_label_dir"] = self._job("find_exchange", name, dataset, of_seed, base)
        elif method in ("jomold", "cmpae", "coleaf"):  # all clean labels by the noise ratios of JoMoLD's estimator
            base, name = {"checkpoint_dir": self.training("jomold_base", seed, dataset)}, f"noise_{dataset}_seed{seed}"
            inputs["noise_ratio_dir"] = self._job("find_noise_ratios", name, dataset, {"dataset": dataset}, base)
        values = {name: "+".join(value) if isinstance(value, tuple) else value for name, value in changes.items()}
        changed = "".join(f"_{setting}={value}" for setting, value in values.items())
        sizes = self.preset[method.removesuffix("_base")]
        settings = {"dataset": dataset, "method": method, "seed": seed, **sizes, **changes}
        return self._job("train_han", f"{method}_{dataset}{changed}_seed{seed}", dataset, settings, inputs)

    def pseudo_labels(self, dataset: str, teacher: str = "transformer") -> Job:
        """Make a job of stage 2 with UWAV's "transformer", which stage 1 trains, or VALOR's "framewise" comparison."""
        settings = {"dataset": dataset}
        if teacher == "transformer":
            pretraining = self._job("train_transformer", "transformer", "UnAV", self.preset["transformer"])
            inputs = {"transformer_dir": pretraining}
            return self._job("pseudo_label_generation", f"labels_{dataset}", dataset, settings, inputs)
        settings["teacher"] = teacher
        if self.note(dataset):  # the fixed thresholds, the default on LLP, are those of its real features
            settings["thresholds"] = "search"
        return self._job("pseudo_label_generation", f"labels_{teacher}_{dataset}", dataset, settings)

    def _job(
        self, entry_point: str, name: str, dataset: str, settings: dict[str, object], inputs: Mapping[str, Job] = {}
    ) -> Job:
        data_dir, annotations_dir = self.data_root / dataset, self.annotations_root / dataset
        where = {"data_dir": data_dir, "annotations_dir": annotations_dir, "precision": self.precision}
        markers = b"".join((data_dir / name).read_bytes() for name in MARKERS if (data_dir / name).exists())
        data = sha256(markers).hexdigest() if markers else ""
        return Job(entry_point, name, where | settings, inputs, data)
